"""Training: a frozen spec and a cache of tiles in, a trained network and its history out.

Knows nothing of MLflow or Dagster; who wants to log listens through `on_epoch`.
"""

import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from footprint_pipeline.dataset.batches import FixedChips, TrainingChips
from footprint_pipeline.dataset.cache import TileCache
from footprint_pipeline.errors import TrainingError
from footprint_pipeline.model.losses import build_loss
from footprint_pipeline.model.metrics import building_metrics
from footprint_pipeline.model.spec import TrainingSpec
from footprint_pipeline.model.unet import build_unet, check_chip_size

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """A trained network.

    Attributes:
        model: Keras model in float32, not compiled, with the weights of the best epoch.
        history: one dict of metrics an epoch.
        best_epoch: 0-based.
        seconds: wall-clock time of the training.
        precision: Keras dtype policy that was in force.
    """

    model: keras.Model
    history: list[dict[str, float]]
    best_epoch: int
    seconds: float
    precision: str


def train(
    spec: TrainingSpec,
    cache: TileCache,
    checkpoints: Path,
    *,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
) -> TrainingResult:
    """Train a network from a random start.

    Args:
        spec: what to do.
        cache: tiles of the splits `train` and `validation`.
        checkpoints: folder for `best.weights.h5`, written after every epoch that is the best so far.
        on_epoch: called after every epoch with its number (0-based) and metrics.

    Raises:
        TrainingError: there is nothing to train or validate on, or the loss is not a number.
    """
    for split in ("train", "validation"):
        if len(cache.members(split)) == 0:
            raise TrainingError(f"No tile is in the {split} split.", fix="Prepare more tiles, or another split.")
    keras.utils.set_random_seed(spec.seed)
    precision = _precision(spec.precision)
    keras.mixed_precision.set_global_policy(precision)
    try:
        check_chip_size(spec.network, spec.chip_size)
        model = build_unet(spec.network, for_training=True)
    finally:
        keras.mixed_precision.set_global_policy("float32")

    area = float(cache.ground_px[cache.members("train")].sum())
    chips = spec.chips_per_epoch or math.ceil(area / spec.chip_size**2)
    steps = max(1, math.ceil(chips / spec.batch_size))
    schedule = _Schedule(spec, total_steps=spec.epochs * steps)
    optimizer = (
        keras.optimizers.SGD(spec.learning_rate)
        if spec.optimizer == "sgd"
        else keras.optimizers.AdamW(spec.learning_rate, weight_decay=1e-4, clipnorm=1.0)
    )
    model.compile(
        optimizer, build_loss(spec.loss, head_weights=spec.head_weights), metrics=building_metrics(), jit_compile=False
    )
    log.info(
        "Training %s parameters in %s: %d epochs of %d steps, %d chips of %d px a step; the first compiles the network",
        f"{model.count_params():,}", precision, spec.epochs, steps, spec.batch_size, spec.chip_size,
    )  # fmt: skip

    checkpoints.mkdir(parents=True, exist_ok=True)
    reporter = _Reporter(spec, checkpoints, on_epoch)
    started = time.monotonic()
    model.fit(
        _TrainingData(
            TrainingChips(cache, spec.chip_size, spec.batch_size, spec.augmentation, spec.seed, spec.network.heads),
            steps,
        ),
        validation_data=_ValidationData(
            FixedChips(cache, spec.chip_size, spec.batch_size, channels=spec.network.heads)
        ),
        epochs=spec.epochs,
        callbacks=[
            keras.callbacks.TerminateOnNaN(),
            schedule,
            reporter,
            keras.callbacks.EarlyStopping(
                "val_loss", patience=spec.patience, start_from_epoch=min(3, spec.epochs - 1), verbose=0
            ),
        ],
        verbose=0,
        shuffle=False,
    )
    if not reporter.history or not all(math.isfinite(entry["loss"]) for entry in reporter.history):
        raise TrainingError(
            f"The loss is not a number in epoch {len(reporter.history)}.",
            fix=f"Lower the learning rate ({spec.learning_rate}); nothing was logged as a model.",
        )
    if reporter.best_epoch < 0:
        raise TrainingError(
            "The validation loss is not a number in any epoch.",
            fix=f"Lower the learning rate ({spec.learning_rate}); nothing was logged as a model.",
        )
    model.load_weights(reporter.best_weights)
    trained = build_unet(spec.network)  # computes in float32, whatever it was trained in
    trained.set_weights(model.get_weights())
    return TrainingResult(trained, reporter.history, reporter.best_epoch, time.monotonic() - started, precision)


