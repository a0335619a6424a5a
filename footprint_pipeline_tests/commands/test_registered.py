"""Scoring and export of a registered model: on tiles that it has not seen, and of one model at a time."""

import json
import logging
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from footprint_pipeline.commands import registered
from footprint_pipeline.dataset.masks import read_mask
from footprint_pipeline.dataset.splits import read_manifests
from footprint_pipeline.errors import DatasetError, FootprintError, SettingsError
from footprint_pipeline.footprints.spec import ModelSpec
from footprint_pipeline.lake import Lake
from footprint_pipeline.model import tracking
from footprint_pipeline.registry import CHAMPION, SERVING_FOLDER, Registry
from footprint_pipeline.settings import Settings
from footprint_pipeline.spacenet.synthetic.city import CitySpec, write_city
from footprint_pipeline.stages import scoring
from footprint_pipeline_tests.overheard import overhear
from footprint_pipeline_tests.stages.prepared import AOI, TILES, prepare_city
from footprint_pipeline_tests.stages.test_promotion import log_network, write_answer

# mlflow.pyfunc warns of its own type hints when it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:.*inferred as AnyType:UserWarning")

OPTIONS: dict[str, Any] = {"sources": (), "aois": (), **dict.fromkeys(("alias", "version", "tolerance", "flips"))}


