"""The service as a process on this machine: how it is started, and how long until it answers."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from pydantic import SecretStr

import footprint_pipeline
from footprint_pipeline.errors import FootprintError
from footprint_pipeline.settings import Settings

_ROOT = Path(footprint_pipeline.__file__).parents[1]
_PATIENCE_S = 120.0


def start_service(settings: Settings, *, log: Path | None = None) -> subprocess.Popen[bytes]:
    """Start gunicorn on the service.

    Args:
        settings: where the registry is, which imagery, which address.
        log: where its output goes; this process's own when None.

    Raises:
        SettingsError: others would reach it without a key.
    """
    settings.check_reach()
    environment = {
        **os.environ,
        "FOOTPRINT_HOME": str(settings.home.absolute()),
        "MLFLOW_TRACKING_URI": settings.mlflow_uri,
        "FOOTPRINT_IMAGERY": settings.imagery,
        "FOOTPRINT_IMAGERY_SOURCES": str(settings.imagery_sources or ""),
        "FOOTPRINT_IMAGERY_CACHE": str(settings.imagery_cache_folder),
        "FOOTPRINT_COUNTERS": str(settings.counters_folder),
        "FOOTPRINT_HOST": settings.host,
        "FOOTPRINT_PORT": str(settings.port),
        "FOOTPRINT_PUBLISHED": settings.published,
        "FOOTPRINT_API_KEYS": settings.api_keys.get_secret_value(),
        "FOOTPRINT_RATE_LIMIT": str(settings.rate_limit or ""),
    }
    gunicorn = Path(sys.executable).with_name("gunicorn")
    command = [str(gunicorn), "-c", str(_ROOT / "serving" / "gunicorn.conf.py"), "serving.app:create_app()"]
    if log is None:
        return subprocess.Popen(command, env=environment, cwd=_ROOT)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        return subprocess.Popen(command, env=environment, cwd=_ROOT, stdout=output, stderr=subprocess.STDOUT)


@contextmanager
def running_service(settings: Settings, *, log: Path) -> Iterator[str]:
    """A service on a free port for this machine alone, so without keys, until the block ends; gives its address.

    Raises:
        FootprintError: it ends by itself, or no model is loaded in time; says what it said.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    alone = {"host": "127.0.0.1", "published": "", "api_keys": SecretStr(""), "rate_limit": None}
    settings = settings.model_copy(update={**alone, "port": port})
    address = f"http://127.0.0.1:{port}"
    process = start_service(settings, log=log)
    try:
        with on_signals(_interrupt):
            _wait(process, address, log)
            yield address
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


@contextmanager
def on_signals(do: Callable[[], None]) -> Iterator[None]:
    """Do something when this process is told to end, or its terminal is closed, instead of leaving others behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    former = [signal.signal(number, lambda *_: do()) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, former, strict=True):
            signal.signal(number, handler)


def _interrupt() -> None:
    raise KeyboardInterrupt


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    reason = "it does not answer"
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until and process.poll() is None:
        try:
            answer = requests.get(f"{address}/readyz", timeout=5)
            if answer.ok:
                return
            reason = answer.json().get("reason", reason)
        except (requests.RequestException, ValueError):
            pass
        time.sleep(0.2)
    if process.poll() is not None:
        lines = [line for line in log.read_text("utf-8", errors="replace").splitlines() if line.strip()]
        reason = f"it ended ({lines[-1].strip() if lines else 'without a word'})"
    raise FootprintError(f"The service is not ready: {reason}.", fix=f"Its log is {log}.")
