"""The Dagster instance of this machine, and jobs run in this process: what the command line stands on.

Runs appear in the UI like any other, for they are recorded in the same instance.
"""

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

import footprint_pipeline
from footprint_pipeline.definitions import build_definitions
from footprint_pipeline.errors import DatasetError, SettingsError
from footprint_pipeline.files import copy_file
from footprint_pipeline.home import keep_place, one_opening
from footprint_pipeline.orchestration.lost_runs import end_lost_runs, wait_for_pool
from footprint_pipeline.settings import Settings

ROOT = Path(footprint_pipeline.__file__).parents[1]
"""The checkout: where `dagster.yaml` and `workspace.yaml` lie."""


def prepare_home(settings: Settings) -> Path:
    """Make the home's Dagster instance from the checkout's `dagster.yaml`, and return its folder.

    Raises:
        SettingsError: there is no checkout, or the home has been moved.
    """
    keep_place(settings.home)
    folder = settings.home.absolute() / "dagster"
    source = ROOT / "dagster.yaml"
    if not source.exists():
        raise SettingsError(f"{source.name} is not beside the package.", fix="Install with `pip install -e .`.")
    target = folder / "dagster.yaml"
    if not target.exists() or target.read_bytes() != source.read_bytes():
        copy_file(source, target)
    return folder


@contextmanager
def open_instance(folder: Path, settings: Settings) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of a prepared home; its databases, and MLflow's, are made while nobody else does so."""
    with ExitStack() as stack:
        with one_opening(settings.home):
            instance = stack.enter_context(dg.DagsterInstance.from_config(str(folder)))
            if settings.tracking_uri is None and not settings.mlflow_file.exists():
                from footprint_pipeline.registry import open_database  # MLflow takes its time

                open_database(settings.mlflow_uri)
        yield instance


def run_job(
    name: str,
    settings: Settings,
    *,
    partition: str | None = None,
    config: Mapping[str, Mapping[str, Any]] | None = None,
    selection: list[str] | None = None,
) -> dict[str, Any]:
    """Run a job in this process and return the records of its assets by name.

    Args:
        name: a job of `jobs.build_jobs`.
        settings: where state lives.
        partition: the AOI, for a partitioned job.
        config: asset name → its config.
        selection: only these assets of the job.

    Raises:
        DatasetError: a blocking check of an asset failed; what came before it is kept.
        Whatever an asset raises, as it is.
    """
    folder = prepare_home(settings)
    os.environ["DAGSTER_HOME"] = str(folder)
    os.environ["FOOTPRINT_HOME"] = str(settings.home.absolute())
    job = build_definitions(settings).resolve_job_def(name)
    run_config = {
        "ops": {asset: {"config": dict(values)} for asset, values in (config or {}).items()},
        # The pipeline's own lines are printed by the command line; Dagster's events are kept for the UI.
        "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
    }
    run_id = str(uuid.uuid4())
    with open_instance(folder, settings) as instance:
        end_lost_runs(instance)
        wanted = [node.definition for node in job.nodes if not selection or node.name in selection]
        for pool in {pool for definition in wanted for pool in definition.pools}:
            wait_for_pool(instance, pool)
        try:
            result = job.execute_in_process(
                instance=instance,
                run_id=run_id,
                partition_key=partition,
                run_config=run_config,
                asset_selection=[dg.AssetKey(asset) for asset in selection] if selection else None,
            )
        except dg.DagsterExecutionInterruptedError:
            raise KeyboardInterrupt from None
        except dg.DagsterError:
            failure = failed_checks(instance, run_id)
            if failure is None:
                raise
            raise failure from None
        done = [event.asset_key for event in result.get_asset_materialization_events() if event.asset_key]
        return {key.to_user_string(): result.asset_value(key) for key in done if partition is None}


def failed_checks(instance: dg.DagsterInstance, run_id: str) -> DatasetError | None:
    """The blocking checks that failed in a run, as an error that a user can act on; None when there are none."""
    events = [entry.dagster_event for entry in instance.all_logs(run_id, dg.DagsterEventType.ASSET_CHECK_EVALUATION)]
    evaluations = [event.asset_check_evaluation_data for event in events if event]
    failed = [e for e in evaluations if e.blocking and not e.passed and e.severity == dg.AssetCheckSeverity.ERROR]
    if not failed:
        return None
    fixes = dict.fromkeys(str(e.metadata["fix"].value) for e in failed if "fix" in e.metadata)
    return DatasetError(
        "\n".join(
            f"{e.partition}: the check {e.check_name} of {e.asset_key.to_user_string()} failed. {e.description}"
            for e in failed
        ),
        fix=" ".join(fixes),
    )
