from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.features import rasterize
from shapely import affinity

from footprint_pipeline.dataset.masks import mask_path, rasterize_polygons, read_mask, write_masks
from footprint_pipeline.dataset.polygons import build_polygon_table
from footprint_pipeline.dataset.tiles import index_tiles
from footprint_pipeline.errors import DatasetError
from footprint_pipeline_tests.dataset.conftest import UTM, degrees, labels, metres, on_ground, write_image

HEIGHT, WIDTH = 90, 110


def scattered(seed: int, count: int = 25) -> list[shapely.Geometry]:
    """Turned buildings, some with a courtyard, some of two parts, some over the tile's edge, in pixels."""
    rng = np.random.default_rng(seed)
    shapes = []
    for number in range(count):
        house = shapely.box(0, 0, rng.uniform(3, 22), rng.uniform(3, 22))
        if number % 4 == 0:
            house = house.difference(affinity.scale(house, 0.4, 0.4))
        if number % 5 == 0:
            house = house.union(affinity.translate(house, 30, 0))
        shapes.append(
            affinity.translate(
                affinity.rotate(house, rng.uniform(0, 90)), rng.uniform(-5, WIDTH), rng.uniform(-5, HEIGHT)
            )
        )
    return shapes


@pytest.mark.parametrize("crs", ["EPSG:4326", UTM])
def test_masks_are_gdals_own_of_the_labels_on_the_ground(tmp_path: Path, crs: str) -> None:
    grid = degrees if crs == "EPSG:4326" else metres
    image = np.full((HEIGHT, WIDTH, 3), 80, np.uint8)
    names = [f"t{i}" for i in range(4)]
    tiles = index_tiles(
        [
            (name, write_image(tmp_path / f"{name}.tif", image, crs=crs, transform=grid(i)))
            for i, name in enumerate(names)
        ],
        aoi="Rio",
    ).table
    rows = [
        (name, i, on_ground(shape, grid(tile), crs))
        for tile, name in enumerate(names[:3])
        for i, shape in enumerate(scattered(tile))
    ]
    table = labels(rows)
    seen: list[tuple[int, int]] = []
    summary = write_masks(
        build_polygon_table(table, tiles).table, tiles, tmp_path / "masks", progress=lambda *at: seen.append(at)
    )
    total = 0
    for tile, name in enumerate(names):
        on_grid = table[table["tile_id"] == name].to_crs(crs).geometry
        expected = (
            rasterize(list(on_grid), out_shape=(HEIGHT, WIDTH), transform=grid(tile), dtype="uint8")
            if len(on_grid)
            else np.zeros((HEIGHT, WIDTH), np.uint8)
        )
        mask = read_mask(mask_path(tmp_path / "masks", name))
        assert np.array_equal(mask, expected), name
        total += int(mask.sum())
        with rasterio.open(mask_path(tmp_path / "masks", name)) as source:
            assert source.crs == rasterio.CRS.from_string(crs)
            assert list(source.transform)[:6] == list(grid(tile))[:6]
            assert (source.count, source.dtypes, source.compression.value) == (1, ("uint8",), "DEFLATE")
    assert total > 1000
    assert (summary.tiles, summary.pixels, summary.building_pixels) == (4, 4 * HEIGHT * WIDTH, total)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_pixel_belongs_to_a_building_when_its_centre_does() -> None:
    drawn = shapely.box(1.4, 0.6, 3.6, 2.4)  # holds the centres of columns 1 (1.5) to 3 (3.5), but of row 1 only
    expected = np.zeros((4, 5), np.uint8)
    expected[1, 1:4] = 1
    assert np.array_equal(rasterize_polygons(np.array([drawn]), height=4, width=5), expected)
    assert not rasterize_polygons(np.array([shapely.box(1.6, 1.6, 2.4, 2.4)]), height=4, width=5).any()


def test_holes_stay_open_and_overlaps_count_once() -> None:
    ring = shapely.box(0, 0, 8, 8).difference(shapely.box(2, 2, 6, 6))
    mask = rasterize_polygons(np.array([ring, shapely.box(0, 0, 4, 1)], object), height=8, width=8)
    assert mask.sum() == 64 - 16
    assert mask.max() == 1
    assert not mask[2:6, 2:6].any()


def test_no_polygons_are_an_empty_mask() -> None:
    mask = rasterize_polygons(np.empty(0, object), height=3, width=4)
    assert (mask.shape, mask.dtype, int(mask.sum())) == ((3, 4), np.uint8, 0)


def test_masks_of_tiles_that_are_gone_are_removed_and_others_replaced(tmp_path: Path) -> None:
    image = np.full((20, 20, 3), 80, np.uint8)
    tiles = index_tiles([("a", write_image(tmp_path / "a.tif", image))], aoi="Rio").table
    folder = tmp_path / "masks"
    folder.mkdir()
    for name in ("gone.tif", ".1234-a.tif"):
        (folder / name).touch()
    (folder / "notes.txt").touch()
    table = build_polygon_table(labels([("a", 1, on_ground(shapely.box(2, 2, 5, 5), degrees()))]), tiles).table
    write_masks(table, tiles, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["a.tif", "notes.txt"]
    assert read_mask(folder / "a.tif").sum() == 9
    write_masks(gpd.GeoDataFrame(table.iloc[:0]), tiles, folder)
    assert read_mask(folder / "a.tif").sum() == 0


def test_no_mask_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"t\.tif: there is no such mask.\n.*Materialize mask_tiles"):
        read_mask(tmp_path / "t.tif")
