import json
import logging
import math
from collections import Counter
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import shapely

from footprint_pipeline.dataset.assignment import Assignment, assign_splits
from footprint_pipeline.dataset.blocks import METRES_PER_DEGREE, Blocks
from footprint_pipeline.dataset.polygons import buildings_per_tile
from footprint_pipeline.dataset.spec import GUARD, SPLITS, SplitSpec
from footprint_pipeline.dataset.split_table import read_split_table, splits_of
from footprint_pipeline.dataset.splits import (
    COLUMNS,
    block_size,
    build_manifest,
    digest,
    is_assigned,
    read_manifests,
    split_summary,
    write_manifest,
)
from footprint_pipeline.errors import DatasetError
from footprint_pipeline_tests.dataset.conftest import City

BY_TILE = SplitSpec(by="tile")
HALF_M = 0.5 / METRES_PER_DEGREE


def tiles_at(west: np.ndarray, south: np.ndarray, side_m: float, aoi: str = "Town", first: int = 0) -> gpd.GeoDataFrame:
    """A tile index of square tiles whose lower left corners lie at these degrees."""
    high = side_m / METRES_PER_DEGREE
    wide = high / math.cos(math.radians(float(np.mean(south))))
    return gpd.GeoDataFrame(
        {"tile_id": [f"img{first + i}" for i in range(len(west))], "aoi": aoi, "width": 400, "height": 400}
        | dict.fromkeys(("gsd_x_m", "gsd_y_m"), side_m / 400),
        geometry=shapely.box(west, south, west + wide, south + high),
        crs="EPSG:4326",
    )


def scattered(count: int, *, seed: int = 0, aoi: str = "Town", first: int = 0, side_m: float = 203) -> gpd.GeoDataFrame:
    """Tiles anywhere in a third of a degree, over one another too."""
    rng = np.random.default_rng(seed)
    return tiles_at(rng.uniform(-43.7, -43.3, count), rng.uniform(-23, -22.7, count), side_m, aoi, first)


def lattice(rows: int, columns: int, *, west: float, south: float, side_m: float, step_m: float) -> gpd.GeoDataFrame:
    """Tiles in rows and columns, `step_m` apart from edge to like edge."""
    step = step_m / METRES_PER_DEGREE
    row, column = np.divmod(np.arange(rows * columns), columns)
    return tiles_at(west + column * step / math.cos(math.radians(south)), south + row * step, side_m)


def assigned(tiles: gpd.GeoDataFrame, spec: SplitSpec, built: np.ndarray | None = None) -> Assignment:
    return assign_splits(tiles, np.ones(len(tiles), bool) if built is None else built, spec)


def by_id(tiles: gpd.GeoDataFrame, spec: SplitSpec) -> dict[str, str]:
    return dict(zip(tiles["tile_id"], assigned(tiles, spec).split, strict=True))


def touching(tiles: gpd.GeoDataFrame, split: np.ndarray, *, within_deg: float = HALF_M) -> int:
    """Pairs of tiles of different splits, guard aside, that touch, overlap or nearly do."""
    kept = split != GUARD
    outlines, split = tiles.geometry.to_numpy()[kept], split[kept]
    left, right = shapely.STRtree(outlines).query(outlines, predicate="dwithin", distance=within_deg)
    return int((split[left] != split[right]).sum()) // 2


@pytest.fixture(scope="module")
def many() -> gpd.GeoDataFrame:
    return scattered(10_000)


def test_the_hash_of_a_tile_is_the_same_on_every_machine_and_for_ever() -> None:
    found = assigned(scattered(20, aoi="AOI_1_RIO"), BY_TILE)
    others = {7: "validation", 13: "test", 14: "test", 15: "test", 19: "test"}
    assert found.split.tolist() == [others.get(number, "train") for number in range(20)]
    assert found.block.tolist()[:2] == ["img0@tile", "img1@tile"]
    assert found.block_m is None


