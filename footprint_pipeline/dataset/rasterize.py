"""Polygons → pixels of a grid, exactly as GDAL fills them, many polygons at once.

What belongs here: the scan-line pass, in pixels. What the pixels mean (building, border, contact) and where they
are written is `masks`' business.

GDAL walks the rows of every polygon on its own. Here all edges of all polygons meet all row centres in one go, with
GDAL's formula in GDAL's order of operations, so every crossing rounds to the same column.
"""

import warnings

import numpy as np
import rasterio
import shapely
from rasterio.errors import NotGeoreferencedWarning
from rasterio.features import rasterize

# Masks are drawn in pixels, on purpose: rasterio warns of the identity transform at every call.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module="rasterio.features")


def rasterize_polygons(polygons_px: np.ndarray, *, height: int, width: int) -> np.ndarray:
    """The mask of polygons on a pixel grid, equal to GDAL's default rasterization pixel for pixel.

    Args:
        polygons_px: shapely Polygons or MultiPolygons in pixels (x right, y down), shape (N,). They may overlap
            and reach outside the grid.
        height: rows of the grid.
        width: columns of the grid.

    Returns:
        uint8, shape (H, W): 1 where a pixel's centre lies in a polygon, holes left out.
    """
    mask = np.zeros((height, width), np.uint8)
    parts = shapely.get_parts(np.asarray(polygons_px, object))
    starts, ends, part = _edges(parts)
    mask.reshape(-1)[_fill(starts, ends, part, height=height, width=width)] = 1
    along_centres = (starts[:, 1] == ends[:, 1]) & (starts[:, 1] - np.floor(starts[:, 1]) == 0.5)
    if along_centres.any():
        # GDAL also fills some edges that run along a row of pixel centres, depending on how their ring turns: ask it.
        again = parts[np.unique(part[along_centres])]
        rasterize(again, out=mask, transform=rasterio.Affine.identity(), default_value=1)
    return mask


def covered_pixels(polygons_px: np.ndarray, *, height: int, width: int, figures: np.ndarray) -> np.ndarray:
    """Which pixels have their centre in which figure, by the even-odd rule.

    A centre that lies on an outline belongs to the figure at its left or below it.

    Args:
        polygons_px: shapely Polygons or MultiPolygons in pixels (x right, y down), shape (N,).
        height: rows of the grid.
        width: columns of the grid.
        figures: which figure each polygon is a part of, ints from 0, shape (N,): where two polygons of a figure
            lie over each other, the figure is open.

    Returns:
        Indices into the flattened grid (row * W + column), int64: each pixel once for every figure that covers it.
    """
    parts, polygon = shapely.get_parts(np.asarray(polygons_px, object), return_index=True)
    starts, ends, part = _edges(parts)
    return _fill(starts, ends, figures[polygon[part]], height=height, width=width)


def _edges(parts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start and end of every edge, shape (E, 2), and which of the Polygons it is of, shape (E,)."""
    rings, part = shapely.get_rings(parts, return_index=True)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    first = np.flatnonzero(ring[1:] == ring[:-1])
    return xy[first], xy[first + 1], part[ring[first]]


def _fill(starts: np.ndarray, ends: np.ndarray, figure: np.ndarray, *, height: int, width: int) -> np.ndarray:
    """Flat indices of the pixels in each figure that these edges, pixels, are of."""
    (xa, ya), (xb, yb) = starts.T, ends.T
    down = ya < yb
    x_top, y_top = np.where(down, xa, xb), np.where(down, ya, yb)
    run, fall = np.where(down, xb - xa, xa - xb), np.abs(yb - ya)

    # An edge meets the rows whose centre is at or below its upper end and above its lower end.
    first = np.clip(np.ceil(y_top - 0.5), 0, height).astype(np.int64)
    rows = np.clip(np.ceil(np.maximum(ya, yb) - 0.5), 0, height).astype(np.int64) - first
    edge = np.repeat(np.arange(len(rows)), rows)
    row = _counted(first, rows)
    x = (row + 0.5 - y_top[edge]) * run[edge] / fall[edge] + x_top[edge]
    column = np.clip(np.floor(x + 0.5), 0, width).astype(np.int64)

    # A row of a figure has an even number of crossings, so sorted by figure, row and column they come in pairs. The
    # column W is the next row's 0, which is where a span that reaches the right edge ends in the flattened grid.
    size = height * width + 1
    crossings = np.sort(figure[edge] * size + row * width + column).reshape(-1, 2)
    return _counted(crossings[:, 0] % size, crossings[:, 1] - crossings[:, 0])


def _counted(first: np.ndarray, length: np.ndarray) -> np.ndarray:
    """The runs first, first + 1, …, first + length - 1, one after another."""
    ends = np.cumsum(length)
    return np.arange(length.sum()) + np.repeat(first - ends + length, length)
