"""The tile index: what every image tile is, where it lies and how it reads.

What belongs here: opening tiles, their grids, ground sample distance and valid pixels. How deep imagery is
stretched is `stretch`'s business, where tiles come from is `spacenet`'s, labels are `polygons`'.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, Protocol

import cv2
import geopandas as gpd
import numpy as np
import rasterio
import shapely
from pyproj import Transformer
from pyproj.exceptions import ProjError
from rasterio.errors import RasterioError

from footprint_pipeline.dataset.stretch import Stretches
from footprint_pipeline.errors import DatasetError, TileError, first_line
from footprint_pipeline.files import atomic_path
from footprint_pipeline.footprints.area import WGS84
from footprint_pipeline.footprints.bands import rgb_bands
from footprint_pipeline.footprints.normalization import Normalization
from footprint_pipeline.many import each_in_threads

log = logging.getLogger(__name__)

FILE_STAMP = ("bytes", "modified_ns")
"""Columns of the index that tell an image from another one in its place; an index of before has none."""


@dataclass(frozen=True)
class TileIndex:
    """The tiles of one AOI.

    Attributes:
        table: one row a tile; geometry is its outline in EPSG:4326. Columns: `tile_id`, `aoi`, `path`,
            `bytes`, `modified_ns` (of the file), `width`, `height` (pixels), `dtype`, `crs`, `transform`
            (6 numbers, pixel → CRS), `gsd_x_m`, `gsd_y_m` (metres a pixel), `valid_share` (of pixels with
            imagery), `low`, `high` (normalisation, per band), `gamma`.
        skipped: (tile id, reason) of the tiles that could not be read.
    """

    table: gpd.GeoDataFrame
    skipped: tuple[tuple[str, str], ...] = ()


class TileRow(Protocol):
    """A row of the index, or of a table made from it, as `itertuples` gives it."""

    tile_id: str
    aoi: str
    path: str
    width: int
    height: int
    gsd_x_m: float
    gsd_y_m: float
    low: Sequence[float]
    high: Sequence[float]
    gamma: float


def read_tile(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and valid mask of a tile.

    Returns:
        Image of its red, green and blue band in its own dtype, shape (H, W, 3), and bool, shape (H, W): False where
        there is no imagery (by the file's mask or nodata value, by values that are not finite, or by areas of
        pure black).

    Raises:
        TileError: it cannot be read, or has fewer than three bands.
    """
    tile = _open(path)
    return np.ascontiguousarray(np.moveaxis(tile.bands, 0, -1)), tile.valid


def index_tiles(
    tiles: Iterable[tuple[str, Path]],
    *,
    aoi: str,
    on_bad_tile: Literal["skip", "fail"] = "skip",
    least_side_px: int = 1,
    threads: int | None = None,
) -> TileIndex:
    """Read every tile once and describe it.

    Args:
        tiles: (tile id, path) pairs, of any real pixel type; types may differ.
        aoi: the AOI that they belong to.
        on_bad_tile: go on without a tile that cannot be read or is too small (it is named), or stop.
        least_side_px: a tile is at least so wide and so high, pixels.
        threads: how many tiles are read at a time, by default one a core; the index does not depend on it.

    Raises:
        TileError: a tile cannot be read or is too small, and `on_bad_tile` is "fail".
        DatasetError: no tile is left.
    """
    pairs = list(tiles)
    stretches = Stretches()

    def describe(pair: tuple[str, Path]) -> dict[str, object] | TileError:
        tile_id, path = pair
        stamp = dict(zip(FILE_STAMP, _stamp(path), strict=True))  # before it is read, for it may change meanwhile
        try:
            tile = _open(path)
            _check_size(path, tile, least_side_px)
            row = {"tile_id": tile_id, "aoi": aoi, "path": str(path), **stamp, **_describe(path, tile)}
        except TileError as error:
            if on_bad_tile == "fail":
                raise
            return error
        stretches.add(tile.bands, tile.valid, tile_id)
        return row

    rows: list[dict[str, object]] = []
    skipped: list[tuple[str, str]] = []
    for (tile_id, _), found in zip(
        pairs, each_in_threads(describe, pairs, f"{aoi} tiles", threads=threads), strict=True
    ):
        if isinstance(found, dict):
            rows.append(found)
        else:
            log.warning("Skipped %s: %s", tile_id, found.problem)
            skipped.append((tile_id, found.problem))
    if not rows:
        raise DatasetError(
            f"{aoi}: none of its {len(skipped)} tiles can be read"
            + (f" (the first: {skipped[0][1]})." if skipped else "."),
            fix="Check the source: what it holds, and whether a download was cut short.",
        )
    table = gpd.GeoDataFrame(rows, geometry="geometry", crs="EPSG:4326")
    scale = {dtype: stretches.of(dtype) for dtype in table["dtype"].unique()}
    table["low"] = [list(scale[dtype].low) for dtype in table["dtype"]]
    table["high"] = [list(scale[dtype].high) for dtype in table["dtype"]]
    table["gamma"] = [scale[dtype].gamma for dtype in table["dtype"]]
    return TileIndex(table.sort_values("tile_id", ignore_index=True), tuple(skipped))


def write_tile_index(index: TileIndex, path: Path) -> None:
    """Write the index as GeoParquet, atomically."""
    with atomic_path(path) as temporary:
        index.table.to_parquet(temporary, index=False)


