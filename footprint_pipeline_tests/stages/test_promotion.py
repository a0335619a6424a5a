"""Who serves, on a real registry: candidates of known worth, two at once, the way back, two side by side."""

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import cv2
import mlflow
import numpy as np
import openvino as ov
import pandas as pd
import pytest
from openvino import opset13 as ops

from footprint_pipeline.commands import promotion as commands
from footprint_pipeline.errors import DatasetError, ModelError, RegistryError, SettingsError
from footprint_pipeline.evaluation import scoring
from footprint_pipeline.evaluation.promotion import Verdict
from footprint_pipeline.evaluation.spec import PromotionSpec
from footprint_pipeline.footprints.runtime import Runtime
from footprint_pipeline.lake import Lake
from footprint_pipeline.model import tracking
from footprint_pipeline.model.spec import UNetSpec
from footprint_pipeline.model.unet import build_unet
from footprint_pipeline.registry import CHALLENGER, CHAMPION, SERVING_FOLDER, Registry
from footprint_pipeline.settings import Settings
from footprint_pipeline.stages import promotion
from footprint_pipeline.stages.promotion import ANSWERING, Tiles, held_out, promote_if_better, roll_back
from footprint_pipeline.stages.scoring import load_manifest
from footprint_pipeline_tests.footprints.red_city import write_model
from footprint_pipeline_tests.stages.prepared import AOI, prepare_city

# mlflow.pyfunc warns of its own type hints when it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:.*inferred as AnyType:UserWarning")

TILES = Tiles(pd.DataFrame({"tile_id": [f"t{n}" for n in range(24)], "aoi": AOI}), None)
HITS = {"1": 8, "2": 11, "3": 14, "4": 8}
"""Of twenty buildings a tile, so many does each version find."""


def scores(version: str, of: Tiles | None = None) -> scoring.TestScores:
    found = np.clip(HITS[version] + np.arange(24) % 5 - 2, 0, 20)
    tiles = pd.DataFrame({"tile_id": [f"t{n}" for n in range(24)], "aoi": AOI, "tolerance": 0.5, "pixels": 99})
    for what in ("building", "pixel"):
        tiles[f"{what}_tp"], tiles[f"{what}_fp"], tiles[f"{what}_fn"] = found, 2, 20 - found
    tiles["pixel_f1"] = 2 * found / (found + 22)
    return scoring.summarize(tiles if of is None else tiles[tiles["tile_id"].isin(of.manifest["tile_id"])])


@dataclass(frozen=True)
class Store:
    """An MLflow store with a logged network, beside a prepared city."""

    home: Path
    uri: str
    model_id: str
    run_id: str

    def log(self) -> tuple[str, str]:
        return log_network(self.home, self.uri)


def log_network(home: Path, uri: str) -> tuple[str, str]:
    """The ids of a logged network and of its run."""
    with tracking.start_run(uri, "tests", artifacts=Lake(home).artifacts, params={}, tags={}) as run:
        return run.log_model(build_unet(UNetSpec(width=2, depth=1)), stride=2), run.run_id


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    home = tmp_path_factory.mktemp("home")
    prepare_city(home)
    uri = f"sqlite:///{home / 'mlflow.db'}"
    before = mlflow.get_tracking_uri()
    yield Store(home, uri, *log_network(home, uri))
    mlflow.set_tracking_uri(before)


_names = itertools.count()


