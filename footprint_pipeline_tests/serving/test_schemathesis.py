"""The service as it is run, asked by Schemathesis whatever its own description allows, and what it does not."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import requests
from rasterio.transform import from_origin

from footprint_pipeline.registry import Registry
from footprint_pipeline_tests.footprints.red_city import GREY, RED, write_model, write_raster
from footprint_pipeline_tests.serving.test_gunicorn import NAME, ROOT, gunicorn, health, register, wait_for

CONFIG = Path(__file__).with_name("schemathesis.toml")
GSD_M = 100.0
"""So coarse that a tile of any zoom is made soon."""


def write_world(folder: Path) -> Path:
    """Imagery of the whole earth, pixels of 200 m at the equator: each tenth of a degree is a roof, or none."""
    height, width, times = 1800, 3600, 56
    roofs = np.random.default_rng(0).random((1, height, width)) < 0.3
    image = np.where(roofs, *(np.array(colour, np.uint8)[:, None, None] for colour in (RED, GREY)))
    write_raster(folder / "few.tif", image, from_origin(-180, 90, 0.1, 0.1), "EPSG:4326", compress="deflate")
    wide, high = width * times, height * times
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><ColorInterp>{colour}</ColorInterp><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">few.tif</SourceFilename><SourceBand>{band}</SourceBand>'
        f'<SrcRect xOff="0" yOff="0" xSize="{width}" ySize="{height}"/><DstRect xOff="0" yOff="0" '
        f'xSize="{wide}" ySize="{high}"/></SimpleSource></VRTRasterBand>'
        for band, colour in enumerate(("Red", "Green", "Blue"), 1)
    )
    world = folder / "world.vrt"
    world.write_text(
        f'<VRTDataset rasterXSize="{wide}" rasterYSize="{high}"><SRS>EPSG:4326</SRS>'
        f"<GeoTransform>-180, {0.1 / times}, 0, 90, 0, {-0.1 / times}</GeoTransform>{bands}</VRTDataset>"
    )
    return world


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of a service that has a model, and imagery everywhere."""
    folder = tmp_path_factory.mktemp("world")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    version = register(uri, write_model(folder / "model", gsd_m=GSD_M), folder / "artifacts")
    Registry(uri, NAME).point("champion", version)
    return {
        "FOOTPRINT_HOME": str(folder / "home"),
        "FOOTPRINT_COUNTERS": "",
        "FOOTPRINT_IMAGERY": str(write_world(folder)),
        "FOOTPRINT_MODEL_NAME": NAME,
        "FOOTPRINT_THREADS": "1",
        "MLFLOW_TRACKING_URI": uri,
    }


def schemathesis(address: str, *options: str, folder: Path) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run", *options, "--no-color"]
    done = subprocess.run(
        [*command, f"{address}/openapi.json"],
        cwd=folder,  # hypothesis leaves things where it is run
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def service(log: Path, environment: dict[str, str], **more: str) -> Iterator[str]:
    """A running service's address, once it is ready."""
    with gunicorn(log, **environment, **more) as address:
        wait_for(lambda: (answer := health(address)) is not None and answer.status_code == 200, log)
        yield address
    assert "Traceback" not in log.read_text()


@pytest.mark.slow
def test_every_operation_answers_as_it_is_described(environment: dict[str, str], tmp_path: Path) -> None:
    with service(tmp_path / "gunicorn.log", environment) as address:
        schemathesis(address, folder=tmp_path)
        described = requests.get(f"{address}/openapi.json", timeout=20).json()["paths"]
        told = requests.get(f"{address}/metrics", timeout=20).text
    answered = set(re.findall(r'_total\{endpoint="(.*?)",method="(.*?)",status="200"', told))
    operations = {(path, method.upper()) for path, methods in described.items() for method in methods}
    assert operations <= answered, "the requests have to be right now and then"


@pytest.mark.slow
def test_no_operation_answers_without_its_key(environment: dict[str, str], tmp_path: Path) -> None:
    options = ("--phases=examples,fuzzing", "--max-examples=5", "--header=X-API-Key:the-key")
    with service(tmp_path / "gunicorn.log", environment, FOOTPRINT_API_KEYS="the-key") as address:
        schemathesis(address, *options, folder=tmp_path)
