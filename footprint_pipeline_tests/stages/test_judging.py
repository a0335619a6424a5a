"""Tolerance, seed level and test scores of a network that was really trained, if only for a moment."""

from pathlib import Path
from typing import Any

import cv2
import mlflow
import numpy as np
import pandas as pd
import pytest

from footprint_pipeline.dataset.augmentation import AugmentationSpec
from footprint_pipeline.dataset.masks import read_mask
from footprint_pipeline.dataset.splits import read_manifests
from footprint_pipeline.dataset.tiles import read_tile
from footprint_pipeline.evaluation.spec import SweepSpec
from footprint_pipeline.handover import ToleranceSweep
from footprint_pipeline.lake import Lake
from footprint_pipeline.model.spec import TrainingSpec, UNetSpec
from footprint_pipeline.settings import Settings
from footprint_pipeline.stages import judging
from footprint_pipeline.stages.card import CARD, END_TILES
from footprint_pipeline.stages.data import data_digest
from footprint_pipeline.stages.judging import SHOWN_TILES, _keep_ends, _keep_spread, evaluate_test, sweep_tolerance
from footprint_pipeline.stages.scoring import load_manifest
from footprint_pipeline.stages.training import train_unet
from footprint_pipeline_tests.overheard import overhear
from footprint_pipeline_tests.stages.prepared import prepare_city

# mlflow.pyfunc warns of its own type hints when it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:.*inferred as AnyType:UserWarning")

SPEC = TrainingSpec(
    network=UNetSpec(width=4, depth=1, dropout=0.0, heads=("building", "border", "contact")),
    augmentation=AugmentationSpec(), chip_size=64, batch_size=4, epochs=1, max_batches=2, precision="float32",
)  # fmt: skip


@pytest.mark.slow
def test_what_is_chosen_on_the_validation_split_is_what_the_test_split_is_judged_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = overhear(monkeypatch, judging, "predict_tiles", "score_tiles")
    folder = prepare_city(tmp_path)
    settings = Settings(home=tmp_path)
    trained, _ = train_unet(settings, SPEC, [], tags={})
    swept, pictures = sweep_tolerance(settings, trained, SweepSpec(slack=1.0, tolerances=3, flips=2))
    assert (swept.rule, swept.flips, told["flips"]) == ("building_f1", 2, 2)
    assert swept.min_area_m2 in SweepSpec().min_areas_m2
    assert ToleranceSweep.model_validate_json(swept.model_dump_json()) == swept
    assert set(pictures) == {"box_plot", "building_f1_by_area"}
    for png in pictures.values():
        assert cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR).shape[1] > 800

    odd = {
        "tolerance": 0.37,
        "own_tolerances": {trained.aois[0]: 0.41},
        "seed_level": 0.45,
        "min_area_m2": 3.0,
        "flips": 4,
    }
    evaluate_test(settings, trained, swept.model_copy(update=odd))
    assert odd.items() <= told.items()

    evaluation, scores, sheet = evaluate_test(settings, trained, swept)
    assert evaluation.tolerance == swept.tolerance
    assert evaluation.data_digest == trained.data_digest
    assert evaluation.data_digest == data_digest(Lake(tmp_path), load_manifest(Lake(tmp_path), []))
    assert evaluation.metrics == scores.metrics()
    assert cv2.imdecode(np.frombuffer(sheet, np.uint8), cv2.IMREAD_COLOR).size > 0
    assert len(scores.buildings) == scores.tiles[["building_tp", "building_fn"]].to_numpy().sum()
    assert len(scores.proposals) == scores.tiles[["building_tp", "building_fp"]].to_numpy().sum()
    assert scores.pixels.count.sum() == scores.tiles["pixels"].sum()
    low, high = evaluation.intervals["pooled_pixel_f1"]
    assert low <= scores.pooled_pixel_f1 <= high

    mlflow.set_tracking_uri(settings.mlflow_uri)
    metrics = mlflow.get_run(trained.run_id).data.metrics
    assert metrics["validation_building_f1"] == swept.building_f1
    assert metrics["test_building_f1"] == scores.building_f1
    card = Path(mlflow.artifacts.download_artifacts(f"runs:/{trained.run_id}/{CARD}")).read_text(encoding="utf-8")
    for told in (trained.run_id, trained.split_digest, "network.width", "AOI_0_Synthetic", "data:image/png"):
        assert told in card
    of_run = f"runs:/{trained.run_id}/tolerance"
    measured = pd.read_parquet(mlflow.artifacts.download_artifacts(f"{of_run}/buildings.parquet"))
    assert measured["seed_level"].isna().any()
    assert measured["seed_level"].nunique() == len(SweepSpec().seed_levels)
    assert set(measured["min_area_m2"]) == set(SweepSpec().min_areas_m2)
    assert measured["f1"].max() >= swept.building_f1
    pixels = pd.read_parquet(mlflow.artifacts.download_artifacts(f"{of_run}/pixels.parquet"))
    assert len(pixels) == 50 * swept.tiles
    assert set(pixels["aoi"]) == {trained.aois[0]}
    of_tile = read_manifests([folder.manifest]).set_index("tile_id")
    for tile_id, rows in pixels.groupby("tile_id"):
        truth = read_mask(Path(of_tile.loc[tile_id, "mask_path"])) & read_tile(Path(of_tile.loc[tile_id, "path"]))[1]
        assert set(rows["tp"] + rows["fn"]) == {truth.sum()}
    assert swept.article_tolerance in set(pixels["tolerance"])


def test_the_tiles_that_are_shown_are_the_worst_the_best_and_some_between() -> None:
    spread_out: list[tuple[float, Any]] = []
    ends: list[tuple[float, Any]] = []
    for f1 in np.random.default_rng(0).permutation(40) / 40:
        _keep_spread(spread_out, None, f1)
        _keep_ends(ends, None, f1)
    shown = [f1 for f1, _ in spread_out]
    assert (shown[0], shown[-1], len(shown)) == (0.0, 39 / 40, SHOWN_TILES)
    assert [f1 for f1, _ in ends] == [n / 40 for n in (*range(END_TILES), *range(40 - END_TILES, 40))]
