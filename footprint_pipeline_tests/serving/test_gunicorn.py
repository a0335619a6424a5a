"""The service as it is run: a gunicorn process on a real registry, asked over HTTP."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

import pytest
import requests
from mlflow import MlflowClient

from footprint_pipeline.registry import Registry
from footprint_pipeline.stages.drift import read_counters
from footprint_pipeline_tests.serving.conftest import LATITUDE, LONGITUDE, ZOOM
from footprint_pipeline_tests.serving.test_image_url import self_signed

NAME = "building-footprints"
QUESTION = {"coordinate": {"latitude": LATITUDE, "longitude": LONGITUDE}, "zoom": ZOOM}
HEADERS = {"Connection": "close"}  # an idle connection holds gunicorn's stop up
ROOT = Path(__file__).parents[2]


def register(uri: str, model: Path, artifacts: Path) -> str:
    """A version that holds the exported model, and nothing points to it yet."""
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.create_experiment("test", artifact_location=artifacts.as_uri())
    run = client.create_run(experiment)
    client.log_artifacts(run.info.run_id, str(model), "serving")
    client.create_registered_model(NAME)
    source = run.info.artifact_uri
    return str(client.create_model_version(NAME, source, run_id=run.info.run_id).version)


@contextmanager
def gunicorn(log: Path, **environment: str) -> Iterator[str]:
    """A running service's address; it must end by itself when asked to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "gunicorn", "-c", "serving/gunicorn.conf.py", "serving.app:create_app()"]
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment, "FOOTPRINT_PORT": str(port)},
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()


def health(address: str) -> requests.Response | None:
    try:
        return requests.get(f"{address}/readyz", headers=HEADERS, timeout=20)
    except (requests.ConnectionError, requests.Timeout):
        return None


def wait_for(condition: Callable[[], bool], log: Path) -> None:
    end = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.3)


@contextmanager
def without_model(imagery: Path, folder: Path) -> Iterator[str]:
    """The address of a service that has no model and answers; its log is `gunicorn.log`."""
    log = folder / "gunicorn.log"
    registry = f"sqlite:///{folder / 'mlflow.db'}"
    with gunicorn(
        log, FOOTPRINT_HOME=str(folder), MLFLOW_TRACKING_URI=registry, FOOTPRINT_IMAGERY=str(imagery)
    ) as address:
        wait_for(lambda: health(address) is not None, log)
        yield address


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn runs on POSIX only")
def test_the_service_starts_without_a_model_finds_it_and_answers(
    model_folder: Path, city_path: Path, tmp_path: Path
) -> None:
    uri, log = f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "gunicorn.log"
    version = register(uri, model_folder, tmp_path / "artifacts")
    environment = {
        "FOOTPRINT_HOME": str(tmp_path / "home"),
        "FOOTPRINT_COUNTERS": "",
        "FOOTPRINT_IMAGERY": str(city_path),
        "FOOTPRINT_MODEL_NAME": NAME,
        "FOOTPRINT_THREADS": "1",
        "MLFLOW_TRACKING_URI": uri,
    }
    with gunicorn(log, **environment) as address:
        wait_for(lambda: (answer := health(address)) is not None and "champion" in answer.text, log)
        assert health(address).status_code == 503
        early = requests.post(f"{address}/predict/polygon", json=QUESTION, headers=HEADERS, timeout=20)
        assert early.status_code == 503
        assert early.headers["Content-Type"] == "application/problem+json"

        Registry(uri, NAME).point("champion", version)
        wait_for(lambda: health(address).status_code == 200, log)
        answer = requests.post(f"{address}/predict/polygon", json=QUESTION, headers=HEADERS, timeout=20)
        assert answer.headers["X-Model-Version"] == version
        assert answer.headers["Content-Type"] == "application/geo+json"
        assert (answer.json()["type"], len(answer.json()["coordinates"])) == ("MultiPolygon", 1)
        mask = requests.post(f"{address}/predict/mask", json=QUESTION, headers=HEADERS, timeout=20)
        assert mask.content.startswith(b"\x89PNG")
        place = {"latitude": LATITUDE, "longitude": LONGITUDE, "zoom": ZOOM}
        footprints = requests.get(f"{address}/v1/footprints", params=place, headers=HEADERS, timeout=20).json()
        assert [each["geometry"]["coordinates"] for each in footprints["features"]] == answer.json()["coordinates"]
        form = {"image": city_path.read_bytes()}
        uploaded = requests.post(f"{address}/v1/footprints/image", files=form, headers=HEADERS, timeout=20)
        assert uploaded.json()["numberReturned"] == 1
        assert 'endpoint="/v1/footprints/image"' in requests.get(f"{address}/metrics", headers=HEADERS, timeout=20).text
        pulled = list((tmp_path / "home" / "serving-cache").rglob("spec.json"))
        assert len(pulled) == 1
    (counted,) = read_counters(tmp_path / "home" / "counters")
    assert (counted.version, counted.counts.answers) == (
        version,
        4,
    )  # the last ones were written when the process ended
    text = log.read_text()
    assert '"POST /predict/polygon HTTP/1.1" 200' in text
    assert "Traceback" not in text


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn runs on POSIX only")
def test_who_asks_while_workers_change_waits_a_moment_and_is_answered(
    model_folder: Path, city_path: Path, tmp_path: Path
) -> None:
    uri, log = f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "gunicorn.log"
    Registry(uri, NAME).point("champion", register(uri, model_folder, tmp_path / "artifacts"))
    environment = {"FOOTPRINT_HOME": str(tmp_path), "FOOTPRINT_IMAGERY": str(city_path), "MLFLOW_TRACKING_URI": uri}
    with gunicorn(log, **environment) as address:
        wait_for(lambda: (answer := health(address)) is not None and answer.ok, log)
        master = re.search(r"\[(\d+)\]", log.read_text())
        assert master
        os.kill(int(master[1]), signal.SIGHUP)
        told = []
        while len(told) < 5 or "from the cache" not in log.read_text():
            answer = requests.post(f"{address}/v1/footprints", json=QUESTION, headers=HEADERS, timeout=60)
            told.append(answer.status_code)
            assert set(told) == {200}, log.read_text()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn runs on POSIX only")
