"""A real browser, and a real service of the red city for it to ask."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import rasterio
from flask import Flask
from playwright.sync_api import Browser, Page, sync_playwright
from rasterio.windows import from_bounds
from werkzeug.serving import make_server

from footprint_pipeline.footprints.geotiff import GeoTiffImagery
from footprint_pipeline.footprints.mercator import Bounds
from footprint_pipeline.settings import Settings
from footprint_pipeline_tests.footprints.red_city import roof, write_city, write_model
from footprint_pipeline_tests.serving.conftest import AREA, CITY, ROOF, FakeRegistry, started
from serving.app import create_app
from serving.model_store import ModelStore

ARGUMENTS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
X, Y = AREA.centre
SMALL = roof(X + 0.0003, Y, 8, 8)
FAINT = roof(X - 0.0003, Y, 12, 12)
"""A roof that is hardly red: its probability is 0.27."""
FAINT_RED = (235, 120, 120)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium. Of a module, as no other event loop may run beside Playwright's."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        missing = "no Chromium: apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS.split())
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    model, cache = write_model(tmp_path_factory.mktemp("model")), tmp_path_factory.mktemp("cache")
    return started(FakeRegistry(model), cache)


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> GeoTiffImagery:
    path = write_city(tmp_path_factory.mktemp("city") / "city.tif", CITY, [ROOF, SMALL])
    _paint(path, FAINT, FAINT_RED)
    return GeoTiffImagery(path, attribution="© the <b>painter</b>")


@pytest.fixture(scope="module")
def start(store: ModelStore, city: GeoTiffImagery) -> Iterator[Callable[..., str]]:
    """Start a service with some settings; gives its address."""
    servers = []

    def started(app: Flask | None = None, **settings: object) -> str:
        server = make_server(
            "127.0.0.1", 0, app or create_app(Settings(**settings), store=store, imagery=city), threaded=True
        )
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOOTPRINT_COUNTERS", str(city._path) + ".counters")
        yield started
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def service(start: Callable[..., str]) -> str:
    return start()


@contextmanager
def visit(browser: Browser, address: str, **context: object) -> Iterator[Page]:
    """A page of its own, which must neither fail nor ask anybody but the service."""
    opened = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **context})
    opened.set_default_timeout(15_000)
    page, bad = opened.new_page(), []
    page.on("pageerror", lambda error: bad.append(str(error)))
    page.on("console", lambda told: bad.append(told.text) if told.type in ("error", "warning") else None)
    page.on("request", lambda asked: bad.append(asked.url) if not asked.url.startswith((origin, "blob:")) else None)
    origin = address.partition("#")[0]
    page.goto(address)
    try:
        yield page
    finally:
        opened.close()
    # That a server refuses is told there as well, and the tests ask for it.
    assert [each for each in bad if not each.startswith("Failed to load resource")] == []


def _paint(path: Path, box: Bounds, colour: tuple[int, int, int]) -> None:
    with rasterio.open(path, "r+") as raster:
        window = from_bounds(*box, raster.transform).round_offsets().round_lengths()
        shape = (3, int(window.height), int(window.width))
        raster.write(np.broadcast_to(np.array(colour, np.uint8)[:, None, None], shape), window=window)
