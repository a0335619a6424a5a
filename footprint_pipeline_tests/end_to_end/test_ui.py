"""The command that opens the two UIs, as a process."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import requests

from footprint_pipeline.footprints.mercator import Bounds
from footprint_pipeline_tests.footprints.red_city import write_city

from .conftest import clean_environment

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=["Ctrl-C", "the terminal is closed"])
def test_the_end_however_often_leaves_no_process_behind(tmp_path: Path, number: int) -> None:
    ports = free_ports(2)
    log = tmp_path / "ui.log"
    with log.open("wb") as out:
        ui = subprocess.Popen(
            [
                Path(sys.executable).with_name("footprint"), "ui", "--home", tmp_path / "home",
                "--port", str(ports[0]), "--mlflow-port", str(ports[1]),
            ],
            stdout=out, stderr=out, env=clean_environment(),
        )  # fmt: skip
    try:
        for port, path in zip(ports, ("server_info", "health"), strict=True):
            wait_for(f"http://127.0.0.1:{port}/{path}", ui, log)
        started = psutil.Process(ui.pid).children(recursive=True)
        assert len(started) >= 4  # dagster dev, its webserver, its daemon, MLflow
        ui.send_signal(number)
        time.sleep(1)
        ui.send_signal(number)
        assert ui.wait(60) == 0, log.read_text()[-2000:]
        _, alive = psutil.wait_procs(started, timeout=10)
        assert not alive
    finally:
        ui.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["kill", "the terminal is closed"])
def test_a_service_that_is_told_to_end_takes_its_programs_with_it(tmp_path: Path, number: int) -> None:
    city = write_city(tmp_path / "city.tif", Bounds(0.0, 0.0, 0.001, 0.001), [])
    (port,) = free_ports(1)
    log = tmp_path / "service.log"
    with log.open("wb") as out:
        service = subprocess.Popen(
            [
                Path(sys.executable).with_name("footprint"), "serve", "--home", tmp_path / "home",
                "--imagery", city.name, "--port", str(port),
            ],
            stdout=out, stderr=out, env=clean_environment(), cwd=tmp_path,
        )  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{port}/healthz", service, log)
        started = psutil.Process(service.pid).children(recursive=True)
        assert len(started) >= 2  # gunicorn and its worker
        service.send_signal(number)
        service.wait(60)
        _, alive = psutil.wait_procs(started, timeout=10)
        assert not alive
    finally:
        service.kill()


def free_ports(count: int) -> list[int]:
    found = [socket.socket() for _ in range(count)]
    for free in found:
        free.bind(("127.0.0.1", 0))
    ports = [free.getsockname()[1] for free in found]
    for free in found:
        free.close()
    return ports


def wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    until = time.monotonic() + 180
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            if requests.get(url, timeout=2).ok:
                return
        except requests.RequestException:
            time.sleep(0.5)
    pytest.fail(f"{url} does not answer: {log.read_text()[-2000:]}")
