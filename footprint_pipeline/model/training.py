"""Training: a frozen spec and a cache of tiles in, a trained network and its history out.

What belongs here: the order of things. NumPy, OpenCV and Keras are all that it takes, with any of Keras's backends;
it knows nothing of MLflow or Dagster. Who wants to know how it goes is a `Watcher`.
"""

import logging
import math
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from footprint_pipeline.dataset.batches import FixedChips, TrainingChips, stream
from footprint_pipeline.dataset.cache import TileCache
from footprint_pipeline.dataset.processes import POSSIBLE, ChipProcesses
from footprint_pipeline.errors import TrainingError
from footprint_pipeline.model.checkpoints import load_checkpoint
from footprint_pipeline.model.conductor import Conductor
from footprint_pipeline.model.devices import accelerated, choose_devices, choose_precision, fed, spread_over
from footprint_pipeline.model.learner import Learner, build_learner
from footprint_pipeline.model.memory import freed_memory_kept
from footprint_pipeline.model.spec import FEWEST_CHIPS, OF_PX, TrainingSpec
from footprint_pipeline.model.start import take_weights
from footprint_pipeline.model.unet import as_kept, build_unet
from footprint_pipeline.model.watching import Watcher

log = logging.getLogger(__name__)

MOST_THREADS, MOST_PROCESSES = 8, 16
"""That make batches: more threads wait for each other more than they make."""


@dataclass(frozen=True)
class TrainingResult:
    """A trained network.

    Attributes:
        model: Keras model in float32, not compiled, with the (averaged) weights of the best epoch.
        history: one dict of metrics an epoch.
        best_epoch: 0-based.
        seconds: wall-clock time of the training, that before an interruption included.
        precision: Keras dtype policy that was in force.
        devices: what it was trained on.
    """

    model: keras.Model
    history: list[dict[str, float]]
    best_epoch: int
    seconds: float
    precision: str
    devices: tuple[str, ...]


def train(
    spec: TrainingSpec,
    cache: TileCache,
    checkpoints: Path,
    *,
    weights: Path | None = None,
    watchers: Sequence[Watcher] = (),
) -> TrainingResult:
    """Train a network.

    The state is kept after every epoch. A training that finds one goes on from there, and takes the same steps as one
    that was never interrupted; it is that of the same spec, cache and start.

    Args:
        spec: what to do.
        cache: tiles of the splits `train` and `validation`.
        checkpoints: folder for the state, this training's own.
        weights: `.keras` or `.weights.h5` file to start from, as far as it fits; from a random start when None.
        watchers: are told how it goes.

    Raises:
        SettingsError: chips do not fit the network, or there are not so many GPUs.
        TrainingError: there is nothing to train or validate on, the loss is not a number, or the start does not fit.
    """
    for split in ("train", "validation"):
        if len(cache.members(split)) == 0:
            raise TrainingError(f"No tile is in the {split} split.", fix="Prepare more tiles, or another split.")
    devices = choose_devices(spec.gpus, batch_size=spec.batch_size)
    steps = steps_per_epoch(spec, cache)
    chips = TrainingChips(
        cache, spec.chip_size, spec.batch_size, spec.augmentation, spec.seed, spec.network.heads, np.uint8, spec.balance
    )
    validation = _validation_chips(spec, cache, devices=len(devices))
    keras.utils.clear_session()  # else the networks of a search stay in memory
    keras.utils.set_random_seed(spec.seed)
    with spread_over(devices):
        learner, schedule = build_learner(spec, devices=devices, total_steps=spec.epochs * steps)
        conductor = Conductor(
            learner, schedule, spec, steps=steps, chips=chips, validation=validation, folder=checkpoints,
            watchers=watchers,
        )  # fmt: skip
        if (checkpoint := load_checkpoint(checkpoints, conductor.shapes)) is not None:
            conductor.restore(checkpoint)
            log.info("Going on after epoch %d", len(conductor.history))
        elif weights is not None:
            _start_from(learner, spec, weights)
        precision = choose_precision(spec.precision, devices)
        if conductor.finished():
            conductor.tell_again()
        else:
            log.info(
                "Training %s parameters in %s on %s: %d epochs of %d steps, %d chips of %d px a step",
                f"{learner.network.count_params():,}", precision, ", ".join(devices), spec.epochs, steps,
                spec.batch_size, spec.chip_size,
            )  # fmt: skip
            thrifty = nullcontext() if accelerated() else freed_memory_kept()
            with thrifty, batches_ahead(chips, steps=steps, epoch=len(conductor.history)) as batches:
                learner.fit(
                    batches,
                    validation_data=_ValidationData(validation),
                    steps_per_epoch=steps,
                    initial_epoch=len(conductor.history),
                    epochs=spec.epochs,
                    callbacks=conductor,
                    verbose=0,
                    shuffle=False,
                )
    trained = as_kept(learner.network)
    trained.set_weights(conductor.best)
    return TrainingResult(trained, conductor.history, conductor.best_epoch, conductor.seconds, precision, devices)