def test_the_hash_of_a_block_and_its_place_are_too() -> None:
    tiles = lattice(14, 1, west=-43.6, south=-22.9, side_m=200, step_m=1000)
    found = assigned(tiles, SplitSpec())
    assert found.block_m == 1000
    assert found.block.tolist() == [
        "r7461c13972@1000", "r7462c13972@1000", "r7463c13973@1000", "r7464c13974@1000", "r7465c13975@1000",
        "r7466c13976@1000", "r7467c13977@1000", "r7468c13978@1000", "r7469c13979@1000", "r7470c13980@1000",
        "r7471c13981@1000", "r7472c13982@1000", "r7473c13982@1000", "r7474c13984@1000",
    ]  # fmt: skip
    others = {4: "test", 8: "test", 9: "validation", 12: "guard"}
    assert found.split.tolist() == [others.get(number, "train") for number in range(14)]


@pytest.mark.parametrize("spec", [BY_TILE, SplitSpec()])
def test_ten_thousand_tiles_go_where_chance_sends_them_without_a_warning(
    many: gpd.GeoDataFrame, spec: SplitSpec, caplog: pytest.LogCaptureFixture
) -> None:
    found = assigned(many, spec)
    assert not caplog.records
    shares = pd.Series(found.split).value_counts(normalize=True)
    if spec.by == "tile":
        for split, share in (("train", 0.7), ("validation", 0.1), ("test", 0.2)):
            assert shares[split] == pytest.approx(share, abs=0.02)
    else:
        assert found.block_m == 1000
        judged = pd.DataFrame({"block": found.block, "split": found.split})[found.split != GUARD].drop_duplicates()
        assert judged["block"].is_unique  # a block is of one split
        blocks = judged["split"].value_counts(normalize=True)
        for split, share in (("train", 0.7), ("validation", 0.1), ("test", 0.2)):
            assert blocks[split] == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / len(judged)))
        assert shares[GUARD] < 0.25


@pytest.mark.parametrize("spec", [BY_TILE, SplitSpec()])
def test_new_tiles_move_no_old_one_and_order_does_not_matter(many: gpd.GeoDataFrame, spec: SplitSpec) -> None:
    before = by_id(many, spec)
    more = pd.concat([scattered(1000, seed=5, first=10_000), many.sample(frac=1, random_state=3)], ignore_index=True)
    after = by_id(more, spec)
    assert {tile: after[tile] for tile in before} == before
    assert len(after) == 11_000


@pytest.mark.parametrize("spec", [BY_TILE, SplitSpec()])
def test_another_seed_is_another_split(many: gpd.GeoDataFrame, spec: SplitSpec) -> None:
    first, second = assigned(many, spec).split, assigned(many, SplitSpec(by=spec.by, seed=1)).split
    assert 0.4 < (first != second).mean() < 0.6  # two independent draws differ in 46 % of the tiles


def test_by_tile_two_aois_are_independent_and_by_block_the_ground_decides() -> None:
    here, there = scattered(3000, aoi="Here"), scattered(3000, aoi="There")
    assert 0.4 < (assigned(here, BY_TILE).split != assigned(there, BY_TILE).split).mean() < 0.52
    assert (assigned(here, SplitSpec()).split == assigned(there, SplitSpec()).split).all()
    elsewhere = there.set_geometry(there.translate(yoff=1.0))
    assert 0.4 < (assigned(here, SplitSpec()).split != assigned(elsewhere, SplitSpec()).split).mean() < 0.7


ROW_TOP = (7400 * 1000) / METRES_PER_DEGREE - 90  # a boundary between rows of blocks of 1000 m
LATTICES = {
    "aligned": {"west": 12.0, "south": ROW_TOP, "side_m": 200, "step_m": 200},
    "aligned, as long as a quarter of a block": {"west": -180.0, "south": ROW_TOP, "side_m": 250, "step_m": 250},
    "misaligned": {"west": 12.0017, "south": -23.4567, "side_m": 203, "step_m": 203},
    "overlapping": {"west": 12.0017, "south": -23.4567, "side_m": 203, "step_m": 140},
    "a pixel apart": {"west": 12.0017, "south": 37.456, "side_m": 203, "step_m": 203.4},
    "far north": {"west": 12.0017, "south": 69.9, "side_m": 203, "step_m": 203},
    "on the equator": {"west": 179.9, "south": -0.04, "side_m": 203, "step_m": 203},
}


