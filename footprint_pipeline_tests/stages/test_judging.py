"""Tolerance, seed level and test scores of a network that was really trained, if only for a moment."""

from pathlib import Path

import cv2
import mlflow
import numpy as np
import pandas as pd
import pytest

from footprint_pipeline.dataset.augmentation import AugmentationSpec
from footprint_pipeline.evaluation.spec import SweepSpec
from footprint_pipeline.handover import ToleranceSweep
from footprint_pipeline.model.spec import TrainingSpec, UNetSpec
from footprint_pipeline.settings import Settings
from footprint_pipeline.stages.card import CARD
from footprint_pipeline.stages.judging import evaluate_test, sweep_tolerance
from footprint_pipeline.stages.training import train_unet
from footprint_pipeline_tests.stages.prepared import prepare_city

# mlflow.pyfunc warns of its own type hints when it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:.*inferred as AnyType:UserWarning")

SPEC = TrainingSpec(
    network=UNetSpec(width=4, depth=1, dropout=0.0, heads=("building", "border", "contact")),
    augmentation=AugmentationSpec(), chip_size=64, batch_size=4, epochs=1, max_batches=2, precision="float32",
)  # fmt: skip


@pytest.mark.slow
def test_what_is_chosen_on_the_validation_split_is_what_the_test_split_is_judged_with(tmp_path: Path) -> None:
    prepare_city(tmp_path)
    settings = Settings(home=tmp_path)
    trained, _ = train_unet(settings, SPEC, [], tags={})
    swept, pictures = sweep_tolerance(settings, trained, SweepSpec(slack=1.0, tolerances=3, flips=2))
    assert (swept.rule, swept.flips) == ("building_f1", 2)
    assert swept.min_area_m2 in SweepSpec().min_areas_m2
    assert ToleranceSweep.model_validate_json(swept.model_dump_json()) == swept
    assert set(pictures) == {"box_plot", "building_f1_by_area"}
    for png in pictures.values():
        assert cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR).shape[1] > 800

    evaluation, scores, sheet = evaluate_test(settings, trained, swept)
    assert evaluation.tolerance == swept.tolerance
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
    assert swept.article_tolerance in set(pixels["tolerance"])
