"""Tiles, labels, masks and manifests of a small city, written by the tests themselves."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely

from footprint_pipeline.dataset.masks import read_mask, write_masks
from footprint_pipeline.dataset.polygons import build_polygon_table, buildings_per_tile
from footprint_pipeline.dataset.spec import MaskSpec, SplitSpec
from footprint_pipeline.dataset.splits import build_manifest
from footprint_pipeline.dataset.tiles import index_tiles

GSD_DEG = 4.5e-6
WEST, NORTH = -43.60, -22.90
UTM = "EPSG:32723"  # zone 23 south, central meridian 45° W
UTM_GSD = 0.5
EASTING, NORTHING = 643_000.0, 7_467_000.0


@dataclass(frozen=True)
class City:
    """What the data stages make of a few tiles."""

    tiles: gpd.GeoDataFrame
    polygons: gpd.GeoDataFrame
    manifest: pd.DataFrame
    masks: Path


def degrees(number: int = 0, width: int = 64) -> rasterio.Affine:
    """Grid of tile `number` in EPSG:4326; tiles of different numbers lie side by side."""
    return rasterio.Affine(GSD_DEG, 0, WEST + number * width * GSD_DEG, 0, -GSD_DEG, NORTH)


def metres(number: int = 0, width: int = 64) -> rasterio.Affine:
    """The same in UTM."""
    return rasterio.Affine(UTM_GSD, 0, EASTING + number * width * UTM_GSD, 0, -UTM_GSD, NORTHING)


def write_image(
    path: Path,
    image: np.ndarray,
    *,
    crs: str | None = "EPSG:4326",
    transform: rasterio.Affine | None = None,
    nodata: float | None = None,
) -> Path:
    """A GeoTIFF of an array, shape (H, W, bands)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, bands = image.shape
    profile = {"driver": "GTiff", "width": width, "height": height, "count": bands, "dtype": image.dtype}
    transform = degrees() if transform is None else transform
    with rasterio.open(path, "w", crs=crs, transform=transform, nodata=nodata, **profile) as target:
        target.write(np.moveaxis(image, -1, 0))
    return path


def on_ground(polygon_px: shapely.Geometry, transform: rasterio.Affine, crs: str = "EPSG:4326") -> shapely.Geometry:
    """A polygon in pixels → EPSG:4326."""

    def place(xy: np.ndarray) -> np.ndarray:
        a, b, c, d, e, f = transform[:6]
        return xy @ np.array([[a, d], [b, e]]) + (c, f)

    placed = shapely.transform(polygon_px, place)
    return placed if crs == "EPSG:4326" else gpd.GeoSeries([placed], crs=crs).to_crs("EPSG:4326").iloc[0]


def labels(rows: list[tuple[str, int, shapely.Geometry]]) -> gpd.GeoDataFrame:
    """A table of labels as `spacenet.labels` makes it: (tile id, building id, polygon in EPSG:4326)."""
    return gpd.GeoDataFrame(
        {"tile_id": [row[0] for row in rows], "building_id": [row[1] for row in rows]},
        geometry=gpd.GeoSeries([row[2] for row in rows], crs="EPSG:4326"),
    )


def build_city(
    folder: Path,
    *,
    count: int = 8,
    height: int = 40,
    width: int = 48,
    aoi: str = "Town",
    masks: MaskSpec = MaskSpec(border_m=0, contact_m=0),
) -> City:
    """`count` UTM tiles of bright roofs on dark ground, three roofs each but none in the last tile."""
    rng = np.random.default_rng(7)
    pairs, rows = [], []
    for number in range(count):
        tile_id = f"{aoi}_img{number}"
        image = rng.integers(20, 60, (height, width, 3), np.uint8)
        for building in range(3 if number < count - 1 else 0):
            left, top = 2 + building * 15, int(rng.integers(2, height - 15))
            image[top : top + 12, left : left + 10] = 230
            shape = on_ground(shapely.box(left, top, left + 10, top + 12), metres(number, width), UTM)
            rows.append((tile_id, building, shape))
        path = write_image(folder / f"{tile_id}.tif", image, crs=UTM, transform=metres(number, width))
        pairs.append((tile_id, path))
    tiles = index_tiles(pairs, aoi=aoi).table
    polygons = build_polygon_table(labels(rows), tiles).table
    write_masks(polygons, tiles, folder / "masks", spec=masks)
    shares = pd.Series({tile: float(read_mask(folder / "masks" / f"{tile}.tif").mean()) for tile in tiles["tile_id"]})
    manifest = build_manifest(tiles, buildings_per_tile(polygons), shares, folder / "masks", SplitSpec())
    return City(tiles, polygons, manifest, folder / "masks")


@pytest.fixture(scope="session")
def city(tmp_path_factory: pytest.TempPathFactory) -> City:
    """A city that tests only read."""
    return build_city(tmp_path_factory.mktemp("city"))


@pytest.fixture
def make_city(tmp_path: Path) -> Callable[..., City]:
    """A city of the test's own."""
    return lambda **options: build_city(tmp_path / "city", **options)
