import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

from footprint_pipeline.dataset import exploration
from footprint_pipeline.dataset.exploration import AoiDataset, TileSample
from footprint_pipeline.dataset.polygons import SQUARE_FEET_A_SQUARE_METRE
from footprint_pipeline.footprints.normalization import UINT8, Normalization


def tile_index() -> gpd.GeoDataFrame:
    """Three tiles of 100 × 200 pixels of 0.5 × 1 m, the last one half without imagery."""
    rows = {
        "tile_id": ["a", "b", "c"], "width": 100, "height": 200, "gsd_x_m": 0.5, "gsd_y_m": 1.0,
        "valid_share": [1.0, 1.0, 0.5],
    }  # fmt: skip
    return gpd.GeoDataFrame(rows, geometry=[shapely.box(i, 0, i + 1, 1) for i in range(3)], crs="EPSG:4326")


def polygon_table(*rows: tuple[str, shapely.Geometry]) -> gpd.GeoDataFrame:
    """Labels in pixels; areas by the grid of `tile_index`."""
    area_m2 = np.array([shape.area * 0.5 for _, shape in rows])
    return gpd.GeoDataFrame(
        {
            "tile_id": [tile for tile, _ in rows],
            "building_id": range(len(rows)),
            "area_m2": area_m2,
            "area_sqft": area_m2 * SQUARE_FEET_A_SQUARE_METRE,
        },
        geometry=gpd.GeoSeries([shape for _, shape in rows]).rename("geometry_px"),
    ).rename_geometry("geometry_px")


BUILDINGS = [("a", shapely.box(10, 10, 20, 20)), ("a", shapely.box(40, 10, 60, 20)), ("b", shapely.box(0, 0, 30, 20))]


def dataset(polygons: gpd.GeoDataFrame, manifest: pd.DataFrame) -> AoiDataset:
    tiles = exploration.describe_tiles(tile_index(), manifest, polygons)
    nothing = exploration.measure_colours([])
    return AoiDataset("Town", tiles, polygons, pd.DataFrame({"reason": []}), None, "0" * 12, nothing)


def manifest(**columns: object) -> pd.DataFrame:
    return pd.DataFrame({"tile_id": ["b", "a"], "split": ["test", "train"], "coverage": [0.03, 0.015], **columns})


def test_a_size_class_holds_its_lower_bound_and_not_its_upper() -> None:
    areas = np.array([0.0, 9.99, 10, 999.9, 1000, 4999, 5000, 29_999, 30_000, 1e6])
    table = exploration.size_table(areas)
    assert table["class"].tolist() == ["tiny", "X-small", "small", "medium", "large"]
    assert table["buildings"].tolist() == [2, 2, 2, 2, 2]
    assert table["share"].tolist() == [0.2] * 5
    assert table["area_share"].iloc[-1] == pytest.approx(1_030_000 / areas.sum())
    assert table["sqft"].tolist() == ["< 10", "10–1,000", "1,000–5,000", "5,000–30,000", "≥ 30,000"]
    assert table["m2"].tolist() == ["< 1", "1–93", "93–465", "465–2,787", "≥ 2,787"]


def test_no_building_at_all_is_a_table_of_zeros() -> None:
    table = exploration.size_table(np.empty(0))
    assert table["buildings"].tolist() == [0] * 5
    assert table["share"].tolist() == [0.0] * 5


def test_tiles_are_told_their_labels_their_share_and_their_split() -> None:
    tiles = exploration.describe_tiles(tile_index(), manifest(block=["r1", "r0"]), polygon_table(*BUILDINGS))
    assert tiles["buildings"].tolist() == [2, 1, 0]
    assert tiles["coverage"].tolist() == [0.015, 0.03, 0.0]
    assert tiles["split"].tolist() == ["train", "test", "left out"]
    assert tiles["block"].tolist()[:2] == ["r0", "r1"]
    assert "block" not in exploration.describe_tiles(tile_index(), manifest(), polygon_table(*BUILDINGS))


def test_the_key_numbers_of_a_small_town() -> None:
    found = exploration.summarize(dataset(polygon_table(*BUILDINGS), manifest()))
    assert (found.tiles, found.empty_tiles, found.buildings) == (3, 1, 3)
    assert found.area_km2 == pytest.approx(2.5 * 100 * 200 * 0.5 / 1e6)
    assert found.valid_share == pytest.approx(2.5 / 3)
    assert found.gsd_m == pytest.approx(0.5**0.5)
    assert found.buildings_per_km2 == pytest.approx(3 / found.area_km2)
    assert (found.area_m2_quartile_1, found.area_m2_median, found.area_m2_quartile_3) == (75.0, 100.0, 200.0)
    assert (found.area_m2_largest, found.area_m2_sum) == (300.0, 450.0)
    assert found.coverage == pytest.approx(0.045 / 3)


