"""The service under load, over HTTP from a real gunicorn, beside its bare runtime; with a swap of models in the middle.

The network is the shipped one, untrained, and finds red roofs (`red_town`). It is asked in bfloat16, where the CPU has
it, else in f32, and in INT8, in which registration serves a network that loses nothing by it where that is fastest. The
imagery is a GeoTIFF of red roofs, the registry a SQLite file.
"""

import http.client
import json
import os
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from benchmarks.form import CORES, Figure, main
from benchmarks.red_town import NAME, places, register, write_models, write_town

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

CLIENTS = 8
SECONDS = 60
ZOOM = 18
POLYGON, FOOTPRINTS = "/predict/polygon", "/v1/footprints"
ROUNDS = 3
MEDIAN_MS, DRAWN = 150, 10
REQUESTS = 5000
"""Over which memory must stay flat."""


@dataclass
class Load:
    """What came of a load: seconds of each request, how many answers by status and version, and how long it took."""

    latencies: list[float] = field(default_factory=list)
    answers: Counter[tuple[int, str]] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies) / self.seconds

    @property
    def failed(self) -> int:
        """Answers that are none."""
        return sum(number for (status, _), number in self.answers.items() if status != 200)


def figures(quick: bool) -> list[Figure]:
    """Measure it all."""
    from footprint_pipeline.footprints.runtime import has_bfloat16
    from footprint_pipeline.local_service import running_service
    from footprint_pipeline.registry import CHAMPION, Registry
    from footprint_pipeline.settings import load_settings

    seconds, requests, rounds = (1.0, 40, 1) if quick else (SECONDS / ROUNDS, REQUESTS, ROUNDS)
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        town, database = write_town(home / "town.tif"), f"sqlite:///{home / 'mlflow.db'}"
        settings = load_settings(home=home / "home", tracking_uri=database, imagery=str(town))
        network, int8, rule = write_models(home, town, quick)
        registry = Registry(settings.mlflow_uri, NAME)
        register(settings.mlflow_uri, home / "artifacts", [network, network, int8, rule])
        registry.point(CHAMPION, "1")
        bare = bare_runtime(network, town)
        with environment(FOOTPRINT_MODEL_NAME=NAME, FOOTPRINT_MODEL_POLL_S="1", FOOTPRINT_PREDICTION_CACHE_MB="0"):
            if not quick:
                with running_service(settings, log=home / "first.log"):
                    pass  # it has pulled the model
            started = time.perf_counter()
            with running_service(settings, log=home / "service.log") as address:
                ready = time.perf_counter() - started
                fresh = load_until_the_registry_answered(address)
                load(ask(address), CLIENTS, requests=2 * CLIENTS)
                stages: dict[str, Counter[str]] = {path: Counter() for path in (POLYGON, FOOTPRINTS)}
                lone = {path: load(ask(address, path, spent), 1, seconds=seconds / 2) for path, spent in stages.items()}
                busy, alone = Load(), Load()
                for _ in range(rounds):
                    add(busy, load(ask(address), CLIENTS, seconds=seconds))
                    add(alone, load(lambda number: bare(number) or (200, ""), CLIENTS, seconds=seconds / 2))
                swap = load_until_swapped(address, registry)
                registry.point(CHAMPION, "3")
                wait_for_version(address, "3")
                lone_int8 = load(ask(address), 1, seconds=seconds / 2)
                registry.point(CHAMPION, "4")
                wait_for_version(address, "4")
                load(ask(address), CLIENTS, requests=requests // 10)
                before = resident_mb()
                load(ask(address), CLIENTS, requests=requests)
                after = resident_mb()
    p50, p99 = np.percentile(busy.latencies, (50, 99)) * 1000
    floats = "bf16" if has_bfloat16() else "f32"
    lone_p50, int8_p50 = _median_ms(lone[FOOTPRINTS]), _median_ms(lone_int8)
    most = 3 * lone_p50 * CLIENTS / CORES
    asked = len(busy.latencies)
    return [
        Figure(f"{CLIENTS} clients, {asked} requests, answered", 100 * (1 - busy.failed / asked), "%",
               goal="all", met=not busy.failed),
        Figure("throughput; peer: the bare runtime, as many threads", busy.rate, "requests/s", alone.rate,
               busy.rate / alone.rate, "≥ 0.9", busy.rate >= 0.9 * alone.rate),
        *(figure for path, done in lone.items() for figure in _alone(f"{path}, {floats}", done, stages[path])),
        Figure(f"{FOOTPRINTS}, int8: one client, median", int8_p50, "ms",
               goal=f"≤ {MEDIAN_MS}, on two cores", met=int8_p50 <= MEDIAN_MS),
        Figure("one client, median, while MLflow's client is imported after a start from the cache",
               float(np.median(fresh.latencies)) * 1000, "ms"),
        Figure(f"{CLIENTS} clients, median", float(p50), "ms"),
        Figure(f"{CLIENTS} clients, 99th percentile", float(p99), "ms",
               goal=f"≤ {most:.0f}: 3 × that of one × clients / cores", met=bool(p99 <= most)),
        Figure(f"champion moved under load, {len(swap.latencies)} requests, answered",
               100 * (1 - swap.failed / len(swap.latencies)), "%", goal="all", met=not swap.failed),
        Figure("the same, longest answer", 1000 * max(swap.latencies), "ms"),
        Figure(f"start to ready, model {'pulled' if quick else 'cached'}", ready, "s", goal="≤ 5", met=ready <= 5),
        Figure(f"memory after {requests:,} requests; peer: before them", after, "MB", before, before / after,
               "≥ 0.95", after <= before / 0.95),
    ]  # fmt: skip


def _alone(what: str, done: Load, spent: Counter[str]) -> list[Figure]:
    """Of one client: how long a request takes, and which shares of that what `Server-Timing` tells of."""
    shares = {stage: milliseconds / 10 / sum(done.latencies) for stage, milliseconds in spent.items()}
    median, drawn = _median_ms(done), sum(shares.get(stage, 0.0) for stage in ("vectorize", "write"))
    return [
        Figure(f"{what}: one client, median", median, "ms",
               goal=f"≤ {MEDIAN_MS}, on two cores", met=median <= MEDIAN_MS),
        Figure(f"{what}: of it outlines and GeoJSON", drawn, "%", goal=f"≤ {DRAWN}", met=drawn <= DRAWN),
        *(Figure(f"{what}: of it {stage}", share, "%") for stage, share in shares.items()),
    ]  # fmt: skip


def _median_ms(done: Load) -> float:
    return 1000 * statistics.median(done.latencies)


# ---- load ----

Asking = Callable[[int], tuple[int, str]]
"""Number of a request → status and model version of the answer."""


def load(
    asking: Asking, clients: int, *, seconds: float = np.inf, requests: float = np.inf,
    until: threading.Event | None = None,
) -> Load:  # fmt: skip
    """Clients that ask one request after another, for so long, so many, or until told."""
    done, numbers, lock = Load(), count(), threading.Lock()
    started = time.perf_counter()
    errors: list[BaseException] = []

    def client() -> None:
        while time.perf_counter() - started < seconds and not (until and until.is_set()):
            with lock:
                number = next(numbers)
            if number >= requests:
                return
            began = time.perf_counter()
            try:
                answer = asking(number)
            except Exception as error:
                errors.append(error)
                return
            with lock:
                done.latencies.append(time.perf_counter() - began)
                done.answers[answer] += 1

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    done.seconds = time.perf_counter() - started
    return done


def add(to: Load, more: Load) -> None:
    """Another round of the same load."""
    to.latencies += more.latencies
    to.answers += more.answers
    to.seconds += more.seconds


def ask(address: str, path: str = FOOTPRINTS, stages: Counter[str] | None = None) -> Asking:
    """Footprints of one of many places in the town, over a connection that each thread keeps.

    Args:
        address: of the service.
        path: of the endpoint.
        stages: to which what `Server-Timing` tells is added, milliseconds.
    """
    connections = threading.local()
    where = urlsplit(address)
    bodies = [
        json.dumps({"coordinate": {"longitude": longitude, "latitude": latitude}, "zoom": ZOOM})
        for longitude, latitude in places()
    ]

    def asking(number: int) -> tuple[int, str]:
        if not hasattr(connections, "kept"):
            connections.kept = http.client.HTTPConnection(where.hostname or "", where.port, timeout=120)
        connections.kept.request("POST", path, bodies[number % len(bodies)], {"Content-Type": "application/json"})
        answer = connections.kept.getresponse()
        answer.read()
        if stages is not None:
            for stage in answer.headers["Server-Timing"].split(", "):
                name, _, milliseconds = stage.partition(";dur=")
                stages[name] += float(milliseconds)  # type: ignore[assignment]
        return answer.status, answer.headers.get("X-Model-Version", "")

    return asking


def load_until_the_registry_answered(address: str) -> Load:
    """One client, from a start from the cache on, until the registry has named the version that answers."""
    answered, where = threading.Event(), urlsplit(address)

    def watch() -> None:
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=120)
        while not answered.wait(0.2):
            connection.request("GET", "/v1/model")
            if json.load(connection.getresponse())["origin"] == "registry":
                answered.set()

    threading.Thread(target=watch, daemon=True).start()
    return load(ask(address), 1, until=answered)


