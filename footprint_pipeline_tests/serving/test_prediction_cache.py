"""What was predicted lately is not predicted again, by whomever, as long as it may be."""

import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from flask.testing import FlaskClient

from footprint_pipeline.errors import ImageryError
from footprint_pipeline.footprints.domain import LEVELS, InputProfile
from footprint_pipeline.footprints.extract import Raster, Stages
from footprint_pipeline.footprints.mercator import Bounds
from footprint_pipeline.settings import Settings
from footprint_pipeline_tests.serving.conftest import (
    AREA,
    LATITUDE,
    LONGITUDE,
    ZOOM,
    Counted,
    FakeRegistry,
    started,
    wait_for,
)
from serving import predictions
from serving.app import create_app
from serving.model_store import ModelStore
from serving.prediction_cache import PredictionCache

PLACE = {"coordinate": {"latitude": LATITUDE, "longitude": LONGITUDE}, "zoom": ZOOM}
URL = "/v1/footprints"


def fetch(cache: PredictionCache, key: str, value: bytes = b"value") -> bytes:
    return cache.get(key, lambda: value, size=len, stages=Stages())


# ---- the cache ----


def test_what_was_asked_for_longest_ago_goes_first_and_bytes_are_bounded() -> None:
    cache = PredictionCache(10)
    fetch(cache, "a", b"1111")
    fetch(cache, "b", b"2222")
    fetch(cache, "a", b"again")  # asked for, so b goes first
    fetch(cache, "c", b"3333")
    assert cache.bytes == 8
    assert fetch(cache, "a", b"new") == b"1111"
    assert fetch(cache, "b", b"new") == b"new"
    assert cache.bytes <= 10
    assert (cache.hits, cache.misses) == (2, 4)


def test_what_is_larger_than_all_of_it_is_answered_and_not_kept() -> None:
    cache = PredictionCache(4)
    fetch(cache, "small", b"1")
    assert fetch(cache, "large", b"55555") == b"55555"
    assert fetch(cache, "large", b"new") == b"new"
    assert fetch(cache, "small", b"new") == b"1"


def test_nothing_is_kept_for_longer_than_its_time() -> None:
    now = [0.0]
    cache = PredictionCache(10, lifetime_s=600, clock=lambda: now[0])
    fetch(cache, "a", b"old")
    now[0] = 599.0
    assert fetch(cache, "a", b"new") == b"old"
    now[0] = 600.0
    assert fetch(cache, "b", b"b") == b"b"
    assert cache.bytes == 1
    assert fetch(cache, "a", b"new") == b"new"


def test_those_who_ask_at_the_same_time_share_one_value_or_its_failure() -> None:
    cache, begun, go_on, made = PredictionCache(100), threading.Event(), threading.Event(), []

    def make() -> bytes:
        made.append(threading.get_ident())
        begun.set()
        assert go_on.wait(20)
        if len(made) == 1:
            raise ImageryError("The provider sleeps.")
        return b"value"

    def ask(stages: Stages) -> bytes:
        return cache.get("a", make, size=len, stages=stages)

    for outcome in ("failure", "value"):
        begun.clear()
        go_on.clear()
        hits = cache.hits
        with ThreadPoolExecutor(4) as pool:
            first = pool.submit(ask, Stages())
            assert begun.wait(20)
            noted = [Stages() for _ in range(3)]
            others = [pool.submit(ask, stages) for stages in noted]
            wait_for(lambda: cache.hits == hits + 3)  # noqa: B023
            go_on.set()
        for asked in (first, *others):
            if outcome == "failure":
                with pytest.raises(ImageryError, match="sleeps"):
                    asked.result()
            else:
                assert asked.result() == b"value"
        assert all("cache" in stages for stages in noted)
    assert len(made) == 2


@pytest.mark.usefixtures("no_collector")
def test_what_a_failure_has_read_is_freed_as_soon_as_all_have_been_told() -> None:
    cache, begun, go_on, read, told = PredictionCache(100), threading.Event(), threading.Event(), [], []

    def make() -> bytes:
        pixels = np.zeros(1)
        read.append(weakref.ref(pixels))
        begun.set()
        assert go_on.wait(20)
        raise ImageryError("The provider sleeps.")

    def ask() -> None:
        try:
            cache.get("a", make, size=len, stages=Stages())
        except ImageryError as error:
            told.append(error.problem)

    for others in (0, 3):
        begun.clear()
        go_on.clear()
        hits = cache.hits
        first = threading.Thread(target=ask)
        first.start()
        assert begun.wait(20)
        waiting = [threading.Thread(target=ask) for _ in range(others)]
        for thread in waiting:
            thread.start()
        wait_for(lambda: cache.hits == hits + others)  # noqa: B023
        go_on.set()
        for thread in (first, *waiting):
            thread.join()
        assert read[-1]() is None
    assert told == ["The provider sleeps."] * 5


