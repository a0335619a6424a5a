"""From a judged network to the registry: export, compare with the champion, register, promote.

Imports Keras and MLflow, so whoever must stay light imports it inside a function.
"""

import json
import logging
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import numpy as np
import pandas as pd

from footprint_pipeline.dataset.caching import grid_size, resample
from footprint_pipeline.dataset.tiles import TileRow, as_learned, read_tile, read_tile_index
from footprint_pipeline.errors import DatasetError
from footprint_pipeline.evaluation.spec import PromotionSpec
from footprint_pipeline.footprints.domain import DomainReference, brightness_counts
from footprint_pipeline.footprints.places import boxes_around
from footprint_pipeline.footprints.runtime import Runtime
from footprint_pipeline.footprints.spec import ModelSpec
from footprint_pipeline.handover import RegisteredModel, TestEvaluation, ToleranceSweep, TrainedUnet
from footprint_pipeline.many import spread
from footprint_pipeline.model import tracking
from footprint_pipeline.model.export import export_onnx, export_openvino, load_keras
from footprint_pipeline.registry import (
    CARD_FOLDER,
    LEARNED,
    ONNX_FOLDER,
    SERVING_FOLDER,
    Registry,
)
from footprint_pipeline.settings import Settings
from footprint_pipeline.stages.card import CARD
from footprint_pipeline.stages.judging import learned_before, of_one_training, of_split, prepared_now
from footprint_pipeline.stages.precisions import compare_precisions
from footprint_pipeline.stages.promotion import Tiles, promote_if_better
from footprint_pipeline.stages.scoring import load_polygons, score_exported
from footprint_pipeline.versions import EXPORTS

log = logging.getLogger(__name__)

DOMAIN_TILES = 256
"""So many training tiles say what the training set looks like, at most."""
_RULE = PromotionSpec()


def register_model(
    settings: Settings,
    trained: TrainedUnet,
    swept: ToleranceSweep,
    evaluation: TestEvaluation,
    rule: PromotionSpec = _RULE,
) -> RegisteredModel:
    """Export the network, register it in all forms as one version, and promote it when it beats the champion.

    The service's arithmetic is chosen first. Champion and candidate are scored afresh on the same test tiles, as the
    service would run them. A network that is registered again is a version of its own; what others serve stays.

    Raises:
        DatasetError: tolerance or scores are of another training, or the split has changed.
    """
    of_one_training(trained, swept, evaluation)
    if evaluation.data_digest not in ("", prepared_now(settings, trained)):
        raise DatasetError(
            f"{', '.join(trained.aois)}: prepared anew, all or some, since run {trained.run_id} was scored.",
            fix="Materialize test_evaluation again (footprint evaluate).",
        )
    lake, registry = settings.lake, Registry.of(settings)
    exports = f"{EXPORTS}/{uuid4().hex[:8]}"
    taught = of_split(settings, trained, "train")
    spec = ModelSpec(
        model_name=settings.model_name,
        network=trained.network,
        tolerance=swept.tolerance,
        gsd_m=trained.gsd_m,
        chip_size=trained.chip_size,
        stride=trained.stride,
        heads=trained.heads,
        seed_level=swept.seed_level,
        flips=swept.flips,
        calibration=swept.calibration,
        min_area_m2=swept.min_area_m2,
        aois=trained.aois,
        own_tolerances=swept.own_tolerances,
        places={aoi: boxes_around(read_tile_index(lake.aoi(aoi).tiles).bounds.to_numpy()) for aoi in trained.aois},
        normalization=trained.normalization,
        domain=training_domain(taught, gsd_m=trained.gsd_m),
        metrics=evaluation.metrics,
        run_id=trained.run_id,
        created=datetime.now(UTC),
    )
    if (deep := len(spec.deep_stretches)) > 1:
        log.warning(
            "Imagery of more than 8 bits was stretched in %d ways in training, so the service will take 8-bit imagery "
            "alone; for deep imagery train on areas of one stretch.", deep,
        )  # fmt: skip
    test = of_split(settings, trained, "test")
    tiles = Tiles(test, load_polygons(lake, test))
    with tempfile.TemporaryDirectory() as scratch:
        network = load_keras(tracking.download_keras(settings.mlflow_uri, trained.model_id, Path(scratch)))
        exported = Path(scratch) / SERVING_FOLDER
        export_openvino(network, exported, chip_size=trained.chip_size)
        learned = pd.concat([taught[["aoi", "tile_id"]], learned_before(settings, trained)]).drop_duplicates()
        learned.to_csv(exported / LEARNED, index=False)
        export_onnx(network, Path(scratch) / ONNX_FOLDER, chip_size=trained.chip_size)
        spec.write(exported)
        precisions = compare_precisions(
            exported, test=test, polygons=tiles.polygons, validation=of_split(settings, trained, "validation")
        )
        spec = spec.model_copy(update={"precision": precisions.chosen})
        spec.write(exported)
        scores = precisions.scores
        if len(scores.tiles) < len(test):
            log.info("Scoring the candidate on all %d test tiles", len(test))
            scores = score_exported(Runtime(exported), test, tiles.polygons)
        spec = spec.model_copy(update={"metrics": scores.metrics()})  # of what serves, not of what was trained
        spec.write(exported)
        if card := tracking.read_file(settings.mlflow_uri, trained.run_id, CARD):
            with_card = Path(scratch) / CARD_FOLDER
            with_card.mkdir()
            (with_card / Path(CARD).name).write_bytes(card)
        for name in (SERVING_FOLDER, CARD_FOLDER, ONNX_FOLDER):
            if (folder := Path(scratch) / name).exists():
                tracking.add_to_model(settings.mlflow_uri, trained.model_id, folder, f"{exports}/{name}")

    version = registry.register(
        model_id=trained.model_id,
        run_id=trained.run_id,
        tags={**version_tags(spec, trained), **precisions.tags(), EXPORTS: exports},
        description=f"{trained.network}; trained on {', '.join(trained.aois)}.",
    )
    judged = promote_if_better(settings, version, scores, tiles, rule)
    verdict = judged.verdict
    return RegisteredModel(
        name=settings.model_name,
        version=version,
        run_id=trained.run_id,
        promoted=verdict.promote,
        reason=verdict.reason,
        metrics=spec.metrics,
        champion_metrics=judged.champion_scores and judged.champion_scores.metrics(),
        commit=tracking.git_commit(),
        differences=judged.verdict.figures(),
        precision=precisions.chosen,
        precisions=dict(precisions.figures),
    )


