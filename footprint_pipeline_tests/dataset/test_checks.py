"""Each check on good data, and on data made wrong in exactly the way that it looks for."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely

from footprint_pipeline.dataset.checks.record import require_passed
from footprint_pipeline.dataset.checks.run import CHECKS, run_checks
from footprint_pipeline.dataset.checks.spec import CheckResult, CheckSpec
from footprint_pipeline.dataset.label_counts import (
    LabelCounts,
    label_counts_path,
    read_label_counts,
    write_label_counts,
)
from footprint_pipeline.dataset.masks import mask_path
from footprint_pipeline.dataset.polygons import read_polygon_table, write_polygon_table
from footprint_pipeline.dataset.spec import SplitSpec
from footprint_pipeline.dataset.splits import read_manifests, write_manifest
from footprint_pipeline.dataset.tiles import TileIndex, read_tile_index, write_tile_index
from footprint_pipeline.errors import DatasetError
from footprint_pipeline.lake import AoiFolder
from footprint_pipeline_tests.dataset.conftest import UTM, build_city, write_image

ASSETS = ("image_tiles", "building_polygons", "mask_tiles", "split_manifests")
SMALL = CheckSpec(min_tiles_with_buildings=1)
SPLIT = ["train"] * 5 + ["guard"] + ["validation"] * 2 + ["guard"] + ["test"] * 3
COUNTS = LabelCounts(rows=34, empty=1, repaired=0, rejected=0, slivers=0, outside=0, clipped=0, unlabelled=())


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> AoiFolder:
    """Twelve tiles in a row, img0 … img11, three roofs each but none in img11; split in three with guards between."""
    folder = AoiFolder(tmp_path_factory.mktemp("lake") / "Town")
    city = build_city(folder.raw, count=12)
    write_tile_index(TileIndex(city.tiles), folder.tiles)
    write_polygon_table(city.polygons, folder.polygons)
    shutil.move(city.masks, folder.masks)
    number = city.manifest["tile_id"].str.removeprefix("Town_img").astype(int)
    manifest = city.manifest.assign(split=number.map(dict(enumerate(SPLIT))))
    write_manifest(manifest.assign(block=manifest["split"] + "@100"), folder.manifest, SplitSpec())
    pd.DataFrame(columns=["file", "row", "tile_id", "reason", "text"]).to_csv(folder.rejected_labels, index=False)
    write_label_counts(COUNTS, label_counts_path(folder))
    return folder


@pytest.fixture
def aoi(good: AoiFolder, tmp_path: Path) -> AoiFolder:
    """A copy that a test may spoil."""
    shutil.copytree(good.folder, tmp_path / "Town")
    return AoiFolder(tmp_path / "Town")


def check(folder: AoiFolder, name: str, spec: CheckSpec = SMALL) -> CheckResult:
    """One check, alone wrong among those of its asset where it is wrong."""
    asset = next(check.asset for check in CHECKS if check.name == name)
    results = {result.name: result for result in run_checks(folder, asset, spec)}
    assert all(result.passed for other, result in results.items() if other != name)
    return results[name]


def change_tiles(folder: AoiFolder, tile_id: str, **values: object) -> None:
    tiles = read_tile_index(folder.tiles)
    for column, value in values.items():
        tiles.loc[tiles["tile_id"] == tile_id, column] = value
    write_tile_index(TileIndex(tiles), folder.tiles)


def change_polygons(folder: AoiFolder, change: Callable[[gpd.GeoDataFrame], gpd.GeoDataFrame]) -> None:
    write_polygon_table(change(read_polygon_table(folder.polygons)), folder.polygons)


def change_manifest(folder: AoiFolder, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    write_manifest(change(read_manifests([folder.manifest])), folder.manifest, SplitSpec())


def change_mask(folder: AoiFolder, tile_id: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    with rasterio.open(mask_path(folder.masks, tile_id), "r+") as target:
        target.write(change(target.read(1)), 1)


def test_good_data_passes_every_check(good: AoiFolder) -> None:
    results = [result for asset in ASSETS for result in run_checks(good, asset, SMALL)]
    assert [result.name for result in results] == [check.name for check in CHECKS]
    assert [result.description for result in results if not result.passed] == []
    assert all(result.fix == "" and result.description for result in results)
    numbers = {result.name: result.numbers for result in results}
    assert numbers["tiles_have_grids"]["crs"] == UTM
    assert numbers["tiles_have_grids"]["gsd_m_max"] == pytest.approx(0.5, rel=1e-2)
    assert numbers["labels_lie_on_their_tiles"]["labelled_tiles"] == 11
    assert numbers["masks_agree_with_polygons"]["masks_m2"] == pytest.approx(33 * 120 * 0.25, rel=1e-2)
    assert numbers["masks_agree_with_polygons"]["difference_share"] == pytest.approx(0, abs=1e-6)
    assert numbers["splits_are_apart"]["guard_tiles"] == 2
    assert numbers["every_split_has_buildings"]["test_with_buildings"] == 2
    assert numbers["classes_are_in_balance"]["coverage_train"] == pytest.approx(360 / 1920)


def test_no_training_on_what_failed_until_it_is_put_right(aoi: AoiFolder) -> None:
    mask = mask_path(aoi.masks, "Town_img3")
    kept = mask.read_bytes()
    change_mask(aoi, "Town_img3", np.zeros_like)
    run_checks(aoi, "mask_tiles", SMALL)
    with pytest.raises(DatasetError, match=r"Town: its data failed the check masks_agree.*Town_img3") as caught:
        require_passed(aoi)
    assert "footprint prepare" in caught.value.fix
    run_checks(aoi, "image_tiles", SMALL)  # says nothing of masks
    with pytest.raises(DatasetError):
        require_passed(aoi)
    mask.write_bytes(kept)
    run_checks(aoi, "mask_tiles", SMALL)
    require_passed(aoi)
    assert not aoi.failed_checks.exists()


def test_every_check_asks_a_question() -> None:
    assert all(check.question.endswith("?") and "\n" not in check.question for check in CHECKS)
    assert len({check.name for check in CHECKS}) == len(CHECKS)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"crs": None}, "without a known CRS"),
        ({"crs": "EPSG:999999"}, "without a known CRS"),
        ({"gsd_x_m": 55_000.0, "gsd_y_m": 55_000.0}, "with pixels outside 0.02 to 3 m"),
        ({"gsd_x_m": np.nan}, "with pixels outside"),
        ({"height": 8}, "less than 32 pixels"),
        ({"path": "/nowhere/img3.tif"}, "without a file"),
    ],
)
def test_a_tile_without_a_usable_grid_is_named(aoi: AoiFolder, values: dict[str, object], said: str) -> None:
    change_tiles(aoi, "Town_img3", **values)
    results = {result.name: result for result in run_checks(aoi, "image_tiles", SMALL)}
    result = results["tiles_have_grids"]
    assert not result.passed
    assert result.blocking
    assert "1 tile (`Town_img3`)" in result.description
    assert said in result.description
    assert "materialize image_tiles again" in result.fix


def test_a_tile_that_is_listed_twice_is_named(aoi: AoiFolder) -> None:
    tiles = read_tile_index(aoi.tiles)
    write_tile_index(TileIndex(pd.concat([tiles, tiles.iloc[[2]]], ignore_index=True)), aoi.tiles)
    result = check(aoi, "tiles_have_grids")
    assert not result.passed
    assert tiles["tile_id"][2] in result.description


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"crs": "EPSG:4326"}, f"another crs than the others' {UTM}"),
        ({"dtype": "uint16"}, "another dtype"),
        ({"width": 60}, "a width far from the median, 48 pixels"),
        ({"gsd_x_m": 0.6, "gsd_y_m": 0.6}, "pixels far from the median, 0.50 m"),
    ],
)
def test_a_tile_unlike_the_others_is_a_warning(aoi: AoiFolder, values: dict[str, object], said: str) -> None:
    change_tiles(aoi, "Town_img3", **values)
    result = check(aoi, "tiles_are_alike")
    assert not result.passed
    assert not result.blocking
    assert "`Town_img3`" in result.description
    assert said in result.description


def test_too_little_imagery_is_a_warning(aoi: AoiFolder) -> None:
    change_tiles(aoi, "Town_img3", valid_share=0.0)
    result = check(aoi, "tiles_have_imagery")
    assert result.description == "1 tile (`Town_img3`) without a pixel of imagery."
    assert result.numbers["valid_share"] == pytest.approx(11 / 12)
    assert "less than 95%" in check(aoi, "tiles_have_imagery", CheckSpec(min_valid_share=0.95)).description


def test_a_label_without_a_tile_is_named(aoi: AoiFolder) -> None:
    change_polygons(aoi, lambda table: table.assign(tile_id=table["tile_id"].replace("Town_img2", "Village_img2")))
    result = check(aoi, "labels_lie_on_their_tiles")
    assert not result.passed
    assert result.blocking
    assert result.description.startswith("3 labels (`Village_img2/")
    assert result.description.endswith(") without a tile in the index.")
    assert result.numbers["no_tile"] == 3


def test_a_label_that_lies_elsewhere_is_named(aoi: AoiFolder) -> None:
    def move(table: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
        table.loc[4, "geometry"] = shapely.transform(table.geometry[4], lambda xy: xy + np.array([0.0, 0.001]))
        return table

    change_polygons(aoi, move)
    result = check(aoi, "labels_lie_on_their_tiles")
    table = read_polygon_table(aoi.polygons)
    assert f"1 label (`{table['tile_id'][4]}/{table['building_id'][4]}`)" in result.description
    assert "do not lie on their tile on the ground" in result.description
    assert result.numbers["out_of_frame"] == 0


def test_a_label_out_of_its_frame_of_pixels_is_named(aoi: AoiFolder) -> None:
    def move(table: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
        moved = table["geometry_px"].copy()
        moved[0] = shapely.transform(moved[0], lambda xy: xy + np.array([0.0, 30.0]))
        return table.assign(geometry_px=moved)

    change_polygons(aoi, move)
    result = check(aoi, "labels_lie_on_their_tiles")
    assert "1 label (`Town_img0/0`) that leave their tile's frame of pixels." in result.description
    assert result.numbers["off_tile"] == 0


def test_polygons_without_a_crs_are_wrong(aoi: AoiFolder) -> None:
    change_polygons(aoi, lambda table: table.set_crs(None, allow_override=True))
    assert "CRS is None, not EPSG:4326" in check(aoi, "labels_lie_on_their_tiles").description


def reject(folder: AoiFolder, count: int, *, tile_id: str) -> None:
    row = {"file": "summary.csv", "row": 9, "tile_id": tile_id, "reason": "PolygonWKT_Geo is not WKT", "text": "POLYGN"}
    pd.DataFrame([row] * count).to_csv(folder.rejected_labels, index=False)
    write_label_counts(COUNTS.model_copy(update={"rejected": count}), label_counts_path(folder))


def test_many_rejected_labels_are_wrong_and_say_why(aoi: AoiFolder) -> None:
    reject(aoi, 5, tile_id="Town_img4")
    result = check(aoi, "few_labels_are_lost")
    assert not result.passed
    assert result.blocking
    assert result.description == (
        "5 of 38 labels are lost, more than 5%: 5 rejected on `Town_img4`: PolygonWKT_Geo is not WKT (5); "
        "0 outside their tile."
    )
    assert "labels_rejected.csv" in result.fix
    assert check(aoi, "few_labels_are_lost", CheckSpec(max_lost_share=0.2)).passed


def test_rejected_labels_of_tiles_that_are_not_there_are_no_loss(aoi: AoiFolder) -> None:
    reject(aoi, 500, tile_id="Village_img4")
    result = check(aoi, "few_labels_are_lost")
    assert result.passed
    assert result.numbers["rejected_of_other_tiles"] == 500


def test_labels_outside_their_tile_are_lost(aoi: AoiFolder) -> None:
    write_label_counts(COUNTS.model_copy(update={"outside": 3}), label_counts_path(aoi))
    assert "3 of 36 labels are lost" in check(aoi, "few_labels_are_lost").description


@pytest.mark.parametrize("why", ["too_small", "covered"])
@pytest.mark.parametrize(
    ("what", "name"), [({"outside": 3}, "few_labels_are_lost"), ({"repaired": 4}, "few_labels_were_repaired")]
)
def test_labels_that_are_too_small_by_choice_or_covered_are_no_loss(
    aoi: AoiFolder, what: dict[str, int], name: str, why: str
) -> None:
    write_label_counts(COUNTS.model_copy(update=what), label_counts_path(aoi))
    assert not check(aoi, name).passed
    write_label_counts(COUNTS.model_copy(update={**what, why: 300}), label_counts_path(aoi))
    assert check(aoi, name).passed


def test_many_slivers_are_lost_buildings_and_a_few_are_not(aoi: AoiFolder) -> None:
    write_label_counts(COUNTS.model_copy(update={"slivers": 1}), label_counts_path(aoi))
    assert check(aoi, "few_labels_are_lost").passed
    write_label_counts(COUNTS.model_copy(update={"slivers": 33}), label_counts_path(aoi))
    result = check(aoi, "few_labels_are_lost")
    assert result.blocking
    assert result.description == "33 of 66 labels have no area to speak of, more than 5%."


@pytest.mark.parametrize("content", [None, "{}", "not JSON"])
def test_labels_whose_reading_is_not_recorded_say_so(aoi: AoiFolder, content: str | None) -> None:
    label_counts_path(aoi).unlink() if content is None else label_counts_path(aoi).write_text(content)
    results = {result.name: result for result in run_checks(aoi, "building_polygons", SMALL)}
    assert results["labels_lie_on_their_tiles"].passed
    for name in ("few_labels_are_lost", "few_labels_were_repaired", "tiles_are_labelled"):
        assert not results[name].passed
        assert "Town/labels.json" in results[name].description
        assert results[name].fix == "Materialize building_polygons again."


def test_labels_whose_rejected_rows_are_gone_say_so(aoi: AoiFolder) -> None:
    aoi.rejected_labels.unlink()
    assert "labels_rejected.csv" in check(aoi, "few_labels_are_lost").description


def test_many_repaired_labels_are_a_warning(aoi: AoiFolder) -> None:
    write_label_counts(COUNTS.model_copy(update={"repaired": 4}), label_counts_path(aoi))
    result = check(aoi, "few_labels_were_repaired")
    assert not result.passed
    assert not result.blocking
    assert result.description.startswith("4 of 33 labels")


def test_tiles_that_nobody_labelled_are_a_warning(aoi: AoiFolder) -> None:
    counts = COUNTS.model_copy(update={"unlabelled": ("Town_img11", "Village_img1")})
    write_label_counts(counts, label_counts_path(aoi))
    result = check(aoi, "tiles_are_labelled")
    assert not result.passed
    assert not result.blocking
    assert result.description.startswith("1 tile (`Town_img11`) of 12")


def test_a_tile_without_a_mask_is_named(aoi: AoiFolder) -> None:
    mask_path(aoi.masks, "Town_img5").unlink()
    result = check(aoi, "every_tile_has_a_mask")
    assert not result.passed
    assert result.blocking
    assert result.description.startswith("1 tile (`Town_img5`) without a mask. ")
    assert "masks.parquet: 1 masks that it lists are gone" in result.description


def test_masks_that_were_not_finished_say_so(aoi: AoiFolder) -> None:
    (aoi.masks / "masks.parquet").unlink()
    assert "they are not complete" in check(aoi, "every_tile_has_a_mask").description


def test_a_mask_that_was_altered_is_named_with_its_areas(aoi: AoiFolder) -> None:
    change_mask(aoi, "Town_img5", np.zeros_like)
    result = check(aoi, "masks_agree_with_polygons")
    assert not result.passed
    assert result.blocking
    assert "`Town_img5`: 0 building pixels in its mask, 360 under its polygons (-90 m²)." in result.description
    assert "`Town_img5`: its mask was altered: 360 building pixels then, 0 now." in result.description
    assert result.numbers["worst_tile"] == "Town_img5"


def test_a_single_pixel_painted_into_a_mask_is_found(aoi: AoiFolder) -> None:
    def paint(mask: np.ndarray) -> np.ndarray:
        mask[np.unravel_index(np.argmin(mask), mask.shape)] = 1
        return mask

    change_mask(aoi, "Town_img5", paint)
    result = check(aoi, "masks_agree_with_polygons")
    assert result.description == "`Town_img5`: its mask was altered: 360 building pixels then, 361 now."


def test_small_differences_everywhere_add_up(aoi: AoiFolder) -> None:
    def grow(mask: np.ndarray) -> np.ndarray:
        mask.flat[np.flatnonzero(mask == 0)[:35]] = 1
        return mask

    for number in range(11):
        change_mask(aoi, f"Town_img{number}", grow)
    (aoi.masks / "masks.parquet").unlink()
    results = {result.name: result for result in run_checks(aoi, "mask_tiles", SMALL)}
    description = results["masks_agree_with_polygons"].description
    assert description.startswith("All together: 1,0")
    assert "m² of building in the masks, 99" in description


def test_polygons_that_overlap_are_counted_once(aoi: AoiFolder) -> None:
    change_polygons(aoi, lambda table: pd.concat([table, table], ignore_index=True))
    result = check(aoi, "masks_agree_with_polygons")
    assert result.passed
    assert result.numbers["polygons_m2"] == pytest.approx(33 * 120 * 0.25, rel=1e-2)


def test_a_mask_that_is_no_mask_is_named(aoi: AoiFolder) -> None:
    change_mask(aoi, "Town_img1", lambda mask: mask * 255)
    mask_path(aoi.masks, "Town_img2").write_bytes(b"II*\0")
    write_image(mask_path(aoi.masks, "Town_img3"), np.zeros((9, 9, 1), np.uint8))
    result = check(aoi, "masks_agree_with_polygons")
    assert "`Town_img1`: its mask holds other values than 0 and 1, up to 255." in result.description
    assert "`Town_img2`: Town_img2.tif: cannot be read" in result.description
    assert "`Town_img3`: its mask is 9 x 9 pixels, the tile 48 x 40." in result.description
    assert result.numbers["tiles_compared"] == 9


def test_a_sample_of_masks_is_the_same_each_time(aoi: AoiFolder) -> None:
    for number in range(12):
        change_mask(aoi, f"Town_img{number}", np.ones_like)
    first, again, other = (
        check(aoi, "masks_agree_with_polygons", CheckSpec(sample_tiles=2, seed=seed)) for seed in (1, 1, 2)
    )
    assert first.numbers["tiles_compared"] == 2
    assert first == again
    assert first.description != other.description


def test_a_tile_in_two_splits_is_named(aoi: AoiFolder) -> None:
    def double(manifest: pd.DataFrame) -> pd.DataFrame:
        return pd.concat([manifest, manifest[manifest["tile_id"] == "Town_img0"].assign(split="test")])

    change_manifest(aoi, double)
    results = {result.name: result for result in run_checks(aoi, "split_manifests", SMALL)}
    result = results["splits_are_apart"]
    assert not result.passed
    assert result.blocking
    assert "1 tile (`Town_img0`) in more than one split." in result.description
    assert "1 block (`train@100`) in more than one split." in result.description
    assert result.numbers["tiles_in_two_splits"] == 1


def test_a_block_in_two_splits_is_named_and_guards_do_not_count(aoi: AoiFolder) -> None:
    def tear(manifest: pd.DataFrame) -> pd.DataFrame:
        return manifest.assign(block=manifest["block"].where(manifest["split"] == "train", "r1c1@100"))

    change_manifest(aoi, tear)
    result = check(aoi, "splits_are_apart")
    assert result.description == "1 block (`r1c1@100`) in more than one split."
    change_manifest(aoi, lambda manifest: manifest.assign(block=manifest["split"].replace("guard", "train") + "@100"))
    assert check(aoi, "splits_are_apart").passed


def test_a_manifest_of_other_tiles_or_splits_is_wrong(aoi: AoiFolder) -> None:
    def rename(manifest: pd.DataFrame) -> pd.DataFrame:
        return manifest.assign(
            tile_id=manifest["tile_id"].replace("Town_img0", "Village_img0"),
            split=manifest["split"].where(manifest["tile_id"] != "Town_img1", "training"),
        )

    change_manifest(aoi, rename)
    results = {result.name: result for result in run_checks(aoi, "split_manifests", SMALL)}
    description = results["splits_are_apart"].description
    assert "1 tile (`Village_img0`) not in the tile index." in description
    assert "1 tile (`Town_img1`) in a split that is none." in description


def test_neighbours_in_different_splits_stop_a_split_by_block(aoi: AoiFolder) -> None:
    change_manifest(aoi, lambda manifest: manifest.assign(split=manifest["split"].replace("guard", "validation")))
    result = check(aoi, "neighbours_share_a_split")
    assert not result.passed
    assert result.blocking
    assert result.numbers["touching_pairs"] == 2
    assert "`Town_img4 (train) | Town_img5 (validation)`" in result.description
    assert "`Town_img8 (validation) | Town_img9 (test)`" in result.description


def test_neighbours_in_different_splits_are_a_warning_by_tile(aoi: AoiFolder) -> None:
    def by_tile(manifest: pd.DataFrame) -> pd.DataFrame:
        split = manifest["split"].replace("guard", "validation")
        return manifest.assign(split=split, block=manifest["tile_id"] + "@tile")

    change_manifest(aoi, by_tile)
    result = check(aoi, "neighbours_share_a_split")
    assert not result.passed
    assert not result.blocking
    assert result.numbers["by"] == "tile"
    assert "Split by block" in result.fix


def test_tiles_that_overlap_across_a_guard_are_found(aoi: AoiFolder) -> None:
    tiles = read_tile_index(aoi.tiles)
    where = {name: int(np.flatnonzero(tiles["tile_id"] == name)[0]) for name in ("Town_img0", "Town_img11")}
    tiles.loc[where["Town_img11"], "geometry"] = tiles.geometry[where["Town_img0"]]
    write_tile_index(TileIndex(tiles), aoi.tiles)
    result = check(aoi, "neighbours_share_a_split")
    assert "Town_img0 (train) | Town_img11 (test)" in result.description
    assert result.numbers["largest_overlap"] == pytest.approx(1)


def test_a_split_without_buildings_is_wrong(aoi: AoiFolder) -> None:
    def empty(manifest: pd.DataFrame) -> pd.DataFrame:
        return manifest.assign(coverage=manifest["coverage"].where(manifest["split"] != "validation", 0.0))

    change_manifest(aoi, empty)
    results = {result.name: result for result in run_checks(aoi, "split_manifests", SMALL)}
    result = results["every_split_has_buildings"]
    assert not result.passed
    assert result.blocking
    assert result.description == "validation has no tile with a building."
    assert "0.0% of validation's pixels are building" in results["classes_are_in_balance"].description

    change_manifest(aoi, lambda manifest: manifest.assign(block=manifest["tile_id"] + "@assigned"))
    again = {result.name: result for result in run_checks(aoi, "split_manifests", SMALL)}["every_split_has_buildings"]
    assert (again.passed, again.blocking) == (False, False)  # the user's own split is the user's own


def test_classes_out_of_balance_are_a_warning(good: AoiFolder) -> None:
    result = check(good, "classes_are_in_balance", CheckSpec(min_tiles_with_buildings=1, min_coverage=0.18))
    assert not result.passed
    assert not result.blocking
    assert "12.5% of test's pixels are building" in result.description
    assert "look at `Town_img11`" in result.description
    result = check(good, "classes_are_in_balance", CheckSpec(max_coverage=0.15, min_tiles_with_buildings=3))
    assert "18.8% of train's pixels are building, outside 1.0% to 15.0%" in result.description
    assert "test has 2 tiles with buildings, fewer than 3" in result.description


def test_no_sample_compares_nothing() -> None:
    with pytest.raises(DatasetError, match="sample_tiles: 0 masks cannot be compared"):
        CheckSpec(sample_tiles=0)


def test_tables_that_were_never_made_are_an_error_with_a_way_out(tmp_path: Path) -> None:
    for asset in ASSETS:
        with pytest.raises(DatasetError, match=r"[tT]here is no"):
            run_checks(AoiFolder(tmp_path / "Nowhere"), asset)


def test_label_counts_come_back_as_they_went(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    write_label_counts(COUNTS, path)
    assert json.loads(path.read_text())["rows"] == 34
    assert list(tmp_path.iterdir()) == [path]
    assert read_label_counts(path) == COUNTS


@pytest.mark.parametrize("since", ["covered", "too_small"])
def test_label_counts_written_before_there_was_one_of_them_are_read(tmp_path: Path, since: str) -> None:
    path = tmp_path / "labels.json"
    former = COUNTS.model_dump(mode="json")
    assert former.pop(since) == 0
    path.write_text(json.dumps(former))
    assert read_label_counts(path) == COUNTS