@pytest.mark.parametrize("name", LATTICES)
@pytest.mark.parametrize("seed", [1337, 1])
def test_no_two_tiles_of_different_splits_touch(name: str, seed: int) -> None:
    tiles = lattice(45, 45, **LATTICES[name])
    spec = SplitSpec(seed=seed)
    found = assigned(tiles, spec)
    counts = Counter(found.split)
    assert all(counts[split] > 10 for split in SPLITS)
    assert counts[GUARD] < 0.33 * len(tiles)
    assert touching(tiles, found.split) == 0
    assert touching(tiles, assigned(tiles, SplitSpec(by="tile", seed=seed)).split) > 100  # the measure can fail


def test_no_two_scattered_tiles_of_different_splits_touch(many: gpd.GeoDataFrame) -> None:
    assert touching(many, assigned(many, SplitSpec()).split) == 0


def test_a_tile_is_guard_only_beside_a_block_of_another_split(many: gpd.GeoDataFrame) -> None:
    found = assigned(many, SplitSpec())
    of_block = dict(zip(found.block[found.split != GUARD], found.split[found.split != GUARD], strict=True))
    grid = Blocks(1000.0)
    for bounds, split, own in zip(many.geometry.bounds.to_numpy(), found.split, found.block, strict=True):
        reached = {of_block.get(block) for block in grid.reached(bounds)} - {None}
        assert own in grid.reached(bounds)
        if split != GUARD:
            assert reached == {split}


def test_blocks_are_as_large_as_they_say_and_meet_at_the_date_line() -> None:
    grid = Blocks(500.0)
    for lat in (-60.2, -22.9, 0.001, 51.5, 78.0):
        degree = METRES_PER_DEGREE * math.cos(math.radians(lat))
        names = [grid.at(10 + metres / degree, lat) for metres in range(0, 20_000, 10)]
        assert len(set(names)) == pytest.approx(40, abs=1.5)
        names = [grid.at(10, lat + metres / METRES_PER_DEGREE) for metres in range(0, 20_000, 10)]
        assert len(set(names)) in (40, 41)
    west, east = grid.at(-179.9999, 10.0), grid.at(179.9999, 10.0)
    assert west != east
    assert grid.reached(np.array([179.9999, 10.0, 180.0, 10.0])) == {west, east}
    assert grid.at(0.0, 90.0).startswith("r")


def test_few_blocks_that_leave_little_to_train_on_make_way_for_smaller_ones(caplog: pytest.LogCaptureFixture) -> None:
    tiles = lattice(20, 20, west=12.0, south=-20.0, side_m=60, step_m=60)
    found = assigned(tiles, SplitSpec())
    assert found.block_m in (500, 250, 125)
    assert "Town: blocks of 1000 m do not suit its 400 tiles: they lie in" in caplog.records[0].message
    assert "--split tile, by: tile" in caplog.records[0].message
    assert touching(tiles, found.split) == 0
    assert (found.split == GUARD).mean() <= 1 / 3
    assert (found.split == "train").sum() >= 0.49 * (found.split != GUARD).sum()
    assert set(found.split) >= set(SPLITS)


def test_as_the_last_resort_each_tile_is_its_own_block(caplog: pytest.LogCaptureFixture) -> None:
    tiles = lattice(2, 3, west=12.0, south=-20.0, side_m=200, step_m=200)
    found = assigned(tiles, SplitSpec())
    assert found.block_m is None
    assert found.block.tolist() == [f"img{i}@tile" for i in range(6)]
    assert found.split.tolist() == assigned(tiles, BY_TILE).split.tolist()
    assert any("each tile is shared out by itself" in record.message for record in caplog.records)


