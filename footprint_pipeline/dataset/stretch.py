"""How imagery of more than eight bits becomes [0, 1]: percentiles of all pixels of an AOI, tile by tile.

What belongs here: gathering pixel values in constant memory, from several threads, and the stretch made of
them. The result depends on the pixels and the tiles' ids alone, not on the order in which they come. Applying a
stretch is `footprints.normalization`'s business.
"""

import threading
from typing import Protocol

import numpy as np

from footprint_pipeline.footprints.normalization import PERCENTILES, UINT8, Normalization

SAMPLE = 1_000_000
"""Pixels that stand for all, for types of more than 16 bits: the percentiles' ranks are right to about 0.01 %."""


class _Values(Protocol):
    def add(self, bands: list[np.ndarray], tile_id: str) -> None: ...

    def percentiles(self) -> np.ndarray: ...


class Stretches:
    """The normalisation of every pixel type that an AOI's tiles have. Safe to fill from several threads.

    uint8 stays as it is (0 and 255). Every other type is stretched, band by band, between the 1st and the 99th
    percentile of its valid pixels, and brightened by their median: exact for integers of up to 16 bits, from a seeded
    sample of `SAMPLE` pixels for longer integers and floats.
    """

    def __init__(self) -> None:
        self._values: dict[str, _Values] = {}
        self._lock = threading.Lock()

    def add(self, bands: np.ndarray, valid: np.ndarray, tile_id: str) -> None:
        """Take a tile into account.

        Args:
            bands: any real type, shape (3, H, W).
            valid: bool, shape (H, W); other pixels do not count.
            tile_id: unique among the tiles; it seeds the sample.
        """
        if bands.dtype == np.uint8:
            return
        with self._lock:
            if bands.dtype.name not in self._values:
                exact = np.issubdtype(bands.dtype, np.integer) and bands.dtype.itemsize <= 2
                self._values[bands.dtype.name] = _Histogram(bands.dtype) if exact else _Sample()
            values = self._values[bands.dtype.name]
        values.add([band[valid] for band in bands], tile_id)

    def of(self, dtype: str) -> Normalization:
        """The stretch of a type that was added (uint8 always is)."""
        if dtype == "uint8":
            return UINT8
        return Normalization.from_percentiles(self._values[dtype].percentiles())


class _Histogram:
    """Every value counted: exact."""

    def __init__(self, dtype: np.dtype) -> None:
        self._least = int(np.iinfo(dtype).min)
        self._counts = np.zeros((3, 2 ** (8 * dtype.itemsize)), np.int64)
        self._lock = threading.Lock()

    def add(self, bands: list[np.ndarray], tile_id: str) -> None:
        size = self._counts.shape[1]
        counts = [np.bincount(band.astype(np.int64) - self._least, minlength=size) for band in bands]
        with self._lock:
            self._counts += np.stack(counts)

    def percentiles(self) -> np.ndarray:
        if not self._counts.any():
            return np.zeros((len(PERCENTILES), 3))
        below = np.cumsum(self._counts, axis=1)
        values = [np.searchsorted(band, band[-1] * np.array(PERCENTILES) / 100) for band in below]
        return self._least + np.column_stack(values)


class _Sample:
    """The pixels with the smallest random keys, which each tile draws from its id: all pixels are as likely."""

    def __init__(self) -> None:
        self._keys = np.empty(0)
        self._pixels = np.empty((0, 3))
        self._limit = np.inf
        self._lock = threading.Lock()

    def add(self, bands: list[np.ndarray], tile_id: str) -> None:
        keys = np.random.default_rng(list(tile_id.encode())).random(len(bands[0]))
        kept = keys < self._limit
        keys, pixels = keys[kept], np.stack([band[kept] for band in bands], axis=-1).astype(float)
        with self._lock:
            self._keys = np.concatenate([self._keys, keys])
            self._pixels = np.concatenate([self._pixels, pixels])
            if len(self._keys) > 2 * SAMPLE:
                self._shrink()

    def percentiles(self) -> np.ndarray:
        self._shrink()
        if not len(self._keys):
            return np.zeros((len(PERCENTILES), 3))
        return np.percentile(self._pixels, PERCENTILES, axis=0, method="inverted_cdf")

    def _shrink(self) -> None:
        if len(self._keys) > SAMPLE:
            least = np.argpartition(self._keys, SAMPLE)[:SAMPLE]
            self._keys, self._pixels = self._keys[least], self._pixels[least]
            self._limit = float(self._keys.max())