def load_until_swapped(address: str, registry: object) -> Load:
    """A load, the champion moved in the middle of it, and on until the new one answers and a little longer."""
    swapped, loads = threading.Event(), []
    background = threading.Thread(target=lambda: loads.append(load(ask(address), CLIENTS, until=swapped)))
    background.start()
    try:
        time.sleep(1)
        registry.point("champion", "2")  # type: ignore[attr-defined]
        wait_for_version(address, "2")
        time.sleep(1)
    finally:
        swapped.set()
        background.join()
    return loads[0]


def wait_for_version(address: str, version: str) -> None:
    """Until the service answers by this version."""
    asking, end = ask(address), time.monotonic() + 120
    while asking(0)[1] != version:
        if time.monotonic() > end:
            raise TimeoutError(f"Version {version} does not serve")
        time.sleep(0.2)


def bare_runtime(folder: Path, town: Path) -> Callable[[int], None]:
    """The windows that the requests take, put to the runtime and nothing else."""
    from footprint_pipeline.footprints.extract import extract
    from footprint_pipeline.footprints.geotiff import GeoTiffImagery
    from footprint_pipeline.footprints.mercator import tile_at
    from footprint_pipeline.footprints.runtime import Runtime

    class Recording(Runtime):
        def __call__(self, batch: np.ndarray) -> np.ndarray:
            batches.append(batch)
            return super().__call__(batch)

    batches: list[np.ndarray] = []
    windows: list[list[np.ndarray]] = []
    runtime, imagery = Recording(folder, streams=True), GeoTiffImagery(town)
    for longitude, latitude in places()[:4]:
        extract(runtime, imagery, tile_at(longitude, latitude, ZOOM).bounds_3857)
        windows.append(batches[:])
        batches.clear()

    def work(number: int) -> None:
        for batch in windows[number % len(windows)]:
            Runtime.__call__(runtime, batch)

    return work


# ---- the process ----


def resident_mb() -> float:
    """Resident memory of the service, gunicorn's master and worker, megabytes."""
    total, processes = 0, [os.getpid()]
    while processes:
        number = processes.pop()
        for task in Path(f"/proc/{number}/task").iterdir():
            with suppress(FileNotFoundError):  # a thread that ends
                for child in (task / "children").read_text().split():
                    status = Path(f"/proc/{child}/status").read_text()
                    processes.append(int(child))
                    total += int(status.partition("VmRSS:")[2].split()[0])
    return total * 1024 / 1e6


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Variables that the service is started with."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


if __name__ == "__main__":
    main(figures, description="The service under load, beside its bare runtime.")