def test_blocks_shorter_than_two_tiles_grow(caplog: pytest.LogCaptureFixture) -> None:
    tiles = lattice(40, 40, west=12.0, south=-20.0, side_m=200, step_m=200)
    found = assigned(tiles, SplitSpec(block_m=150))
    assert found.block_m == 600
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "blocks of 150 m are shorter than 2 tiles" in caplog.text
    assert touching(tiles, found.split) == 0


@pytest.mark.parametrize("by", ["block", "tile"])
@pytest.mark.parametrize("count", [3, 4, 7, 12])
def test_however_few_every_split_has_a_tile_with_a_building(count: int, by: str) -> None:
    for seed in range(12):
        built = np.arange(count + 2) < count
        for step_m in (200, 3000):
            tiles = lattice(1, count + 2, west=12.0, south=-20.0, side_m=200, step_m=step_m)
            found = assigned(tiles, SplitSpec(by=by, seed=seed), built)
            assert set(found.split[built]) >= set(SPLITS)


def test_a_split_without_a_building_takes_the_nearest_draw_that_can_be_spared(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tiles = lattice(1, 30, west=12.0, south=-20.0, side_m=200, step_m=3000)
    natural = assigned(tiles, SplitSpec(validation=0.25, train=0.55))
    assert not caplog.records
    built = natural.split != "validation"
    found = assigned(tiles, SplitSpec(validation=0.25, train=0.55), built)
    (moved,) = np.flatnonzero(found.split != natural.split)
    assert found.split[moved] == "validation"
    assert built[moved]
    assert f"no tile with buildings fell to validation, so the nearest draw, {found.block[moved]} (1 tiles)" in (
        caplog.records[0].message
    )
    # The wider validation's interval grows on both sides, the sooner a block falls to it by itself.
    for more in np.arange(1, 200) / 1000:
        wider = SplitSpec(train=float(0.55 - more), validation=float(0.25 + 2 * more), test=float(0.2 - more))
        fallen = np.flatnonzero((assigned(tiles, wider).split == "validation") & built)
        if len(fallen):
            break
    assert fallen.tolist() == [moved]


def test_fewer_than_three_tiles_with_buildings_cannot_be_split() -> None:
    with pytest.raises(DatasetError, match="2 of 50 tiles have a building") as caught:
        assigned(scattered(50), SplitSpec(), np.arange(50) < 2)
    assert "check that the labels belong to these tiles" in caught.value.fix
    with pytest.raises(DatasetError, match="1 of 1 tiles have a building") as caught:
        assigned(scattered(1), SplitSpec(), np.ones(1, bool))
    assert "cut the image into some: gdal_retile.py -ps 512 512" in caught.value.fix


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"train": 0.7, "validation": 0.1, "test": 0.1}, "are no split"),
        ({"train": 0.9, "validation": 0.1, "test": 0.0}, "are no split"),
        ({"train": 1.2, "validation": -0.4, "test": 0.2}, "are no split"),
        ({"by": "city"}, "cannot be split by 'city'"),
        ({"block_m": 0.0}, "are no blocks"),
        ({"block_m": math.inf}, "are no blocks"),
        ({"empty_share": 1.1}, "cannot be kept"),
    ],
)
def test_a_spec_must_make_sense(values: dict, problem: str) -> None:
    with pytest.raises(DatasetError, match=problem) as caught:
        SplitSpec(**values)
    assert caught.value.fix


def test_a_manifest_knows_every_tile_once(city: City) -> None:
    manifest = city.manifest
    assert tuple(manifest.columns) == COLUMNS
    assert manifest["tile_id"].tolist() == sorted(city.tiles["tile_id"])
    assert manifest["tile_id"].is_unique
    assert set(manifest["split"]) >= set(SPLITS)
    assert manifest["buildings"].tolist() == [3] * 7 + [0]
    assert manifest["coverage"].tolist() == pytest.approx([3 * 120 / (40 * 48)] * 7 + [0])
    assert all(Path(path).exists() for path in [*manifest["path"], *manifest["mask_path"]])


