"""Judging a trained network: tolerance and seed level on the validation split, the scores on the test split.

Imports Keras and MLflow, so whoever must stay light imports it inside a function.
"""

import io
import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from footprint_pipeline.dataset.splits import digest
from footprint_pipeline.errors import DatasetError
from footprint_pipeline.evaluation import reports
from footprint_pipeline.evaluation.bootstrap import intervals
from footprint_pipeline.evaluation.breakdown import by_coverage, by_size, precision_recall
from footprint_pipeline.evaluation.building_sweep import Labelled
from footprint_pipeline.evaluation.choice import settle
from footprint_pipeline.evaluation.scoring import (
    TestScores,
    TilePrediction,
    predict_tiles,
    score_tiles,
    tile_buildings,
)
from footprint_pipeline.evaluation.spec import SweepSpec
from footprint_pipeline.evaluation.tolerance import THRESHOLDS, SweepTable, Tiles, from_claims, sweep, sweep_stream
from footprint_pipeline.footprints.predict import Infer
from footprint_pipeline.handover import TestEvaluation, ToleranceSweep, TrainedUnet
from footprint_pipeline.many import spread
from footprint_pipeline.model import tracking
from footprint_pipeline.model.devices import accelerated
from footprint_pipeline.model.export import load_keras
from footprint_pipeline.model.memory import freed_memory_kept
from footprint_pipeline.model.pixel_sweep import build_count
from footprint_pipeline.model.training import keras_infer
from footprint_pipeline.settings import Settings
from footprint_pipeline.stages.card import BOX_PLOT, CARD, END_TILES, model_card
from footprint_pipeline.stages.data import data_digest
from footprint_pipeline.stages.scoring import load_manifest, load_polygons, said
from footprint_pipeline.stages.weights import LEARNED_BEFORE, NOTHING_LEARNED, are_in, read_learned

log = logging.getLogger(__name__)

SHOWN_TILES = 6
_SWEEP = SweepSpec()


@freed_memory_kept()
def sweep_tolerance(
    settings: Settings, trained: TrainedUnet, spec: SweepSpec = _SWEEP
) -> tuple[ToleranceSweep, dict[str, bytes]]:
    """Choose tolerance, seed level and minimum area on the validation split; pictures come along as PNG, by name."""
    manifest = of_split(settings, trained, "validation")
    polygons = load_polygons(settings.lake, manifest)
    buildings_of = tile_buildings(polygons)
    measured = set(spread(len(manifest), spec.tiles).tolist())
    tile_ids, aois, sample = [], [], []

    def pixels() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for number, prediction in enumerate(_predictions(settings, trained, manifest, flips=spec.flips, what="sweep")):
            tile_ids.append(prediction.tile_id)
            aois.append(prediction.aoi)
            if number in measured:
                sample.append(Labelled(prediction.aoi, prediction.answer, buildings_of(prediction)))
            yield prediction.probability, prediction.truth

    table = replace(sweep_stream(pixels(), _sweep_here()), aois=tuple(aois))
    settled = settle(table, sample, spec)
    choice = settled.choice
    log.info(
        "Tolerance %.2f, seed level %s, %g m² (%s): median F1 %.4f, pooled F1 %.4f, building F1 %.4f",
        choice.tolerance, settled.seed_level, settled.min_area_m2, spec.rule,
        choice.median_f1, choice.pooled_f1, settled.building_f1,
    )  # fmt: skip
    if settled.own:
        log.info("Of their own: %s", ", ".join(f"{aoi} {own:.2f}" for aoi, own in settled.own.items()))
    box_plot, heat_map = reports.box_plot(table, choice), reports.heat_map(settled)
    tracking.log_files(
        trained.run_id,
        {
            BOX_PLOT: box_plot,
            "tolerance/building_f1.png": heat_map,
            "tolerance/pixels.parquet": table.frame(tile_ids).to_parquet(index=False),
            "tolerance/buildings.parquet": settled.measured.to_parquet(index=False),
        },
    )
    swept = ToleranceSweep(
        run_id=trained.run_id,
        model_id=trained.model_id,
        tolerance=choice.tolerance,
        own_tolerances=settled.own,
        median_tile_f1=choice.median_f1,
        std_tile_f1=choice.std_f1,
        pooled_pixel_f1=choice.pooled_f1,
        tiles=len(tile_ids),
        rule=spec.rule,
        article_tolerance=settled.article.tolerance,
        seed_level=settled.seed_level,
        flips=spec.flips,
        min_area_m2=settled.min_area_m2,
        building_f1=settled.building_f1,
        calibration=settled.calibration,
    )
    tracking.log_metrics(
        trained.run_id,
        {
            "tolerance": swept.tolerance,
            **{f"tolerance_{aoi}": own for aoi, own in swept.own_tolerances.items()},
            "article_tolerance": settled.article.tolerance,
            "min_area_m2": swept.min_area_m2,
            **({} if swept.seed_level is None else {"seed_level": swept.seed_level}),
            "validation_median_tile_f1": swept.median_tile_f1,
            "validation_pooled_pixel_f1": swept.pooled_pixel_f1,
            "validation_building_f1": settled.building_f1,
        },
    )
    return swept, {"box_plot": box_plot, "building_f1_by_area": heat_map}


