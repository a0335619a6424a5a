"""Which bands of a raster are red, green and blue: the same ones in training and in the service."""

from collections.abc import Sequence

import numpy as np
from rasterio import DatasetReader
from rasterio.enums import ColorInterp

_RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
_NEITHER = {ColorInterp.alpha, ColorInterp.cyan, ColorInterp.magenta, ColorInterp.yellow, ColorInterp.black}


def rgb_bands(interpretation: Sequence[ColorInterp]) -> list[int]:
    """Numbers of the bands that the file calls red, green and blue; else of the first three that are no alpha or ink.

    Args:
        interpretation: what each band of the file is, as it says.

    Returns:
        Fewer than three where there are no more.
    """
    if all(colour in interpretation for colour in _RGB):
        return [interpretation.index(colour) + 1 for colour in _RGB]
    return [band for band, kind in enumerate(interpretation, start=1) if kind not in _NEITHER][:3]


def read_rgb(source: DatasetReader) -> np.ndarray:
    """Red, green and blue in the file's own dtype, shape (3, H, W): a palette is looked up, one band stands for three.

    Raises:
        RasterioError: it is broken.
        ValueError: it has no such band.
    """
    if is_palette(source):
        return looked_up(source)
    rgb = rgb_bands(source.colorinterp)
    if not rgb:
        raise ValueError("it has no band of colour")
    if len(rgb) == 3:
        return source.read(rgb)
    grey = source.read(rgb[:1])
    if source.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES":
        grey = ~grey
    return grey.repeat(3, axis=0)


def is_palette(source: DatasetReader) -> bool:
    """Whether the numbers of a file stand for colours."""
    return bool(source.colorinterp[0] == ColorInterp.palette)


def looked_up(source: DatasetReader) -> np.ndarray:
    """The colours that a palette gives, uint8, shape (3, H, W)."""
    table = np.zeros((np.iinfo(source.dtypes[0]).max + 1, 3), np.uint8)
    for value, colour in source.colormap(1).items():
        table[value] = colour[:3]
    return np.ascontiguousarray(np.moveaxis(table[source.read(1)], -1, 0))