def training_domain(tiles: pd.DataFrame, *, gsd_m: float) -> DomainReference | None:
    """What training tiles look like to the network; None when there is no pixel among them.

    Args:
        tiles: rows of split manifests; the colours of some of them are read, evenly spread, when there are many.
        gsd_m: metres a pixel that the network works at.
    """

    def counts(row: TileRow) -> np.ndarray:
        image, valid = read_tile(Path(row.path))
        size = grid_size(row, gsd_m)
        seen = resample(valid.astype(np.uint8) * np.uint8(255), size) > 127
        return brightness_counts(resample(as_learned(row, image, valid), size), seen)

    sample = tiles.iloc[spread(len(tiles), DOMAIN_TILES)]
    with ThreadPoolExecutor() as pool:
        counted = list(pool.map(counts, sample.itertuples()))
    return DomainReference.of(counted, gsds_m=np.sqrt(tiles["gsd_x_m"] * tiles["gsd_y_m"]))


def version_tags(spec: ModelSpec, trained: TrainedUnet) -> dict[str, str]:
    """What people and programs read off a version: tolerance, GSD, input size, AOIs, normalisation, scores."""
    stretches = {aoi: stretch.model_dump() for aoi, stretch in spec.normalization.items()}
    return {
        "tolerance": f"{spec.tolerance:.2f}",
        "own_tolerances": json.dumps(spec.own_tolerances),
        "seed_level": "none" if spec.seed_level is None else f"{spec.seed_level:.2f}",
        "flips": str(spec.flips),
        "min_area_m2": f"{spec.min_area_m2:g}",
        "model_id": trained.model_id,
        "gsd_m": f"{spec.gsd_m:.4f}",
        "input_size": str(spec.chip_size),
        "stride": str(spec.stride),
        "aois": ",".join(spec.aois),
        "normalization": json.dumps(stretches),
        "network": spec.network,
        "heads": ",".join(spec.heads),
        "split_digest": trained.split_digest,
        **({"git_commit": commit} if (commit := tracking.git_commit()) else {}),
        **{f"test_{name}": f"{value:.4f}" for name, value in spec.metrics.items()},
    }