def test_tiles_without_a_building_are_kept_as_asked() -> None:
    tiles = scattered(2000).assign(path="", valid_share=1.0, low=0, high=255, gamma=1.0)
    buildings = pd.Series(2, index=tiles["tile_id"][:500])
    coverage = pd.Series(0.1, index=tiles["tile_id"])

    def kept(share: float, **values: object) -> pd.DataFrame:
        return build_manifest(tiles, buildings, coverage, Path("masks"), SplitSpec(empty_share=share, **values))

    none, some, every = kept(0.0), kept(0.4), kept(1.0)
    assert (len(none), len(every)) == (500, 2000)
    assert (none["buildings"] == 2).all()
    assert len(some) == pytest.approx(500 + 0.4 * 1500, abs=60)
    assert set(none["tile_id"]) < set(some["tile_id"]) < set(kept(0.7)["tile_id"]) < set(every["tile_id"])
    split = every.set_index("tile_id")["split"]
    assert (some["split"] == some["tile_id"].map(split)).all()
    assert set(kept(0.4, seed=1)["tile_id"]) != set(some["tile_id"])


def test_a_table_says_which_tiles_judge(city: City, tmp_path: Path) -> None:
    ids = city.tiles["tile_id"].tolist()
    table = tmp_path / "mine.csv"
    table.write_text(
        "\ufeffsplit, tile_id,aoi,why\n"
        + f"train, {ids[2]},Town,near\ntest,{ids[0]} ,Town,far\nvalidation,{ids[5]},Town,\ntrain,img1,Elsewhere,\n"
    )
    assigned = read_split_table(table, aoi="Town")
    coverage = pd.Series(0.1, index=ids)
    made = build_manifest(
        city.tiles,
        buildings_per_tile(city.polygons),
        coverage,
        Path("masks"),
        SplitSpec(empty_share=0),
        assigned=assigned,
    )
    assert made["tile_id"].tolist() == ids
    assert made["split"].tolist() == ["test", GUARD, "train", GUARD, GUARD, "validation", GUARD, GUARD]
    assert made["block"].is_unique
    assert block_size(made) is None
    assert digest(made) != digest(city.manifest)
    write_manifest(made, tmp_path / "split_manifest.parquet", SplitSpec())
    metadata = pq.read_schema(tmp_path / "split_manifest.parquet").metadata
    assert json.loads(metadata[b"footprint_split"])["by"] == "table"
    assert is_assigned(made)
    assert not is_assigned(city.manifest)


def test_tiles_that_teach_nothing_are_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    tiles = scattered(40).assign(path="", valid_share=1.0, low=0, high=255, gamma=1.0)
    ids = tiles["tile_id"].tolist()
    tiles.loc[3, "valid_share"] = 0.0  # though it has labels
    coverage, buildings = pd.Series(0.1, index=ids), pd.Series(2, index=ids[:20])
    told = {"unlabelled": ids[30:32], "spec": SplitSpec(by="tile", empty_share=1.0)}
    manifest = build_manifest(tiles, buildings, coverage, Path("masks"), **told)
    assert set(ids) - set(manifest["tile_id"]) == {ids[3], *ids[30:32]}
    assert f"1 tiles without imagery: {ids[3]}" in caplog.text
    assert f"2 tiles without a label or a word that they are empty: {ids[30]}, {ids[31]}" in caplog.text
    assigned = dict.fromkeys(ids, "train")
    assert len(build_manifest(tiles, buildings, coverage, Path("masks"), assigned=assigned, **told)) == len(ids)


