from collections.abc import Iterator
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely

from footprint_pipeline.dataset.caching import model_gsd
from footprint_pipeline.errors import DatasetError
from footprint_pipeline.evaluation import scoring
from footprint_pipeline_tests.dataset.conftest import City, build_city


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> City:
    return build_city(tmp_path_factory.mktemp("city"))


def bright(batch: np.ndarray) -> np.ndarray:
    """A network that takes bright pixels for roofs."""
    return (batch[..., :1] > 0.6).astype(np.float32) * np.float32(0.9)


def predict(city: City, infer: object = bright, **options: float) -> Iterator[scoring.TilePrediction]:
    return scoring.predict_tiles(city.manifest, infer, gsd_m=options.get("gsd_m", model_gsd(city.manifest)), stride=16)


def test_tiles_are_predicted_on_their_own_grid(city: City) -> None:
    seen: list[tuple[int, int]] = []
    found = list(
        scoring.predict_tiles(city.manifest, bright, gsd_m=0.5, stride=16, progress=lambda *at: seen.append(at))
    )
    assert [prediction.tile_id for prediction in found] == city.manifest["tile_id"].tolist()
    assert seen[-1] == (8, 8)
    for prediction in found:
        assert prediction.aoi == "Town"
        assert prediction.probability.shape == prediction.truth.shape == prediction.image.shape[:2] == (40, 48)
        assert prediction.probability.dtype == np.float32
        assert np.array_equal(prediction.probability > 0.5, prediction.truth == 1)


def test_the_network_sees_its_own_resolution_and_a_multiple_of_its_stride(city: City) -> None:
    shapes = set()

    def watched(batch: np.ndarray) -> np.ndarray:
        shapes.add((batch.shape, str(batch.dtype)))
        return bright(batch)

    found = list(predict(city, watched, gsd_m=0.25))
    assert shapes == {((1, 80, 96, 3), "float32")}
    assert found[0].probability.shape == (40, 48)
    scores = scoring.score_tiles(predict(city, watched, gsd_m=1.0), city.polygons, tolerance=0.5)
    assert ((1, 32, 32, 3), "float32") in shapes
    assert scores.pooled_pixel_f1 > 0.9


def test_buildings_are_told_apart_where_the_network_works_and_placed_on_the_tiles_grid() -> None:
    """A gap of one pixel of the network's is none on a grid half as fine."""
    at_network = np.zeros((80, 120), np.float32)
    at_network[20:60, 20:61] = at_network[20:60, 62:100] = 1.0
    found = scoring.Answer(at_network, None, (40, 50), 0.25).footprints(tolerance=0.5, seed_level=None)
    left, right = sorted(polygon.bounds for polygon in found.polygons)
    large = scoring.Answer(at_network, None, (40, 50), 0.25)
    assert len(large.footprints(tolerance=0.5, seed_level=None, min_area_m2=40 * 40 * 0.25**2)) == 1
    assert left == pytest.approx((20 * 50 / 120, 10, 61 * 50 / 120, 30), abs=0.26)
    assert right == pytest.approx((62 * 50 / 120, 10, 100 * 50 / 120, 30), abs=0.26)


def test_the_heads_make_the_interior(city: City) -> None:
    def with_rims(batch: np.ndarray) -> np.ndarray:
        roof = bright(batch)
        return np.concatenate([roof, 0.5 * roof, np.full_like(roof, 0.25)], axis=-1)

    shown = scoring.predict_tiles(
        city.manifest, with_rims, gsd_m=0.25, stride=16, heads=("building", "border", "contact"), flips=4
    )
    first = next(shown)
    assert first.answer.size == first.probability.shape == (40, 48)
    assert first.answer.probability.shape == (80, 96)
    assert first.answer.interior is not None
    roofs = first.answer.probability > 0.5
    assert roofs.any()
    assert first.answer.interior[roofs] == pytest.approx(0.9 * 0.55 * 0.75)
    plain = next(iter(predict(city, gsd_m=0.25)))
    assert plain.answer.interior is None


