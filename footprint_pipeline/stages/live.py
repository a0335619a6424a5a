"""Where the news of a training go while it runs: terminal, log, MLflow, TensorBoard.

What belongs here: watchers, and the pictures they show. What is told, and when, is the training's business.
"""

import logging
import math
import sys
import time
from collections.abc import Sequence

import cv2
import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

from footprint_pipeline.evaluation.reports import overlay
from footprint_pipeline.footprints.picture import encode_png
from footprint_pipeline.model.tensorboard import EventFile
from footprint_pipeline.model.tracking import TrainingRun
from footprint_pipeline.model.watching import Shown, Watcher

log = logging.getLogger(__name__)

SAY_EVERY_S = 15.0
SIDE = 256
"""Pixels of a chip in a picture."""


def validation_picture(shown: Shown) -> np.ndarray:
    """Chips above, below them darkened: found green, wrong red, missed blue, at a probability of one half.

    Returns:
        uint8, shape (2 * 256, chips * 256, 3).
    """
    columns = []
    for image, truth, probability in zip(shown.images, shown.truth, shown.probability, strict=True):
        judged = overlay(image // 2, truth, probability > 0.5)
        column = [cv2.resize(panel, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for panel in (image, judged)]
        columns.append(np.concatenate(column))
    return np.concatenate(columns, axis=1)


class ToMlflow(Watcher):
    """Metrics and pictures as they come."""

    def __init__(self, run: TrainingRun) -> None:
        self._run = run

    def on_begin(self, history: Sequence[dict[str, float]], *, epochs: int, steps: int) -> None:
        """Make up for an epoch that was kept just before an interruption, and not logged any more."""
        self._run.log_epochs(dict(enumerate(history)))

    def on_epoch(self, epoch: int, entry: dict[str, float]) -> None:
        """Metrics of an epoch."""
        self._run.log_epochs({epoch: entry})

    def on_pictures(self, epoch: int, shown: Shown) -> None:
        """`validation/epoch_0005.png` and so on."""
        self._run.try_picture(f"validation/epoch_{epoch + 1:04d}.png", encode_png(validation_picture(shown)))


class ToTensorBoard(Watcher):
    """Scalars and pictures as an event file; steps are epochs, counted from 1."""

    def __init__(self, events: EventFile) -> None:
        self._events = events

    def on_epoch(self, epoch: int, entry: dict[str, float]) -> None:
        """Loss and F1 of both splits side by side."""
        names = {"loss": "loss/training", "f1": "f1/training", "val_loss": "loss/validation", "val_f1": "f1/validation"}
        self._events.scalars(epoch + 1, {names.get(name, name): value for name, value in entry.items()})

    def on_pictures(self, epoch: int, shown: Shown) -> None:
        """The same picture as in MLflow."""
        picture = validation_picture(shown)
        self._events.picture(epoch + 1, "validation", encode_png(picture), size=picture.shape[:2])


class ToTerminal(Watcher):
    """A bar an epoch, which vanishes when the epoch is done."""

    def __init__(self) -> None:
        self._epochs = self._steps = 0
        self._bar: tqdm | None = None

    def on_begin(self, history: Sequence[dict[str, float]], *, epochs: int, steps: int) -> None:
        """Learn how long it is."""
        self._epochs, self._steps = epochs, steps

    def on_step(self, epoch: int, step: int, loss: float) -> None:
        """Move the bar."""
        if self._bar is None:
            told = f"epoch {epoch + 1}/{self._epochs}"
            self._bar = tqdm(total=self._steps, desc=told, unit="step", leave=False, file=sys.stderr)
        self._bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
        self._bar.update(step + 1 - self._bar.n)

    def on_epoch(self, epoch: int, entry: dict[str, float]) -> None:
        """Make room for the line that the log has for the epoch."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class ToLog(Watcher):
    """A line now and then within long epochs."""

    def __init__(self) -> None:
        self._steps, self._said = 0, -math.inf

    def on_begin(self, history: Sequence[dict[str, float]], *, epochs: int, steps: int) -> None:
        """Learn how long it is."""
        self._steps, self._said = steps, time.monotonic()

    def on_step(self, epoch: int, step: int, loss: float) -> None:
        """Say it, if the last line is long ago."""
        if time.monotonic() - self._said >= SAY_EVERY_S:
            self._said = time.monotonic()
            log.info("epoch %d, step %d/%d  loss %.4f", epoch + 1, step + 1, self._steps, loss)


def bar_or_lines() -> Watcher:
    """A bar at a terminal, else lines in the log."""
    return ToTerminal() if sys.stderr.isatty() else ToLog()