def _sweep_here() -> Callable[[Tiles, Tiles], SweepTable]:
    """The sweep of tiles of one shape: on the accelerator where there is one, else on all cores."""
    if not accelerated():
        return sweep
    count = build_count(THRESHOLDS)
    return lambda probability, truth: from_claims(*count(np.asarray(probability), np.asarray(truth)))


@freed_memory_kept()
def evaluate_test(
    settings: Settings, trained: TrainedUnet, swept: ToleranceSweep
) -> tuple[TestEvaluation, TestScores, bytes]:
    """Score the test split as chosen; a contact sheet of worst to best tiles comes along as PNG.

    Raises:
        DatasetError: tolerance and network are not of one training, or the split has changed.
    """
    of_one_training(trained, swept)
    stamp, manifest = prepared_now(settings, trained), of_split(settings, trained, "test")
    predictions = _predictions(settings, trained, manifest, flips=swept.flips, what="test")
    shown: list[tuple[float, TilePrediction]] = []
    ends: list[tuple[float, TilePrediction]] = []

    def keep(prediction: TilePrediction, f1: float) -> None:
        if prediction.truth.any():
            _keep_spread(shown, prediction, f1)
            _keep_ends(ends, prediction, f1)

    scores = score_tiles(
        predictions,
        load_polygons(settings.lake, manifest),
        tolerance=swept.tolerance,
        own_tolerances=swept.own_tolerances,
        seed_level=swept.seed_level,
        min_area_m2=swept.min_area_m2,
        on_tile=keep,
    )
    sheet = reports.contact_sheet(
        [prediction for _, prediction in shown],
        tolerance=swept.tolerance,
        own_tolerances=swept.own_tolerances,
        seed_level=swept.seed_level,
    )
    log.info(
        "Test: median tile F1 %.4f, pooled pixel F1 %.4f, building F1 %.4f",
        scores.median_tile_f1, scores.pooled_pixel_f1, scores.building_f1,
    )  # fmt: skip
    ranges = intervals(scores.tiles)
    card = model_card(settings, trained, swept, scores, ranges, [prediction for _, prediction in ends])
    tracking.log_files(
        trained.run_id,
        {
            CARD: card.encode(),
            "test/overlays.png": sheet,
            "test/tiles.csv": scores.tiles.to_csv(index=False).encode(),
            "test/by_aoi.csv": scores.by_aoi.to_csv(index=False).encode(),
            "test/by_size.csv": by_size(scores).to_csv(index=False).encode(),
            "test/by_coverage.csv": by_coverage(scores).to_csv(index=False).encode(),
            "test/precision_recall.csv": precision_recall(scores).to_csv(index=False).encode(),
            "test/reliability.csv": scores.pixels.table().to_csv(index=False).encode(),
        },
    )
    tracking.log_metrics(
        trained.run_id,
        {
            **{f"test_{name}": value for name, value in scores.metrics().items()},
            **{f"test_{name}_low": ranges[name].low for name in ranges},
            **{f"test_{name}_high": ranges[name].high for name in ranges},
            "test_pixel_calibration_error": scores.pixels.expected_error,
        },
    )
    evaluation = TestEvaluation(
        run_id=trained.run_id,
        model_id=trained.model_id,
        tolerance=swept.tolerance,
        own_tolerances=swept.own_tolerances,
        seed_level=swept.seed_level,
        flips=swept.flips,
        min_area_m2=swept.min_area_m2,
        tiles=len(scores.tiles),
        metrics=scores.metrics(),
        by_aoi=scores.by_aoi.to_dict("records"),
        intervals={name: (each.low, each.high) for name, each in ranges.items()},
        data_digest=stamp,
    )
    return evaluation, scores, sheet


