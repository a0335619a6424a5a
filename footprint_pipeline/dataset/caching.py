"""Making the cache: tiles and masks → uint8 on a square ground grid of one ground sample distance.

So imagery of several resolutions and bit depths trains together, and a chip costs no decoding. What belongs here:
resampling, building, keying and forgetting caches. What one holds is said in `cache`, the room for readers.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import pandas as pd

from footprint_pipeline.dataset.cache import CHANNELS, VALID, TileCache
from footprint_pipeline.dataset.masks import read_mask_bands
from footprint_pipeline.dataset.spec import GUARD, MaskSpec
from footprint_pipeline.dataset.splits import digest
from footprint_pipeline.dataset.tiles import TileRow, as_learned, read_tile
from footprint_pipeline.errors import DatasetError
from footprint_pipeline.files import atomic_folder, locked
from footprint_pipeline.many import each_in_threads

log = logging.getLogger(__name__)

_FORMAT = 5
_BANDS = "bands.json"
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


def build_cache(
    manifest: pd.DataFrame,
    folder: Path,
    *,
    gsd_m: float,
    channels: tuple[str, ...] = ("building",),
    threads: int | None = None,
) -> TileCache:
    """The cache of these tiles at this resolution, made below `folder` unless it is there already.

    Tiles of the split `guard` are left out. A tile is held in memory no longer than it takes to write it. All bands
    of the masks are cached, whichever are asked for.

    Args:
        manifest: rows of split manifests.
        folder: where caches lie; the ones used last are kept.
        gsd_m: metres a pixel.
        channels: bands that the masks must have: `building`, `border`, `contact`.
        threads: tiles at a time; as many as there are cores when None.

    Raises:
        TileError, DatasetError: a tile or its mask cannot be read or lacks a band, no tile is left, or the disk is
            full.
    """
    manifest = manifest[manifest["split"] != GUARD]
    if manifest.empty:
        raise DatasetError("There is no tile to cache.", fix="Prepare an AOI first, or take more tiles.")
    sizes = [grid_size(row, gsd_m) for row in manifest.itertuples()]
    heights, widths = np.array(sizes, np.int64).T
    stops = np.cumsum(heights * widths)
    offsets = np.concatenate([[0], stops[:-1]])
    target = folder / _cache_key(manifest, gsd_m)
    with _alone(folder):
        if not target.exists():
            log.info("Caching %d tiles at %.2f m a pixel", len(manifest), gsd_m)
            with atomic_folder(target) as temporary:
                _fill(temporary, manifest, sizes, offsets.tolist(), channels, threads=threads)
        for aoi, bands in json.loads((target / _BANDS).read_text("utf-8")).items():
            _require_bands(aoi, bands, channels)
        _forget_old(folder, keep=target)
        # Opened before another process may forget it: what is open stays readable.
        images = np.memmap(target / "images.u8", np.uint8, "r", shape=(int(stops[-1]), 3))
        labels = np.memmap(target / "labels.u8", np.uint8, "r", shape=(int(stops[-1]),))
    return TileCache(
        images,
        labels,
        gsd_m,
        tile_ids=manifest["tile_id"].to_numpy(str),
        aois=manifest["aoi"].to_numpy(str),
        splits=manifest["split"].to_numpy(str),
        heights=heights,
        widths=widths,
        offsets=offsets,
        valid_share=manifest["valid_share"].to_numpy(np.float64),
    )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process builds a cache below a folder; then clear away what a killed one left there."""
    lock = folder.with_name(f".{folder.name}.lock")
    with locked(lock, waiting=f"{folder}: waiting for another process that caches tiles") as held:
        if held:
            for left in folder.glob(".????????-*"):
                log.info("%s: removing what an interrupted run left", left)
                shutil.rmtree(left)
        yield


def _fill(
    folder: Path,
    manifest: pd.DataFrame,
    sizes: list[tuple[int, int]],
    offsets: list[int],
    channels: tuple[str, ...],
    *,
    threads: int | None,
) -> None:
    """Write `images.u8` and `labels.u8`, each tile at its place, and which bands all masks of an AOI have."""
    for name in ("images.u8", "labels.u8"):
        (folder / name).touch()

    def write(row: _ManifestRow, size: tuple[int, int], offset: int) -> tuple[str, set[str]]:
        bands = {name or "building": band for name, band in read_mask_bands(Path(row.mask_path)).items()}
        _require_bands(row.aoi, bands, channels)
        pixels, labels = _read(row, bands, size)
        try:
            _write_at(folder / "images.u8", 3 * offset, pixels)
            _write_at(folder / "labels.u8", offset, labels)
        except OSError as error:
            pixels_in_all = sum(height * width for height, width in sizes)
            raise DatasetError(
                f"{folder.parent}: the cache, {4 * pixels_in_all / 1e9:.1f} GB, cannot be written ({error.strerror}).",
                fix="Free space there, or put the home elsewhere (--home, FOOTPRINT_HOME).",
            ) from None
        return row.aoi, set(bands)

    common: dict[str, set[str]] = {}
    each = list(zip(manifest.itertuples(), sizes, offsets, strict=True))
    for aoi, bands in each_in_threads(lambda one: write(*one), each, "Tiles cached", threads=threads):
        common[aoi] = bands & common.get(aoi, bands)
    (folder / _BANDS).write_text(json.dumps({aoi: sorted(bands) for aoi, bands in common.items()}), "utf-8")


def _require_bands(aoi: str, bands: Iterable[str], channels: tuple[str, ...]) -> None:
    if lacking := sorted(set(channels) - set(bands)):
        spec = MaskSpec()
        raise DatasetError(
            f"{aoi}: its masks have no band {' and none '.join(lacking)}, which the network is to learn.",
            fix=f"Prepare it again with masks of these bands: footprint prepare --border {spec.border_m:g} "
            f"--contact {spec.contact_m:g}.",
        )


def _write_at(path: Path, place: int, data: np.ndarray) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(data.data)


def _read(row: _ManifestRow, bands: dict[str, np.ndarray], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (height, width, 3) and label bits (height, width) of a tile, uint8, contiguous."""
    image, valid = read_tile(Path(row.path))
    seen = _most(valid, size)
    labels = seen * np.uint8(VALID)
    for name, band in bands.items():
        if band.shape != image.shape[:2]:
            raise DatasetError(
                f"{row.tile_id}: image is {image.shape[:2]}, mask is {band.shape}.", fix="Materialize mask_tiles again."
            )
        labels |= (_most(band, size) & seen) * np.uint8(CHANNELS[name])
    return np.ascontiguousarray(resample(as_learned(row, image, valid), size)), labels


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
        [row.tile_id, list(row.low), list(row.high), row.gamma]
        + [Path(path).stat().st_mtime_ns for path in (row.path, row.mask_path) if Path(path).exists()]
        for row in manifest.itertuples()
    ]
    text = json.dumps([_FORMAT, digest(manifest), round(gsd_m, 6), stamps])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
