"""Batches of chips from a memory-mapped cache: what training reads, as numpy arrays.

The cache holds every tile once as uint8 on a square ground grid of one ground sample distance, so that
imagery of several resolutions and bit depths trains together. No framework here.
"""

import hashlib
import json
import logging
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import pandas as pd

from footprint_pipeline.dataset.augmentation import AugmentationSpec, draw_warp, jitter_colour, warp
from footprint_pipeline.dataset.masks import read_mask
from footprint_pipeline.dataset.splits import digest
from footprint_pipeline.dataset.tiles import TileRow, normalization, read_tile
from footprint_pipeline.errors import DatasetError
from footprint_pipeline.files import atomic_folder

log = logging.getLogger(__name__)

BUILDING = 1
"""Bit of the label raster: a building."""
VALID = 2
"""Bit of the label raster: there is imagery."""
_FORMAT = 1
_KEPT_CACHES = 3


class _ManifestRow(TileRow, Protocol):
    mask_path: str


def model_gsd(manifest: pd.DataFrame) -> float:
    """The ground sample distance that a model for these tiles works at, metres: their median."""
    return float(np.median(np.sqrt(manifest["gsd_x_m"] * manifest["gsd_y_m"])))


def grid_size(row: TileRow, gsd_m: float) -> tuple[int, int]:
    """(height, width) of a tile on the square grid of `gsd_m` metres a pixel."""
    return (
        max(1, round(row.height * row.gsd_y_m / gsd_m)),
        max(1, round(row.width * row.gsd_x_m / gsd_m)),
    )


