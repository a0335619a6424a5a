"""Training on prepared areas, logged to MLflow. Assets and the CLI call it.

Imports Keras and MLflow, so whoever must stay light imports it inside a function.
"""

import hashlib
import json
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType

import numpy as np
import pandas as pd

from footprint_pipeline.dataset.cache import TileCache
from footprint_pipeline.dataset.caching import build_cache, model_gsd
from footprint_pipeline.dataset.checks.record import require_passed
from footprint_pipeline.dataset.shared_ground import warn_of_shared_ground
from footprint_pipeline.dataset.splits import digest
from footprint_pipeline.dataset.tiles import normalization
from footprint_pipeline.errors import TrainingError
from footprint_pipeline.evaluation import reports
from footprint_pipeline.footprints.normalization import Normalization
from footprint_pipeline.handover import TrainedUnet
from footprint_pipeline.model import tracking
from footprint_pipeline.model.checkpoints import (
    alone_in,
    checkpoint_key,
    clear,
    forget_old,
    remember_done,
    remember_run,
    remembered_done,
    remembered_run,
)
from footprint_pipeline.model.spec import TrainingSpec
from footprint_pipeline.model.spec_files import to_yaml
from footprint_pipeline.model.tensorboard import EventFile
from footprint_pipeline.model.training import train
from footprint_pipeline.model.unet import describe
from footprint_pipeline.registry import safe_line
from footprint_pipeline.settings import Settings
from footprint_pipeline.stages.data import data_digest
from footprint_pipeline.stages.live import ToMlflow, ToTensorBoard, bar_or_lines
from footprint_pipeline.stages.scoring import load_manifest
from footprint_pipeline.stages.weights import LEARNED_BEFORE, NOTHING_LEARNED, learned_by_weights

log = logging.getLogger(__name__)

_LONGEST_NAME = 100
"""Of a run; an experiment may be on many areas."""


