"""The service follows its alias in a real registry: swaps, refusals, and starts without one."""

import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from footprint_pipeline.footprints.geotiff import GeoTiffImagery
from footprint_pipeline.footprints.runtime import Runtime
from footprint_pipeline.footprints.selftest import write_selftest
from footprint_pipeline.registry import CHAMPION, Registry
from footprint_pipeline.settings import Settings
from footprint_pipeline_tests.footprints.red_city import write_model
from footprint_pipeline_tests.serving.conftest import LATITUDE, LONGITUDE, ZOOM, FakeRegistry, HangingRegistry, wait_for
from serving import model_store
from serving.app import create_app
from serving.model_cache import ModelCache
from serving.model_store import ModelStore

NAME = "building-footprints"
QUESTION = {"coordinate": {"latitude": LATITUDE, "longitude": LONGITUDE}, "zoom": ZOOM}


@dataclass(frozen=True)
class World:
    """A registry with three versions: two good ones of their own tolerance, one whose network is cut off."""

    registry: Registry

    def point(self, version: str) -> None:
        self.registry.point(CHAMPION, version)


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("registry")
    uri, before = f"sqlite:///{folder / 'mlflow.db'}", mlflow.get_tracking_uri()
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.create_experiment("test", artifact_location=(folder / "artifacts").as_uri())
    client.create_registered_model(NAME)
    for number, tolerance in enumerate((0.4, 0.6, 0.5), 1):
        model = write_model(folder / str(number), tolerance=tolerance)
        write_selftest(model, Runtime(model, threads=1, precision="f32"))
        if number == 3:
            (model / "model.xml").write_bytes((model / "model.xml").read_bytes()[:500])
        run = client.create_run(experiment)
        client.log_artifacts(run.info.run_id, str(model), "serving")
        client.create_model_version(NAME, run.info.artifact_uri, run_id=run.info.run_id)
    yield World(Registry(uri, NAME))
    mlflow.set_tracking_uri(before)


@pytest.fixture
def world(registered: World) -> World:
    """The first version is the champion."""
    registered.point("1")
    return registered


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[Callable[..., ModelStore]]:
    """Stores that share a cache and are stopped in the end."""
    stores = []

    def make(registry: object, **changes: object) -> ModelStore:
        store = ModelStore(registry, alias=CHAMPION, cache=tmp_path / "cache", threads=1, **changes)
        stores.append(store)
        return store

    yield make
    for store in stores:
        store.stop()


@pytest.fixture(autouse=True)
def soon_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry that is down is asked once."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def closed_registry() -> Registry:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return Registry(f"http://127.0.0.1:{free.getsockname()[1]}", NAME)


def versions_in(cache: Path) -> list[str]:
    return sorted(path.name.partition("-")[0] for path in cache.iterdir() if path.is_dir())


def test_a_swap_under_load_fails_no_request_and_every_answer_names_its_model(
    world: World, city: GeoTiffImagery, make_store: Callable[..., ModelStore], tmp_path: Path
) -> None:
    store = make_store(world.registry, poll_s=0.05)
    store.load_in_background()
    wait_for(lambda: store.status().model is not None)
    app = create_app(Settings(), store=store, imagery=city)
    done = threading.Event()

    def ask() -> list[tuple[int, str, float]]:
        client, answers = app.test_client(), []
        while not done.is_set():
            answer = client.post("/v1/footprints", json=QUESTION)
            told = answer.json["features"][0]["properties"] if answer.status_code == 200 else {}
            assert told.get("model_version") == answer.headers.get("X-Model-Version")
            answers.append((answer.status_code, told.get("model_version"), told.get("tolerance")))
        return answers

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(ask) for _ in range(4)]
        try:
            world.point("2")
            wait_for(lambda: store.current().version == "2")
            world.point("3")
            wait_for(lambda: store.status().refused is not None)
            world.point("1")
            wait_for(lambda: store.current().version == "1")
        finally:
            done.set()
        answers = [answer for client in clients for answer in client.result()]

    assert set(answers) == {(200, "1", 0.4), (200, "2", 0.6)}
    assert store.status().refused.version == "3"
    assert "OpenVINO cannot load model.xml" in store.status().refused.reason
    assert versions_in(tmp_path / "cache") == ["1", "2"]


def test_a_version_that_is_refused_is_told_of_and_tried_again_only_when_asked_or_when_the_alias_moved(
    model_folder: Path, make_store: Callable[..., ModelStore], tmp_path: Path
) -> None:
    pulled: list[str] = []

    class Counting(FakeRegistry):
        def pull(self, *, version: str, into: Path, onnx: bool = False) -> Path:
            pulled.append(version)
            return super().pull(version=version, into=into)

    other = tmp_path / "other"
    shutil.copytree(model_folder, other)
    write_selftest(other, lambda image: np.full((*image.shape[:3], 1), 0.5, np.float32))
    registry = Counting(model_folder, champion="1")
    store = make_store(registry)
    assert store.refresh().outcome == "swapped"
    assert store.refresh().outcome == "same"

    registry.model, registry.champion = other, "2"
    first = store.refresh()
    assert (first.outcome, first.version) == ("refused", "1")
    assert "2: the model fails its self-test: what was stored differs by" in first.reason
    assert store.current().version == "1"
    status = store.status()
    assert (status.refused.version, status.refused.reason, status.problem) == ("2", first.reason, first.reason)
    assert pulled == ["1", "2"]
    with store._looking:
        assert store._look().outcome == "refused"  # as the follower looks
        assert pulled == ["1", "2"]
        for champion, outcome in (("1", "same"), ("2", "refused"), ("2", "refused")):
            registry.champion = champion
            assert store._look().outcome == outcome
    assert pulled == ["1", "2", "2"]  # once more, for the alias has come back

    registry.model = model_folder  # mended under the same number
    assert store.refresh().outcome == "swapped"
    assert pulled == ["1", "2", "2", "2"]
    assert store.current().version == "2"
    assert (store.status().problem, store.status().refused) == ("", None)


