"""Training on prepared areas, logged to MLflow. Assets and the CLI call it.

Imports Keras and MLflow, so whoever must stay light imports it inside a function.
"""

import logging

from footprint_pipeline.dataset.caching import build_cache, model_gsd
from footprint_pipeline.dataset.checks.record import require_passed
from footprint_pipeline.dataset.splits import digest
from footprint_pipeline.dataset.tiles import normalization
from footprint_pipeline.evaluation import reports
from footprint_pipeline.handover import TrainedUnet
from footprint_pipeline.lake import Lake
from footprint_pipeline.model import tracking
from footprint_pipeline.model.spec import TrainingSpec
from footprint_pipeline.model.training import train
from footprint_pipeline.model.unet import describe
from footprint_pipeline.settings import Settings
from footprint_pipeline.stages.scoring import load_manifest

log = logging.getLogger(__name__)


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