def test_with_no_room_nothing_is_kept_and_nobody_waits() -> None:
    cache = PredictionCache(0)
    assert not cache
    assert fetch(cache, "a", b"one") == b"one"
    assert fetch(cache, "a", b"two") == b"two"


# ---- the service ----


@pytest.fixture
def client(store: ModelStore, counted: Counted) -> FlaskClient:
    return create_app(Settings(), store=store, imagery=counted).test_client()


def test_other_options_and_forms_of_a_place_take_no_second_prediction(client: FlaskClient, counted: Counted) -> None:
    first = client.post(URL, json=PLACE)
    assert "predict;" in first.headers["Server-Timing"]
    again = client.post(URL, json=PLACE)
    assert again.data == first.data
    assert again.headers["Server-Timing"].startswith("cache;dur=")
    assert "predict;" not in again.headers["Server-Timing"]
    for question in ({**PLACE, "tolerance": 0.9}, {**PLACE, "min_area_m2": 1e4}, {**PLACE, "limit": 1}):
        assert client.post(URL, json=question).status_code == 200
    assert client.post("/predict/mask", json=PLACE).status_code == 200
    assert client.post("/predict/polygon?geometry=features", json=PLACE).json["features"] == first.json["features"]
    assert client.post(URL, json=PLACE, headers={"Accept": "application/x-ndjson"}).status_code == 200
    assert counted.read_times == 1
    box = [AREA.left, AREA.bottom, AREA.centre[0], AREA.top]
    assert client.post(URL, json={"bbox": box}).status_code == 200
    assert counted.read_times == 2


def test_kept_and_fresh_answers_are_equal(client: FlaskClient, store: ModelStore, city) -> None:
    client.post(URL, json=PLACE)
    fresh = create_app(Settings(prediction_cache_mb=0), store=store, imagery=city).test_client()
    for question in (PLACE, {**PLACE, "tolerance": 0.9}, {**PLACE, "tolerance": 1.0}):
        assert client.post(URL, json=question).data == fresh.post(URL, json=question).data
    assert client.post("/predict/mask", json=PLACE).data == fresh.post("/predict/mask", json=PLACE).data


def test_many_who_ask_at_once_share_one_prediction(client: FlaskClient, counted: Counted) -> None:
    def ask(_: int) -> bytes:
        return client.application.test_client().post(URL, json=PLACE).data

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(8)))) == 1
    assert counted.read_times == 1


def test_another_version_predicts_anew(model_folder, counted: Counted, tmp_path) -> None:
    registry = FakeRegistry(model_folder)
    store = started(registry, tmp_path)
    client = create_app(Settings(), store=store, imagery=counted).test_client()
    assert client.post(URL, json=PLACE).headers["X-Model-Version"] == "3"
    registry.champion = "4"
    assert store.refresh().outcome == "swapped"
    answer = client.post(URL, json=PLACE)
    assert answer.headers["X-Model-Version"] == "4"
    assert {feature["properties"]["model_version"] for feature in answer.json["features"]} == {"4"}
    assert counted.read_times == 2


def test_a_version_of_the_same_number_from_another_registry_predicts_anew(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    area = Bounds(0, 0, 1, 1)
    profile = InputProfile(np.zeros((3, LEVELS), int), gsd_m=None, out_of_domain=None)
    raster = Raster(np.zeros((4, 4, 1), np.float32), area, area, "somewhere", Stages(), profile)
    predicted, keeper = [], SimpleNamespace(cache=PredictionCache(1 << 20))
    monkeypatch.setattr(
        predictions, "predict_raster", lambda runtime, *_, **__: predicted.append(runtime.spec.run_id) or raster
    )
    for run in ("mine", "mine", "theirs"):
        model = SimpleNamespace(version="1", runtime=SimpleNamespace(spec=SimpleNamespace(run_id=run)))
        predictions.Predictions.rasters(keeper, model)(model.runtime, counted, area)
    assert predicted == ["mine", "theirs"]


def test_images_that_are_sent_are_not_kept(client: FlaskClient, city_path, counted: Counted) -> None:
    for _ in range(2):
        sent = client.post(f"{URL}/image", data=city_path.read_bytes(), content_type="image/tiff")
        assert "predict;" in sent.headers["Server-Timing"]


def test_zero_turns_it_off(store: ModelStore, counted: Counted) -> None:
    client = create_app(Settings(prediction_cache_mb=0), store=store, imagery=counted).test_client()
    for _ in range(2):
        assert "predict;" in client.post(URL, json=PLACE).headers["Server-Timing"]
    assert counted.read_times == 2


def test_where_nothing_is_kept_nobody_waits_for_what_others_make() -> None:
    cache, both = PredictionCache(0), threading.Barrier(2, timeout=30)

    def make() -> int:
        both.wait()
        return 1

    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(cache.get, "key", make, size=lambda _: 1, stages=Stages()) for _ in range(2)]
        assert [each.result() for each in asked] == [1, 1]
