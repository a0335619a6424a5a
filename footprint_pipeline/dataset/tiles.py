"""The tile index: what every image tile is, where it lies and how it reads.

What belongs here: opening tiles, their grids, ground sample distance, valid pixels and normalisation.
Where tiles come from is `spacenet`'s business; labels are `polygons`'.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import cv2
import geopandas as gpd
import numpy as np
import rasterio
import shapely
from pyproj import Geod, Transformer
from rasterio.errors import RasterioError

from footprint_pipeline.errors import DatasetError, TileError
from footprint_pipeline.files import atomic_path
from footprint_pipeline.footprints.normalization import UINT8, Normalization

log = logging.getLogger(__name__)

WGS84 = Geod(ellps="WGS84")
STRETCH_PERCENTILES = (1.0, 99.0)
"""What becomes 0 and 1 when the imagery has more than eight bits."""


@dataclass(frozen=True)
class TileIndex:
    """The tiles of one AOI.

    Attributes:
        table: one row a tile; geometry is its outline in EPSG:4326. Columns: `tile_id`, `aoi`, `path`,
            `width`, `height` (pixels), `dtype`, `crs`, `transform` (6 numbers, pixel → CRS), `gsd_x_m`,
            `gsd_y_m` (metres a pixel), `valid_share` (of pixels with imagery), `low`, `high`
            (normalisation, per band).
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


def read_tile(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and valid mask of a tile.

    Returns:
        Image in its own dtype, shape (H, W, 3), and bool, shape (H, W): False where there is no imagery
        (by the file's mask or nodata value, or by areas of pure black).

    Raises:
        TileError: it cannot be read, or has fewer than three bands.
    """
    try:
        with rasterio.open(path) as source:
            if source.count < 3:
                raise TileError(
                    f"{path.name}: has {source.count} band(s), three are needed (red, green, blue).",
                    fix="Point the source at RGB tiles (3band, RGB-PanSharpen, PS-RGB).",
                )
            image = np.moveaxis(source.read([1, 2, 3]), 0, -1)
            mask = source.dataset_mask() > 0
    except RasterioError as error:
        raise TileError(
            f"{path.name}: cannot be read as an image ({_first_line(error)}).",
            fix="Fetch the file again, or pass --on-bad-tile skip to go on without it.",
        ) from None
    # A few black pixels are shadow; an area of them is the edge of the scene.
    black = (image == 0).all(axis=-1).astype(np.uint8)
    black = cv2.morphologyEx(black, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    return np.ascontiguousarray(image), mask & (black == 0)


def index_tiles(
    tiles: Iterable[tuple[str, Path]], *, aoi: str, on_bad_tile: Literal["skip", "fail"] = "skip"
) -> TileIndex:
    """Read every tile once and describe it.

    Args:
        tiles: (tile id, path) pairs.
        aoi: the AOI that they belong to.
        on_bad_tile: go on without a tile that cannot be read (it is named), or stop.

    Raises:
        TileError: a tile cannot be read and `on_bad_tile` is "fail".
        DatasetError: no tile is left.
    """
    rows: list[dict[str, object]] = []
    skipped: list[tuple[str, str]] = []
    histograms: dict[str, np.ndarray] = {}
    for tile_id, path in tiles:
        try:
            image, valid = read_tile(path)
            rows.append({"tile_id": tile_id, "aoi": aoi, "path": str(path), **_describe(path, image, valid)})
        except TileError as error:
            if on_bad_tile == "fail":
                raise
            log.warning("Skipped %s: %s", tile_id, error.problem)
            skipped.append((tile_id, error.problem))
            continue
        if image.dtype == np.uint16:
            counts = [np.bincount(image[..., band][valid], minlength=65536) for band in range(3)]
            histograms["uint16"] = histograms.get("uint16", 0) + np.stack(counts)
        if len(rows) % 500 == 0:
            log.info("%s: %d tiles read", aoi, len(rows))
    if not rows:
        raise DatasetError(
            f"{aoi}: none of its {len(skipped)} tiles can be read"
            + (f" (the first: {skipped[0][1]})." if skipped else "."),
            fix="Check the source; a download that was cut short leaves such files.",
        )
    stretch = {"uint8": UINT8, **{dtype: _stretch(counts) for dtype, counts in histograms.items()}}
    table = gpd.GeoDataFrame(rows, geometry="geometry", crs="EPSG:4326")
    unknown = sorted(set(table["dtype"]) - set(stretch))
    if unknown:
        raise TileError(
            f"{aoi}: tiles of type {', '.join(unknown)} are not supported.", fix="Convert them to uint8 or uint16."
        )
    table["low"] = [list(stretch[dtype].low) for dtype in table["dtype"]]
    table["high"] = [list(stretch[dtype].high) for dtype in table["dtype"]]
    return TileIndex(table.sort_values("tile_id", ignore_index=True), tuple(skipped))


def write_tile_index(index: TileIndex, path: Path) -> None:
    """Write the index as GeoParquet, atomically."""
    with atomic_path(path) as temporary:
        index.table.to_parquet(temporary, index=False)


def read_tile_index(path: Path) -> gpd.GeoDataFrame:
    """The index table written by `write_tile_index`.

    Raises:
        DatasetError: there is none.
    """
    if not path.exists():
        raise DatasetError(f"{path}: there is no tile index.", fix="Materialize image_tiles for this AOI first.")
    return gpd.read_parquet(path)


def normalization(row: TileRow) -> Normalization:
    """The normalisation of a row of the index or of a manifest."""
    return Normalization.model_validate({"low": tuple(row.low), "high": tuple(row.high)})


def _describe(path: Path, image: np.ndarray, valid: np.ndarray) -> dict[str, object]:
    with rasterio.open(path) as source:
        if source.crs is None or source.transform.is_identity:
            raise TileError(
                f"{path.name}: has no georeference.", fix="Labels cannot be placed on it; use georeferenced tiles."
            )
        crs, transform = source.crs, source.transform
    height, width = image.shape[:2]
    to_wgs84 = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    x, y = width / 2, height / 2
    lon, lat = to_wgs84.transform(*_to_crs(transform, np.array([x, x + 1, x]), np.array([y, y, y + 1])))
    corner_lon, corner_lat = to_wgs84.transform(
        *_to_crs(transform, np.array([0, width, width, 0]), np.array([0, 0, height, height]))
    )
    return {
        "width": width,
        "height": height,
        "dtype": str(image.dtype),
        "crs": crs.to_string(),
        "transform": list(transform)[:6],
        "gsd_x_m": WGS84.inv(lon[0], lat[0], lon[1], lat[1])[2],
        "gsd_y_m": WGS84.inv(lon[0], lat[0], lon[2], lat[2])[2],
        "valid_share": float(valid.mean()),
        "geometry": shapely.Polygon(np.column_stack([corner_lon, corner_lat])),
    }


def _to_crs(transform: rasterio.Affine, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return transform.a * x + transform.b * y + transform.c, transform.d * x + transform.e * y + transform.f


def _stretch(counts: np.ndarray) -> Normalization:
    low, high = (
        tuple(float(np.searchsorted(np.cumsum(band), band.sum() * percentile / 100)) for band in counts)
        for percentile in STRETCH_PERCENTILES
    )
    return Normalization(low=low, high=high)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
