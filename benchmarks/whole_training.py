"""What is around the steps of a training: `train` beside `model.fit`, and a killed training that is started again.

What belongs here: measurements of whole trainings, for `training` to tell of. They are made on a CPU, where a step is
slow enough for two trainings to take turns.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import keras
import numpy as np

from benchmarks.form import Figure, alone
from benchmarks.noise_tiles import open_cache
from footprint_pipeline.dataset.batches import FixedChips, TrainingChips
from footprint_pipeline.model.devices import choose_devices, choose_precision, compile_step
from footprint_pipeline.model.losses import build_loss
from footprint_pipeline.model.metrics import PixelF1
from footprint_pipeline.model.schedule import build_optimizer
from footprint_pipeline.model.spec import TrainingSpec
from footprint_pipeline.model.training import steps_per_epoch, train
from footprint_pipeline.model.unet import build_unet
from footprint_pipeline.model.watching import Watcher

RESUME_GOAL_S = 10
WHOLE = TrainingSpec(chips_per_epoch=96)
"""The default training, with epochs as short as allows to leave out what an epoch costs beside its steps."""
_CHECKPOINTS = "checkpoints"
_GO_ON = """
import json, pathlib, sys
from benchmarks.whole_training import WHOLE, go_on
print(json.dumps(go_on(WHOLE, pathlib.Path(sys.argv[1]), started=float(sys.argv[2]))))
"""

Batch = tuple[np.ndarray, np.ndarray]


def against_fit(spec: TrainingSpec, folder: Path, *, rounds: int) -> list[Figure]:
    """Images a second of `train` and of `model.fit`, validation included on all sides.

    Args:
        spec: of the training.
        folder: of tiles; a killed training is left in it.
        rounds: epochs that are timed; their median counts.
    """
    held, validation = in_memory(spec, folder)
    with plain_user(spec, folder) as plain:
        turns = InTurn([plain, Fit(spec, held, validation, as_ours=True).epoch], rounds=rounds)
        with suppress(Killed):
            train(spec, open_cache(folder), folder / _CHECKPOINTS, watchers=[turns])
    ours, plain_fit, same_step = (
        len(held[0]) / statistics.median(epochs) for epochs in zip(*turns.seconds, strict=True)
    )
    what = f"train(), {spec.chip_size}×{spec.chip_size}, batches of {spec.batch_size}; peer:"
    return [
        Figure(f"{what} plain fit, in memory", ours, "images/s", plain_fit, ours / plain_fit, "≥ 1", ours >= plain_fit),
        Figure(f"{what} fit of our step, in memory", ours, "images/s", same_step, ours / same_step),
    ]


def in_memory(spec: TrainingSpec, folder: Path) -> tuple[Batch, Batch]:
    """The chips of an epoch, and those to validate on."""
    cache = open_cache(folder)
    chips = TrainingChips(
        cache, spec.chip_size, spec.batch_size, spec.augmentation, spec.seed, spec.network.heads, balance=spec.balance
    )
    fixed = FixedChips(cache, spec.chip_size, spec.batch_size, channels=spec.network.heads)
    return (
        joined(chips.batch(0, step) for step in range(steps_per_epoch(spec, cache))),
        joined(fixed.batch(step) for step in range(len(fixed))),
    )


class Fit:
    """`model.fit` on batches in memory."""

    def __init__(self, spec: TrainingSpec, held: Batch, validation: Batch, *, as_ours: bool) -> None:
        """The network of a spec, compiled.

        Args:
            spec: of the training.
            held: images and truth to train on.
            validation: to validate on.
            as_ours: with this project's batch normalisation and optimizer; with Keras's own as one writes it
                without, otherwise.
        """
        devices = choose_devices(0, batch_size=1)
        keras.config.set_dtype_policy(choose_precision(spec.precision, devices))
        self._model = build_unet(spec.network, for_training=as_ours)
        keras.config.set_dtype_policy("float32")
        steps = 1_000_000
        if as_ours:
            optimizer, _ = build_optimizer(spec, total_steps=steps)
        else:
            optimizer = keras.optimizers.AdamW(
                keras.optimizers.schedules.CosineDecay(spec.learning_rate, steps),
                weight_decay=spec.weight_decay, global_clipnorm=spec.clip_norm,
            )  # fmt: skip
        self._model.compile(
            optimizer,
            build_loss(spec.loss, head_weights=spec.head_weights),
            metrics=[PixelF1()],
            jit_compile=compile_step(xla=spec.xla, devices=devices),
        )
        self._held, self._validation, self._batch_size = held, validation, spec.batch_size

    def epoch(self) -> float:
        """Seconds of an epoch."""
        clock = EpochClock()
        self._model.fit(
            *self._held, self._batch_size, validation_data=self._validation, validation_batch_size=self._batch_size,
            callbacks=[clock], shuffle=False, verbose=0,
        )  # fmt: skip
        return clock.seconds


@contextmanager
def plain_user(spec: TrainingSpec, folder: Path) -> Iterator[Callable[[], float]]:
    """Epochs of `model.fit` as one writes it without this project, in a process of its own, whose memory is as usual.

    Yields:
        Runs an epoch and returns its seconds.
    """
    processes = get_context("spawn")
    here, there = processes.Pipe()
    process = processes.Process(target=_epochs_when_asked, args=(there, spec, folder), daemon=True)
    process.start()
    there.close()

    def epoch() -> float:
        here.send(True)
        return here.recv()

    try:
        yield epoch
    finally:
        here.close()
        process.join()


def _epochs_when_asked(asked: Connection, spec: TrainingSpec, folder: Path) -> None:
    fit = Fit(spec, *in_memory(spec, folder), as_ours=False)
    with suppress(EOFError):
        while asked.recv():
            asked.send(fit.epoch())


def joined(batches: Iterable[Batch]) -> Batch:
    """All images and all truth."""
    images, truth = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(truth)


class EpochClock(keras.callbacks.Callback):
    """Seconds between the ends of an epoch, as the engine's history has them."""

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Start."""
        self._started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Stop."""
        self.seconds = time.monotonic() - self._started