def steps_per_epoch(spec: TrainingSpec, cache: TileCache) -> int:
    """Steps of an epoch: as the spec says, or as cover the training ground once, which little ground does not end."""
    ground = float(cache.ground_px[cache.members("train")].sum())
    fewest = FEWEST_CHIPS * min(1.0, (OF_PX / spec.chip_size) ** 2)
    chips = spec.chips_per_epoch or math.ceil(max(ground / spec.chip_size**2, fewest))
    steps = max(1, math.ceil(chips / spec.batch_size))
    return min(steps, spec.max_batches or steps)


def keras_infer(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """The network as a plain function: float32 (B, H, W, 3) in [0, 1] → float32 (B, H, W, heads)."""

    def infer(batch: np.ndarray) -> np.ndarray:
        return np.asarray(keras.ops.convert_to_numpy(model(batch, training=False)), np.float32)

    return infer


@contextmanager
def batches_ahead(chips: TrainingChips, *, steps: int, epoch: int) -> Iterator[Any]:
    """What `fit` reads from this epoch on: batches made ahead by threads, for an accelerator by processes.

    They end with the block. What fails in making one is raised by the block, whatever the backend makes of it.
    """
    apart = accelerated() and POSSIBLE
    makers = min(MOST_PROCESSES if apart else MOST_THREADS, os.cpu_count() or 2)
    with ChipProcesses(chips, makers) if apart else nullcontext(chips) as source:
        begun: list[Generator[Any, None, None]] = []
        failed: list[Exception] = []

        def begin() -> Iterator[Any]:
            begun.append(stream(source, steps_per_epoch=steps, start=(epoch, 0), threads=makers, ahead=makers + 2))
            try:
                yield from begun[-1]
            except Exception as error:
                failed.append(error)
                raise

        try:
            yield fed(begin, size=chips.size, heads=len(chips.channels))
        except Exception as error:
            if not failed:
                raise
            raise failed[0] from error
        finally:
            for made in begun:
                with suppress(ValueError):  # it is being read by the backend's own thread, and ends with that
                    made.close()


def _validation_chips(spec: TrainingSpec, cache: TileCache, *, devices: int) -> FixedChips:
    """As many as the devices can share evenly."""
    return FixedChips(
        cache, spec.chip_size, spec.batch_size, channels=spec.network.heads, dtype=np.uint8, multiple=devices
    )


def _start_from(learner: Learner, spec: TrainingSpec, weights: Path) -> None:
    plain = build_unet(spec.network)
    take_weights(plain, weights)
    learner.network.set_weights(plain.get_weights())
    learner.restart_average()


class _ValidationData(keras.utils.PyDataset):  # type: ignore[misc]  # keras has no types
    def __init__(self, chips: FixedChips) -> None:
        super().__init__(workers=1, use_multiprocessing=False, max_queue_size=4)
        self.chips = chips

    def __len__(self) -> int:
        return len(self.chips)

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        return self.chips.batch(step)
