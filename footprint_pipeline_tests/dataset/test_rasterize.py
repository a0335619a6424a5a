from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from rasterio.features import rasterize

from footprint_pipeline.dataset.polygons import build_polygon_table
from footprint_pipeline.dataset.rasterize import covered_pixels, rasterize_polygons
from footprint_pipeline.dataset.tiles import index_tiles
from footprint_pipeline.spacenet.labels import read_labels
from footprint_pipeline.spacenet.layout import discover

SIDE = 40


def gdals(polygons: list[shapely.Geometry], height: int = SIDE, width: int = SIDE) -> np.ndarray:
    if not polygons:
        return np.zeros((height, width), np.uint8)
    return rasterize(polygons, out_shape=(height, width), dtype="uint8")


def ours(polygons: list[shapely.Geometry], height: int = SIDE, width: int = SIDE) -> np.ndarray:
    return rasterize_polygons(np.array(polygons, object), height=height, width=width)


def on_any_coordinates(rng: np.random.Generator, vertices: int) -> np.ndarray:
    return rng.uniform(-5, SIDE + 5, (vertices, 2))


def on_corners(rng: np.random.Generator, vertices: int) -> np.ndarray:
    return rng.integers(-3, SIDE + 3, (vertices, 2)).astype(float)


def on_corners_and_centres(rng: np.random.Generator, vertices: int) -> np.ndarray:
    return rng.integers(-6, 2 * SIDE + 6, (vertices, 2)) / 2


def a_hair_off_centres(rng: np.random.Generator, vertices: int) -> np.ndarray:
    return rng.integers(-3, SIDE + 3, (vertices, 2)) + 0.5 + rng.choice([-1e-12, 0, 1e-12, 0.25], (vertices, 2))


def random_polygons(rng: np.random.Generator, points: object) -> list[shapely.Geometry]:
    """One to three polygons: any ring (also one that crosses itself), boxes turning both ways, holes, many parts."""
    polygons = [shapely.Polygon(points(rng, int(rng.integers(3, 9)))) for _ in range(rng.integers(1, 4))]
    if rng.random() < 0.3:
        low, sides = points(rng, 1)[0], rng.integers(1, 30, 2) / 2
        polygons.append(shapely.box(*low, *(low + sides), ccw=bool(rng.integers(2))))
    if rng.random() < 0.5:
        sound = [shapely.make_valid(polygon) for polygon in polygons]
        shape = sound[0]
        for other in sound[1:]:
            shape = shape.difference(other) if rng.random() < 0.5 else shape.union(other)
        polygons = [part for part in shapely.get_parts(shape) if part.geom_type == "Polygon"]
        if rng.random() < 0.3:
            polygons = [shapely.MultiPolygon(polygons)]
    return [polygon for polygon in polygons if not polygon.is_empty]


@pytest.mark.parametrize("points", [on_any_coordinates, on_corners, on_corners_and_centres, a_hair_off_centres])
def test_random_polygons_are_filled_as_gdal_fills_them(points: object) -> None:
    rng = np.random.default_rng(len(points.__name__))
    filled = 0
    for number in range(600):
        polygons = random_polygons(rng, points)
        expected = gdals(polygons)
        assert np.array_equal(ours(polygons), expected), (number, [polygon.wkt for polygon in polygons])
        filled += int(expected.sum())
    assert filled > 50_000


@pytest.mark.parametrize("ccw", [True, False])
def test_edges_along_pixel_centres_are_gdals_in_shells_and_holes(ccw: bool) -> None:
    for top, bottom in [(2.5, 7.5), (2.5, 7), (2, 7.5), (-0.5, 3.5), (35.5, 40.5)]:
        box = shapely.box(1.5, top, 12.5, bottom, ccw=ccw)
        yard = shapely.Polygon(shapely.box(-1, -3, 30, 45).exterior, [box.exterior])
        for shape in (box, yard, shapely.MultiPolygon([box, shapely.box(20, top, 22, bottom)])):
            assert np.array_equal(ours([shape]), gdals([shape])), shape.wkt


def test_a_pixel_belongs_to_a_building_when_its_centre_does() -> None:
    drawn = shapely.box(1.4, 0.6, 3.6, 2.4)  # holds the centres of columns 1 (1.5) to 3 (3.5), but of row 1 only
    expected = np.zeros((4, 5), np.uint8)
    expected[1, 1:4] = 1
    assert np.array_equal(ours([drawn], 4, 5), expected)
    assert not ours([shapely.box(1.6, 1.6, 2.4, 2.4)], 4, 5).any()


def test_holes_stay_open_and_overlaps_count_once() -> None:
    ring = shapely.box(0, 0, 8, 8).difference(shapely.box(2, 2, 6, 6))
    mask = ours([ring, shapely.box(0, 0, 4, 1)], 8, 8)
    assert mask.sum() == 64 - 16
    assert mask.max() == 1
    assert not mask[2:6, 2:6].any()


def test_a_polygon_larger_than_the_grid_fills_it_and_one_beside_it_leaves_it() -> None:
    assert ours([shapely.box(-9, -9, 99, 99)], 3, 4).all()
    for beside in ((-9, 0, -1, 3), (5, 0, 9, 3), (0, -9, 4, -1), (0, 4, 4, 9)):
        assert not ours([shapely.box(*beside)], 3, 4).any()


def test_no_polygons_and_empty_ones_are_an_empty_mask() -> None:
    for polygons in ([], [shapely.Polygon(), shapely.MultiPolygon()]):
        mask = ours(polygons, 3, 4)
        assert (mask.shape, mask.dtype, int(mask.sum())) == ((3, 4), np.uint8, 0)


def test_pixels_are_counted_once_for_every_figure_and_not_where_a_figure_lies_over_itself() -> None:
    polygons = np.array([shapely.box(0, 0, 3, 1), shapely.box(1, 0, 2, 1), shapely.box(2, 0, 4, 1)], object)
    apart = covered_pixels(polygons, height=1, width=4, figures=np.arange(3))
    assert np.bincount(apart).tolist() == [1, 2, 2, 1]
    together = covered_pixels(polygons, height=1, width=4, figures=np.array([0, 0, 1]))
    assert np.bincount(together).tolist() == [1, 0, 2, 1]


@pytest.mark.parametrize("name", ["accra", "rio", "vegas"])
def test_real_labels_are_filled_as_gdal_fills_them(real_data: Path, name: str) -> None:
    found = discover(real_data / name)
    table = read_labels(found, skip_bad=True).table
    chosen = [tile for tile in found.tiles if tile.tile_id in set(table["tile_id"])][:6]
    tiles = index_tiles([(tile.tile_id, tile.image) for tile in chosen], aoi=name).table
    polygons = build_polygon_table(table, tiles).table
    for tile in tiles.itertuples():
        of_tile = polygons["geometry_px"].to_numpy()[polygons["tile_id"] == tile.tile_id]
        expected = rasterize(
            of_tile, out_shape=(tile.height, tile.width), transform=rasterio.Affine.identity(), dtype="uint8"
        )
        assert expected.any()
        assert np.array_equal(rasterize_polygons(of_tile, height=tile.height, width=tile.width), expected)