@pytest.fixture
def settings(store: Store, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A registered model of four versions and no champion; a version's scores are known."""
    settings = Settings(home=store.home, tracking_uri=store.uri, model_name=f"model-{next(_names)}")
    registry = Registry(settings.mlflow_uri, settings.model_name)
    for _ in HITS:
        registry.register(model_id=store.model_id, run_id=store.run_id, tags={}, description="A network.")
    monkeypatch.setattr(promotion, "score_version", lambda settings, version, tiles: scores(version, tiles))
    monkeypatch.setattr(promotion, "learned_by", lambda settings, version: pd.DataFrame(columns=["aoi", "tile_id"]))
    return settings


@pytest.fixture
def registry(settings: Settings) -> Registry:
    return Registry(settings.mlflow_uri, settings.model_name)


def promoted(settings: Settings, version: str, **rule: float) -> bool:
    return promote_if_better(settings, version, scores(version), TILES, PromotionSpec(**rule)).verdict.promote


def test_the_best_serves_and_every_version_says_why(settings: Settings, registry: Registry) -> None:
    assert promoted(settings, "2")
    assert not promoted(settings, "1")
    assert registry.version(CHALLENGER) == "1"
    assert not promoted(settings, "3", min_building_f1=0.99)  # whatever the champion scores
    assert promoted(settings, "3")

    assert registry.version() == "3"
    best, worst = (registry.resolve(version=version) for version in ("3", "1"))
    assert best.tags["former_champion"] == "2"
    assert best.tags["promoted"] == "true"
    assert float(best.tags["difference_building_f1_low"]) > 0
    assert best.description.startswith("A network. Promoted: building_f1 differs from the champion's by 0.")
    assert worst.tags["promoted"] == "false"
    assert "former_champion" not in worst.tags
    assert worst.description.startswith("A network. Not promoted: ")


def test_a_network_takes_no_place_from_itself(settings: Settings, registry: Registry) -> None:
    """In another arithmetic the same network may score a little more."""
    choices = dict.fromkeys(ANSWERING, "0.5")
    for version in ("1", "2", "3"):
        registry.tag(version, choices | ({"tolerance": "0.6"} if version == "3" else {}))
    assert promoted(settings, "1")
    judged = promote_if_better(settings, "2", scores("2"), TILES, PromotionSpec())
    assert (judged.verdict.promote, judged.verdict.reason) == (False, "version 1 is the same network")
    assert judged.verdict.differences["building_f1"].low > 0
    assert registry.version(CHALLENGER) == "2"
    assert promoted(settings, "3")
    for name in ("model_id", "tolerance", "own_tolerances", "seed_level", "flips", "min_area_m2"):
        assert not promotion._answer_alike(Mock(tags=choices), Mock(tags=choices | {name: "0.6"}))
    of_before = {name: value for name, value in choices.items() if name != "own_tolerances"}
    assert promotion._answer_alike(Mock(tags=of_before | {"own_tolerances": "{}"}), Mock(tags=of_before))
    assert not promotion._answer_alike(Mock(tags=choices), Mock(tags=of_before))


def test_what_the_champion_has_learned_from_says_nothing_about_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert promoted(settings, "1")
    learned = TILES.manifest.iloc[:20]
    monkeypatch.setattr(promotion, "learned_by", lambda settings, version: learned)
    judged = promote_if_better(settings, "3", scores("3"), TILES, PromotionSpec())
    assert judged.champion_scores.tiles["tile_id"].tolist() == [f"t{n}" for n in range(20, 24)]
    assert "on 4 tiles" in judged.verdict.reason
    learned = TILES.manifest
    judged = promote_if_better(settings, "2", scores("2"), TILES, PromotionSpec())
    assert judged.verdict == Verdict(False, "the champion, version 3, has learned from every test tile")
    registry = Registry(settings.mlflow_uri, settings.model_name)
    assert (registry.version(), registry.version(CHALLENGER)) == ("3", "2")


def test_a_candidate_is_not_judged_on_what_it_has_learned(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, every = load_manifest(Lake(settings.home), []), held_out(settings).manifest
    assert every["tile_id"].tolist() == manifest.loc[manifest["split"] == "test", "tile_id"].tolist()
    with pytest.raises(DatasetError, match="Nowhere"):
        held_out(settings, aois=["Nowhere"])
    learned = {"1": every.iloc[:1], "2": every.iloc[1:]}
    monkeypatch.setattr(promotion, "learned_by", lambda settings, version: learned[version])
    assert held_out(settings, "1").manifest["tile_id"].tolist() == every["tile_id"].tolist()[1:]
    with pytest.raises(DatasetError, match="no test tile that version 1 and version 2 has not learned from") as error:
        held_out(settings, "1", "2")
    assert "--force" in error.value.fix
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(promotion, "held_out", lambda settings, *versions: asked.append(versions) or TILES)
    monkeypatch.setattr(promotion, "promote_if_better", lambda *_: promotion.Judged(Verdict(True, "so"), None, None))
    commands.promote(settings, version="1", force=False)
    assert asked == [("1",)]


def test_promotions_by_hand_and_the_way_back_wait_their_turn(settings: Settings, registry: Registry) -> None:
    assert promoted(settings, "1")
    assert promoted(settings, "2")
    for way in (lambda: promotion.promote_by_hand(settings, "3"), lambda: roll_back(settings)):
        with ThreadPoolExecutor(1) as pool:
            with promotion._alone(settings):
                under_way = pool.submit(way)
                with pytest.raises(TimeoutError):
                    under_way.result(0.3)
            under_way.result(30)
    assert registry.version() == "2"


def test_a_champion_remembers_whose_place_it_takes_before_it_serves(
    settings: Settings, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert promoted(settings, "1")
    with monkeypatch.context() as gone:
        gone.setattr(Registry, "point", Mock(side_effect=RegistryError("it is gone", fix="")))
        with pytest.raises(RegistryError, match="it is gone"):
            promoted(settings, "2")
    assert registry.resolve(version="2").tags["former_champion"] == "1"


@pytest.mark.parametrize("error", [RegistryError, ModelError])
def test_a_champion_that_cannot_be_scored_keeps_its_place_and_holds_up_no_registration(
    settings: Settings,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: type[RegistryError | ModelError],
) -> None:
    registry.point(CHAMPION, "1")
    gone = Mock(side_effect=error("its exported model cannot be pulled.", fix=""))
    monkeypatch.setattr(promotion, "score_version", gone)
    judged = promote_if_better(settings, "3", scores("3"), TILES, PromotionSpec())
    assert (judged.verdict.promote, judged.verdict.reason) == (False, "the champion, version 1, cannot be scored")
    assert registry.version(CHAMPION) == "1"
    assert registry.version(CHALLENGER) == "3"
    assert registry.resolve(version="3").tags["promoted"] == "false"
    assert "cannot be pulled. footprint promote N --force" in caplog.text


def test_judged_again_a_version_says_the_last_verdict_alone(settings: Settings, registry: Registry) -> None:
    assert not promoted(settings, "2", min_building_f1=0.99)
    assert promoted(settings, "2")
    assert registry.resolve(version="2").description == "A network. Promoted: there was no champion."
    assert promoted(settings, "2")  # the champion is held against nobody
    assert registry.resolve(version="2").tags["former_champion"] == "none"


def test_of_two_at_once_the_better_one_serves_and_there_is_a_way_back(
    settings: Settings, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert promoted(settings, "1")
    inside, together = [0], []

    def slowly(settings: Settings, version: str, tiles: Tiles) -> scoring.TestScores:
        inside[0] += 1
        together.append(inside[0])
        threading.Event().wait(0.3)
        inside[0] -= 1
        return scores(version)

    monkeypatch.setattr(promotion, "score_version", slowly)
    threads = [threading.Thread(target=promoted, args=(settings, version)) for version in ("2", "3")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert max(together) == 1
    assert registry.version() == "3"
    if registry.resolve(version="3").tags["former_champion"] == "2":
        assert registry.resolve(version="2").tags["former_champion"] == "1"
    else:
        assert registry.version(CHALLENGER) == "2"


def test_a_champion_made_elsewhere_meanwhile_is_what_the_candidate_is_held_against(
    settings: Settings, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert promoted(settings, "1")

    def and_somebody_else_promotes(settings: Settings, version: str, tiles: Tiles) -> scoring.TestScores:
        registry.point("champion", "3")
        return scores(version)

    monkeypatch.setattr(promotion, "score_version", and_somebody_else_promotes)
    assert not promoted(settings, "2")
    assert registry.version() == "3"


def test_there_is_a_way_back_as_far_as_there_was_one_forth(settings: Settings, registry: Registry) -> None:
    with pytest.raises(RegistryError, match="no alias 'champion'"):
        roll_back(settings)
    for version in ("1", "2", "3"):
        assert promoted(settings, version)

    for champion in ("2", "1"):
        assert commands.rollback(settings)["version"] == champion == registry.version()
    with pytest.raises(RegistryError, match="version 1 took no other version's place"):
        roll_back(settings)
    assert registry.version() == "1"


def test_by_hand_the_rule_is_passed_over(
    settings: Settings, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promotion, "held_out", lambda settings, *versions: TILES)
    assert commands.promote(settings, version="3", force=False)["promoted"]
    for force in (True, False):
        assert commands.promote(settings, version="3", force=force)["reason"] == "it is so already"
    assert not commands.promote(settings, version="1", force=False)["promoted"]
    answer = commands.promote(settings, version="1", force=True)
    assert (answer["promoted"], answer["former_champion"], registry.version()) == (True, "3", "1")
    assert registry.resolve(version="1").description == "A network. Promoted: by hand."
    with pytest.raises(RegistryError, match="no version 99"):
        commands.promote(settings, version="99", force=True)
    assert registry.version() == "1"


def write_answer(folder: Path, probability: float) -> Path:
    """An exported model that answers the same everywhere."""
    write_model(folder, tolerance=0.5, stride=8, gsd_m=0.5)
    image = ops.parameter(ov.PartialShape([-1, -1, -1, 3]), np.float32, name="image")
    nothing = ops.matmul(image, ops.constant(np.zeros((3, 1), np.float32)), False, False)
    ov.save_model(
        ov.Model([ops.add(nothing, ops.constant(np.float32(probability)))], [image], "same"), folder / "model.xml"
    )
    return folder


def test_two_versions_side_by_side(settings: Settings, registry: Registry, store: Store, tmp_path: Path) -> None:
    made = []
    for number, probability in enumerate((0.9, 0.1)):
        model_id, run_id = store.log()
        folder = write_answer(tmp_path / f"answer-{number}" / SERVING_FOLDER, probability)
        tracking.add_to_model(settings.mlflow_uri, model_id, folder, SERVING_FOLDER)
        made.append(registry.register(model_id=model_id, run_id=run_id, tags={}, description=""))
    registry.point(CHALLENGER, made[1])
    tiles = held_out(settings)

    answer = commands.compare(settings, first=made[0], second=CHALLENGER, out=None)

    assert answer["versions"] == made
    everything, nothing = answer["scores"]
    expected = scoring.summarize(promotion.score_exported(
        Runtime(tmp_path / "answer-0" / SERVING_FOLDER), tiles.manifest, tiles.polygons).tiles)  # fmt: skip
    assert everything == expected.metrics()
    assert nothing["pooled_pixel_f1"] == 0 < everything["pooled_pixel_f1"]
    assert answer["differences"]["pooled_pixel_f1"]["low"] > 0
    assert [row["apart"] for row in answer["tiles"]] == sorted((row["apart"] for row in answer["tiles"]), reverse=True)
    sheet = cv2.imread(answer["sheet"])
    assert sheet.shape[0] == 284 * len(tiles.manifest)
    middle, right = sheet[:, sheet.shape[1] // 3 : 2 * sheet.shape[1] // 3], sheet[:, 2 * sheet.shape[1] // 3 :]
    assert (middle[..., 2].astype(int) - middle[..., 0]).mean() > (
        right[..., 2].astype(int) - right[..., 0]
    ).mean() + 20
    with pytest.raises(SettingsError, match="the same version"):
        commands.compare(settings, first=made[1], second=CHALLENGER, out=None)


def test_tiles_that_two_versions_see_most_differently_are_shown_by_what_each_makes_of_them(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {
        version: SimpleNamespace(version=version, spec=SimpleNamespace(tolerance=tolerance, seed_level=level))
        for version, tolerance, level in (("1", 0.4, None), ("2", 0.6, 0.5))
    }
    level = scores("1").tiles.assign(pixel_f1=0.5, building_f1=0.5)
    seen = {"1": level, "2": level.copy()}
    for number, figure, f1 in ((3, "pixel_f1", 0.1), (7, "building_f1", 0.8), (11, "pixel_f1", 0.7)):
        seen["2"].loc[number, figure] = f1
    sheet = Mock(return_value=b"PNG")
    monkeypatch.setattr(promotion, "_pulled", lambda settings, version: version)
    monkeypatch.setattr(promotion, "Runtime", known.get)
    monkeypatch.setattr(promotion, "comparison_sheet", sheet)
    monkeypatch.setattr(promotion, "score_exported", lambda one, *_: replace(scores("1"), tiles=seen[one.version]))
    monkeypatch.setattr(promotion, "predict_exported", lambda one, told: [(one.version, t) for t in told["tile_id"]])

    table = promotion.compare(settings, "1", "2", TILES).tiles

    assert table["apart"].tolist() == pytest.approx([0.4, 0.3, 0.2] + [0.0] * 21)
    assert table["tile_id"].tolist()[:3] == ["t3", "t7", "t11"]
    (pairs, specs), _ = sheet.call_args
    assert pairs == [(("1", tile), ("2", tile)) for tile in table["tile_id"].head(8)]
    assert [spec.tolerance for spec in specs] == [0.4, 0.6]