def keras_infer(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """The network as a plain function: float32 (B, H, W, 3) in [0, 1] → float32 (B, H, W, heads)."""

    def infer(batch: np.ndarray) -> np.ndarray:
        return np.asarray(keras.ops.convert_to_numpy(model(batch, training=False)), np.float32)

    return infer


class _TrainingData(keras.utils.PyDataset):  # type: ignore[misc]  # keras has no types
    """Batches by number, made ahead by threads; `epoch` is the first, so a training that goes on starts there."""

    def __init__(self, chips: TrainingChips, steps: int, *, epoch: int = 0) -> None:
        super().__init__(workers=min(8, os.cpu_count() or 2), use_multiprocessing=False, max_queue_size=8)
        self.chips, self.steps, self.epoch = chips, steps, epoch

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        return self.chips.batch(self.epoch, step)

    def on_epoch_end(self) -> None:
        self.epoch += 1


class _ValidationData(keras.utils.PyDataset):  # type: ignore[misc]  # keras has no types
    def __init__(self, chips: FixedChips) -> None:
        super().__init__(workers=1, use_multiprocessing=False, max_queue_size=4)
        self.chips = chips

    def __len__(self) -> int:
        return len(self.chips)

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        return self.chips.batch(step)


class _Schedule(keras.callbacks.Callback):  # type: ignore[misc]  # keras has no types
    """The learning rate by progress: of the steps, or of the time when that runs out first."""

    WARM_UP = 0.04

    def __init__(self, spec: TrainingSpec, *, total_steps: int) -> None:
        super().__init__()
        self.spec, self.total_steps, self.step = spec, total_steps, 0
        self.started = self.epoch_started = time.monotonic()

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.started = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.epoch_started = time.monotonic()

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        if self.spec.optimizer == "adamw":
            progress = self.step / self.total_steps
            if self.spec.max_minutes:
                progress = max(progress, (time.monotonic() - self.started) / (60 * self.spec.max_minutes))
            warm = min(1.0, (progress + 1 / self.total_steps) / self.WARM_UP)
            fall = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
            self.model.optimizer.learning_rate = self.spec.learning_rate * max(warm * fall, 0.01)
        self.step += 1

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        now = time.monotonic()
        if self.spec.max_minutes and now + (now - self.epoch_started) / 2 > self.started + 60 * self.spec.max_minutes:
            log.info("Stopping after %.1f of %.1f minutes", (now - self.started) / 60, self.spec.max_minutes)
            self.model.stop_training = True


class _Reporter(keras.callbacks.Callback):  # type: ignore[misc]  # keras has no types
    """Keeps the history and the best weights, and says how it goes."""

    SAY_EVERY_S = 15.0

    def __init__(
        self, spec: TrainingSpec, checkpoints: Path, on_epoch: Callable[[int, dict[str, float]], None] | None
    ) -> None:
        super().__init__()
        self.spec, self.on_epoch = spec, on_epoch
        self.best_weights = checkpoints / "best.weights.h5"
        self.history: list[dict[str, float]] = []
        self.best_epoch = -1
        self.epoch = 0
        self.started = self.said = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.started = self.said = time.monotonic()
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        now = time.monotonic()
        if now - self.said > self.SAY_EVERY_S:
            self.said = now
            log.info("epoch %d, step %d  loss %.4f", self.epoch + 1, batch + 1, (logs or {}).get("loss", math.nan))

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        entry = {name: float(value) for name, value in (logs or {}).items()}
        entry["seconds"] = time.monotonic() - self.started
        entry["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self.history.append(entry)
        best = min((past["val_loss"] for past in self.history[:-1]), default=math.inf)
        mark = ""
        if entry.get("val_loss", math.nan) < best:
            self.best_epoch, mark = epoch, " *"
            temporary = self.best_weights.with_name(".best.weights.h5")
            self.model.save_weights(temporary)
            temporary.replace(self.best_weights)
        log.info(
            "epoch %d/%d  loss %.4f  F1 %.3f  | validation loss %.4f  F1 %.3f | %.0f s%s",
            epoch + 1, self.spec.epochs, entry["loss"], entry["f1"],
            entry.get("val_loss", math.nan), entry.get("val_f1", math.nan), entry["seconds"], mark,
        )  # fmt: skip
        if self.on_epoch is not None:
            self.on_epoch(epoch, entry)


def _precision(wanted: str) -> str:
    """The Keras dtype policy for `auto`: bfloat16 on a GPU or on a CPU with matrix units for it."""
    if wanted != "auto":
        return wanted
    if any(device.startswith(("gpu", "cuda")) for device in keras.distribution.list_devices()):
        return "mixed_bfloat16"
    cpu = Path("/proc/cpuinfo")
    return "mixed_bfloat16" if cpu.exists() and "amx_bf16" in cpu.read_text() else "float32"