def test_what_spreadsheets_leave_in_a_table_does_no_harm(tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    for content in ("tile_id,split\na,train,\nb,test,\n", "tile_id,split\n,\na,train\nb,test\n,\n"):
        table.write_text(content)
        assert read_split_table(table, aoi="Town") == {"a": "train", "b": "test"}
    with pytest.raises(DatasetError, match="has no column aoi, but is of several"):
        read_split_table(table, aoi="Town", several=True)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("tile,split\na,train\n", r"mine\.csv: has no column tile_id\."),
        ("", r"mine\.csv: cannot be read as CSV"),
        ("tile_id,split\na,tests\n", r"mine\.csv: a cannot go to 'tests'\.\n.*train, validation, test, guard"),
        ("tile_id,split\na,test\nb,test\na,train\n", r"mine\.csv: names a more than once"),
        ("tile_id,split\nTown_img1,test\nx4,train\nx3,train\nx2,train\nx1,train\n",
         r"4 of the 5 tiles that are .* not there: x1, x2, x3 and 1 more\.\n.*such as Town_img0, Town_img1"),
        ("tile_id,split,aoi\nTown_img1,test,town\nx,test,Elsewhere\n",
         r"mine\.csv: names no tile of Town; its column aoi holds town, Elsewhere\.\n.*--aoi"),
        ("tile_id,split,aoi\n", r"mine\.csv: names no tile\."),
        ("tile_id,split, split\na,test,test\n", r"mine\.csv: has the column split twice"),
        (None, r"mine\.csv: cannot be read as CSV \(.*No such file"),
    ],
    ids=["column", "empty", "split", "twice", "unknown", "of none of its tiles", "header", "two columns", "missing"],
)  # fmt: skip
def test_a_table_that_makes_no_sense_is_refused(city: City, tmp_path: Path, content: str | None, problem: str) -> None:
    table = tmp_path / "mine.csv"
    if content is not None:
        table.write_text(content)
    with pytest.raises(DatasetError, match=problem):
        splits_of(city.tiles["tile_id"], read_split_table(table, aoi="Town"))


def test_the_summary_counts_what_each_split_holds() -> None:
    manifest = pd.DataFrame(
        {
            "split": ["train", "train", "test", "guard", "train"], "block": ["a@1", "a@1", "b@1", "a@1", "a@1"],
            "aoi": ["X", "X", "X", "X", "Y"], "width": [1000, 1000, 1000, 1000, 500], "height": 1000,
            "gsd_x_m": 0.5, "gsd_y_m": 2.0, "valid_share": [1.0, 0.5, 1.0, 1.0, 1.0],
            "buildings": [3, 0, 2, 9, 1], "coverage": [0.2, 0.0, 0.1, 0.3, 0.4],
        }
    )  # fmt: skip
    summary = split_summary(manifest).set_index("split")
    assert summary.index.tolist() == ["train", "validation", "test", "guard"]
    assert summary.loc["train"].to_dict() == pytest.approx(
        {"tiles": 3, "tiles_with_buildings": 2, "buildings": 4, "coverage": 0.4 / 2.5, "area_km2": 2.0, "blocks": 2}
    )
    assert summary.loc["guard", "buildings"] == 9
    assert not summary.loc["validation"].any()


def test_a_manifest_comes_back_with_its_spec(city: City, tmp_path: Path) -> None:
    path = tmp_path / "Town" / "split_manifest.parquet"
    stamp = write_manifest(city.manifest, path, SplitSpec())
    again = read_manifests([path])
    assert stamp == digest(again) == digest(city.manifest)
    assert len(stamp) == 12
    for name in COLUMNS:
        assert [np.asarray(value).tolist() for value in again[name]] == [
            np.asarray(value).tolist() for value in city.manifest[name]
        ]
    described = json.loads(pq.read_schema(path).metadata[b"footprint_split"])
    assert described == {
        "by": "block", "block_m": 1000.0, "train": 0.7, "validation": 0.1, "test": 0.2, "seed": 1337,
        "empty_share": 1.0, "block_m_in_force": block_size(city.manifest), "digest": stamp,
    }  # fmt: skip


@pytest.mark.parametrize(("spec", "size"), [(SplitSpec(block_m=62.5), 62.5), (SplitSpec(), 1000.0), (BY_TILE, None)])
def test_the_block_size_in_force_is_on_record(spec: SplitSpec, size: float | None) -> None:
    tiles = scattered(3000, side_m=30)
    assert block_size(pd.DataFrame({"block": assigned(tiles, spec).block})) == size


