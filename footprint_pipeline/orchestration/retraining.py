"""What starts runs by itself, each off until it is switched on in the UI: by the calendar, or by what is new.

What belongs here: when, and what for. What is run are the jobs. A run that fails half-way is started once more from
where it failed; while a training is queued or under way no other is asked for.
"""

import json
import logging
import time
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
from pydantic import BaseModel

from footprint_pipeline.dataset.splits import read_manifests
from footprint_pipeline.errors import DatasetError, FootprintError, SettingsError
from footprint_pipeline.handover import RegisteredModel, TrainedUnet
from footprint_pipeline.lake import Lake
from footprint_pipeline.orchestration.resources import Workplace
from footprint_pipeline.settings import Settings
from footprint_pipeline.spacenet.download import S3
from footprint_pipeline.spacenet.sources import fingerprint
from footprint_pipeline.stages.data import data_digest, fetched
from footprint_pipeline.stages.drift import DriftReport

log = logging.getLogger(__name__)

Record = TypeVar("Record", bound=BaseModel)

PREPARING_ASSETS = ("image_tiles", "building_polygons", "mask_tiles", "split_manifests", "dataset_report")
BUSY_JOBS = ("dataset", "model", "whole_chain", "search")
BUSY_ASSETS = {dg.AssetKey(name) for name in (*PREPARING_ASSETS, "trained_unet", "hyperparameter_search")}
OF, CAUSE = "footprint/of", "footprint/cause"
"""Tags of a run that a sensor asked for: what has changed, and to what."""
ATTEMPTS = 4
"""Runs of one cause that may fail, those that Dagster retries included; then somebody must look."""
RETRIES = {"dagster/max_retries": "1", "dagster/retry_strategy": "FROM_FAILURE"}
_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_BUSY = dg.SkipReason("A preparation or a training is queued or under way.")
_EVERY_S = 600
_SOURCES_EVERY_S = 6 * 3600
_LONGEST_LOOK_S, _SILENCE_S = 40.0, 5.0
"""Dagster ends a sensor after a minute, whatever it has found by then: so long it looks, and waits for a server."""
_DRIFT_CRON = "0 1 * * *"


