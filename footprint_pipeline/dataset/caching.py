"""Making the cache: tiles and masks → uint8 on a square ground grid of one ground sample distance.

So imagery of several resolutions and bit depths trains together, and a chip costs no decoding. What belongs here:
resampling, building, keying and forgetting caches. What one holds is said in `cache`, the room for readers.
"""

import hashlib
import json
import logging
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import pandas as pd

from footprint_pipeline.dataset.cache import CHANNELS, VALID, TileCache
from footprint_pipeline.dataset.masks import read_mask_bands
from footprint_pipeline.dataset.spec import GUARD
from footprint_pipeline.dataset.splits import digest
from footprint_pipeline.dataset.tiles import TileRow, normalization, read_tile
from footprint_pipeline.errors import DatasetError
from footprint_pipeline.files import atomic_folder

log = logging.getLogger(__name__)

_FORMAT = 2
_KEPT_CACHES = 3
_SAY_EVERY_S = 5.0


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


def build_cache(manifest: pd.DataFrame, folder: Path, *, gsd_m: float, threads: int | None = None) -> TileCache:
    """The cache of these tiles at this resolution, made below `folder` unless it is there already.

    Tiles of the split `guard` are left out. A tile is held in memory no longer than it takes to write it.

    Args:
        manifest: rows of split manifests.
        folder: where caches lie; the ones used last are kept.
        gsd_m: metres a pixel.
        threads: tiles at a time; as many as there are cores when None.

    Raises:
        TileError, DatasetError: a tile or its mask cannot be read, no tile is left, or the disk is full.
    """
    manifest = manifest[manifest["split"] != GUARD]
    if manifest.empty:
        raise DatasetError("There is no tile to cache.", fix="Prepare an AOI first, or take more tiles.")
    sizes = [grid_size(row, gsd_m) for row in manifest.itertuples()]
    heights, widths = np.array(sizes, np.int64).T
    stops = np.cumsum(heights * widths)
    offsets = np.concatenate([[0], stops[:-1]])
    target = folder / _cache_key(manifest, gsd_m)
    if not target.exists():
        log.info("Caching %d tiles at %.2f m a pixel", len(manifest), gsd_m)
        with atomic_folder(target) as temporary:
            _fill(temporary, manifest, sizes, offsets.tolist(), threads=threads or os.cpu_count() or 1)
    _forget_old(folder, keep=target)
    return TileCache(
        np.memmap(target / "images.u8", np.uint8, "r", shape=(int(stops[-1]), 3)),
        np.memmap(target / "labels.u8", np.uint8, "r", shape=(int(stops[-1]),)),
        gsd_m,
        tile_ids=manifest["tile_id"].to_numpy(str),
        aois=manifest["aoi"].to_numpy(str),
        splits=manifest["split"].to_numpy(str),
        heights=heights,
        widths=widths,
        offsets=offsets,
        valid_share=manifest["valid_share"].to_numpy(np.float64),
    )


def _fill(
    folder: Path, manifest: pd.DataFrame, sizes: list[tuple[int, int]], offsets: list[int], *, threads: int
) -> None:
    """Write `images.u8` and `labels.u8`, each tile at its place, `threads` tiles at a time."""
    for name in ("images.u8", "labels.u8"):
        (folder / name).touch()

    def write(row: _ManifestRow, size: tuple[int, int], offset: int) -> None:
        pixels, labels = _read(row, size)
        try:
            _write_at(folder / "images.u8", 3 * offset, pixels)
            _write_at(folder / "labels.u8", offset, labels)
        except OSError as error:
            pixels_in_all = sum(height * width for height, width in sizes)
            raise DatasetError(
                f"{folder.parent}: the cache, {4 * pixels_in_all / 1e9:.1f} GB, cannot be written ({error.strerror}).",
                fix="Free space there, or put the home elsewhere (--home, FOOTPRINT_HOME).",
            ) from None

    started = said = time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        for done, _ in enumerate(pool.map(write, manifest.itertuples(), sizes, offsets), start=1):
            now = time.monotonic()
            if now - said > _SAY_EVERY_S:
                said, rate = now, done / (now - started)
                log.info(
                    "Cached %d of %d tiles, %.0f a second, %.0f s left",
                    done, len(sizes), rate, (len(sizes) - done) / rate,
                )  # fmt: skip


def _write_at(path: Path, place: int, data: np.ndarray) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(data.data)


def _read(row: _ManifestRow, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (height, width, 3) and label bits (height, width) of a tile, uint8, contiguous."""
    image, valid = read_tile(Path(row.path))
    bands = read_mask_bands(Path(row.mask_path))
    labels = _most(valid, size) * np.uint8(VALID)
    for name, band in bands.items():
        if band.shape != image.shape[:2]:
            raise DatasetError(
                f"{row.tile_id}: image is {image.shape[:2]}, mask is {band.shape}.", fix="Materialize mask_tiles again."
            )
        labels |= _most(band, size) * np.uint8(CHANNELS[name or "building"])
    return np.ascontiguousarray(resample(normalization(row).to_uint8(image), size)), labels


def _most(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Where most of a pixel of the new grid is covered: bool."""
    return resample(mask.astype(np.uint8) * np.uint8(255), size) > 127


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