def test_a_town_without_a_building_has_no_median() -> None:
    found = exploration.summarize(dataset(polygon_table(), manifest()))
    assert found.empty_tiles == 3
    assert np.isnan([found.area_m2_median, found.area_m2_largest]).all()
    assert found.area_m2_sum == 0


def test_splits_are_counted_in_their_usual_order() -> None:
    table = exploration.split_table(dataset(polygon_table(*BUILDINGS), manifest()).tiles)
    assert table["split"].tolist() == ["train", "test", "left out"]
    assert table["tiles"].tolist() == [1, 1, 1]
    assert table["empty"].tolist() == [0, 0, 1]
    assert table["buildings"].tolist() == [2, 1, 0]
    assert table["coverage"].tolist() == [0.015, 0.03, 0.0]


def test_labels_are_told_apart_by_their_geometry() -> None:
    yard = shapely.Polygon(shapely.box(40, 40, 60, 60).exterior, [shapely.box(45, 45, 50, 50).exterior])
    two = shapely.MultiPolygon([shapely.box(70, 70, 75, 75), yard])
    twin = shapely.box(10, 10, 20, 20)
    polygons = polygon_table(
        ("a", twin), ("a", twin), ("b", twin), ("a", yard), ("b", two),
        ("c", shapely.box(0.4, 5, 9, 9)), ("c", shapely.box(90, 190, 99.6, 199)), ("c", shapely.box(1, 1, 99, 199)),
    )  # fmt: skip
    found = exploration.label_table(polygons, tile_index()).set_index("kind")["labels"]
    assert found.to_dict() == {
        "touch the edge of their tile": 2,
        "are in several parts": 1,
        "have a courtyard": 2,
        "repeat another label exactly": 1,
    }
    assert (exploration.label_table(polygon_table(), tile_index())["labels"] == 0).all()


def test_colours_are_those_of_valid_pixels_as_the_network_sees_them() -> None:
    valid = np.array([[True, True], [True, False]])
    image = np.zeros((2, 2, 3), np.uint8)
    image[valid] = [[0, 10, 255], [0, 20, 255], [0, 30, 255]]
    image[1, 1] = 77
    mask = np.array([[1, 0], [0, 1]], np.uint8)
    wide = Normalization(low=(100, 100, 100), high=(1123, 1123, 1123))
    sensor = np.full((1, 1, 3), 1123, np.uint16)
    found = exploration.measure_colours(
        [TileSample(image, valid, mask, UINT8), TileSample(sensor, np.ones((1, 1), bool), mask[:1, 1:], wide)]
    )
    assert (found.tiles, found.pixels, found.highest) == (2, 5, 1123)
    assert (found.building_pixels, found.blind_building_pixels) == (2, 1)
    assert found.valid_share == 0.8
    assert found.counts.sum(axis=1).tolist() == [4, 4, 4]
    assert found.counts[0, [0, 255]].tolist() == [3, 1]
    bands = found.bands().set_index("band")
    assert bands.loc["green", "mean"] == pytest.approx(np.mean([10, 20, 30, 255]))
    assert bands.loc["green", "std"] == pytest.approx(np.std([10, 20, 30, 255]))
    assert bands.loc["red", "dark"] == 0.75
    assert bands.loc["blue", "bright"] == 1.0


def test_samples_are_the_same_every_time_and_never_larger_than_what_there_is() -> None:
    assert exploration.sample_rows(3, 10).tolist() == [0, 1, 2]
    once = exploration.sample_rows(1000, 50)
    assert len(set(once)) == 50
    assert (np.diff(once) > 0).all()
    assert np.array_equal(once, exploration.sample_rows(1000, 50))
    assert not np.array_equal(once, exploration.sample_rows(1000, 50, seed=1))
    polygons = polygon_table(*[("a", shapely.box(0, 0, 1, side)) for side in range(1, 60)])
    small = exploration.sample_of_class(polygons, exploration.SIZE_CLASSES[1], 6)
    assert len(small) == 6
    assert (np.diff(small["area_sqft"]) > 0).all()
    assert small["area_sqft"].min() >= 10
    assert exploration.sample_of_class(polygons, exploration.SIZE_CLASSES[3], 6).empty


def test_typical_buildings_are_the_median_of_a_class_and_the_largest() -> None:
    sides = (100, 200, 300, 400, 1000, 2000)  # halves of them in square metres
    polygons = polygon_table(*[("a", shapely.box(0, 0, 1, side)) for side in sides])
    found = {name: row["area_m2"] for name, row in exploration.typical(polygons).items()}
    assert found == {"small": 150.0, "medium": 1000.0, "largest": 1000.0}
    assert exploration.typical(polygon_table()) == {}