def test_what_was_counted_is_written_though_an_answer_outlasts_the_stop(
    model_folder: Path, city_path: Path, tmp_path: Path
) -> None:
    uri, log, sources = f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "gunicorn.log", tmp_path / "sources.toml"
    version = register(uri, model_folder, tmp_path / "artifacts")
    Registry(uri, NAME).point("champion", version)
    with socket.create_server(("127.0.0.1", 0)) as silent, ExitStack() as kept:
        tiles = f"http://127.0.0.1:{silent.getsockname()[1]}/{{z}}/{{x}}/{{y}}.png"
        sources.write_text(f'[city]\npath = "{city_path}"\n[silent]\nurl = "{tiles}"\n')
        with gunicorn(
            log, FOOTPRINT_HOME=str(tmp_path), FOOTPRINT_COUNTERS="", FOOTPRINT_IMAGERY_SOURCES=str(sources),
            MLFLOW_TRACKING_URI=uri,
        ) as address:  # fmt: skip
            wait_for(lambda: (answer := health(address)) is not None and answer.ok, log)
            for _ in range(2):  # the second is to be written in 30 s
                assert requests.post(f"{address}/v1/footprints", json=QUESTION, headers=HEADERS, timeout=20).ok
            host, port = address.removeprefix("http://").split(":")
            waiting = kept.enter_context(socket.create_connection((host, int(port))))
            asked = f"latitude={LATITUDE}&longitude={LONGITUDE}&zoom={ZOOM}&imagery=silent"
            waiting.sendall(f"GET /v1/footprints?{asked} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            kept.enter_context(silent.accept()[0]).recv(100)
    (counted,) = read_counters(tmp_path / "counters")
    assert counted.counts.answers == 2


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn runs on POSIX only")
def test_a_request_that_comes_with_the_rest_of_a_refused_one_is_answered(city_path: Path, tmp_path: Path) -> None:
    with without_model(city_path, tmp_path) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as client:
            client.sendall(b"POST /nope HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 404")  # before its body came
            client.sendall(b'{"a":1}GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
            answer = b"".join(iter(lambda: client.recv(4096), b""))
        assert b"HTTP/1.1 200 OK" in answer


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn runs on POSIX only")
def test_what_gunicorn_refuses_is_a_problem_too(city_path: Path, tmp_path: Path) -> None:
    with without_model(city_path, tmp_path) as address:
        asked = requests.get(f"{address}/v1/footprints?polygon={'x' * 9000}", headers=HEADERS, timeout=20)
        told = assert_told(asked, 414, "urn:footprint:address-too-long", "8190 characters")
        assert "POST" in told["fix"]
        asked = requests.get(f"{address}/healthz", headers={**HEADERS, "X-Long": "x" * 9000}, timeout=20)
        told = assert_told(asked, 431, "urn:footprint:headers-too-large", "100, of 8190 characters")
        assert "shorter" in told["fix"]
        asked = requests.get(f"{address}/healthz", headers={**HEADERS, "A (name)": "1"}, timeout=20)
        assert_told(asked, 400, "urn:footprint:malformed-request", "A (name)")
        asked = requests.get(f"{address}/healthz", headers={**HEADERS, "Transfer-Encoding": "brotli"}, timeout=20)
        assert_told(asked, 501, "urn:footprint:not-implemented", "brotli")
    text = (tmp_path / "gunicorn.log").read_text()
    assert text.count("Invalid request from 127.0.0.1: ") == 4
    assert "Traceback" not in text


def assert_told(answer: requests.Response, status: int, kind: str, word: str) -> dict:
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")
    body = answer.json()
    assert (body["status"], body["type"]) == (status, kind)
    assert body["title"]
    assert word in body["detail"]
    return body


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn runs on POSIX only")
def test_who_wants_tls_of_gunicorn_itself_has_it(city_path: Path, tmp_path: Path) -> None:
    certificate, log = self_signed("localhost", tmp_path / "tls.pem"), tmp_path / "gunicorn.log"
    registry = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with gunicorn(
        log, FOOTPRINT_HOME=str(tmp_path), MLFLOW_TRACKING_URI=registry, FOOTPRINT_IMAGERY=str(city_path),
        GUNICORN_CMD_ARGS=f"--certfile {certificate} --keyfile {certificate}",
    ) as address:  # fmt: skip
        secure = address.replace("http://127.0.0.1", "https://localhost")

        def answer() -> int | None:
            with suppress(requests.ConnectionError):
                return requests.get(f"{secure}/healthz", headers=HEADERS, verify=certificate, timeout=20).status_code
            return None

        wait_for(lambda: answer() == 200, log)


@pytest.mark.slow
def test_clients_that_stall_hold_up_others_for_a_while_only(city_path: Path, tmp_path: Path) -> None:
    halves = (b"GET /hea", b"POST /v1/footprints HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
    with without_model(city_path, tmp_path) as address, ExitStack() as stalled:
        began = time.monotonic()
        for number in range(120):  # each half is more than there are threads
            place = address.removeprefix("http://").split(":")
            client = stalled.enter_context(socket.create_connection((place[0], int(place[1]))))
            client.sendall(halves[number % 2])
        wait_for(lambda: health(address) is not None, tmp_path / "gunicorn.log")
        assert time.monotonic() - began < 60  # one after the other they would take two minutes
        log = tmp_path / "gunicorn.log"
        wait_for(lambda: log.read_text().count("A client stalled for 10 s and was given up.") == 60, log)
    assert "Traceback" not in log.read_text()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn runs on POSIX only")
def test_clients_that_send_nothing_or_ever_so_little_take_no_thread_for_long(city_path: Path, tmp_path: Path) -> None:
    with without_model(city_path, tmp_path) as address, ExitStack() as slow:
        host, port = address.removeprefix("http://").split(":")

        def connected(begun: bytes) -> socket.socket:
            client = slow.enter_context(socket.create_connection((host, int(port)), timeout=1))
            client.sendall(begun)
            return client

        for begun in (b"", b"GET /healthz HTTP/1.1\r\nHost: a\r\n") * 60:  # twice as many as there are threads
            connected(begun)
        began = time.monotonic()
        assert requests.get(f"{address}/healthz", headers=HEADERS, timeout=20).ok
        assert time.monotonic() - began < 4
        late = connected(b"GET /healthz HTTP/1.1\r\nHost: a")
        dripping = connected(b"POST /v1/footprints HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n")
        time.sleep(1)
        late.sendall(b"\r\nConnection: close\r\n\r\n")
        assert late.recv(4096).startswith(b"HTTP/1.1 200")
        for _ in range(30):
            with suppress(TimeoutError):
                answer = dripping.recv(4096)
                break
            dripping.sendall(b" ")
        assert answer.startswith(b"HTTP/1.1 400")


@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn runs on POSIX only")
def test_a_body_that_keeps_coming_may_take_long_and_one_that_drips_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from serving import worker

    monkeypatch.setattr(worker, "STALLED_S", 0.5)
    for size, whole in ((4_000, True), (1, False)):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            came = worker._Hurried(ours)
            came.left_s = worker.STALLED_S

            def send(size: int, sender: socket.socket) -> None:
                for _ in range(6):
                    time.sleep(0.2)
                    sender.sendall(b"x" * size)

            sending = threading.Thread(target=send, args=(size, theirs))
            sending.start()
            with nullcontext() if whole else pytest.raises(TimeoutError):
                assert len(came.read(6 * size)) == 6 * size
            sending.join()


def test_what_takes_long_and_is_not_needed_is_not_imported_and_still_can_be() -> None:
    code = (
        "import runpy, sys; conf = runpy.run_path('serving/gunicorn.conf.py'); conf['post_fork'](None, None);"
        "import serving.app; early = {'boto3', 'openvino.tools.ovc'} & sys.modules.keys();"
        "import boto3; from openvino.tools.ovc import convert_model; print(sorted(early), boto3.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("[] boto3", 0), done.stderr