def test_a_seed_level_separates_what_is_scored(city: City) -> None:
    def seen(batch: np.ndarray) -> np.ndarray:
        roof = bright(batch)
        rim = np.ones_like(roof)
        rim[:, :, ::12] = 0  # a rim nearly everywhere: many small seeds
        return np.concatenate([roof, 1 - rim], axis=-1)

    def told() -> Iterator[scoring.TilePrediction]:
        return scoring.predict_tiles(city.manifest, seen, gsd_m=0.25, stride=16, heads=("building", "border"))

    whole = scoring.score_tiles(told(), city.polygons, tolerance=0.5)
    cut = scoring.score_tiles(told(), city.polygons, tolerance=0.5, seed_level=0.5)
    assert cut.by_aoi["proposals"].item() > whole.by_aoi["proposals"].item()
    assert cut.pooled_pixel_f1 == whole.pooled_pixel_f1


def half_dark(folder: Path) -> City:
    """A city whose first tile has no imagery in its upper 20 rows."""
    city = build_city(folder, count=4)
    with rasterio.open(city.manifest["path"][0], "r+") as tile:
        pixels = tile.read()
        pixels[:, :20] = 0
        tile.write(pixels)
    return city


def test_nothing_is_claimed_where_there_is_no_imagery(tmp_path: Path) -> None:
    city = half_dark(tmp_path)
    first = next(iter(predict(city, lambda batch: np.ones((*batch.shape[:3], 1), np.float32))))
    assert not first.probability[:20].any()
    assert (first.probability[20:] == 1).all()


def test_a_network_that_is_right_scores_one(city: City) -> None:
    kept: list[tuple[str, float]] = []
    scores = scoring.score_tiles(
        predict(city), city.polygons, tolerance=0.5, on_tile=lambda tile, f1: kept.append((tile.tile_id, f1))
    )
    assert scores.metrics() == {
        "median_tile_f1": pytest.approx(1.0), "pooled_pixel_f1": pytest.approx(1.0), "building_f1": pytest.approx(1.0),
    }  # fmt: skip
    assert scores.tiles["building_tp"].tolist() == [3] * 7 + [0]
    assert scores.by_aoi[["aoi", "tiles", "buildings", "proposals"]].values.tolist() == [["Town", 8, 21, 21]]
    assert kept == [(tile, 1.0) for tile in city.manifest["tile_id"]]


def test_a_network_that_sees_nothing_scores_zero_but_not_on_the_empty_tile(city: City) -> None:
    scores = scoring.score_tiles(
        predict(city, lambda batch: np.zeros((*batch.shape[:3], 1), np.float32)), city.polygons, tolerance=0.5
    )
    assert set(scores.metrics().values()) == {0.0}
    assert scores.tiles["pixel_f1"].tolist() == [0.0] * 7 + [1.0]
    assert scores.tiles["building_fn"].sum() == 21


def test_the_tolerance_decides_what_is_claimed(city: City) -> None:
    strict = scoring.score_tiles(predict(city), city.polygons, tolerance=0.05)  # claims only above .95
    assert strict.pooled_pixel_f1 == 0.0
    assert strict.by_aoi["tolerance"].tolist() == [0.05]
    aoi = strict.tiles["aoi"].iloc[0]
    own = scoring.score_tiles(predict(city), city.polygons, tolerance=0.05, own_tolerances={aoi: 0.5, "Rio": 0.05})
    assert own.metrics() == scoring.score_tiles(predict(city), city.polygons, tolerance=0.5).metrics()
    assert own.by_aoi["tolerance"].tolist() == [0.5]


def test_no_tile_is_an_error(city: City) -> None:
    with pytest.raises(DatasetError, match="no tile to score"):
        scoring.score_tiles(iter(()), city.polygons, tolerance=0.5)