class Killed(BaseException):
    """As if from outside."""


class InTurn(Watcher):
    """Lets peers have an epoch after each of a training's own; kills the training when all have been measured.

    Attributes:
        seconds: of the epochs of the training and of each peer, without the first, which compiles.
    """

    def __init__(self, peers: list[Callable[[], float]], *, rounds: int) -> None:
        self._peers, self._rounds = peers, rounds
        self.seconds: list[list[float]] = []

    def on_epoch(self, epoch: int, entry: dict[str, float]) -> None:
        """The peers' turn."""
        taken = [entry["seconds"], *(peer() for peer in self._peers)]
        if epoch > 0:
            self.seconds.append(taken)
        if epoch == self._rounds:
            raise Killed


class FirstStep(Watcher):
    """Notes when a training that goes on begins its first step and when it is done, and kills it again."""

    def on_begin(self, history: Sequence[dict[str, float]], *, epochs: int, steps: int) -> None:
        """Everything but the compiled step is there."""
        assert history, "there is nothing to go on from"
        self.begun = time.time()

    def on_step(self, epoch: int, step: int, loss: float) -> None:
        """The first."""
        self.done = time.time()
        raise Killed


def go_on(spec: TrainingSpec, folder: Path, *, started: float) -> dict[str, float]:
    """Start the killed training in a folder again.

    Args:
        spec: what it is.
        folder: of its tiles and checkpoints.
        started: when the process was started, seconds since 1970.

    Returns:
        Seconds: `imports`, `restoring` until the first step begins, `first_step`.
    """
    imported, watcher = time.time(), FirstStep()
    with suppress(Killed):
        train(spec, open_cache(folder), folder / _CHECKPOINTS, watchers=[watcher])
    return {
        "imports": imported - started,
        "restoring": watcher.begun - imported,
        "first_step": watcher.done - watcher.begun,
    }


def resuming(spec: TrainingSpec, folder: Path, *, in_process: bool) -> list[Figure]:
    """Seconds until the killed training in the folder has taken a step; `in_process` spares the imports."""
    started = time.time()
    seconds = go_on(spec, folder, started=started) if in_process else alone(_GO_ON, str(folder), str(started))
    parts = {
        "starting Python and importing Keras": "imports",
        "building the network and restoring the state": "restoring",
        "the first step, which compiles the network": "first_step",
    }
    total = sum(seconds[part] for part in parts.values())
    return [
        Figure(
            "a killed training, started again, has taken a step", total, "s",
            goal=f"≤ {RESUME_GOAL_S}", met=total <= RESUME_GOAL_S,
        ),
        *(
            Figure(f"of it {name}", seconds[part], "s")
            for name, part in parts.items()
            if part != "imports" or not in_process
        ),
    ]  # fmt: skip
