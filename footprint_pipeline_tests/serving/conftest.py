import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from footprint_pipeline.errors import RegistryError
from footprint_pipeline.footprints.geotiff import GeoTiffImagery
from footprint_pipeline.footprints.mercator import Bounds, tile_at, to_wgs84
from footprint_pipeline.footprints.patch import Patch
from footprint_pipeline.settings import Settings
from footprint_pipeline.versions import Pointed
from footprint_pipeline_tests.footprints.red_city import roof, write_city, write_model
from serving.app import create_app
from serving.model_store import ModelStore

LONGITUDE, LATITUDE, ZOOM = -43.2, -22.9, 18
AREA = to_wgs84(tile_at(LONGITUDE, LATITUDE, ZOOM).bounds_3857)
ROOF = roof(*AREA.centre, 24, 15)
CITY = Bounds(AREA.left - 0.0008, AREA.bottom - 0.0008, AREA.right + 0.0008, AREA.top + 0.0008)


class Counted:
    """Counts what is read of imagery; each reading is a prediction."""

    attribution, date = "© the painter", None

    def __init__(self, imagery) -> None:
        self.imagery, self.name, self.extent_wgs84, self.read_times = imagery, imagery.name, imagery.extent_wgs84, 0

    def read(self, bounds_3857: Bounds, height: int, width: int) -> Patch:
        self.read_times += 1
        return self.imagery.read(bounds_3857, height, width)


class FakeRegistry:
    """A registry with one version, or with none until it is put there."""

    model_name = "red-roofs"

    def __init__(self, model: Path, champion: str | None = "3") -> None:
        self.model, self.champion, self.asked, self.mark = model, champion, 0, ""

    def pointed(self, alias: str) -> Pointed:
        self.asked += 1
        if self.champion is None:
            raise RegistryError(f"There is no {alias}.", fix="Promote a version.")
        return Pointed(self.champion, self.champion + self.mark)

    def pull(self, *, version: str, into: Path, onnx: bool = False) -> Path:
        folder = into / (version + self.mark)
        if not folder.exists():
            shutil.copytree(self.model, folder)
        return folder


class HangingRegistry(FakeRegistry):
    """One that does not say where the alias points until it is let go on."""

    def __init__(self, model: Path, champion: str | None = "3") -> None:
        super().__init__(model, champion)
        self.go_on = threading.Event()

    def pointed(self, alias: str) -> Pointed:
        assert self.go_on.wait(60)
        return super().pointed(alias)


def started(registry: FakeRegistry, cache: Path) -> ModelStore:
    """A store that has looked once where the alias points."""
    store = ModelStore(registry, alias="champion", cache=cache, threads=1)
    store.refresh()
    return store


@pytest.fixture(scope="session", autouse=True)
def counters_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where services of tests count when they are not told otherwise: not in the developer's own home."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("counters")
        patch.setenv("FOOTPRINT_COUNTERS", str(folder))
        yield folder


def wait_for(condition: Callable[[], bool]) -> None:
    """Until it is so, which must be soon."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def city_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_city(tmp_path_factory.mktemp("city") / "city.tif", CITY, [ROOF])


@pytest.fixture(scope="session")
def city(city_path: Path) -> GeoTiffImagery:
    return GeoTiffImagery(city_path, attribution="© the painter")


@pytest.fixture(scope="session")
def store(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    return started(FakeRegistry(model_folder), tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def app(store: ModelStore, city: GeoTiffImagery) -> Flask:
    return create_app(Settings(), store=store, imagery=city)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def counted(city) -> Counted:
    return Counted(city)