def read_tile_index(path: Path) -> gpd.GeoDataFrame:
    """The index table written by `write_tile_index`.

    Raises:
        DatasetError: there is none, or it is of an older form.
    """
    if not path.exists():
        raise DatasetError(f"{path}: there is no tile index.", fix="Materialize image_tiles for this AOI first.")
    table = gpd.read_parquet(path)
    if lacking := [name for name in TileRow.__annotations__ if name not in table]:
        raise DatasetError(
            f"{path}: is of an older form; it lacks {', '.join(lacking)}.",
            fix="Materialize image_tiles for this AOI again.",
        )
    return table


def changed_images(tiles: gpd.GeoDataFrame) -> list[str]:
    """Ids of the tiles of an index whose image is another file by now, or gone; of an index of before, none."""
    if not {*FILE_STAMP} <= set(tiles):
        return []
    told = zip(tiles["tile_id"], tiles["path"], *(tiles[name] for name in FILE_STAMP), strict=True)
    return [tile_id for tile_id, path, *stamp in told if _stamp(Path(path)) != tuple(stamp)]


def _stamp(path: Path) -> tuple[int, int]:
    """What changes with a file, as `FILE_STAMP` names it; zeros where there is none."""
    if not path.exists():
        return 0, 0
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def as_learned(row: TileRow, image: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """A tile as networks see it: uint8, shape (H, W, 3), black where there is no imagery, as the service has it.

    Args:
        row: says how the tile is stretched.
        image: from `read_tile`.
        valid: from `read_tile`.
    """
    seen = normalization(row).to_uint8(image)
    return seen if valid.all() else np.where(valid[..., None], seen, np.uint8(0))


def normalization(row: TileRow) -> Normalization:
    """The normalisation of a row of the index or of a manifest."""
    return Normalization.model_validate({"low": tuple(row.low), "high": tuple(row.high), "gamma": row.gamma})


@dataclass(frozen=True)
class _Tile:
    bands: np.ndarray
    valid: np.ndarray
    crs: rasterio.CRS | None
    transform: rasterio.Affine


def _open(path: Path) -> _Tile:
    try:
        with rasterio.open(path) as source:
            rgb = rgb_bands(source.colorinterp)
            if len(rgb) < 3:
                raise TileError(
                    f"{path.name}: has {len(rgb)} band(s) of colour, three are needed (red, green, blue).",
                    fix="Point the source at RGB tiles (3band, RGB-PanSharpen, PS-RGB).",
                )
            bands = source.read(rgb)
            valid = source.read_masks(rgb).any(axis=0)
            crs, transform = source.crs, source.transform
    except (RasterioError, ValueError) as error:  # ValueError: bands of several types
        if not path.exists():
            raise TileError(
                f"{path}: is not there any more.",
                fix="Bring it back, or prepare its AOI again from where it is now: footprint prepare --source …",
            ) from None
        raise TileError(
            f"{path.name}: cannot be read as an image ({first_line(error)}).",
            fix="Fetch the file again, or prepare its AOI without it: footprint prepare --on-bad-tile skip.",
        ) from None
    if np.iscomplexobj(bands):
        raise TileError(f"{path.name}: holds complex numbers.", fix="Point the source at RGB tiles.")
    # A few black pixels are shadow; an area of them is the edge of the scene.
    black = (~bands.any(axis=0)).astype(np.uint8)
    valid &= cv2.morphologyEx(black, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)) == 0
    if np.issubdtype(bands.dtype, np.floating):
        valid &= np.isfinite(bands).all(axis=0)
    return _Tile(bands, valid, crs, transform)


def _check_size(path: Path, tile: _Tile, least_side_px: int) -> None:
    height, width = tile.valid.shape
    if min(height, width) < least_side_px:
        raise TileError(
            f"{path.name}: has {width} × {height} pixels, {least_side_px} each way are needed.",
            fix="Cut it larger, or prepare its AOI without it: footprint prepare --on-bad-tile skip.",
        )


def _describe(path: Path, tile: _Tile) -> dict[str, object]:
    if tile.crs is None or tile.transform.is_identity:
        raise TileError(
            f"{path.name}: has no georeference.", fix="Labels cannot be placed on it; use georeferenced tiles."
        )
    height, width = tile.valid.shape
    # The corners, then the middle and one pixel right of it and below.
    x = np.array([0, width, width, 0, width / 2, width / 2 + 1, width / 2])
    y = np.array([0, 0, height, height, height / 2, height / 2, height / 2 + 1])
    try:
        lon, lat = _to_wgs84(tile.crs.to_wkt()).transform(*(tile.transform @ (x, y)))
    except ProjError as error:
        raise TileError(
            f"{path.name}: its CRS leads nowhere ({first_line(error)}).",
            fix="Use tiles in a CRS that the EPSG list knows.",
        ) from None
    if not np.isfinite([lon, lat]).all():
        raise TileError(f"{path.name}: lies outside the range of its own CRS.", fix="Correct its georeference.")
    if np.ptp(lon) > 180:
        raise TileError(f"{path.name}: lies across the antimeridian.", fix="Cut it in two there.")
    return {
        "width": width,
        "height": height,
        "dtype": tile.bands.dtype.name,
        "crs": tile.crs.to_string(),
        "transform": list(tile.transform)[:6],
        "gsd_x_m": WGS84.inv(lon[4], lat[4], lon[5], lat[5])[2],
        "gsd_y_m": WGS84.inv(lon[4], lat[4], lon[6], lat[6])[2],
        "valid_share": float(tile.valid.mean()),
        "geometry": shapely.Polygon(np.column_stack([lon[:4], lat[:4]])),
    }


@lru_cache(maxsize=64)
def _to_wgs84(crs_wkt: str) -> Transformer:
    return Transformer.from_crs(crs_wkt, "EPSG:4326", always_xy=True)
