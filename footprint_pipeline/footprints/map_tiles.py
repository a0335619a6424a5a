"""Map tiles of 256 px (XYZ, Web Mercator): which prediction a tile is cut from, and what is drawn on it.

Tiles are much smaller than what is best predicted at once, so neighbours are cut from one prediction, that of the block
they lie in. mapbox_vector_tile is imported when it is first needed.
"""

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import shapely

from footprint_pipeline.footprints.extract import Raster, of_turn
from footprint_pipeline.footprints.mercator import Bounds, Tile, ground_scale, project, tile_side, to_wgs84

BLOCK_PX = 1280
"""Side of the largest block, pixels of the model: with the halo three windows wide and high."""
TILE_PX = 256
COLOUR = (255, 64, 32)
"""Red, green, blue of a building on a PNG."""
LAYER, EXTENT, BUFFER = "footprints", 4096, 128
"""Of vector tiles: their layer, how many units a tile is wide, and how many are drawn beyond its edge."""


def block_of(tile: Tile, gsd_m: float, *, most_px: int = BLOCK_PX) -> Tile:
    """The coarsest tile around a tile that is at most `most_px` wide at the model's resolution; itself where none is.

    All tiles of a block have the same one, so it is predicted once for them.
    """
    around = (Tile(z, tile.x >> (tile.z - z), tile.y >> (tile.z - z)) for z in range(tile.z))
    return next((block for block in around if _side_px(block, gsd_m) <= most_px), tile)


def probability_of(raster: Raster, bounds_3857: Bounds, size_px: int = TILE_PX) -> np.ndarray:
    """The probability of a building on a rectangle within a raster's area, float32, shape (size_px, size_px)."""
    left, top, right, bottom = raster.to_pixels(bounds_3857)
    rows, down = _weights(top, bottom, raster.padded.shape[0], size_px)
    columns, across = _weights(left, right, raster.padded.shape[1], size_px)
    # Not numpy's matrices: threads that wait for each other take longer than these small products.
    probability = cv2.gemm(down, np.ascontiguousarray(raster.padded[rows, columns, 0]), 1.0, None, 0.0)
    return np.clip(cv2.gemm(probability, across, 1.0, None, 0.0, flags=cv2.GEMM_2_T), 0.0, 1.0)


def png(opacity: np.ndarray) -> bytes:
    """An RGBA PNG in the one colour.

    Args:
        opacity: in [0, 1], shape (H, W).
    """
    image = np.empty((*opacity.shape, 4), np.uint8)
    image[..., :3] = COLOUR[::-1]
    image[..., 3] = np.rint(opacity * 255.0)
    return cv2.imencode(".png", image)[1].tobytes()


def centred_in(polygons_wgs84: np.ndarray, tile: Tile) -> np.ndarray:
    """Which polygons have their centroid on a tile, bool, shape (N,); of its edges the left and upper one are its."""
    west, south, east, north = to_wgs84(tile.bounds_3857)
    x, y = shapely.get_coordinates(shapely.centroid(polygons_wgs84)).T
    x = (x + 180.0) % 360.0 - 180.0  # that of a building on the antimeridian may lie beyond it
    return (x >= west) & (x < east) & (y > south) & (y <= north)


def vector_tile(features: Sequence[dict[str, Any]], polygons_wgs84: np.ndarray, tile: Tile) -> bytes:
    """A Mapbox vector tile of all that reaches onto a tile, its edge's surroundings included.

    Args:
        features: in GeoJSON; their ids become a property.
        polygons_wgs84: their outlines in shapely, degrees, shape (N,).
        tile: where.
    """
    import mapbox_vector_tile

    left, _, _, top = tile.bounds_3857
    unit = tile_side(tile.z) / EXTENT

    def place(points: np.ndarray) -> np.ndarray:
        return (project(points) - (left, top)) * (1 / unit, -1 / unit)

    near = to_wgs84(_grown(tile.bounds_3857, BUFFER * unit))
    polygons_wgs84 = of_turn(polygons_wgs84, near.centre[0])
    west, south, east, north = shapely.bounds(polygons_wgs84).reshape(-1, 4).T
    reach = np.flatnonzero((west < near.right) & (east > near.left) & (south < near.top) & (north > near.bottom))
    window = shapely.box(-BUFFER, -BUFFER, EXTENT + BUFFER, EXTENT + BUFFER)
    shapes = shapely.transform(polygons_wgs84[reach], place)
    broken = ~shapely.is_valid(shapes)
    shapes[broken] = shapely.make_valid(shapes[broken], method="structure", keep_collapsed=False)
    # Valid on the tile's own grid; what is smaller than a unit goes.
    drawn = shapely.set_precision(shapely.intersection(shapes, window), 1.0)
    layer = [
        {"geometry": shape, "properties": {"id": features[number]["id"], **features[number]["properties"]}}
        for number, shape in zip(reach.tolist(), map(_areas, drawn), strict=True)
        if not shape.is_empty
    ]
    options = {"extents": EXTENT, "y_coord_down": True}
    return mapbox_vector_tile.encode([{"name": LAYER, "features": layer}], default_options=options)


def _areas(shape: shapely.Geometry) -> shapely.Geometry:
    """The areas of a shape, without lines and points."""
    if shapely.get_type_id(shape) != shapely.GeometryType.GEOMETRYCOLLECTION:
        return shape if shapely.get_dimensions(shape) == 2 else shapely.Polygon()
    parts = shapely.get_parts(shape)
    return shapely.union_all(parts[shapely.get_dimensions(parts) == 2])


def _side_px(tile: Tile, gsd_m: float) -> float:
    return tile_side(tile.z) * ground_scale(tile.bounds_3857) / gsd_m


def _weights(start: float, stop: float, size: int, wanted: int) -> tuple[slice, np.ndarray]:
    """How so many wanted pixels from `start` to `stop` are made of others: a slice of these, and their weights.

    Linear between two where the pixels are finer than the others; where they are coarser, of all that they hold.
    """
    width = (stop - start) / wanted
    reach = max(width, 1.0)
    others = slice(max(0, math.floor(start - reach)), min(size, math.ceil(stop + reach)))
    middles = start + (np.arange(wanted) + 0.5) * width
    apart = np.abs(middles[:, None] - (np.arange(others.start, others.stop) + 0.5))
    weights = np.maximum(1.0 - apart / reach, 0.0)
    return others, (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _grown(bounds: Bounds, margin: float) -> Bounds:
    return Bounds(bounds.left - margin, bounds.bottom - margin, bounds.right + margin, bounds.top + margin)