def tiles(*rows: tuple[str, int, int, int, int, int, int]) -> pd.DataFrame:
    names = ["aoi", "pixel_tp", "pixel_fp", "pixel_fn", "building_tp", "building_fp", "building_fn"]
    frame = pd.DataFrame(rows, columns=names)
    whole = 2 * frame["pixel_tp"] + frame["pixel_fp"] + frame["pixel_fn"]
    return frame.assign(
        tolerance=0.5, pixels=100, pixel_f1=(2 * frame["pixel_tp"] / whole.where(whole > 0)).fillna(1.0)
    )


def test_cities_count_the_same_for_buildings_and_pixels_for_pixels() -> None:
    scores = scoring.summarize(
        tiles(
            ("Rio", 50, 10, 10, 8, 2, 0),
            ("Rio", 10, 40, 0, 0, 0, 2),
            ("Rio", 0, 0, 0, 0, 0, 0),
            ("Accra", 30, 0, 0, 1, 0, 3),
        )
    )
    assert scores.by_aoi["aoi"].tolist() == ["Accra", "Rio"]
    accra, rio = scores.by_aoi.to_dict("records")
    assert (rio["tiles"], rio["buildings"], rio["proposals"]) == (3, 10, 10)
    assert rio["building_f1"] == pytest.approx(16 / 20)
    assert (accra["building_precision"], accra["building_recall"]) == (1.0, 0.25)
    assert scores.building_f1 == pytest.approx((0.8 + 0.4) / 2)
    assert scores.pooled_pixel_f1 == pytest.approx(180 / (180 + 50 + 10))
    assert scores.median_tile_f1 == pytest.approx(np.median([100 / 120, 20 / 60, 1.0]))
    assert rio["median_tile_f1"] == pytest.approx(np.mean([100 / 120, 20 / 60]))
    assert rio["all_building_pixel_f1"] == pytest.approx(2 * 70 / (70 + 300))  # 70 of 300 pixels are a building's


def test_a_city_with_nothing_in_it_and_nothing_claimed_says_nothing_of_buildings() -> None:
    rio, empty = ("Rio", 50, 10, 10, 8, 2, 0), ("Empty", 0, 0, 0, 0, 0, 0)
    assert scoring.summarize(tiles(rio, empty)).building_f1 == scoring.summarize(tiles(rio)).building_f1
    claimed = ("Empty", 0, 9, 0, 0, 1, 0)
    assert scoring.summarize(tiles(rio, claimed)).building_f1 == scoring.summarize(tiles(rio)).building_f1 / 2
    assert scoring.summarize(tiles(empty)).building_f1 == 0.0


def test_tiles_without_building_pixels_have_no_median() -> None:
    scores = scoring.summarize(tiles(("Rio", 0, 5, 0, 0, 1, 0)))
    assert (scores.median_tile_f1, scores.pooled_pixel_f1, scores.building_f1) == (0.0, 0.0, 0.0)


def test_a_label_of_several_parts_or_under_another_counts_where_most_of_it_is_on_imagery() -> None:
    valid = np.zeros((40, 40), bool)
    valid[:, 20:] = True
    both = shapely.MultiPolygon([shapely.box(0, 0, 10, 10), shapely.box(25, 0, 40, 10)])
    off = shapely.MultiPolygon([shapely.box(0, 0, 15, 10), shapely.box(30, 0, 40, 10)])
    under, over = shapely.box(10, 20, 31, 30), shapely.box(20, 15, 40, 35)
    dot = shapely.box(30.1, 38.1, 30.2, 38.2)  # no pixel has its centre in it
    labels = np.array([both, off, under, over, dot], object)
    table = gpd.GeoDataFrame({"aoi": "X", "tile_id": "a", "geometry_px": labels}, geometry="geometry_px")
    grid = np.zeros((40, 40), np.float32)
    prediction = scoring.TilePrediction(
        "a",
        "X",
        np.zeros((40, 40, 3), np.uint8),
        grid.astype(np.uint8),
        valid,
        grid,
        scoring.Answer(grid, None, (40, 40), 0.5),
    )
    assert scoring.tile_buildings(table)(prediction).tolist() == [both, under, over, dot]


