"""Many small GeoTIFFs of a kind, faster than one by one through GDAL.

What belongs here: arrays of long runs (masks) → the bytes of a plain GeoTIFF. What the pixels mean is `masks`'
business; GDAL reads them back.

Of the time that GDAL takes for a small GeoTIFF most goes into setting up a dataset and into deflate's search for
repetitions. Here GDAL makes one file of every kind (CRS, size, bands, tags), whose header serves for all others of
that kind, and deflate only looks for runs: enough for such content.
"""

import struct
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import rasterio
from rasterio.io import MemoryFile

_STRIP_OFFSETS, _STRIP_SIZES = 273, 279
_PIXEL_SCALE, _TIE_POINT, _MATRIX = 33550, 33922, 34264
_LONG, _DOUBLE = 4, 12
_BYTES = {1: 1, 2: 1, 3: 2, _LONG: 4, 5: 8, _DOUBLE: 8}
"""Size of the TIFF types that occur: byte, text, short, long, rational, double."""

_Field = tuple[int, int, bytes]  # type, count, values


def encode(
    bands: np.ndarray, *, crs: str, transform: Sequence[float], names: Sequence[str], tags: Mapping[str, object]
) -> bytes:
    """A GeoTIFF, losslessly compressed, one strip a band.

    Args:
        bands: uint8, shape (bands, H, W).
        crs: as the tile index has it.
        transform: six numbers, pixel → CRS.
        names: of the bands.
        tags: of the file.
    """
    strips = [_packed(band) for band in bands]
    north_up = transform[1] == transform[3] == 0 and transform[0] > 0 > transform[4]
    texts = tuple((key, str(value)) for key, value in tags.items())
    fields = dict(_fields(crs, bands.shape, north_up=north_up, names=tuple(names), tags=texts))
    fields |= _georeference(transform, north_up=north_up)
    sizes = [len(strip) for strip in strips]
    fields[_STRIP_SIZES] = _field(_LONG, *sizes)
    fields[_STRIP_OFFSETS] = _field(_LONG, *sizes)  # as many bytes as the offsets, which the header's length decides
    start = len(_header(fields))
    offsets = [start + sum(sizes[:band]) for band in range(len(sizes))]
    fields[_STRIP_OFFSETS] = _field(_LONG, *offsets)
    return b"".join([_header(fields), *strips])


def _packed(band: np.ndarray) -> bytes:
    runs = zlib.compressobj(level=1, strategy=zlib.Z_RLE)
    return runs.compress(band.tobytes()) + runs.flush()


def _georeference(transform: Sequence[float], *, north_up: bool) -> dict[int, _Field]:
    a, b, c, d, e, f = transform
    if north_up:
        return {_PIXEL_SCALE: _field(_DOUBLE, a, -e, 0), _TIE_POINT: _field(_DOUBLE, 0, 0, 0, c, f, 0)}
    return {_MATRIX: _field(_DOUBLE, a, b, 0, c, d, e, 0, f, 0, 0, 0, 0, 0, 0, 0, 1)}


def _field(kind: int, *values: float) -> _Field:
    return kind, len(values), struct.pack(f"<{len(values)}{'d' if kind == _DOUBLE else 'I'}", *values)


def _header(fields: Mapping[int, _Field]) -> bytes:
    """TIFF's header and directory, and the values that are too long for the directory after it."""
    entries, values = [], []
    at = 8 + 2 + 12 * len(fields) + 4
    for tag, (kind, count, value) in sorted(fields.items()):
        if len(value) <= 4:
            entries.append(struct.pack("<HHI4s", tag, kind, count, value))
        else:
            entries.append(struct.pack("<HHII", tag, kind, count, at))
            values.append(value + b"\0" * (len(value) % 2))
            at += len(values[-1])
    return b"".join([b"II*\0", struct.pack("<IH", 8, len(fields)), *entries, b"\0" * 4, *values])


@lru_cache(maxsize=256)
def _fields(
    crs: str, shape: tuple[int, int, int], *, north_up: bool, names: tuple[str, ...], tags: tuple[tuple[str, str], ...]
) -> Mapping[int, _Field]:
    """The directory of such a file, as GDAL writes it; where it lies and where its strips lie is replaced."""
    count, height, width = shape
    profile = {
        "driver": "GTiff",
        "count": count,
        "dtype": "uint8",
        "height": height,
        "width": width,
        "crs": crs,
        "transform": rasterio.Affine(2, 0, 0, 0, -2, 0) if north_up else rasterio.Affine(2, 1, 0, 1, -2, 0),
        "compress": "deflate",
        "interleave": "band",
        "blockysize": height,
        "bigtiff": "no",
        "endianness": "little",
    }
    with MemoryFile() as memory:
        with memory.open(**profile) as target:
            target.write(np.zeros(shape, np.uint8))
            target.descriptions = names
            target.update_tags(**dict(tags))
        file = memory.read()
    (directory,) = struct.unpack_from("<I", file, 4)
    (entries,) = struct.unpack_from("<H", file, directory)
    fields = {}
    for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
        tag, kind, number = struct.unpack_from("<HHI", file, entry)
        length = number * _BYTES[kind]
        at = entry + 8 if length <= 4 else struct.unpack_from("<I", file, entry + 8)[0]
        fields[tag] = (kind, number, file[at : at + length])
    return fields
