"""Which bands of a raster are red, green and blue: the same ones in training and in the service."""

from collections.abc import Sequence

from rasterio.enums import ColorInterp

_RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


def rgb_bands(interpretation: Sequence[ColorInterp]) -> list[int]:
    """Numbers of the bands that the file calls red, green and blue; else of the first three that are no transparency.

    Args:
        interpretation: what each band of the file is, as it says.

    Returns:
        Fewer than three where there are no more.
    """
    if all(colour in interpretation for colour in _RGB):
        return [interpretation.index(colour) + 1 for colour in _RGB]
    return [band for band, kind in enumerate(interpretation, start=1) if kind != ColorInterp.alpha][:3]
