"""What happens between the steps of a training: looking, judging, keeping, stopping.

What belongs here: everything that Keras calls while it fits. What happens within a step is `learner`'s business.
"""

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import keras
import numpy as np

from footprint_pipeline.dataset.batches import FixedChips, TrainingChips
from footprint_pipeline.errors import TrainingError
from footprint_pipeline.many import listed
from footprint_pipeline.model.checkpoints import Checkpoint, save_checkpoint
from footprint_pipeline.model.learner import Learner, arrays
from footprint_pipeline.model.schedule import Schedule
from footprint_pipeline.model.spec import TrainingSpec
from footprint_pipeline.model.watching import Shown, Watcher, chips_to_show

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
"""Reading a loss waits for the accelerator, so it is not read at every step."""
PICTURES_EVERY = 5
"""Epochs between pictures."""


class Conductor(keras.callbacks.CallbackList):  # type: ignore[misc]  # keras has no types
    """The one callback. A list itself, because Keras hands each step's results to its own lists as numbers.

    Attributes:
        history: one dict of metrics an epoch, those before an interruption included.
        best: the weights of the best epoch.
    """

    def __init__(
        self,
        learner: Learner,
        schedule: Schedule,
        spec: TrainingSpec,
        *,
        steps: int,
        chips: TrainingChips,
        validation: FixedChips,
        folder: Path,
        watchers: Sequence[Watcher],
    ) -> None:
        super().__init__(add_history=True, model=learner)  # Keras returns the history
        self._learner, self._schedule, self._spec = learner, schedule, spec
        self._steps, self._chips, self._folder, self._watchers = steps, chips, folder, watchers
        self._shown = chips_to_show(validation) if watchers else None
        self.history: list[dict[str, float]] = []
        self.best: list[np.ndarray] = []
        self._seconds_before = 0.0
        self._started = self._epoch_started = self._looked = time.monotonic()
        self._epoch = self._epochs_begun = 0
        self._pace_since: tuple[int, float] | None = None
        """Steps done, and when: the pace is measured from there."""

    @property
    def seconds(self) -> float:
        """Time spent on the training, that before an interruption included."""
        return self._seconds_before + time.monotonic() - self._started

    @property
    def _seconds_left(self) -> float:
        return 60 * (self._spec.max_minutes or math.inf) - self.seconds

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from there."""
        for variable, value in zip(self._variables, checkpoint.state, strict=True):
            variable.assign(value)
        self.history, self.best = list(checkpoint.history), checkpoint.best
        self._seconds_before = checkpoint.seconds

    @property
    def _variables(self) -> list[keras.Variable]:
        return [*self._learner.variables, *self._learner.optimizer.variables]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of the variables that a checkpoint holds."""
        return [tuple(variable.shape) for variable in self._variables]

    @property
    def best_epoch(self) -> int:
        """0-based; -1 before the first."""
        losses = [entry["val_loss"] for entry in self.history]
        return losses.index(min(losses)) if losses else -1

    def finished(self) -> str | None:
        """Why there is nothing left to do; None when there is."""
        done, spec = len(self.history), self._spec
        if done >= spec.epochs:
            return f"all {spec.epochs} epochs are done"
        if done and done - 1 - self.best_epoch >= spec.patience:
            return f"the last {spec.patience} epochs were no better than epoch {self.best_epoch + 1}"
        if done and self._seconds_left < self.history[-1]["seconds"] / 20:  # for so little there is no other epoch
            return f"{self.seconds / 60:.1f} of {spec.max_minutes:g} minutes are over"
        return None

    def tell_again(self) -> None:
        """Tell the watchers of a training that is finished what an interruption kept from them."""
        self.on_train_begin()
        if self._shown is not None:
            self._show(len(self.history) - 1, *self._shown)

    # What Keras calls.

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Tell the watchers."""
        for watcher in self._watchers:
            watcher.on_begin(self.history, epochs=self._spec.epochs, steps=self._steps)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Start the epoch's clock."""
        self._epoch, self._epoch_started = epoch, time.monotonic()
        self._epochs_begun += 1
        if self._epochs_begun == 2:  # the first one compiled the validation, too
            self._pace_since = None

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Nothing, and quickly."""

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Look at the loss now and then; `logs` stay where they were computed until then."""
        now = time.monotonic()
        if logs and (now - self._looked >= LOOK_EVERY_S or self._pace_since is None):
            self._looked = now
            self._look(batch, float(keras.ops.convert_to_numpy(logs["loss"])))

    def on_test_begin(self, logs: dict | None = None) -> None:
        """What is judged is what would be kept."""
        self._learner.swap_average()

    def on_test_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Nothing, and quickly."""

    def on_test_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Nothing, and quickly."""

    def on_test_end(self, logs: dict | None = None) -> None:
        """What learns is back in its place."""
        self._learner.swap_average()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Nothing: an epoch is kept when it ends."""

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Judge the epoch, keep it, tell of it, and stop if it was the last."""
        entry = {name: float(value) for name, value in (logs or {}).items()}
        if not math.isfinite(entry["loss"]):
            self._fail()
        if not math.isfinite(entry["val_loss"]):
            raise TrainingError(f"The validation loss is not a number after epoch {epoch + 1}.", fix=self._way_out())
        state = arrays(self._variables)
        if not all(np.isfinite(value).all() for value in state):
            raise TrainingError(f"A weight is not a number after epoch {epoch + 1}.", fix=self._way_out())
        entry["seconds"] = time.monotonic() - self._epoch_started
        entry["learning_rate"] = float(keras.ops.convert_to_numpy(self._learner.optimizer.learning_rate))
        self.history.append(entry)
        is_best = self.best_epoch == epoch
        if is_best:
            self.best = self._learner.kept_weights()
        save_checkpoint(self._folder, Checkpoint(self.history, self.seconds, state, self.best))
        for watcher in self._watchers:
            watcher.on_epoch(epoch, entry)
        log.info(
            "epoch %d/%d  loss %.4f  F1 %.3f  | validation loss %.4f  F1 %.3f | %.0f s%s",
            epoch + 1, self._spec.epochs, entry["loss"], entry["f1"], entry["val_loss"], entry["val_f1"],
            entry["seconds"], " *" if is_best else "",
        )  # fmt: skip
        reason = self.finished()
        if self._shown is not None and (epoch == 0 or (epoch + 1) % PICTURES_EVERY == 0 or reason):
            self._show(epoch, *self._shown)
        if reason:
            log.info("Training ends: %s", reason)
            self._learner.stop_training = True

    # What it does then.

    def _look(self, step: int, loss: float) -> None:
        if not math.isfinite(loss):
            self._fail()
        for watcher in self._watchers:
            watcher.on_step(self._epoch, step, loss)
        done = self._epoch * self._steps + step + 1
        if self._pace_since is None:  # the step before compiled the network
            self._pace_since = done, time.monotonic()
        elif self._spec.max_minutes:
            first, since = self._pace_since
            pace = (done - first) / (time.monotonic() - since)
            self._sync()
            self._schedule.bend(done, steps_left=self._seconds_left * pace)
        if self._seconds_left <= 0:
            self._learner.stop_training = True  # the epoch ends here, is judged and kept

    def _show(self, epoch: int, images: np.ndarray, truth: np.ndarray) -> None:
        self._learner.swap_average()
        said = np.asarray(self._learner.predict_on_batch(images), np.float32)[: len(images), ..., 0]
        self._learner.swap_average()
        for watcher in self._watchers:
            watcher.on_pictures(epoch, Shown(images, truth, said))

    def _fail(self) -> NoReturn:
        self._sync()
        epoch, step = divmod(int(keras.ops.convert_to_numpy(self._learner.sound_steps)), self._steps)
        tiles = listed(dict.fromkeys(self._chips.tiles_of(epoch, step)), shown=6)
        raise TrainingError(
            f"The loss is not a number in epoch {epoch + 1}, step {step + 1}, whose chips are of {tiles}.",
            fix=self._way_out(),
        )

    def _way_out(self) -> str:
        kept = f"; epoch {len(self.history)} is kept" if self.history else ""
        return f"Lower the learning rate ({self._spec.learning_rate}), or look at the tiles{kept}."

    def _sync(self) -> None:
        """JAX computes on copies of the variables; have them back for a moment."""
        if keras.config.backend() == "jax":
            self._learner.jax_state_sync()
