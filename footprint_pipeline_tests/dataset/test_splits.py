import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from footprint_pipeline.dataset.splits import (
    COLUMNS,
    SplitSpec,
    assign_splits,
    build_manifest,
    digest,
    read_manifests,
    write_manifest,
)
from footprint_pipeline.errors import DatasetError
from footprint_pipeline_tests.dataset.conftest import City

TEN = [f"AOI_1_RIO_img{number}" for number in range(10)]


def split_of(ids: list[str], spec: SplitSpec, has_building: np.ndarray | None = None) -> dict[str, str]:
    has_building = np.ones(len(ids), bool) if has_building is None else has_building
    return dict(zip(ids, assign_splits(ids, has_building, spec), strict=True))


def test_a_thousand_tiles_are_shared_out_70_10_20() -> None:
    split = split_of([f"img{i}" for i in range(1000)], SplitSpec())
    assert Counter(split.values()) == {"train": 700, "validation": 100, "test": 200}


def test_the_assignment_is_the_same_on_every_machine() -> None:
    found = split_of(TEN, SplitSpec())
    assert [found[tile] for tile in TEN] == [
        "train", "train", "train", "train", "test", "validation", "test", "train", "train", "train",
    ]  # fmt: skip


def test_the_order_of_the_tiles_does_not_matter() -> None:
    ids = [f"img{i}" for i in range(200)]
    has_building = np.arange(200) % 3 > 0
    order = np.random.default_rng(0).permutation(200)
    shuffled = split_of([ids[i] for i in order], SplitSpec(), has_building[order])
    assert shuffled == split_of(ids, SplitSpec(), has_building)


def test_another_seed_is_another_split() -> None:
    ids = [f"img{i}" for i in range(200)]
    first, second = split_of(ids, SplitSpec()), split_of(ids, SplitSpec(seed=1))
    assert Counter(first.values()) == Counter(second.values())
    assert sum(first[tile] != second[tile] for tile in ids) > 50


def test_each_split_gets_its_share_of_tiles_with_buildings_and_of_those_without() -> None:
    ids = [f"img{i}" for i in range(300)]
    has_building = np.arange(300) < 100
    split = split_of(ids, SplitSpec(), has_building)
    assert Counter(split[tile] for tile in ids[:100]) == {"train": 70, "validation": 10, "test": 20}
    assert Counter(split[tile] for tile in ids[100:]) == {"train": 140, "validation": 20, "test": 40}


@pytest.mark.parametrize(
    "spec", [SplitSpec(), SplitSpec(0.05, 0.05, 0.9), SplitSpec(0.02, 0.9, 0.08), SplitSpec(0.9, 0.05, 0.05)]
)
@pytest.mark.parametrize("count", [3, 4, 5, 7, 12])
def test_however_few_every_split_has_a_tile_with_a_building(count: int, spec: SplitSpec) -> None:
    ids = [f"img{i}" for i in range(count + 2)]
    split = split_of(ids, spec, np.arange(count + 2) < count)
    assert set(Counter(split[tile] for tile in ids[:count])) == {"train", "validation", "test"}


def test_fewer_than_three_tiles_with_buildings_cannot_be_split() -> None:
    with pytest.raises(DatasetError, match="2 of 50 tiles have a building"):
        assign_splits([str(i) for i in range(50)], np.arange(50) < 2, SplitSpec())


@pytest.mark.parametrize("shares", [(0.7, 0.1, 0.1), (0.9, 0.1, 0.0), (1.2, -0.4, 0.2)])
def test_shares_must_add_up(shares: tuple[float, float, float]) -> None:
    with pytest.raises(DatasetError, match="are no split"):
        SplitSpec(*shares)


def test_a_manifest_knows_every_tile_once(city: City) -> None:
    manifest = city.manifest
    assert tuple(manifest.columns) == COLUMNS
    assert manifest["tile_id"].tolist() == sorted(city.tiles["tile_id"])
    assert manifest["tile_id"].is_unique
    assert set(manifest["split"]) == {"train", "validation", "test"}
    assert manifest["buildings"].tolist() == [3] * 7 + [0]
    assert manifest["building_share"].tolist() == pytest.approx([3 * 120 / (40 * 48)] * 7 + [0])
    assert all(Path(path).exists() for path in [*manifest["path"], *manifest["mask_path"]])


def test_empty_tiles_can_be_left_out(city: City) -> None:
    buildings = city.manifest.set_index("tile_id")["buildings"].replace(0, np.nan).dropna()
    shares = city.manifest.set_index("tile_id")["building_share"]
    manifest = build_manifest(city.tiles, buildings, shares, city.masks, SplitSpec(drop_empty=True))
    assert len(manifest) == 7
    assert (manifest["buildings"] > 0).all()


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
        "train": 0.7, "validation": 0.1, "test": 0.2, "seed": 1337, "drop_empty": False, "digest": stamp,
    }  # fmt: skip


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


def test_the_digest_tells_splits_apart_but_not_orders(city: City) -> None:
    manifest = city.manifest
    assert digest(manifest.sample(frac=1, random_state=1)) == digest(manifest)
    changed = manifest.copy()
    changed.loc[0, "split"] = "test" if changed.loc[0, "split"] != "test" else "train"
    assert digest(changed) != digest(manifest)
    assert digest(manifest.assign(aoi="Village")) != digest(manifest)
    assert digest(manifest.assign(gsd_x_m=9.0)) == digest(manifest)
