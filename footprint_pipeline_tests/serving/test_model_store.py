import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from footprint_pipeline.errors import RegistryError, SettingsError
from footprint_pipeline.footprints.geotiff import GeoTiffImagery
from footprint_pipeline.settings import Settings
from footprint_pipeline.versions import Pointed
from footprint_pipeline_tests.serving.conftest import LATITUDE, LONGITUDE, FakeRegistry, started, wait_for
from serving.app import create_app
from serving.model_store import ModelStore, NoModelError

PLACE = {"coordinate": {"latitude": LATITUDE, "longitude": LONGITUDE}, "zoom": 18}


def test_without_a_champion_the_service_starts_says_so_and_finds_one_later(
    model_folder: Path, city: GeoTiffImagery, tmp_path: Path
) -> None:
    registry = FakeRegistry(model_folder, champion=None)
    store = started(registry, tmp_path)
    client = create_app(Settings(), store=store, imagery=city).test_client()

    health = client.get("/readyz")
    assert health.status_code == 503
    assert health.json["status"] == "no model"
    assert health.json["reason"] == "There is no champion."
    assert health.json["model"] is None
    for path in ("/predict/polygon", "/predict/mask"):
        answer = client.post(path, json=PLACE)
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "5"
        assert answer.json["type"] == "urn:footprint:no-model"
        assert answer.json["fix"] == "Promote a version."
    assert registry.asked == 1

    registry.champion = "8"
    assert client.get("/readyz").status_code == 503
    store.refresh()
    assert client.get("/readyz").json["model"]["version"] == "8"
    assert client.post("/predict/polygon", json=PLACE).headers["X-Model-Version"] == "8"
    assert registry.asked == 2


def test_whoever_follows_looks_again_until_there_is_a_champion(model_folder: Path, tmp_path: Path) -> None:
    registry = FakeRegistry(model_folder, champion=None)
    store = ModelStore(registry, alias="champion", cache=tmp_path, threads=1, retry_s=0.02)
    store.load_in_background()
    wait_for(lambda: registry.asked > 2)
    registry.champion = "8"
    wait_for(lambda: store.status().model is not None)
    store.stop()
    assert store.current().version == "8"


def test_a_broken_export_or_registry_is_a_reason_too(model_folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(model_folder, broken)
    (broken / "model.xml").write_text("<")
    with pytest.raises(NoModelError, match="OpenVINO cannot load"):
        started(FakeRegistry(broken), tmp_path / "a").current()

    class Crashing(FakeRegistry):
        def pointed(self, alias: str) -> Pointed:
            raise ZeroDivisionError

    with pytest.raises(NoModelError, match="cannot be loaded"):
        started(Crashing(broken), tmp_path / "b").current()


def test_a_cache_that_takes_nothing_is_said_and_no_fault_of_the_version(model_folder: Path, tmp_path: Path) -> None:
    class Full(FakeRegistry):
        full = True

        def pull(self, *, version: str, into: Path, onnx: bool = False) -> Path:
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device", str(into))
            return super().pull(version=version, into=into, onnx=onnx)

    registry = Full(model_folder)
    store = ModelStore(registry, alias="champion", cache=tmp_path, threads=1, retry_s=0.02)
    store.load_in_background()
    wait_for(lambda: registry.asked > 2)
    with pytest.raises(NoModelError, match=r"no model can be kept there \(No space left on device\)") as told:
        store.current()
    assert "FOOTPRINT_HOME" in told.value.fix
    assert store.status().refused is None
    assert store.status().registry_answers
    registry.full = False
    wait_for(lambda: store.status().model is not None)
    store.stop()
    assert store.current().version == "3"


def test_a_model_in_a_cache_that_is_read_only_serves(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(path: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    shutil.copytree(model_folder, tmp_path / "3")
    monkeypatch.setattr(Path, "touch", read_only)
    assert started(FakeRegistry(model_folder), tmp_path).current().version == "3"


def test_while_it_loads_whoever_asks_is_told_at_once(model_folder: Path, tmp_path: Path) -> None:
    arrived, go_on = threading.Event(), threading.Event()

    class Slow(FakeRegistry):
        def pointed(self, alias: str) -> Pointed:
            arrived.set()
            assert go_on.wait(20)
            return super().pointed(alias)

    registry = Slow(model_folder)
    store = ModelStore(registry, alias="champion", cache=tmp_path, threads=1)
    store.load_in_background()
    assert arrived.wait(20)
    with pytest.raises(NoModelError, match="is loading"):
        store.current()
    go_on.set()
    wait_for(lambda: store.status().model is not None)
    store.stop()
    with ThreadPoolExecutor(8) as pool:
        models = list(pool.map(lambda _: store.current(), range(8)))
    assert {model.version for model in models} == {"3"}
    assert len({id(model.runtime) for model in models}) == 1
    assert registry.asked == 1


def test_missing_imagery_is_known_at_the_start(store: ModelStore, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="MAPBOX_ACCESS_TOKEN"):
        create_app(Settings(imagery="mapbox", mapbox_access_token=None), store=store)
    with pytest.raises(SettingsError, match=r"gone\.tif"):
        create_app(Settings(imagery=str(tmp_path / "gone.tif")), store=store)


def test_the_service_imports_nothing_of_the_pipelines_weight() -> None:
    heavy = [
        "tensorflow",
        "keras",
        "mlflow",
        "geopandas",
        "dagster",
        "pandas",
        "pyarrow",
        "pyogrio",
        "mapbox_vector_tile",
    ]
    code = f"import json, sys, serving.app; print(json.dumps([name for name in {heavy} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert json.loads(done.stdout) == []


def test_the_alias_that_is_set_is_the_one_that_is_followed(model_folder: Path, tmp_path: Path) -> None:
    class Two(FakeRegistry):
        def pointed(self, alias: str) -> Pointed:
            version = {"champion": "3", "challenger": "4"}[alias]
            return Pointed(version, version)

    store = ModelStore(Two(model_folder), alias="challenger", cache=tmp_path, threads=1)
    store.refresh()
    assert store.current().version == "4"


def test_a_version_that_the_registry_does_not_hand_over_is_not_refused(model_folder: Path, tmp_path: Path) -> None:
    class Late(FakeRegistry):
        pulls = 0

        def pull(self, *, version: str, into: Path, onnx: bool = False) -> Path:
            self.pulls += 1
            if self.pulls < 3:
                raise RegistryError("The registry hands over nothing.")
            return super().pull(version=version, into=into, onnx=onnx)

    store = ModelStore(Late(model_folder), alias="champion", cache=tmp_path, threads=1, retry_s=0.02)
    store.load_in_background()
    wait_for(lambda: store.status().model is not None)
    store.stop()
    assert store.status().refused is None