def score(settings: Settings, *, skip_bad_labels: bool = False, **options: Any) -> dict[str, Any]:
    return registered.score(settings, skip_bad_labels=skip_bad_labels, **{**OPTIONS, **options})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared city of which three tiles are test tiles, and a champion that has learned from one of them."""
    home = tmp_path_factory.mktemp("home")
    folder = prepare_city(home)
    splits = ["test"] * 3 + ["train"] * (TILES - 5) + ["validation", "guard"]
    manifest = read_manifests([folder.manifest]).assign(split=splits)
    manifest.to_parquet(folder.manifest)
    uri = f"sqlite:///{home / 'mlflow.db'}"
    model_id, run_id = log_network(home, uri)
    answer = write_answer(home / "answer" / SERVING_FOLDER, 0.9)
    manifest.iloc[2:][["aoi", "tile_id"]].to_csv(answer / "training_tiles.csv", index=False)
    tracking.add_to_model(uri, model_id, answer, SERVING_FOLDER)
    registry = Registry(uri, "building-footprints")
    registry.point(CHAMPION, registry.register(model_id=model_id, run_id=run_id, tags={}, description=""))
    return home


def test_a_model_is_not_scored_on_test_tiles_that_it_has_learned_from(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for options in ({"alias": CHAMPION}, {"aois": (AOI,), "tolerance": 0.4}):
        caplog.clear()
        answer = score(Settings(home=home), **options)
        assert (answer["tiles"], answer["aois"]) == (2, [AOI])
        assert "Version 1 has learned from 1 of the test tiles; they are left out" in caplog.text
    with pytest.raises(DatasetError, match=f"Town is not prepared; prepared: {AOI}") as caught:
        score(Settings(home=home), aois=(AOI, "Town"))
    assert "--source" in caught.value.fix
    failed = Lake(home).aoi("Town").failed_checks
    failed.parent.mkdir()
    failed.write_text(json.dumps({"labels_are_there": {"problem": "There is none.", "fix": "Draw some."}}))
    try:
        with pytest.raises(DatasetError, match="Town: its data failed the check labels_are_there"):
            score(Settings(home=home), aois=("Town",))
        assert Lake(home).failed() == {"Town"}
    finally:
        shutil.rmtree(failed.parent)


def test_a_source_that_a_model_has_learned_from_is_told(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = str(home / "source")
    with caplog.at_level(logging.WARNING):
        assert score(Settings(home=home), sources=(source,), aois=("Elsewhere",))["tiles"] == TILES
        assert "learned" not in caplog.text
        assert score(Settings(home=home), sources=(source,))["tiles"] == TILES
    assert f"Version 1 has learned from {TILES - 2} of these {TILES} tiles" in caplog.text


def test_an_area_that_is_half_prepared_holds_up_no_other(home: Path) -> None:
    half = Lake(home).aoi("Half").manifest
    half.parent.mkdir(parents=True)
    half.write_bytes(Lake(home).aoi(AOI).manifest.read_bytes())
    try:
        assert score(Settings(home=home), aois=(AOI,))["tiles"] == 2
    finally:
        shutil.rmtree(half.parent)


def test_masks_that_are_drawn_anew_meanwhile_end_a_scoring(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("footprint_pipeline.evaluation.scoring.read_mask", lambda path: 1 - read_mask(path))
    with pytest.raises(DatasetError, match="has been drawn anew since its split was made"):
        score(Settings(home=home), aois=(AOI,))


def test_a_folder_of_another_model_is_not_exported_into(home: Path, tmp_path: Path) -> None:
    how = {"kind": "openvino", "alias": None, "version": "1", "out": tmp_path}
    for _ in range(2):
        registered.export(Settings(home=home), **how)
    spec = tmp_path / "spec.json"
    spec.write_text(spec.read_text().replace("{", '{"precision": "int8", ', 1))
    with pytest.raises(SettingsError, match="holds another model"):
        registered.export(Settings(home=home), **how)


def test_several_sources_are_scored_each_and_together(home: Path) -> None:
    source = str(home / "source")
    alone = score(Settings(home=home), sources=(source,), aois=("One",))
    both = score(Settings(home=home), sources=(source, source), aois=("One", "Other"))
    assert (both["aois"], both["tiles"]) == (["One", "Other"], 2 * TILES)
    for found in both["by_aoi"]:
        assert {**found, "aoi": "One"} == alone["by_aoi"][0]
    assert both["taken"]["Other"] == alone["taken"]["One"]
    head, one, other = both["_lines"][4:7]
    assert head.split()[:2] == ["tiles", "tolerance"]
    assert one.split()[:2] == ["One", str(TILES)]
    assert one.endswith(f"{alone['by_aoi'][0]['all_building_pixel_f1']:.4f}")
    assert other.split()[1:] == one.split()[1:]
    assert len({len(line) for line in (head, one, other)}) == 1
    taken = alone["taken"]["One"]
    assert taken.pop("labels") >= alone["by_aoi"][0]["buildings"] > 0  # those too small are no buildings
    assert taken == {"tiles": TILES, "tiles_skipped": 0, "tiles_unlabelled": 0, "labels_lost": 0}
    with pytest.raises(SettingsError, match="2 sources, but 1 names"):
        score(Settings(home=home), sources=(source, source), aois=("One",))


def test_what_is_told_is_what_is_scored_with(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = overhear(monkeypatch, scoring, "predict_tiles", "score_tiles")
    own = {"tolerance": 0.7, "seed_level": 0.45, "min_area_m2": 3.0, "flips": 2}
    pull = Registry.pull

    def with_odd_choices(*given: Any, **how: Any) -> Path:
        folder = pull(*given, **how)
        ModelSpec.read(folder).model_copy(update=own).write(folder)
        return folder

    monkeypatch.setattr(Registry, "pull", with_odd_choices)
    for where in ({"aois": (AOI,)}, {"sources": (str(home / "source"),), "aois": ("Elsewhere",)}):
        score(Settings(home=home), **where)
        assert own.items() <= told.items()
        score(Settings(home=home), **where, tolerance=0.33, flips="1")
        assert (own | {"tolerance": 0.33, "flips": 1}).items() <= told.items()


def test_what_of_a_source_is_scored_is_told(home: Path, tmp_path: Path) -> None:
    source = write_city(tmp_path / "city", CitySpec(rows=2, columns=3, tile_height=96, tile_width=96)).folder
    for table in source.rglob("*.csv"):
        table.unlink()
    labels, images = sorted(source.rglob("*.geojson")), sorted(source.rglob("3band*.tif"))
    images[0].write_bytes(images[0].read_bytes()[:200])
    for path in labels[1:3]:
        path.unlink()
    told = json.loads(labels[3].read_text())
    told["features"] += [{"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": 7}}] * 3
    labels[3].write_text(json.dumps(told))
    with pytest.raises(FootprintError):
        score(Settings(home=home), sources=(str(source),), aois=("Odd",))
    answer = score(Settings(home=home), sources=(str(source),), aois=("Odd",), skip_bad_labels=True)
    taken = answer["taken"]["Odd"]
    assert (taken["tiles"], taken["tiles_skipped"], taken["tiles_unlabelled"]) == (5, 1, 2)
    assert taken["labels_lost"] == 3
    assert any("3 of" in line and "lost" in line for line in answer["_lines"])


def test_two_that_score_sources_of_one_name_do_not_mix_them(home: Path, tmp_path: Path) -> None:
    small = write_city(tmp_path / "small", CitySpec(rows=1, columns=2, tile_height=96, tile_width=96)).folder
    for _ in range(2):
        with ThreadPoolExecutor() as pool:
            large, little = pool.map(
                lambda source: score(Settings(home=home), sources=(source,), aois=("Same",)),
                (str(home / "source"), str(small)),
            )
        assert (large["tiles"], little["tiles"]) == (TILES, 2)


def test_labels_that_all_lie_elsewhere_are_no_bad_model(home: Path, tmp_path: Path) -> None:
    source = write_city(tmp_path / "city", CitySpec(rows=1, columns=2, tile_height=96, tile_width=96)).folder
    for path in source.rglob("*.geojson"):
        path.write_text(re.sub(r"\[(-?[\d.]+), (-?[\d.]+)(, [\d.]+)?\]", r"[\2, \1]", path.read_text()))
    for path in source.rglob("*.csv"):
        path.unlink()
    with pytest.raises(DatasetError, match=r"Turned: none of its \d+ labels can be scored.* lie outside") as caught:
        score(Settings(home=home), sources=(str(source),), aois=("Turned",))
    assert "order of their coordinates" in caught.value.fix


def test_tiles_without_imagery_are_no_perfect_model(home: Path, tmp_path: Path) -> None:
    source = write_city(tmp_path / "city", CitySpec(rows=1, columns=2, tile_height=96, tile_width=96)).folder
    for path in source.rglob("*.tif"):
        with rasterio.open(path, "r+") as tile:
            tile.write(np.zeros((tile.count, tile.height, tile.width), tile.dtypes[0]))
    with pytest.raises(DatasetError, match="Black: none of its 2 tiles has imagery"):
        score(Settings(home=home), sources=(str(source),), aois=("Black",))


def test_what_would_be_passed_over_is_refused(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with pytest.raises(SettingsError, match="--skip-bad-labels is of a --source"):
        score(settings, alias=CHAMPION, skip_bad_labels=True)
    with pytest.raises(SettingsError, match="--alias champion and --version 3 both name a model"):
        score(settings, alias=CHAMPION, version="3")
    with pytest.raises(SettingsError, match="both name a model"):
        registered.export(settings, kind="onnx", alias=CHAMPION, version="3", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
