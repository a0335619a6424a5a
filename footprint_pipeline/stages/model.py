"""The model stages, composed from the rooms: train, sweep, evaluate, register. Assets and the CLI call these.

Imports Keras and MLflow, so whoever must stay light imports it inside a function.
"""

import json
import logging
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from footprint_pipeline.dataset.cache import build_cache, model_gsd
from footprint_pipeline.dataset.checks.record import require_passed
from footprint_pipeline.dataset.splits import digest
from footprint_pipeline.dataset.tiles import normalization
from footprint_pipeline.errors import DatasetError
from footprint_pipeline.evaluation import reports
from footprint_pipeline.evaluation.promotion import decide
from footprint_pipeline.evaluation.scoring import TestScores, TilePrediction, predict_tiles, score_tiles
from footprint_pipeline.evaluation.tolerance import median_then_std, stack, sweep_tile
from footprint_pipeline.footprints.predict import Infer
from footprint_pipeline.footprints.runtime import Runtime
from footprint_pipeline.footprints.spec import ModelSpec
from footprint_pipeline.handover import RegisteredModel, TestEvaluation, ToleranceSweep, TrainedUnet
from footprint_pipeline.lake import Lake
from footprint_pipeline.model import tracking
from footprint_pipeline.model.export import export_openvino, load_keras
from footprint_pipeline.model.spec import TrainingSpec
from footprint_pipeline.model.training import keras_infer, train
from footprint_pipeline.model.unet import describe
from footprint_pipeline.registry import CHALLENGER, CHAMPION, SERVING_FOLDER, Registry
from footprint_pipeline.settings import Settings
from footprint_pipeline.stages.scoring import load_manifest, load_polygons, said, score_exported

log = logging.getLogger(__name__)

SHOWN_TILES = 6


def train_unet(
    settings: Settings, spec: TrainingSpec, aois: list[str], *, tags: dict[str, str]
) -> tuple[TrainedUnet, list[dict[str, float]]]:
    """Train on the prepared AOIs and log it all to MLflow; the history, one dict an epoch, comes along.

    Args:
        settings: where state lives.
        spec: how to train.
        aois: AOIs to train on; every prepared one when empty.
        tags: put on the MLflow run.

    Raises:
        DatasetError: an AOI is not prepared, or failed a blocking check.
        TrainingError: there is nothing to train on, or the loss is not a number.
    """
    lake = Lake(settings.home.absolute())
    manifest = load_manifest(lake, aois)
    names = tuple(sorted(manifest["aoi"].unique()))
    for name in names:
        require_passed(lake.aoi(name))
    taught = manifest[manifest["split"] == "train"]
    gsd_m = spec.gsd_m or model_gsd(taught)
    cache = build_cache(manifest[manifest["split"] != "test"], lake.cache, gsd_m=gsd_m)
    tiles = {split: int(count) for split, count in manifest["split"].value_counts().items()}
    params = {
        **spec.flat(), "aois": ",".join(names), "split_digest": digest(manifest), "gsd_m": round(gsd_m, 4),
        **{f"tiles.{split}": count for split, count in tiles.items()},
    }  # fmt: skip
    with tracking.start_run(
        settings.mlflow_uri,
        settings.experiment,
        artifacts=None if settings.mlflow_uri.startswith("http") else lake.artifacts,
        params=params,
        tags={**tags, "aois": ",".join(names), "split_digest": digest(manifest)},
    ) as run:
        result = train(spec, cache, lake.checkpoints / run.run_id, on_epoch=run.log_epoch)
        run.log_picture("training/learning_curves.png", reports.learning_curves(result.history))
        model_id = run.log_model(result.model, stride=spec.network.stride)
        parameters = int(result.model.count_params())
    trained = TrainedUnet(
        run_id=run.run_id,
        experiment_id=run.experiment_id,
        model_id=model_id,
        network=describe(spec.network, parameters),
        parameters=parameters,
        stride=spec.network.stride,
        chip_size=spec.chip_size,
        gsd_m=gsd_m,
        aois=names,
        split_digest=digest(manifest),
        normalization={str(aoi): normalization(next(rows.itertuples())) for aoi, rows in taught.groupby("aoi")},
        tiles=tiles,
        epochs=len(result.history),
        best_epoch=result.best_epoch,
        validation_loss=result.history[result.best_epoch]["val_loss"],
        seconds=result.seconds,
        precision=result.precision,
    )
    return trained, result.history