def train_unet(
    settings: Settings,
    spec: TrainingSpec,
    aois: list[str],
    *,
    tags: dict[str, str],
    resume: bool = True,
    weights: Path | None = None,
    parent_run_id: str | None = None,
    handed_on: Callable[[str], bool] = lambda run_id: True,
) -> tuple[TrainedUnet, list[dict[str, float]]]:
    """Train on the prepared AOIs and log it all to MLflow; the history, one dict an epoch, comes along.

    A training that was interrupted, by whatever, goes on when the same one is asked for again: of the same spec,
    tiles, and start. It is logged to the same MLflow run.

    Args:
        settings: where state lives.
        spec: how to train.
        aois: AOIs to train on; every prepared one when empty.
        tags: put on the MLflow run.
        resume: False forgets what an interrupted training has done.
        weights: `.keras` or `.weights.h5` file to start from, as far as it fits; at random when None.
        parent_run_id: MLflow run that this one is a child of.
        handed_on: whether somebody has what a finished training made, by its MLflow run. Where nobody has, for whoever
            asked was interrupted then, the same training gives that again and does not begin anew.

    Raises:
        DatasetError: an AOI is not prepared, or failed a blocking check.
        TrainingError: there is nothing to train on, the loss is not a number, the weights do not fit, or the same
            training is running in another process.
        RegistryError: MLflow cannot be reached.
    """
    lake = settings.lake
    for name in aois or lake.prepared():
        require_passed(lake.aoi(name))
    if not aois and (left_out := sorted(lake.failed() - set(lake.prepared()))):
        log.warning("Left out, for their data failed a check: %s", ", ".join(left_out))
    manifest = load_manifest(lake, aois)
    names = tuple(sorted(manifest["aoi"].unique()))
    warn_of_shared_ground(lake, manifest)
    taught = manifest[manifest["split"] == "train"]
    gsd_m = spec.gsd_m or model_gsd(taught)
    stamp, prepared = digest(manifest), data_digest(lake, manifest)  # now: it may be prepared anew while it is learned
    cache = build_cache(manifest[manifest["split"] != "test"], lake.cache, gsd_m=gsd_m, channels=spec.network.heads)
    tiles = {split: int(count) for split, count in manifest["split"].value_counts().items()}
    params = {
        **spec.flat(), "aois": ",".join(names), "split_digest": stamp, "gsd_m": round(gsd_m, 4),
        **{f"tiles.{split}": count for split, count in tiles.items()},
    }  # fmt: skip
    learned = NOTHING_LEARNED
    if weights is not None:
        params["weights"] = weights.name
        learned = learned_by_weights(weights, manifest)
    key = checkpoint_key(
        spec=asdict(spec), split=stamp, aois=names, gsd_m=gsd_m, tiles=_contents(cache), parent=parent_run_id,
        weights=hashlib.sha256(weights.read_bytes()).hexdigest() if weights else None,
    )  # fmt: skip
    folder = lake.checkpoints / key
    with _sigterm_is_ctrl_c(), alone_in(folder):
        if not resume:
            clear(folder)
        if (told := remembered_done(folder)) is not None:
            made = json.loads(told)
            trained = TrainedUnet.model_validate(made["trained"])
            if not handed_on(trained.run_id) and tracking.is_finished(settings.mlflow_uri, trained.run_id):
                log.info("This training is finished: MLflow run %s", trained.run_id)
                return trained, made["history"]
            clear(folder)
        with tracking.start_run(
            settings.mlflow_uri,
            settings.experiment,
            artifacts=settings.mlflow_artifacts,
            params=params,
            tags={**tags, "aois": ",".join(names), "split_digest": stamp},
            name=f"training on {', '.join(names)}"[:_LONGEST_NAME],
            run_id=remembered_run(folder),
            parent_run_id=parent_run_id,
        ) as run:
            remember_run(folder, run.run_id)
            before = {} if learned.empty else {LEARNED_BEFORE: learned.to_csv(index=False).encode()}
            tracking.log_files(run.run_id, {"training/spec.yaml": to_yaml(spec).encode(), **before})
            with EventFile(lake.home / "tensorboard" / run.run_id) as events:
                watchers = [ToMlflow(run), ToTensorBoard(events), bar_or_lines()]
                try:
                    result = train(spec, cache, folder, weights=weights, watchers=watchers)
                except Exception as error:
                    if not _is_out_of_memory(error):
                        raise
                    raise TrainingError(
                        f"There is not enough memory for {spec.batch_size} chips of {spec.chip_size} px a step "
                        f"({safe_line(error)}).",
                        fix="Lower batch_size or chip_size, or take a smaller network.",
                    ) from error
            run.log_picture("training/learning_curves.png", reports.learning_curves(result.history))
            model_id = run.log_model(result.model, stride=spec.network.stride, heads=spec.network.heads)
            parameters = int(result.model.count_params())
            trained = TrainedUnet(
                run_id=run.run_id,
                experiment_id=run.experiment_id,
                model_id=model_id,
                network=describe(spec.network, parameters),
                parameters=parameters,
                stride=spec.network.stride,
                heads=spec.network.heads,
                chip_size=spec.chip_size,
                gsd_m=gsd_m,
                aois=names,
                split_digest=stamp,
                data_digest=prepared,
                normalization=_stretches(taught),
                tiles=tiles,
                epochs=len(result.history),
                best_epoch=result.best_epoch,
                validation_loss=result.history[result.best_epoch]["val_loss"],
                seconds=result.seconds,
                precision=result.precision,
                weights=weights and weights.name,
            )
            remember_done(folder, json.dumps({"trained": trained.model_dump(mode="json"), "history": result.history}))
    forget_old(lake.checkpoints)
    return trained, result.history


def _stretches(taught: pd.DataFrame) -> dict[str, Normalization]:
    """How the tiles of each AOI became [0, 1]: once for each of its pixel types, all but the first with a number."""
    found = {}
    for aoi, rows in taught.groupby("aoi"):
        for number, stretch in enumerate(dict.fromkeys(normalization(row) for row in rows.itertuples()), start=1):
            found[str(aoi) if number == 1 else f"{aoi} ({number})"] = stretch
    return found


def _is_out_of_memory(error: Exception) -> bool:
    """Whether the machine's memory is full, or a GPU's."""
    told = type(error).__name__, str(error)
    return isinstance(error, MemoryError) or told[0] == "ResourceExhaustedError" or "RESOURCE_EXHAUSTED" in told[1]


def _contents(cache: TileCache) -> str:
    """What the tiles hold: a cache's folder is named for that."""
    return Path(str(cache.images.filename)).parent.name if isinstance(cache.images, np.memmap) else ""


@contextmanager
def _sigterm_is_ctrl_c() -> Iterator[None]:
    """Let SIGTERM end a training as Ctrl-C does, unless somebody else has seen to it."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
