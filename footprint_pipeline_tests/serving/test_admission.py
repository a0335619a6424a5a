import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from werkzeug.test import TestResponse

from footprint_pipeline.footprints.mercator import Bounds, tile_at
from footprint_pipeline.footprints.patch import Patch
from footprint_pipeline.settings import Settings
from footprint_pipeline_tests.serving.conftest import LATITUDE, LONGITUDE, ZOOM, wait_for
from serving.admission import AT_A_TIME, Admission, OverloadedError
from serving.app import create_app
from serving.model_store import ModelStore

QUESTION = {"coordinate": {"latitude": LATITUDE, "longitude": LONGITUDE}, "zoom": ZOOM}
TILE = tile_at(LONGITUDE, LATITUDE, ZOOM)


class SlowImagery:
    """Holds every request until it is told to go on."""

    attribution, extent_wgs84, zooms = "", None, (0, 22)

    def __init__(self, imagery) -> None:
        self.imagery, self.name = imagery, imagery.name
        self.reading, self.most = 0, 0
        self.go_on = threading.Event()
        self._lock = threading.Lock()

    def read(self, bounds_3857: Bounds, height: int, width: int) -> Patch:
        with self._lock:
            self.reading += 1
            self.most = max(self.most, self.reading)
        assert self.go_on.wait(20)
        with self._lock:
            self.reading -= 1
        return self.imagery.read(bounds_3857, height, width)


def test_beyond_the_queue_requests_are_told_to_come_again_and_the_others_are_answered(store: ModelStore, city) -> None:
    imagery, admission = SlowImagery(city), Admission(3, at_a_time=2)
    settings = Settings(prediction_cache_mb=0)  # so that each makes its own
    app = create_app(settings, store=store, imagery=imagery, admission=admission)
    store.current()  # loaded

    def ask() -> int:
        return app.test_client().post("/predict/mask", json=QUESTION).status_code

    with ThreadPoolExecutor(5) as pool:
        patient = [pool.submit(ask) for _ in range(5)]
        try:
            wait_for(lambda: imagery.reading == 2 and len(admission._queue) == 3)
            refused = app.test_client().post("/predict/mask", json=QUESTION)
            health = app.test_client().get("/healthz")
        finally:
            imagery.go_on.set()
        assert [request.result() for request in patient] == [200] * 5

    assert refused.status_code == 503
    assert refused.mimetype == "application/problem+json"
    assert refused.json["type"] == "urn:footprint:overloaded"
    assert refused.json["detail"] == "3 requests wait already."
    assert int(refused.headers["Retry-After"]) >= 1
    assert health.status_code == 200
    assert imagery.most == 2
    assert ask() == 200  # every turn was given back


def test_a_provider_that_hangs_takes_no_more_threads_than_it_may(store: ModelStore, city) -> None:
    """Nor does it hold predictions up, which have turns of their own."""
    imagery = SlowImagery(city)
    app = create_app(Settings(queue=0), store=store, imagery=imagery)

    def ask() -> TestResponse:
        return app.test_client().get(f"/v1/imagery/{ZOOM}/{TILE.x}/{TILE.y}")

    with ThreadPoolExecutor(AT_A_TIME + 1) as pool:
        patient = [pool.submit(ask) for _ in range(AT_A_TIME)]
        try:
            wait_for(lambda: imagery.reading == AT_A_TIME)
            refused = ask()
            predicted = pool.submit(app.test_client().post, "/predict/mask", json=QUESTION)
            wait_for(lambda: imagery.reading == AT_A_TIME + 1)
        finally:
            imagery.go_on.set()
        assert {request.result().status_code for request in patient} == {200}
        assert predicted.result().status_code == 200
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) >= 1
    assert ask().status_code == 200


def test_a_request_that_fails_gives_its_turn_back(store: ModelStore, city) -> None:
    app = create_app(Settings(), store=store, imagery=city, admission=Admission(0, at_a_time=1))
    client = app.test_client()
    for _ in range(3):
        assert client.post("/predict/mask", json={}).status_code == 422
    assert client.post("/predict/mask", json=QUESTION).status_code == 200


def test_turns_go_by_arrival_and_nobody_waits_for_ever() -> None:
    admission = Admission(2, at_a_time=1, longest_wait_s=0.05)
    admission.enter()
    with pytest.raises(OverloadedError, match=r"It was not its turn within 0\.05 s"):
        admission.enter()
    assert admission.turned_away == 1
    admission.leave(0.1)
    admission.enter()  # who gave up holds no turn

    patient, order = Admission(2, at_a_time=1), []
    patient.enter()

    def wait(name: str) -> None:
        patient.enter()
        order.append(name)
        patient.leave(0.1)

    threads = []
    for number, name in enumerate(("first", "second"), 1):
        threads.append(threading.Thread(target=wait, args=(name,)))
        threads[-1].start()
        wait_for(lambda: len(patient._queue) == number)  # noqa: B023
    patient.leave(40.0)
    for thread in threads:
        thread.join(20)
    assert order == ["first", "second"]


def test_who_is_turned_away_is_told_when_the_queue_may_be_empty() -> None:
    def told(admission: Admission) -> int:
        with pytest.raises(OverloadedError) as caught:
            admission.enter()
        return caught.value.retry_after_s

    admission = Admission(0, at_a_time=1)
    admission.enter()
    assert told(admission) == 1
    for _ in range(200):
        admission.leave(41.0)
        admission.enter()
    assert told(admission) == 41
    for _ in range(200):
        admission.leave(0.5)
        admission.enter()
    assert told(admission) == 1  # what took long once does not for ever
    busy = Admission(1, at_a_time=1)
    busy.enter()
    waiting = threading.Thread(target=busy.enter)
    waiting.start()
    wait_for(lambda: busy.waiting == 1)
    assert told(busy) == 2
    assert (busy.making, busy.turned_away) == (1, 1)
    busy.leave(1.0)
    waiting.join(20)


def test_a_turn_takes_as_long_as_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    admission, taken = Admission(0, at_a_time=1), []
    monkeypatch.setattr(admission, "leave", taken.append)
    with admission.turn():
        time.sleep(0.05)
    assert 0.05 <= taken[0] < 5


def test_a_turn_that_comes_in_the_last_moment_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    admission = Admission(1, at_a_time=1)
    admission.enter()

    class LastMoment(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            admission.leave(1.0)
            return False

    monkeypatch.setattr("serving.admission.threading.Event", LastMoment)
    admission.enter()
    assert (admission.making, admission.waiting) == (1, 0)
