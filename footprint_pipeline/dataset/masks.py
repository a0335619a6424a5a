"""Polygons → mask tiles, one GeoTIFF beside each image tile, on the tile's own grid.

A pixel belongs to a building when its centre does (GDAL's default rule).
"""

import logging
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import geopandas as gpd
import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.features import rasterize

from footprint_pipeline.errors import DatasetError
from footprint_pipeline.files import atomic_path

log = logging.getLogger(__name__)

# Masks are drawn in pixels, on purpose: rasterio warns of the identity transform at every call.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module="rasterio.features")


class _GridRow(Protocol):
    tile_id: str
    width: int
    height: int
    crs: str
    transform: Sequence[float]


@dataclass(frozen=True)
class MaskSummary:
    """What was written.

    Attributes:
        tiles: number of masks.
        building_pixels: pixels that are a building.
        pixels: all pixels.
    """

    tiles: int
    building_pixels: int
    pixels: int


def rasterize_polygons(polygons_px: np.ndarray, *, height: int, width: int) -> np.ndarray:
    """The mask of polygons on a pixel grid.

    Args:
        polygons_px: shapely Polygons or MultiPolygons in pixels (x right, y down), shape (N,).
        height: rows of the grid.
        width: columns of the grid.

    Returns:
        uint8, shape (H, W): 1 where a pixel's centre lies in a polygon, holes left out.
    """
    if len(polygons_px) == 0:
        return np.zeros((height, width), np.uint8)
    return rasterize(
        polygons_px, out_shape=(height, width), transform=rasterio.Affine.identity(), default_value=1, dtype="uint8"
    )


def write_masks(
    polygons: gpd.GeoDataFrame,
    tiles: gpd.GeoDataFrame,
    folder: Path,
    *,
    threads: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> MaskSummary:
    """Write `<folder>/<tile_id>.tif` for every tile, also for those without a building.

    Masks in the folder that belong to no tile of the index are removed. Each file is written atomically.

    Args:
        polygons: the polygon table.
        tiles: the tile index.
        folder: where masks go.
        threads: tiles at a time.
        progress: called with (done, total).
    """
    folder.mkdir(parents=True, exist_ok=True)
    on_grid = polygons["geometry_px"].to_numpy()
    rows_of = polygons.groupby("tile_id").indices
    nothing = np.empty(0, int)

    def write(tile: _GridRow) -> int:
        mask = rasterize_polygons(
            on_grid[rows_of.get(tile.tile_id, nothing)],
            height=tile.height,
            width=tile.width,
        )
        profile = {
            "driver": "GTiff",
            "count": 1,
            "dtype": "uint8",
            "height": mask.shape[0],
            "width": mask.shape[1],
            "crs": tile.crs,
            "transform": rasterio.Affine(*tile.transform),
            "compress": "deflate",
        }
        with (
            atomic_path(mask_path(folder, tile.tile_id)) as temporary,
            rasterio.open(temporary, "w", **profile) as target,
        ):
            target.write(mask, 1)
        return int(mask.sum())

    building_pixels = 0
    with ThreadPoolExecutor(threads) as pool:
        for done, count in enumerate(pool.map(write, tiles.itertuples(index=False)), start=1):
            building_pixels += count
            if progress is not None:
                progress(done, len(tiles))
    wanted = {mask_path(folder, tile_id).name for tile_id in tiles["tile_id"]}
    for path in folder.glob("*.tif"):
        if path.name not in wanted:
            path.unlink()
    return MaskSummary(len(tiles), building_pixels, int((tiles["width"] * tiles["height"]).sum()))


def mask_path(folder: Path, tile_id: str) -> Path:
    """Where the mask of a tile lies."""
    return folder / f"{tile_id}.tif"


def read_mask(path: Path) -> np.ndarray:
    """uint8 0/1, shape (H, W).

    Raises:
        DatasetError: there is no such mask.
    """
    if not path.exists():
        raise DatasetError(f"{path.name}: there is no such mask.", fix="Materialize mask_tiles for this AOI first.")
    with rasterio.open(path) as source:
        return source.read(1)