def build_schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """`weekly_retraining` and `daily_drift`.

    Raises:
        SettingsError: the setting is no cron expression.
    """
    try:

        @dg.schedule(
            name="weekly_retraining",
            job_name="model",
            cron_schedule=settings.retrain_cron,
            default_status=dg.DefaultScheduleStatus.STOPPED,
            description="Train on every prepared AOI anew (FOOTPRINT_RETRAIN_CRON, FOOTPRINT_RETRAIN_SPEC); promoted "
            "only when it is better.",
        )
        def weekly_retraining(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
            if training_under_way(context.instance):
                return _BUSY
            return _training(settings)

    except dg.DagsterInvalidDefinitionError as error:
        raise SettingsError(
            f"FOOTPRINT_RETRAIN_CRON is {settings.retrain_cron!r}, which is no cron expression.",
            fix="Write minute, hour, day, month and weekday, as in 0 3 * * 1.",
        ) from error

    daily_drift = dg.ScheduleDefinition(
        name="daily_drift",
        job_name="drift",
        cron_schedule=_DRIFT_CRON,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Hold what the service was asked of late against what its model was trained on.",
    )
    return [weekly_retraining, daily_drift]


def build_sensors(aois: dg.PartitionsDefinition) -> list[dg.SensorDefinition]:
    """`new_tiles`, `changed_sources` and `drifted_inputs`.

    Args:
        aois: the AOIs that Dagster knows.
    """

    @dg.sensor(
        name="new_tiles",
        job_name="model",
        minimum_interval_seconds=_EVERY_S,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Train when what is prepared is no longer what the last training saw.",
    )
    def new_tiles(context: dg.SensorEvaluationContext, workplace: Workplace) -> dg.RunRequest | dg.SkipReason:
        home = workplace.settings.home.absolute()
        try:
            prepared = prepared_digest(home)
        except FootprintError as error:
            return dg.SkipReason(error.problem)
        last = _record(home, "trained_unet", TrainedUnet)
        # Dagster starts a run of a key once. Back to a former split is something new as well.
        cause = f"new_tiles {last.run_id[:8] if last else 'first'}-{prepared}"
        if last is not None and prepared == last.data_digest:
            broken_off = _broken_off(context.instance, home, last)
            if broken_off is None:
                return dg.SkipReason(f"The last training saw what is prepared (data {prepared}).")
            cause = broken_off
        if training_under_way(context.instance):
            return _BUSY
        failed, _ = _runs_of(context.instance, cause)
        if failed >= ATTEMPTS:
            return dg.SkipReason(f"{failed} trainings on what is prepared (data {prepared}) failed; start one by hand.")
        return _training(workplace.settings, run_key=f"{cause}-{failed}", cause=cause)

    @dg.sensor(
        name="changed_sources",
        job_name="whole_chain",
        minimum_interval_seconds=_SOURCES_EVERY_S,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Prepare an AOI again, as it was prepared last, and train when the files of its source are others "
        "than they were; one AOI at a time.",
    )
    def changed_sources(context: dg.SensorEvaluationContext, workplace: Workplace) -> dg.SensorResult | dg.SkipReason:
        if training_under_way(context.instance):
            return _BUSY
        known: dict[str, str] = json.loads(context.cursor or "{}")
        order = {name: number for number, name in enumerate(known)}
        seen: dict[str, str] = {}
        passed_over: dict[str, str] = {}  # written first, so looked at first the next time
        requests: list[dg.RunRequest] = []
        end = time.monotonic() + _LONGEST_LOOK_S
        prepared = workplace.settings.lake.prepared()
        for name in sorted(prepared, key=lambda name: order.get(name, -1)):
            if time.monotonic() > end:
                log.warning("%s: there was no time left to look at its source; it comes first the next time", name)
                if name in known:
                    passed_over[name] = known[name]
                continue
            try:
                aoi = workplace.aoi(name)
                if not aois.has_partition_key(name):
                    log.warning("%s was added after these definitions were loaded: reload them", name)
                    continue
                settings, layout = workplace.settings, fetched(workplace.folder(name))
                s3 = S3.from_settings(settings, endpoint_url=aoi.endpoint_url, attempts=1, timeout_s=_SILENCE_S)
                seen[name] = fingerprint(aoi, used=layout.source if layout else "", settings=settings, s3=s3)
            except FootprintError as error:
                log.warning("%s: its source cannot be looked at now: %s", name, error.problem)
                if name in known:
                    seen[name] = known[name]
                continue
            if name in known and known[name] != seen[name]:
                cause = f"{name[:40]} {seen[name]}"
                failed, succeeded = _runs_of(context.instance, cause)
                if failed >= ATTEMPTS:
                    log.warning("%s: %d runs on its new source failed; prepare it by hand", name, failed)
                elif not succeeded:
                    seen[name] = known[name]  # until a run has succeeded, the change is not dealt with
                    if not requests:  # one training at a time: another's turn comes when that has ended
                        like = last_prepared(context.instance, name)
                        requests.append(_training(workplace.settings, like=like, of=name, cause=cause))
        told = None if requests else f"{len(seen)} sources are what they were, or are looked at for the first time."
        return dg.SensorResult(run_requests=requests, skip_reason=told, cursor=json.dumps(passed_over | seen))

    @dg.sensor(
        name="drifted_inputs",
        job_name="model",
        minimum_interval_seconds=_EVERY_S,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Train when the last report of footprint_drift says that what is asked has drifted; once for a "
        "version and what is prepared, for the same tiles teach nothing new.",
    )
    def drifted_inputs(context: dg.SensorEvaluationContext, workplace: Workplace) -> dg.RunRequest | dg.SkipReason:
        home = workplace.settings.home.absolute()
        report = _record(home, "footprint_drift", DriftReport)
        if report is None:
            return dg.SkipReason("There is no report: materialize footprint_drift, or switch daily_drift on.")
        if not report.drifted:
            return dg.SkipReason(f"Until {report.until}, of version {report.version}: {report.verdict}")
        try:
            serving = _serving(workplace.settings)
        except FootprintError as error:
            return dg.SkipReason(error.problem)
        if serving != report.version:
            return dg.SkipReason(f"The report is about version {report.version}, but version {serving} serves.")
        try:
            prepared = prepared_digest(home)
        except FootprintError as error:
            return dg.SkipReason(error.problem)
        if training_under_way(context.instance):
            return _BUSY
        return _training(workplace.settings, run_key=f"{report.version}-{prepared}")

    return [new_tiles, changed_sources, drifted_inputs]


def training_under_way(instance: dg.DagsterInstance) -> bool:
    """Whether a run that prepares or trains is asked for and has not ended: of a job, or of assets chosen by hand."""
    return any(
        run.job_name in BUSY_JOBS or not BUSY_ASSETS.isdisjoint(run.asset_selection or ())
        for run in instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED))
    )