def test_without_a_registry_the_last_good_version_serves_from_the_cache(
    world: World, make_store: Callable[..., ModelStore]
) -> None:
    assert make_store(closed_registry()).refresh().outcome == "unreachable"  # nothing cached yet
    for version in ("1", "2"):
        world.point(version)
        assert make_store(world.registry).refresh().outcome == "swapped"

    store = make_store(closed_registry())
    again = store.refresh()
    assert (again.outcome, again.version) == ("unreachable", "2")
    assert "does not answer" in again.reason
    assert (store.current().version, store.current().origin) == ("2", "cache")
    assert store.current().runtime.spec.tolerance == 0.6
    assert store.status().registry_answers is False

    store._registry = world.registry  # it comes up, and has moved on
    world.point("1")
    assert store.refresh().outcome == "swapped"
    assert (store.current().version, store.current().origin) == ("1", "registry")

    world.registry.client.delete_registered_model_alias(NAME, CHAMPION)
    assert (store.refresh().outcome, store.current().version) == ("unreachable", "1")
    assert store.status().registry_answers is True
    assert "no alias 'champion'" in store.status().problem


def test_a_registry_that_hangs_does_not_hold_the_start_up(
    model_folder: Path, make_store: Callable[..., ModelStore]
) -> None:
    assert make_store(FakeRegistry(model_folder)).refresh().version == "3"
    registry = HangingRegistry(model_folder, champion="4")
    store = make_store(registry)
    store.load_in_background()
    wait_for(lambda: store.status().model is not None)
    assert (store.current().version, store.current().origin) == ("3", "cache")
    registry.go_on.set()
    wait_for(lambda: store.current().version == "4")


def test_a_champion_that_is_refused_at_the_start_leaves_the_last_good_one(
    world: World, make_store: Callable[..., ModelStore]
) -> None:
    assert make_store(world.registry).refresh().version == "1"
    world.point("3")
    store = make_store(world.registry)
    assert store.refresh().version == "1"
    assert store.status().refused.version == "3"


@pytest.mark.parametrize("missing", ["spec.json", "model.bin", "model.xml"])
def test_what_is_not_whole_in_the_cache_is_pulled_again(
    world: World, make_store: Callable[..., ModelStore], tmp_path: Path, missing: str
) -> None:
    store = make_store(world.registry)
    assert store.refresh().version == "1"
    folder = next((tmp_path / "cache").glob("1-*"))
    (folder / missing).unlink()
    assert make_store(closed_registry(), retry_s=0).refresh().version is None
    assert make_store(world.registry).refresh().version == "1"
    assert (folder / missing).exists()


def test_a_record_of_another_model_or_half_a_record_is_none(
    model_folder: Path, make_store: Callable[..., ModelStore], tmp_path: Path
) -> None:
    assert make_store(FakeRegistry(model_folder)).refresh().version == "3"
    down = FakeRegistry(model_folder, champion=None)
    assert make_store(down).refresh().version == "3"
    renamed = FakeRegistry(model_folder, champion=None)
    renamed.model_name = "another"
    assert make_store(renamed).refresh().version is None
    (record,) = (tmp_path / "cache").glob("*.json")
    record.write_text(record.read_text()[:20])
    assert make_store(down).refresh().version is None


def test_services_that_follow_other_aliases_leave_each_other_their_models(tmp_path: Path) -> None:
    first, second = (ModelCache(tmp_path, model_name="red/roofs", alias=alias) for alias in ("champion", "challenger"))
    for cache, version in ((first, "1"), (second, "5"), (first, "2"), (second, "6"), (second, "6"), (first, "3")):
        (tmp_path / version).mkdir(exist_ok=True)
        cache.remember(version, tmp_path / version)
        os.utime(tmp_path / version, (0, 0))
    assert (first.last().version, second.last().version) == ("3", "6")
    assert versions_in(tmp_path) == ["2", "3", "5", "6"]


def test_a_version_that_another_service_is_loading_stays(
    model_folder: Path, make_store: Callable[..., ModelStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = FakeRegistry(model_folder)
    other = ModelCache(tmp_path / "cache", model_name=registry.model_name, alias="challenger")
    opened = model_store.open_runtime

    def slowly(folder: Path, **options: object) -> Runtime:
        (tmp_path / "cache" / "9").mkdir()
        other.remember("9", tmp_path / "cache" / "9")
        return opened(folder, **options)

    folder = registry.pull(version="3", into=tmp_path / "cache")
    os.utime(folder, (0, 0))  # pulled long ago, by whoever shares the cache
    monkeypatch.setattr(model_store, "open_runtime", slowly)
    assert make_store(registry).refresh().outcome == "swapped"
    assert folder.is_dir()


def test_another_version_of_the_same_number_is_another_one(
    model_folder: Path, make_store: Callable[..., ModelStore], tmp_path: Path
) -> None:
    registry = FakeRegistry(model_folder)
    registry.mark = "-former"
    store = make_store(registry)
    assert store.refresh().outcome == "swapped"
    registry.mark = "-present"  # the registered model was deleted, and this one registered as its first
    assert [store.refresh().outcome for _ in range(2)] == ["swapped", "same"]
    assert store.current().folder == "3-present"
    for mark in ("-present", "-of another registry"):
        registry.mark = mark
        store = make_store(registry)
        store.load_in_background()
        wait_for(lambda store=store: store.status().model and store.current().origin == "registry")
        assert (store.current().version, store.current().folder) == ("3", f"3{mark}")
        store.stop()
