"""The Dagster instance of this machine, and jobs run in this process: what the command line stands on.

Runs appear in the UI like any other, for they are recorded in the same instance.
"""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
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


_ENDING = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
"""Ctrl-C, being told to end, and a terminal that is closed."""


def check_ports(settings: Settings, *, host: str, port: int, mlflow_port: int) -> None:
    """Make sure that the programs of `run_ui` can have their ports: they print an error and stay, but do not serve.

    Raises:
        SettingsError: one is taken, or the address is none of this machine.
    """
    wanted = {"--port": port} | ({} if settings.mlflow_is_server else {"--mlflow-port": mlflow_port})
    with ExitStack() as held:
        for option, number in wanted.items():
            try:
                family, _, _, _, address = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
                listener = held.enter_context(socket.socket(family, socket.SOCK_STREAM))
                if os.name == "posix":  # as the programs do: a port that was left a moment ago can be had
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(address)
                listener.listen()  # until then another socket may have the same port
            except OSError as error:
                no_place = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
                fix = "Give a --host of this machine." if no_place else f"Give another {option}, or end what has it."
                raise SettingsError(f"{host}:{number} cannot be had ({error.strerror}).", fix=fix) from None


def run_ui(settings: Settings, *, host: str, port: int, mlflow_port: int) -> int:
    """Run the Dagster UI (webserver and daemon) and the MLflow UI on this home until one ends or Ctrl-C.

    Returns:
        The exit code of whichever ended first; 0 after Ctrl-C.
    """
    folder = prepare_home(settings)
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(folder),
        "FOOTPRINT_HOME": str(settings.home.absolute()),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONWARNINGS": "ignore",
        # The programs run in another folder.
        "FOOTPRINT_COUNTERS": str(settings.counters_folder),
        **({"FOOTPRINT_RETRAIN_SPEC": str(settings.retrain_spec)} if settings.retrain_spec else {}),
        **({"MLFLOW_TRACKING_URI": settings.tracking_uri} if settings.tracking_uri else {}),
    }
    if not settings.mlflow_is_server:
        environment.setdefault("FOOTPRINT_MLFLOW_UI_URL", f"http://{host}:{mlflow_port}")
        environment["MLFLOW_BACKEND_STORE_URI"] = settings.mlflow_uri  # a command line is no place for a password
    with open_instance(folder, settings) as instance:
        end_lost_runs(instance)
    programs = Path(sys.executable).parent
    commands = [
        [programs / "dagster", "dev", "-w", ROOT / "workspace.yaml", "--host", host, "--port", str(port)],
        [
            programs / "mlflow", "server", "--host", host, "--port", str(mlflow_port), "--workers", "1",
            "--default-artifact-root", (settings.home.absolute() / "artifacts").as_uri(),
        ],
    ]  # fmt: skip
    if settings.mlflow_is_server:
        commands.pop()  # it runs elsewhere already
    processes = [
        subprocess.Popen([str(part) for part in command], env=environment, cwd=ROOT, start_new_session=True)
        for command in commands
    ]
    try:
        for number in _ENDING:
            signal.signal(number, _interrupt)
        while all(process.poll() is None for process in processes):
            time.sleep(0.5)
        return next(process.returncode for process in processes if process.poll() is not None)
    except KeyboardInterrupt:
        return 0
    finally:
        # A second Ctrl-C must not end this process before the others. Each program leads a group with the programs
        # that it started itself: none is left behind.
        for number in _ENDING:
            signal.signal(number, signal.SIG_IGN)
        for number, patience in ((signal.SIGTERM, 20.0), (signal.SIGKILL, 5.0)):
            for process in processes:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
            until = time.monotonic() + patience
            while time.monotonic() < until and any(process.poll() is None for process in processes):
                time.sleep(0.1)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
