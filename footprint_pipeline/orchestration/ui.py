"""The Dagster UI and the MLflow UI on a home: their ports, their processes, and how they end."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from footprint_pipeline.errors import SettingsError
from footprint_pipeline.orchestration.local import ROOT, open_instance, prepare_home
from footprint_pipeline.orchestration.lost_runs import end_lost_runs
from footprint_pipeline.settings import Settings

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
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
                # As the programs do: a port that was left a moment ago can be had.
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
            "--default-artifact-root", settings.lake.artifacts.as_uri(),
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