def sweep_tolerance(settings: Settings, trained: TrainedUnet) -> tuple[ToleranceSweep, bytes]:
    """Choose the tolerance on the validation split; the box plot comes along as PNG."""
    manifest = _of_split(settings, trained, "validation")
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
    manifest = _of_split(settings, trained, "test")
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


def register_model(
    settings: Settings, trained: TrainedUnet, swept: ToleranceSweep, evaluation: TestEvaluation, *, min_area_m2: float
) -> RegisteredModel:
    """Export the network, register both as one version, and promote it when it beats the champion.

    Both are scored afresh on the same test tiles, as the service would run them.
    """
    registry = Registry(settings.mlflow_uri, settings.model_name)
    spec = ModelSpec(
        model_name=settings.model_name,
        network=trained.network,
        tolerance=swept.tolerance,
        gsd_m=trained.gsd_m,
        chip_size=trained.chip_size,
        stride=trained.stride,
        min_area_m2=min_area_m2,
        aois=trained.aois,
        normalization=trained.normalization,
        metrics=evaluation.metrics,
        run_id=trained.run_id,
        created=datetime.now(UTC),
    )
    lake = Lake(settings.home.absolute())
    manifest = _of_split(settings, trained, "test")
    polygons = load_polygons(lake, manifest)
    champion, champion_metrics = registry.champion(), None
    with tempfile.TemporaryDirectory() as scratch:
        keras_file = tracking.download_keras(settings.mlflow_uri, trained.model_id, Path(scratch))
        exported = Path(scratch) / SERVING_FOLDER
        export_openvino(load_keras(keras_file), exported, chip_size=trained.chip_size)
        spec.write(exported)
        if champion is not None:
            log.info("Scoring the champion, version %s, and the candidate on the same tiles", champion.version)
            pulled = registry.pull(version=champion.version, into=settings.home.absolute() / "pulled")
            champion_metrics = score_exported(Runtime(pulled), manifest, polygons).metrics()
            verdict = decide(score_exported(Runtime(exported), manifest, polygons).metrics(), champion_metrics)
        else:
            verdict = decide(evaluation.metrics, None)
        tracking.add_to_model(settings.mlflow_uri, trained.model_id, exported, SERVING_FOLDER)

    version = registry.register(
        model_id=trained.model_id,
        run_id=trained.run_id,
        tags=version_tags(spec, trained, verdict.promote, verdict.reason),
        description=f"{trained.network}; trained on {', '.join(trained.aois)}. "
        + ("Promoted: " if verdict.promote else "Not promoted: ")
        + verdict.reason
        + ".",
    )
    registry.point(CHAMPION if verdict.promote else CHALLENGER, version)
    log.info("Version %s is the %s: %s", version, CHAMPION if verdict.promote else CHALLENGER, verdict.reason)
    return RegisteredModel(
        name=settings.model_name,
        version=version,
        run_id=trained.run_id,
        promoted=verdict.promote,
        reason=verdict.reason,
        metrics=evaluation.metrics,
        champion_metrics=champion_metrics,
    )


def version_tags(spec: ModelSpec, trained: TrainedUnet, promoted: bool, reason: str) -> dict[str, str]:
    """What people and programs read off a version: tolerance, GSD, input size, AOIs, normalisation, scores."""
    stretches = {aoi: stretch.model_dump() for aoi, stretch in spec.normalization.items()}
    return {
        "tolerance": f"{spec.tolerance:.2f}",
        "gsd_m": f"{spec.gsd_m:.4f}",
        "input_size": str(spec.chip_size),
        "stride": str(spec.stride),
        "aois": ",".join(spec.aois),
        "normalization": json.dumps(stretches),
        "network": spec.network,
        "split_digest": trained.split_digest,
        "promoted": str(promoted).lower(),
        "verdict": reason,
        **{f"test_{name}": f"{value:.4f}" for name, value in spec.metrics.items()},
    }


def load_network(settings: Settings, trained: TrainedUnet) -> Infer:
    """The trained network from MLflow, as a function."""
    with tempfile.TemporaryDirectory() as scratch:
        path = tracking.download_keras(settings.mlflow_uri, trained.model_id, Path(scratch))
        return keras_infer(load_keras(path))


def _of_split(settings: Settings, trained: TrainedUnet, split: str) -> pd.DataFrame:
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
