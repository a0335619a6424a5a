"""Judging a trained network: the tolerance sweep on the validation split, the scores on the test split.

Imports Keras and MLflow, so whoever must stay light imports it inside a function.
"""

import logging
import tempfile
from pathlib import Path

import pandas as pd

from footprint_pipeline.dataset.splits import digest
from footprint_pipeline.errors import DatasetError
from footprint_pipeline.evaluation import reports
from footprint_pipeline.evaluation.scoring import TestScores, TilePrediction, predict_tiles, score_tiles
from footprint_pipeline.evaluation.tolerance import median_then_std, stack, sweep_tile
from footprint_pipeline.footprints.predict import Infer
from footprint_pipeline.handover import TestEvaluation, ToleranceSweep, TrainedUnet
from footprint_pipeline.lake import Lake
from footprint_pipeline.model import tracking
from footprint_pipeline.model.export import load_keras
from footprint_pipeline.model.training import keras_infer
from footprint_pipeline.settings import Settings
from footprint_pipeline.stages.scoring import load_manifest, load_polygons, said

log = logging.getLogger(__name__)

SHOWN_TILES = 6


def sweep_tolerance(settings: Settings, trained: TrainedUnet) -> tuple[ToleranceSweep, bytes]:
    """Choose the tolerance on the validation split; the box plot comes along as PNG."""
    manifest = of_split(settings, trained, "validation")
    infer = load_network(settings, trained)
    tables, tile_ids = [], []
    for prediction in predict_tiles(
        manifest, infer, gsd_m=trained.gsd_m, stride=trained.stride, progress=said("sweep")
    ):
        tables.append(sweep_tile(prediction.probability, prediction.truth))
        tile_ids.append(prediction.tile_id)
    table = stack(tables)
    choice = median_then_std(table)
    plot = reports.box_plot(table, choice)
    log.info(
        "Tolerance %.2f: median F1 %.4f, standard deviation %.4f", choice.tolerance, choice.median_f1, choice.std_f1
    )
    tracking.log_files(
        trained.run_id,
        {
            "tolerance/box_plot.png": plot,
            "tolerance/sweep.csv": table.frame(tile_ids).to_csv(index=False).encode(),
        },
    )
    swept = ToleranceSweep(
        run_id=trained.run_id,
        model_id=trained.model_id,
        tolerance=choice.tolerance,
        median_tile_f1=choice.median_f1,
        std_tile_f1=choice.std_f1,
        pooled_pixel_f1=choice.pooled_f1,
        tiles=len(tile_ids),
    )
    tracking.log_metrics(
        trained.run_id,
        {
            "tolerance": swept.tolerance,
            "validation_median_tile_f1": swept.median_tile_f1,
            "validation_pooled_pixel_f1": swept.pooled_pixel_f1,
        },
    )
    return swept, plot


def evaluate_test(
    settings: Settings, trained: TrainedUnet, swept: ToleranceSweep
) -> tuple[TestEvaluation, TestScores, bytes]:
    """Score the test split at the chosen tolerance; a contact sheet of worst to best tiles comes along as PNG."""
    manifest = of_split(settings, trained, "test")
    predictions = predict_tiles(
        manifest, load_network(settings, trained), gsd_m=trained.gsd_m, stride=trained.stride, progress=said("test")
    )
    shown: list[tuple[float, TilePrediction]] = []
    scores = score_tiles(
        predictions,
        load_polygons(Lake(settings.home.absolute()), manifest),
        tolerance=swept.tolerance,
        on_tile=lambda prediction, f1: _keep_spread(shown, prediction, f1),
    )
    sheet = reports.contact_sheet([prediction for _, prediction in shown], tolerance=swept.tolerance)
    log.info(
        "Test: median tile F1 %.4f, pooled pixel F1 %.4f, building F1 %.4f",
        scores.median_tile_f1, scores.pooled_pixel_f1, scores.building_f1,
    )  # fmt: skip
    tracking.log_files(
        trained.run_id,
        {
            "test/overlays.png": sheet,
            "test/tiles.csv": scores.tiles.to_csv(index=False).encode(),
            "test/by_aoi.csv": scores.by_aoi.to_csv(index=False).encode(),
        },
    )
    tracking.log_metrics(trained.run_id, {f"test_{name}": value for name, value in scores.metrics().items()})
    evaluation = TestEvaluation(
        run_id=trained.run_id,
        model_id=trained.model_id,
        tolerance=swept.tolerance,
        tiles=len(scores.tiles),
        metrics=scores.metrics(),
        by_aoi=scores.by_aoi.to_dict("records"),
    )
    return evaluation, scores, sheet


def load_network(settings: Settings, trained: TrainedUnet) -> Infer:
    """The trained network from MLflow, as a function."""
    with tempfile.TemporaryDirectory() as scratch:
        path = tracking.download_keras(settings.mlflow_uri, trained.model_id, Path(scratch))
        return keras_infer(load_keras(path))


def of_split(settings: Settings, trained: TrainedUnet, split: str) -> pd.DataFrame:
    """The tiles of a split, provided that it is still the one trained on.

    Raises:
        DatasetError: the split has changed since.
    """
    manifest = load_manifest(Lake(settings.home.absolute()), list(trained.aois))
    if digest(manifest) != trained.split_digest:
        raise DatasetError(
            f"The split has changed since run {trained.run_id} was trained: its test tiles may be training tiles now.",
            fix="Materialize trained_unet again.",
        )
    return manifest[manifest["split"] == split]


def _keep_spread(shown: list[tuple[float, TilePrediction]], prediction: TilePrediction, f1: float) -> None:
    """Keep a few tiles with buildings, worst to best, dropping whichever is closest to its neighbours."""
    if not prediction.truth.any():
        return
    shown.append((f1, prediction))
    shown.sort(key=lambda pair: pair[0])
    if len(shown) > SHOWN_TILES:
        gaps = [shown[i + 1][0] - shown[i - 1][0] for i in range(1, len(shown) - 1)]
        del shown[1 + gaps.index(min(gaps))]