def _runs_of(instance: dg.DagsterInstance, cause: str) -> tuple[int, bool]:
    """How many runs of a cause have failed or were ended, and whether one has succeeded, since another cause of it.

    Args:
        instance: where runs are kept.
        cause: of what, and what is new about it, with a blank between them: that may be so again, after something else.
    """
    of = cause.partition(" ")[0]
    runs = instance.get_runs(dg.RunsFilter(tags={OF: of}))  # the latest first
    ended = [run.status for run in takewhile(lambda run: run.tags[CAUSE] == cause, runs)]
    failed = sum(status in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED) for status in ended)
    return failed, dg.DagsterRunStatus.SUCCESS in ended


def _broken_off(instance: dg.DagsterInstance, home: Path, trained: TrainedUnet) -> str | None:
    """The cause of the runs of `new_tiles` that made a training of which no version came; None where none is such."""
    runs = instance.get_runs(dg.RunsFilter(tags={OF: "new_tiles"}), limit=1)
    cause = runs[0].tags[CAUSE] if runs else ""
    registered = _record(home, "registered_model", RegisteredModel)
    if registered is not None and registered.run_id == trained.run_id:
        return None
    return cause if cause.endswith(f"-{trained.data_digest}") and not _runs_of(instance, cause)[1] else None


def prepared_digest(home: Path) -> str:
    """`data_digest` of all prepared AOIs.

    Raises:
        DatasetError: there is none, or preparing one is under way or was interrupted.
    """
    lake = Lake(home)
    if not (names := lake.prepared()):
        raise DatasetError("No AOI is prepared.")
    return data_digest(lake, read_manifests([lake.aoi(name).manifest for name in names]))


def last_prepared(instance: dg.DagsterInstance, aoi: str) -> dict[str, Any]:
    """The config of the assets that were last made for an AOI, and of their checks, by op."""
    configs: dict[str, Any] = {}
    for asset in PREPARING_ASSETS:
        wanted = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[aoi])
        made = instance.fetch_materializations(wanted, limit=1).records
        run = instance.get_run_by_id(made[0].run_id) if made else None
        ops: Any = dict(run.run_config).get("ops", {}) if run else {}
        configs |= {op: ops[op] for op in (asset, f"{asset}_checks") if op in ops}
    return configs


def _training(
    settings: Settings,
    *,
    run_key: str | None = None,
    like: Mapping[str, Any] | None = None,
    of: str | None = None,
    cause: str | None = None,
) -> dg.RunRequest:
    """A run that trains by the recipe for it, and is started once more when it fails.

    Args:
        settings: say the recipe.
        run_key: what Dagster starts once.
        like: config by op, of an AOI that is prepared before.
        of: that AOI.
        cause: for the run's tags; see `_runs_of`.
    """
    ops, recipe = dict(like or {}), settings.retrain_spec
    if recipe is not None:
        ops["trained_unet"] = {"config": {"spec_file": str(recipe)}}
    tags = RETRIES | ({OF: cause.partition(" ")[0], CAUSE: cause} if cause else {})
    return dg.RunRequest(run_key=run_key, partition_key=of, tags=tags, run_config={"ops": ops} if ops else {})


def _serving(settings: Settings) -> str:
    from footprint_pipeline.registry import Registry  # MLflow takes its time

    return Registry.of(settings).version(settings.alias)


def _record(home: Path, asset: str, kind: type[Record]) -> Record | None:
    """What an asset last handed on; None before it was materialised."""
    path = Lake(home).records / f"{asset}.json"
    return kind.model_validate_json(path.read_text("utf-8")) if path.exists() else None