def resample(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The image at another (height, width): averaged when it shrinks, bilinear when it grows."""
    if image.shape[:2] == size:
        return image
    shrinks = image.shape[0] * image.shape[1] > size[0] * size[1]
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


@dataclass(frozen=True)
class TileCache:
    """Tiles in two flat memory-mapped arrays.

    Attributes:
        images: uint8, shape (sum of pixels, 3).
        labels: uint8, shape (sum of pixels,), bits `BUILDING` and `VALID`.
        table: one row a tile: `tile_id`, `split`, `height`, `width`, `offset` (pixels), `valid_share`.
        gsd_m: metres a pixel.
    """

    images: np.ndarray
    labels: np.ndarray
    table: pd.DataFrame
    gsd_m: float

    def tile(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) and labels (H, W) of the tile in row `position`, without copying."""
        row = self.table.iloc[position]
        height, width, start = int(row["height"]), int(row["width"]), int(row["offset"])
        stop = start + height * width
        return self.images[start:stop].reshape(height, width, 3), self.labels[start:stop].reshape(height, width)


def build_cache(manifest: pd.DataFrame, folder: Path, *, gsd_m: float) -> TileCache:
    """The cache of these tiles at this resolution, made below `folder` unless it is there already.

    Raises:
        TileError, DatasetError: a tile or its mask cannot be read.
    """
    sizes = [grid_size(row, gsd_m) for row in manifest.itertuples()]
    pixels = np.array([height * width for height, width in sizes], np.int64)
    table = pd.DataFrame(
        {
            "tile_id": manifest["tile_id"],
            "split": manifest["split"],
            "height": [height for height, _ in sizes],
            "width": [width for _, width in sizes],
            "offset": np.concatenate([[0], np.cumsum(pixels)[:-1]]),
            "valid_share": manifest["valid_share"],
        }
    ).reset_index(drop=True)
    target = folder / _cache_key(manifest, gsd_m)
    if not target.exists():
        log.info("Caching %d tiles at %.2f m a pixel", len(manifest), gsd_m)
        with atomic_folder(target) as temporary:
            images = np.memmap(temporary / "images.u8", np.uint8, "w+", shape=(int(pixels.sum()), 3))
            labels = np.memmap(temporary / "labels.u8", np.uint8, "w+", shape=(int(pixels.sum()),))
            for row, size, start in zip(manifest.itertuples(), sizes, table["offset"], strict=True):
                stop = start + size[0] * size[1]
                images[start:stop], labels[start:stop] = _cached(row, size)
            images.flush()
            labels.flush()
            del images, labels
    _forget_old(folder, keep=target)
    return TileCache(
        np.memmap(target / "images.u8", np.uint8, "r", shape=(int(pixels.sum()), 3)),
        np.memmap(target / "labels.u8", np.uint8, "r", shape=(int(pixels.sum()),)),
        table,
        gsd_m,
    )


@dataclass(frozen=True)
class TrainingChips:
    """Random chips of the training tiles, batch by batch; the same for the same seed, epoch and step.

    A tile is drawn as often as its share of the valid ground, a chip's centre lies on imagery.
    """

    cache: TileCache
    size: int
    batch_size: int
    spec: AugmentationSpec
    seed: int

    def batch(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """float32 (B, size, size, 3) in [0, 1] and uint8 0/1 (B, size, size, 1)."""
        rng = np.random.default_rng([self.seed, epoch, step])
        table = self.cache.table
        members = np.flatnonzero(table["split"] == "train")
        weight = (table["height"] * table["width"] * table["valid_share"]).to_numpy(float)[members] + 1e-9
        chosen = rng.choice(members, self.batch_size, p=weight / weight.sum())
        pairs = [self._chip(rng, int(position)) for position in chosen]
        return _as_batch(pairs)

    def _chip(self, rng: np.random.Generator, position: int) -> tuple[np.ndarray, np.ndarray]:
        image, labels = self.cache.tile(position)
        centre = _draw_centre(rng, labels, self.size)
        matrix = draw_warp(rng, self.spec, centre=centre, size=self.size)
        chip, truth = warp(image, labels, matrix, self.size)
        return jitter_colour(rng, self.spec, chip), truth


@dataclass(frozen=True)
class FixedChips:
    """Chips that cover the tiles of one split, unchanged, in a fixed order: what validation reads."""

    cache: TileCache
    size: int
    batch_size: int
    split: str = "validation"
    limit: int = 256

    @cached_property
    def windows(self) -> list[tuple[int, int, int]]:
        """(tile position, top, left) of every chip; evenly thinned to at most `limit`."""
        found: list[tuple[int, int, int]] = []
        for position in np.flatnonzero(self.cache.table["split"] == self.split):
            row = self.cache.table.iloc[position]
            for top in _starts(int(row["height"]), self.size):
                found.extend((int(position), top, left) for left in _starts(int(row["width"]), self.size))
        keep = np.unique(np.linspace(0, len(found) - 1, min(self.limit, len(found))).round().astype(int))
        return [found[i] for i in keep]

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """As `TrainingChips.batch`; the last batch may be smaller."""
        pairs = []
        for position, top, left in self.windows[step * self.batch_size : (step + 1) * self.batch_size]:
            image, labels = self.cache.tile(position)
            matrix = np.array([[1.0, 0.0, left], [0.0, 1.0, top]])
            pairs.append(warp(image, labels, matrix, self.size))
        return _as_batch(pairs)

    def __len__(self) -> int:
        return -(-len(self.windows) // self.batch_size)


def _as_batch(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    images = np.stack([image for image, _ in pairs]).astype(np.float32)
    images *= np.float32(1 / 255)
    return images, (np.stack([labels for _, labels in pairs]) & BUILDING)[..., None]


def _draw_centre(rng: np.random.Generator, labels: np.ndarray, size: int) -> tuple[float, float]:
    height, width = labels.shape
    margin_x, margin_y = min(size / 2, width / 2), min(size / 2, height / 2)
    x = y = 0.0
    for _ in range(8):
        x, y = rng.uniform(margin_x, width - margin_x), rng.uniform(margin_y, height - margin_y)
        if labels[min(int(y), height - 1), min(int(x), width - 1)] & VALID:
            break
    return x, y


def _starts(length: int, size: int) -> list[int]:
    count = max(1, -(-length // size))
    return [0] if count == 1 else np.linspace(0, length - size, count).round().astype(int).tolist()


def _cached(row: _ManifestRow, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    image, valid = read_tile(Path(row.path))
    mask = read_mask(Path(row.mask_path))
    if mask.shape != image.shape[:2]:
        raise DatasetError(
            f"{row.tile_id}: image is {image.shape[:2]}, mask is {mask.shape}.",
            fix="Materialize mask_tiles again.",
        )
    pixels = resample(normalization(row).to_uint8(image), size)
    labels = (resample(mask * np.uint8(255), size) > 127) * BUILDING | (
        resample(valid.astype(np.uint8) * 255, size) > 127
    ) * VALID
    return pixels.reshape(-1, 3), labels.astype(np.uint8).reshape(-1)


def _forget_old(folder: Path, *, keep: Path) -> None:
    """Remove all but the caches used last; a training that still reads one keeps its files open."""
    keep.touch()
    caches = sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: -path.stat().st_mtime)
    for path in caches[_KEPT_CACHES:]:
        if not path.name.startswith("."):  # one that is being built
            shutil.rmtree(path, ignore_errors=True)


def _cache_key(manifest: pd.DataFrame, gsd_m: float) -> str:
    """Changes whenever an image, a mask, a split, the resolution or the normalisation does."""
    stamps = [
        [row.tile_id, list(row.low), list(row.high)]
        + [Path(path).stat().st_mtime_ns for path in (row.path, row.mask_path) if Path(path).exists()]
        for row in manifest.itertuples()
    ]
    text = json.dumps([_FORMAT, digest(manifest), round(gsd_m, 6), stamps])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
