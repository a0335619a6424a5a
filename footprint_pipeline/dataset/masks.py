"""Polygons → mask tiles, one GeoTIFF beside each image tile, on the tile's own grid.

What belongs here: what the bands of a mask mean, the files and their index. How polygons become pixels is
`rasterize`'s business, how pixels become bytes `geotiff`'s.

Bands, in this order, `uint8`, 0 or 1, named in the file:

- `building`: a pixel's centre lies in a building (GDAL's default rule; holes are left out);
- `border`, unless its distance is 0: pixels of a building near its own outline, also where it touches another;
- `contact`, unless its distance is 0: pixels near two buildings or more, so the gap between them, and where they
  touch or overlap.

Beside the masks lies `masks.parquet`, one row a tile, written last: where it is, the masks are complete. Columns
`tile_id`, `building_pixels`, `building_share` (of the tile's pixels), and `border_pixels` and `contact_pixels`
where the masks have these bands.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
import shapely
from rasterio.errors import RasterioError

from footprint_pipeline.dataset.geotiff import encode
from footprint_pipeline.dataset.rasterize import covered_pixels, rasterize_polygons
from footprint_pipeline.dataset.spec import MaskSpec
from footprint_pipeline.errors import DatasetError, first_line
from footprint_pipeline.files import atomic_path, write_if_other
from footprint_pipeline.many import each_in_threads

INDEX_NAME = "masks.parquet"
CUT_PX = 0.01
"""An edge this near to the tile's frame is where the tile ends and not a wall."""
_QUARTER_CIRCLE = 8
"""Segments: a distance of two metres is kept to a centimetre."""


class _TileRow(Protocol):
    tile_id: str
    width: int
    height: int
    crs: str
    transform: Sequence[float]
    gsd_x_m: float
    gsd_y_m: float


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


def draw_mask(polygons_px: np.ndarray, tile: _TileRow, *, spec: MaskSpec) -> np.ndarray:
    """The mask of a tile.

    Args:
        polygons_px: one valid Polygon or MultiPolygon a building, on the tile's grid, shape (N,).
        tile: a row of the tile index.
        spec: which bands.

    Returns:
        uint8, 0 or 1, shape (bands, H, W).
    """
    mask = np.zeros((len(spec.bands), tile.height, tile.width), np.uint8)
    mask[0] = rasterize_polygons(polygons_px, height=tile.height, width=tile.width)
    if spec.border_m:
        mask[spec.bands.index("border")].reshape(-1)[_border(polygons_px, tile, spec.border_m)] = 1
    if spec.contact_m:
        mask[spec.bands.index("contact")].reshape(-1)[_contact(polygons_px, tile, spec.contact_m)] = 1
    return mask


def write_masks(
    polygons: gpd.GeoDataFrame, tiles: gpd.GeoDataFrame, folder: Path, *, spec: MaskSpec = MaskSpec()
) -> MaskSummary:
    """Write `<folder>/<tile_id>.tif` for every tile, also for those without a building, and then the index.

    Masks in the folder that belong to no tile of the tile index are removed. Each file is written atomically, and one
    that would not change is left as it is, with its date: training knows its tiles by that.

    Args:
        polygons: the polygon table.
        tiles: the tile index.
        folder: where masks go.
        spec: which bands.
    """
    folder.mkdir(parents=True, exist_ok=True)
    disown_masks(folder)
    on_grid = polygons["geometry_px"].to_numpy()
    rows_of = polygons.groupby("tile_id").indices
    nothing = np.empty(0, int)

    def write(tile: _TileRow) -> list[int]:
        mask = draw_mask(on_grid[rows_of.get(tile.tile_id, nothing)], tile, spec=spec)
        content = encode(mask, crs=tile.crs, transform=tile.transform, names=spec.bands, tags=asdict(spec))
        write_if_other(mask_path(folder, tile.tile_id), content)
        return [int(np.count_nonzero(band)) for band in mask]

    rows, what = list(tiles.itertuples(index=False)), f"{', '.join(tiles['aoi'].unique())} masks"
    counts = list(each_in_threads(write, rows, what, threads=min(8, os.cpu_count() or 1)))
    wanted = {mask_path(folder, tile_id).name for tile_id in tiles["tile_id"]}
    for path in folder.glob("*.tif"):
        if path.name not in wanted:
            path.unlink()
    index = pd.DataFrame(counts, columns=[f"{band}_pixels" for band in spec.bands], dtype="int64")
    pixels = (tiles["width"] * tiles["height"]).to_numpy()
    index.insert(0, "tile_id", tiles["tile_id"].to_numpy())
    index.insert(2, "building_share", index["building_pixels"] / pixels)
    with atomic_path(folder / INDEX_NAME) as temporary:
        index.to_parquet(temporary, index=False)
    return MaskSummary(len(tiles), int(index["building_pixels"].sum()), int(pixels.sum()))