def test_what_is_labelled_where_there_is_no_imagery_cannot_be_missed(tmp_path: Path) -> None:
    city = build_city(tmp_path, count=4)
    with rasterio.open(city.manifest["path"][0], "r+") as tile:
        pixels = tile.read()
        pixels[:, :, :20] = 0  # all of one building and a third of another
        tile.write(pixels)
    scores = scoring.score_tiles(predict(city), city.polygons, tolerance=0.5)
    assert scores.pixels.count.sum() == scores.tiles["pixels"].sum() < 4 * 48 * 48
    first = scores.tiles.iloc[0]
    assert first["pixel_f1"] == first["building_f1"] == 1.0
    whole = scoring.score_tiles(predict(build_city(tmp_path / "whole", count=4)), city.polygons, tolerance=0.5)
    assert (first["building_tp"], whole.tiles["building_tp"][0]) == (2, 3)
    assert 0 < first["pixel_tp"] < whole.tiles["pixel_tp"][0]


def test_areas_are_of_the_ground_whatever_the_network_sees(city: City) -> None:
    scores = scoring.score_tiles(predict(city, gsd_m=0.25), city.polygons, tolerance=0.5)
    for table in (scores.buildings, scores.proposals):
        assert table["area_m2"].to_numpy() == pytest.approx(10 * 12 * 0.5**2, rel=0.05)


def test_footprints_that_are_too_small_are_no_proposals(city: City) -> None:
    scores = [
        scoring.score_tiles(predict(city), city.polygons, tolerance=0.5, min_area_m2=least) for least in (25.0, 35.0)
    ]
    assert [each.by_aoi[["proposals", "buildings"]].values.tolist() for each in scores] == [[[21, 21]], [[0, 21]]]


def test_a_pixel_of_just_what_is_to_be_exceeded_is_not_claimed(city: City) -> None:
    halves = predict(city, lambda batch: np.full((*batch.shape[:3], 1), 0.5, np.float32))
    scores = scoring.score_tiles(halves, city.polygons, tolerance=0.5)
    assert scores.tiles[["pixel_tp", "pixel_fp"]].to_numpy().sum() == 0


def test_no_building_is_claimed_where_there_is_no_imagery(tmp_path: Path) -> None:
    here = half_dark(tmp_path)
    first = next(iter(predict(here, lambda batch: np.ones((*batch.shape[:3], 1), np.float32), gsd_m=0.25)))
    (whole,) = first.answer.footprints(tolerance=0.5, seed_level=None).polygons
    assert whole.bounds == pytest.approx((0, 20, 48, 40), abs=0.6)


def test_tiles_of_one_name_in_two_areas_keep_their_own_labels(city: City) -> None:
    other = city.polygons.assign(aoi="Village")
    other["geometry_px"] = [shapely.box(0, 0, 8, 8)] * len(other)
    alone = scoring.score_tiles(predict(city), city.polygons, tolerance=0.5)
    both = scoring.score_tiles(predict(city), pd.concat([other, city.polygons], ignore_index=True), tolerance=0.5)
    assert both.metrics() == alone.metrics()


def test_a_label_without_a_pixel_is_where_its_middle_is() -> None:
    valid = np.zeros((30, 40), bool)
    valid[:10, 25:] = True
    seen, unseen = shapely.box(30.1, 5.1, 30.2, 5.2), shapely.box(5.1, 28.1, 5.2, 28.2)
    assert scoring._share_seen(seen, valid) == 1.0
    assert scoring._share_seen(unseen, valid) == 0.0