def test_several_manifests_are_read_as_one(city: City, tmp_path: Path) -> None:
    other = city.manifest.assign(aoi="Village")
    write_manifest(city.manifest, tmp_path / "Town" / "m.parquet", SplitSpec())
    write_manifest(other, tmp_path / "Village" / "m.parquet", SplitSpec())
    both = read_manifests([tmp_path / "Town" / "m.parquet", tmp_path / "Village" / "m.parquet"])
    assert both["aoi"].tolist() == ["Town"] * 8 + ["Village"] * 8
    assert both.index.is_unique
    with pytest.raises(DatasetError, match="no split manifest for Hamlet"):
        read_manifests([tmp_path / "Town" / "m.parquet", tmp_path / "Hamlet" / "m.parquet"])
    with pytest.raises(DatasetError, match="no split manifest at all"):
        read_manifests([])


def test_a_manifest_of_an_older_form_is_named(city: City, tmp_path: Path) -> None:
    older = city.manifest.drop(columns="block").rename(columns={"coverage": "building_share"})
    (tmp_path / "Town").mkdir()
    older.to_parquet(tmp_path / "Town" / "m.parquet")
    with pytest.raises(DatasetError, match="Town: its split manifest is of an older form; it lacks block, coverage"):
        read_manifests([tmp_path / "Town" / "m.parquet"])


def test_the_digest_tells_splits_apart_but_not_orders(city: City) -> None:
    manifest = city.manifest
    assert digest(manifest.sample(frac=1, random_state=1)) == digest(manifest)
    changed = manifest.copy()
    changed.loc[0, "split"] = "test" if changed.loc[0, "split"] != "test" else "train"
    assert digest(changed) != digest(manifest)
    assert digest(manifest.assign(aoi="Village")) != digest(manifest)
    assert digest(manifest.assign(gsd_x_m=9.0)) == digest(manifest)


def test_a_city_of_one_street_is_split_and_said(city: City, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        manifest = build_manifest(
            city.tiles,
            buildings_per_tile(city.polygons),
            city.manifest.set_index("tile_id")["coverage"],
            city.masks,
            SplitSpec(),
        )
    assert manifest.equals(city.manifest)
    assert caplog.records
    assert all(record.message.startswith("Town: ") for record in caplog.records)


@pytest.mark.parametrize("latitude", [0.0, 60.0, -75.0])
def test_a_hair_is_as_wide_on_the_ground_at_every_latitude(latitude: float) -> None:
    blocks, degree_m = Blocks(1000), METRES_PER_DEGREE * math.cos(math.radians(latitude))
    here = blocks.at(12.0, latitude)
    low, high = 12.0, 12.0 + 2000 / degree_m  # where the block ends
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if blocks.at(middle, latitude) == here else (low, middle)

    def reached(gap_m: float) -> int:
        east = high - gap_m / degree_m
        return len({name.partition("c")[2] for name in blocks.reached((east - 1e-5, latitude, east, latitude + 1e-7))})

    assert (reached(0.9), reached(1.2)) == (2, 1)


def test_tiles_without_a_building_go_to_every_split_however_few_are_kept() -> None:
    tiles = scattered(2000).assign(path="", valid_share=1.0, low=0, high=255, gamma=1.0)
    buildings = pd.Series(2, index=tiles["tile_id"][:500])
    coverage = pd.Series(0.1, index=tiles["tile_id"])
    manifest = build_manifest(tiles, buildings, coverage, Path("masks"), SplitSpec(by="tile", empty_share=0.4))
    empty = manifest[manifest["buildings"] == 0]["split"].value_counts(normalize=True)
    for split in SPLITS:
        low, high = BY_TILE.interval(split)
        assert empty[split] == pytest.approx(high - low, abs=0.06)


def test_a_block_is_two_tiles_long_on_the_longer_side() -> None:
    for long in ("width", "height"):
        tiles = lattice(40, 40, west=12.0, south=-20.0, side_m=200, step_m=200).assign(**{long: 900})
        assert assigned(tiles, SplitSpec(block_m=700)).block_m == 1400  # 450 m long tiles