def disown_masks(folder: Path) -> None:
    """Let nobody take the masks in a folder for complete until they are drawn again."""
    (folder / INDEX_NAME).unlink(missing_ok=True)


def mask_path(folder: Path, tile_id: str) -> Path:
    """Where the mask of a tile lies."""
    return folder / f"{tile_id}.tif"


def read_mask(path: Path) -> np.ndarray:
    """The band `building`: uint8 0/1, shape (H, W).

    Raises:
        DatasetError: there is no such mask, or it cannot be read.
    """
    with _opened(path) as source:
        return source.read(1)


def read_mask_bands(path: Path) -> dict[str, np.ndarray]:
    """All bands by name: uint8 0/1, shape (H, W) each.

    Raises:
        DatasetError: there is no such mask, or it cannot be read.
    """
    with _opened(path) as source:
        return dict(zip(source.descriptions, source.read(), strict=True))


def read_mask_index(folder: Path) -> pd.DataFrame:
    """The index that `write_masks` wrote last, one row a tile; see the module for its columns.

    Raises:
        DatasetError: there is none, so the masks are not complete, or it lists other masks than there are.
    """
    path = folder / INDEX_NAME
    fix = "Materialize mask_tiles for this AOI again, or footprint prepare it."
    if not path.exists():
        raise DatasetError(f"{path}: there is no index of the masks, so they are not complete.", fix=fix)
    index = pd.read_parquet(path)
    listed = {mask_path(folder, tile_id).name for tile_id in index["tile_id"]}
    there = {path.name for path in folder.glob("[!.]*.tif")}
    if listed != there:
        raise DatasetError(
            f"{path}: {len(listed - there)} masks that it lists are gone and {len(there - listed)} are not in it.",
            fix=fix,
        )
    return index


def _border(polygons_px: np.ndarray, tile: _TileRow, border_m: float) -> np.ndarray:
    """Flat indices of the pixels of each building that are near its walls."""
    gsd_m = np.array([tile.gsd_x_m, tile.gsd_y_m])
    frame_m = _scaled(shapely.box(CUT_PX, CUT_PX, tile.width - CUT_PX, tile.height - CUT_PX), gsd_m)
    buildings_m = _scaled(polygons_px, gsd_m)
    inner_m = shapely.buffer(buildings_m, -border_m, quad_segs=_QUARTER_CIRCLE)
    cut = ~shapely.covers(frame_m, buildings_m)
    walls_m = shapely.intersection(shapely.boundary(buildings_m[cut]), frame_m)
    near_m = shapely.buffer(walls_m, border_m, quad_segs=_QUARTER_CIRCLE)
    inner_m[cut] = shapely.difference(buildings_m[cut], near_m)
    return covered_pixels(
        np.concatenate([polygons_px, _scaled(inner_m, 1 / gsd_m)]),
        height=tile.height,
        width=tile.width,
        figures=np.tile(np.arange(len(polygons_px)), 2),
    )


def _contact(polygons_px: np.ndarray, tile: _TileRow, contact_m: float) -> np.ndarray:
    """Flat indices of the pixels that are near two buildings or more."""
    gsd_m = np.array([tile.gsd_x_m, tile.gsd_y_m])
    zones_m = shapely.buffer(_scaled(polygons_px, gsd_m), contact_m / 2, quad_segs=_QUARTER_CIRCLE)
    near = covered_pixels(
        _scaled(zones_m, 1 / gsd_m), height=tile.height, width=tile.width, figures=np.arange(len(zones_m))
    )
    return np.flatnonzero(np.bincount(near) > 1)


def _scaled(shapes: np.ndarray, by: np.ndarray) -> np.ndarray:
    return shapely.transform(shapes, lambda xy: xy * by)


@contextmanager
def _opened(path: Path) -> Iterator[rasterio.DatasetReader]:
    if not path.exists():
        raise DatasetError(f"{path.name}: there is no such mask.", fix="Materialize mask_tiles for this AOI first.")
    try:
        # Masks have no files beside them that GDAL would have to list the whole folder for.
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"), rasterio.open(path) as source:
            yield source
    except RasterioError as error:
        raise DatasetError(
            f"{path.name}: cannot be read ({first_line(error)}).", fix="Materialize mask_tiles again."
        ) from None
