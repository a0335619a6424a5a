"""Batches of chips from the cache: what training reads, as numpy arrays, in an order that can be resumed.

What belongs here: which chip comes when, and batches ahead of their use. The pixels' arithmetic is
`augmentation`'s, the tiles are `cache`'s. No framework here.
"""

from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import count, islice
from typing import Protocol

import numpy as np
from numpy.typing import DTypeLike

from footprint_pipeline.dataset.augmentation import AugmentationSpec, draw_warp, jitter_look, mirrored_window, warp
from footprint_pipeline.dataset.cache import CHANNELS, VALID, TileCache
from footprint_pipeline.errors import DatasetError
from footprint_pipeline.many import spread


@dataclass(frozen=True)
class TrainingChips:
    """Random chips of the training tiles, batch by batch.

    A batch is a function of seed, epoch and step alone, whatever was drawn before and in whichever thread: that
    is the order to resume. Within an AOI a tile is drawn as often as its share of the valid ground, and a chip looks
    at imagery.

    Attributes:
        cache: the tiles.
        size: side of a chip, pixels.
        batch_size: chips in a batch.
        spec: how chips are changed.
        seed: another seed is another order.
        channels: what the target tells of each pixel: `building`, `border`, `contact`.
        dtype: of the images: float32 in [0, 1], or uint8 for who divides by 255 on the accelerator.
        balance: AOIs are drawn as often as their valid ground to the power of it: 1, by ground; 0, all alike.

    Raises:
        DatasetError: a channel is unknown, or balance is not from 0 to 1.
    """

    cache: TileCache
    size: int
    batch_size: int
    spec: AugmentationSpec
    seed: int
    channels: tuple[str, ...] = ("building",)
    dtype: DTypeLike = np.float32
    balance: float = 1.0

    def __post_init__(self) -> None:
        _check_channels(self.channels)
        if not 0 <= self.balance <= 1:
            raise DatasetError(
                f"AOIs cannot be balanced by {self.balance}.",
                fix="balance lies between 0 (all alike) and 1 (by ground).",
            )

    def batch(
        self, epoch: int, step: int, *, into: tuple[np.ndarray, np.ndarray] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """One batch.

        Args:
            epoch: 0-based.
            step: 0-based within the epoch.
            into: from `empty_batch`; a new one when None.

        Returns:
            Images of `dtype`, shape (B, size, size, 3), and uint8 0/1, shape (B, size, size, channels).

        Raises:
            DatasetError: no tile is in the train split.
        """
        rng, positions = self._draw(epoch, step)
        images, truth = into or self.empty_batch()
        for number, position in enumerate(positions):
            image, labels = self.cache.tile(position)
            matrix = draw_warp(rng, self.spec, centre=_draw_centre(rng, labels, self.size), size=self.size)
            chip, chip_labels = warp(image, labels, matrix, self.size)
            _put(images[number], truth[number], jitter_look(rng, self.spec, chip), chip_labels, self.channels)
        return images, truth

    def empty_batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Room for a batch, with nothing in it yet."""
        return _empty_batch(self.batch_size, self.size, self.dtype, self.channels)

    def tiles_of(self, epoch: int, step: int) -> list[str]:
        """Ids of the tiles that the chips of a batch are cut from, chip by chip."""
        return [str(tile_id) for tile_id in self.cache.tile_ids[self._draw(epoch, step)[1]]]

    def _draw(self, epoch: int, step: int) -> tuple[np.random.Generator, np.ndarray]:
        """A batch's source of chance, and the positions of its tiles, the first that is drawn from it."""
        rng = np.random.default_rng([self.seed, epoch, step])
        members, weight = self._tiles
        return rng, members[np.searchsorted(weight, rng.random(self.batch_size) * weight[-1], side="right")]

    @cached_property
    def _tiles(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the training tiles, and the sum of the weights up to and with each."""
        members = self.cache.members("train")
        if len(members) == 0:
            raise DatasetError("No tile is in the train split.", fix="Prepare more tiles, or another split.")
        ground = self.cache.ground_px[members]
        _, aoi = np.unique(self.cache.aois[members], return_inverse=True)
        in_all = np.bincount(aoi, ground)
        in_all[in_all == 0] = 1.0
        return members, np.cumsum(ground * in_all[aoi] ** (self.balance - 1) + 1e-9)


class Source(Protocol):
    """What makes batches, whichever is asked for; several threads may ask at a time."""

    def batch(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """One batch."""


def stream(
    chips: Source, *, steps_per_epoch: int, start: tuple[int, int] = (0, 0), threads: int = 2, ahead: int = 4
) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
    """The batches from (epoch, step) on, without end, made by threads before they are asked for.

    The order is the same with any number of threads. What fails in a thread is raised where its batch was due;
    closing the generator stops the threads.

    Args:
        chips: where batches come from.
        steps_per_epoch: batches in an epoch.
        start: epoch and step of the first batch, 0-based.
        threads: batches made at a time.
        ahead: batches made or under way beyond the one handed out.
    """
    keys = ((epoch, step) for epoch in count(start[0]) for step in range(steps_per_epoch))
    pool = ThreadPoolExecutor(threads, thread_name_prefix="chips")
    try:
        due = islice(keys, start[1], None)
        waiting = deque(pool.submit(chips.batch, *key) for key in islice(due, ahead))
        for key in due:
            waiting.append(pool.submit(chips.batch, *key))
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class FixedChips:
    """Chips that cover the tiles of one split, unchanged, in a fixed order: what validation reads.

    Attributes are those of `TrainingChips`, and `split`; `limit`: how many chips at most; `multiple`: there are so many
    or a multiple of it, some more than once if need be.
    """

    cache: TileCache
    size: int
    batch_size: int
    split: str = "validation"
    limit: int = 256
    channels: tuple[str, ...] = ("building",)
    dtype: DTypeLike = np.float32
    multiple: int = 1

    def __post_init__(self) -> None:
        _check_channels(self.channels)

    @cached_property
    def windows(self) -> list[tuple[int, int, int]]:
        """(tile position, top, left) of every chip; evenly thinned to at most `limit`."""
        found: list[tuple[int, int, int]] = []
        for position in self.cache.members(self.split).tolist():
            height, width = self.cache.tile(position)[1].shape
            for top in _starts(height, self.size):
                found.extend((position, top, left) for left in _starts(width, self.size))
        if len(found) < self.multiple:
            return (found * self.multiple)[: self.multiple] if found else []
        return [found[i] for i in spread(len(found), min(len(found), self.limit) // self.multiple * self.multiple)]

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """As `TrainingChips.batch`; the last batch may be smaller."""
        windows = self.windows[step * self.batch_size : (step + 1) * self.batch_size]
        images, truth = _empty_batch(len(windows), self.size, self.dtype, self.channels)
        for number, (position, top, left) in enumerate(windows):
            chip, labels = (
                mirrored_window(raster, (top, top + self.size), (left, left + self.size))
                for raster in self.cache.tile(position)
            )
            _put(images[number], truth[number], chip, labels, self.channels)
        return images, truth

    def __len__(self) -> int:
        return -(-len(self.windows) // self.batch_size)


def _check_channels(channels: tuple[str, ...]) -> None:
    unknown = [name for name in channels if name not in CHANNELS]
    if unknown or not channels:
        raise DatasetError(f"The target cannot be {unknown or 'empty'}.", fix=f"Choose of {', '.join(CHANNELS)}.")


def _empty_batch(chips: int, size: int, dtype: DTypeLike, channels: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    return np.empty((chips, size, size, 3), dtype), np.empty((chips, size, size, len(channels)), np.uint8)


def _put(image: np.ndarray, truth: np.ndarray, chip: np.ndarray, labels: np.ndarray, channels: tuple[str, ...]) -> None:
    """Write a chip and the bits of its labels to their place in the batch."""
    if image.dtype == np.uint8:
        image[:] = chip
    else:
        np.multiply(chip, np.float32(1 / 255), out=image, dtype=np.float32)
    for channel, name in enumerate(channels):
        np.not_equal(labels & CHANNELS[name], 0, out=truth[..., channel].view(bool))


def _draw_centre(rng: np.random.Generator, labels: np.ndarray, size: int) -> tuple[float, float]:
    """A centre on imagery whose chip stays on the tile if it can; else the chip as near as it gets to some."""
    height, width = labels.shape
    margin_x, margin_y = min(size / 2, width / 2), min(size / 2, height / 2)
    for _ in range(8):
        x, y = rng.uniform(margin_x, width - margin_x), rng.uniform(margin_y, height - margin_y)
        if labels[min(int(y), height - 1), min(int(x), width - 1)] & VALID:
            return x, y
    seen = np.flatnonzero(labels & VALID)
    if len(seen):
        y, x = divmod(int(rng.choice(seen)), width)
    return min(max(x, margin_x), width - margin_x), min(max(y, margin_y), height - margin_y)


def _starts(length: int, size: int) -> list[int]:
    spans = max(1, -(-length // size))
    return [0] if spans == 1 else np.linspace(0, length - size, spans).round().astype(int).tolist()