def _predictions(
    settings: Settings, trained: TrainedUnet, manifest: pd.DataFrame, *, flips: int, what: str
) -> Iterator[TilePrediction]:
    return predict_tiles(
        manifest,
        load_network(settings, trained),
        gsd_m=trained.gsd_m,
        stride=trained.stride,
        heads=trained.heads,
        flips=flips,
        progress=said(what),
    )


def load_network(settings: Settings, trained: TrainedUnet) -> Infer:
    """The trained network from MLflow, as a function."""
    with tempfile.TemporaryDirectory() as scratch:
        path = tracking.download_keras(settings.mlflow_uri, trained.model_id, Path(scratch))
        return keras_infer(load_keras(path))


def of_one_training(trained: TrainedUnet, swept: ToleranceSweep, evaluation: TestEvaluation | None = None) -> None:
    """Make sure that what is chosen is chosen for the network, and that what is scored is scored as chosen.

    Raises:
        DatasetError: it is not.
    """
    if swept.model_id != trained.model_id:
        raise DatasetError(
            f"The tolerance was chosen for the network of run {swept.run_id}; the network is that of {trained.run_id}.",
            fix="Materialize tolerance_sweep and test_evaluation again (footprint tune, footprint evaluate).",
        )
    if evaluation is None:
        return
    same = ("model_id", "tolerance", "own_tolerances", "seed_level", "flips", "min_area_m2")
    if any(getattr(evaluation, name) != getattr(swept, name) for name in same):
        raise DatasetError(
            f"The scores of run {evaluation.run_id} at tolerance {evaluation.tolerance:.2f} were not reached with what "
            f"is chosen now: tolerance {swept.tolerance:.2f} for run {swept.run_id}.",
            fix="Materialize test_evaluation again (footprint evaluate).",
        )


def prepared_now(settings: Settings, trained: TrainedUnet) -> str:
    """`data_digest` of the AOIs that a network was trained on, as they are prepared now."""
    lake = settings.lake
    return data_digest(lake, load_manifest(lake, list(trained.aois)))


def of_split(settings: Settings, trained: TrainedUnet, split: str) -> pd.DataFrame:
    """The tiles of a split, provided that it is still the one trained on.

    Of the test split those are left out that the weights have learned from with which the training began.

    Raises:
        DatasetError: the split has changed since, or no test tile is left.
    """
    manifest = load_manifest(settings.lake, list(trained.aois))
    if digest(manifest) != trained.split_digest:
        raise DatasetError(
            f"The split has changed since run {trained.run_id} was trained: its test tiles may be training tiles now.",
            fix="Materialize trained_unet again.",
        )
    tiles = manifest[manifest["split"] == split]
    if split != "test" or tiles.empty:
        return tiles
    fair = tiles[~are_in(tiles, learned_before(settings, trained))]
    if fair.empty:
        raise DatasetError(
            f"The weights that run {trained.run_id} began from have learned from every test tile.",
            fix="Split the tiles as they were for those weights, or begin from others.",
        )
    return fair


def learned_before(settings: Settings, trained: TrainedUnet) -> pd.DataFrame:
    """`aoi` and `tile_id` of the tiles that had taught the weights which a training began from, as far as known."""
    listed = tracking.read_file(settings.mlflow_uri, trained.run_id, LEARNED_BEFORE) if trained.weights else None
    return read_learned(io.BytesIO(listed)) if listed else NOTHING_LEARNED


def _keep_spread(shown: list[tuple[float, TilePrediction]], prediction: TilePrediction, f1: float) -> None:
    """Keep a few tiles, worst to best, dropping whichever is closest to its neighbours."""
    shown.append((f1, prediction))
    shown.sort(key=lambda pair: pair[0])
    if len(shown) > SHOWN_TILES:
        gaps = [shown[i + 1][0] - shown[i - 1][0] for i in range(1, len(shown) - 1)]
        del shown[1 + gaps.index(min(gaps))]


def _keep_ends(shown: list[tuple[float, TilePrediction]], prediction: TilePrediction, f1: float) -> None:
    """Keep the worst tiles and the best ones, worst to best."""
    shown.append((f1, prediction))
    shown.sort(key=lambda pair: pair[0])
    if len(shown) > 2 * END_TILES:
        del shown[END_TILES]
