import logging
import threading
import time
import traceback
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr

from footprint_pipeline.errors import ImageryError, NoImageryError, RequestError, SettingsError
from footprint_pipeline.footprints import sources, xyz
from footprint_pipeline.footprints.geotiff import GeoTiffImagery
from footprint_pipeline.footprints.imagery import open_imagery
from footprint_pipeline.footprints.mercator import Bounds, Tile, tile_at, to_wgs84
from footprint_pipeline.footprints.patch import TooCoarseError, check_resolution
from footprint_pipeline.footprints.sources import SourceSpec
from footprint_pipeline.footprints.tile_cache import TileCache
from footprint_pipeline.footprints.tile_client import PARALLEL, TileClient
from footprint_pipeline.footprints.xyz import XyzImagery
from footprint_pipeline.settings import Settings
from footprint_pipeline_tests.footprints.red_city import Answers, TileServer, http_server, png, write_city
from footprint_pipeline_tests.footprints.test_extract import MIDDLE

HERE = tile_at(-43.2, -22.9, 18)
AREA = HERE.bounds_3857
TOKEN = "pk.very-secret"


def inner_roof(tile: Tile) -> Bounds:
    """A roof over the middle half of a tile."""
    area = to_wgs84(tile.bounds_3857)
    dx, dy = (area.right - area.left) / 4, (area.top - area.bottom) / 4
    return Bounds(area.left + dx, area.bottom + dy, area.right - dx, area.top - dy)


@pytest.mark.parametrize(("side", "zoom"), [(256, 19), (512, 18)])
def test_the_zoom_is_the_coarsest_that_is_fine_enough(side: int, zoom: int) -> None:
    with http_server(TileServer([inner_roof(HERE)], side=side)) as server:
        imagery = XyzImagery(server.address + "/{z}/{x}/{y}.png")
        for pixels in (512, 500):
            patch = imagery.read(AREA, pixels, pixels)
            assert patch.source == f"127.0.0.1, zoom {zoom}"
            red = patch.pixels[..., 0] > 190
            assert patch.valid.all()
            quarter = pixels / 4
            rows, columns = np.nonzero(red)
            found = (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1)
            assert found == pytest.approx((quarter, 3 * quarter, quarter, 3 * quarter), abs=1)


def test_zooms_end_where_the_provider_says() -> None:
    with http_server(TileServer([])) as server:
        imagery = XyzImagery(server.address + "/{z}/{x}/{y}.png", min_zoom=15, max_zoom=16)
        assert imagery.read(AREA, 300, 300).source.endswith("zoom 16")
        assert imagery.read(tile_at(-43.2, -22.9, 14).bounds_3857, 64, 64).source.endswith("zoom 15")


def test_the_tiles_own_pixels_come_back_and_are_fetched_once() -> None:
    random = np.random.default_rng(2)
    answers = Answers()
    images = {}
    for x in (0, 1):
        images[x] = random.integers(0, 255, (256, 256, 3), np.uint8)
        answers[f"/18/{HERE.x + x}/{HERE.y}.png"] = (200, png(images[x]))
    with http_server(answers) as server:
        imagery = XyzImagery(server.address + "/{z}/{x}/{y}.png", headers={"X-Key": "abc"}, max_zoom=18)
        both = Bounds(AREA.left, AREA.bottom, AREA.right + (AREA.right - AREA.left), AREA.top)
        for _ in range(2):
            patch = imagery.read(both, 256, 512)
            assert np.array_equal(patch.pixels, np.hstack([images[0], images[1]]))
    assert len(answers.asked) == 2
    assert all(headers["X-Key"] == "abc" for _, headers in answers.asked)


def test_what_is_kept_does_not_wait_for_a_provider_that_hangs() -> None:
    class Hanging(TileServer):
        hangs = threading.Event()
        released = threading.Event()

        def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
            if self.hangs.is_set():
                self.released.wait(30)
            return super().answer(path)

    with http_server(Hanging([])) as server:
        imagery = XyzImagery(server.address + "/{z}/{x}/{y}.png", max_zoom=18)
        imagery.read(AREA, 256, 256)
        server.hangs.set()
        asked = len(server.asked)
        with ThreadPoolExecutor(2 * PARALLEL) as others:
            try:
                elsewhere = (Tile(18, HERE.x + 9 + number, HERE.y) for number in range(2 * PARALLEL))
                looks = [others.submit(imagery.read, tile.bounds_3857, 256, 256) for tile in elsewhere]
                while len(server.asked) < asked + PARALLEL:  # all that ask are hanging
                    time.sleep(0.01)
                with ThreadPoolExecutor(1) as mine:
                    assert mine.submit(imagery.read, AREA, 256, 256).result(timeout=10).valid.all()
            finally:
                server.released.set()
            assert all(look.result().valid.all() for look in looks)


def test_a_provider_that_hangs_is_given_up_with_all_that_was_to_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xyz, "PATIENCE_S", 0.5)

    class Hanging(TileServer):
        released = threading.Event()

        def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
            self.released.wait(30)
            return super().answer(path)

    wide = Bounds(AREA.left, AREA.bottom, AREA.left + 6 * (AREA.right - AREA.left), AREA.top)
    with http_server(Hanging([])) as server:
        imagery = XyzImagery(server.address + "/{z}/{x}/{y}.png", max_zoom=18)
        try:
            with pytest.raises(ImageryError, match=r"does not answer within 0\.5 s"):
                imagery.read(wide, 512, 6 * 512)
            assert len(server.asked) <= PARALLEL
        finally:
            server.released.set()
        time.sleep(0.5)
        assert len(server.asked) <= PARALLEL  # nobody asks for what nobody waits for
        assert imagery.read(AREA, 256, 256).valid.all()


def test_a_redirect_to_no_address_is_the_providers_fault() -> None:
    class Astray(Answers):
        def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
            return 302, b"", {"Location": "http://[::bad"}

    with http_server(Astray()) as server, pytest.raises(ImageryError, match="cannot be fetched"):
        XyzImagery(server.address + "/{z}/{x}/{y}.png", max_zoom=18).read(AREA, 256, 256)


def test_a_key_in_a_header_is_for_its_host_alone() -> None:
    with http_server(TileServer([])) as other:

        class Elsewhere(Answers):
            def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
                if path.startswith("/here"):
                    return 302, b"", {"Location": path.removeprefix("/here")}
                return 302, b"", {"Location": other.address.replace("127.0.0.1", "localhost") + path}

        with http_server(Elsewhere()) as server:
            headers = {"X-Api-Key": TOKEN, "Referer": "https://maps.example.org/"}
            imagery = XyzImagery(server.address + "/here/{z}/{x}/{y}.png", headers=headers, max_zoom=18)
            assert imagery.read(AREA, 256, 256).valid.all()
        assert len(server.asked) == 2
        assert all(headers["X-Api-Key"] == TOKEN for _, headers in server.asked)
    ((_, seen),) = other.asked
    assert "X-Api-Key" not in seen
    assert seen["Referer"] == "https://maps.example.org/"


def test_missing_and_transparent_tiles_are_no_imagery() -> None:
    answers = Answers()
    answers[f"/18/{HERE.x}/{HERE.y}.png"] = (200, png(np.full((256, 256, 3), 99, np.uint8)))
    half = np.full((256, 256, 4), 99, np.uint8)
    half[:, :128, 3], half[:, 128:, 3] = 255, 0
    answers[f"/18/{HERE.x + 1}/{HERE.y}.png"] = (200, png(half))
    answers[f"/18/{HERE.x + 2}/{HERE.y}.png"] = (204, b"")
    with http_server(answers) as server:
        imagery = XyzImagery(server.address + "/{z}/{x}/{y}.png", max_zoom=18)
        side = AREA.right - AREA.left
        patch = imagery.read(Bounds(AREA.left, AREA.bottom, AREA.right + 2 * side, AREA.top), 256, 768)
        assert patch.valid[:, :384].all()
        assert not patch.valid[:, 384:].any()
        assert (patch.pixels[:, :384] == 99).all()
        with pytest.raises(NoImageryError, match=r"127\.0\.0\.1: no imagery around latitude -22\.8"):
            imagery.read(Tile(18, HERE.x + 9, HERE.y).bounds_3857, 64, 64)


def test_the_antimeridian_wraps_and_the_poles_are_empty() -> None:
    with http_server(TileServer([])) as server:
        imagery = XyzImagery(server.address + "/{z}/{x}/{y}.png", max_zoom=3)
        last = Tile(3, 7, 0).bounds_3857
        side = last.right - last.left
        patch = imagery.read(Bounds(last.left, last.bottom, last.right + side, last.top + side), 512, 512)
        assert patch.valid[256:].all()
        assert not patch.valid[:256].any()
    assert {path for path, _ in server.asked} == {"/3/7/0.png", "/3/0/0.png"}


class Flaky(TileServer):
    """Answers 503 first."""

    failures = 2

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        if self.failures > 0:
            self.failures -= 1
            return 503, b"busy", {"Retry-After": "1000"}
        return super().answer(path)


def test_a_busy_provider_is_asked_again() -> None:
    with http_server(Flaky([])) as server:
        assert XyzImagery(server.address + "/{z}/{x}/{y}.png").read(AREA, 64, 64).valid.all()


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (500, b"", "answers HTTP 500"),
        (403, b"", "is refused"),
        (418, b"", "answers HTTP 418"),
        (200, b"<html>", "is not a square 8-bit image"),
        (200, b"", "is not a square 8-bit image"),
    ],
)
def test_a_provider_that_fails_is_named(status: int, body: bytes, reason: str) -> None:
    class Broken(Answers):
        def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
            return status, body, {}

    with http_server(Broken()) as server, pytest.raises(ImageryError, match=reason) as error:
        XyzImagery(server.address + "/{z}/{x}/{y}.png", retries=1).read(AREA, 64, 64)
    assert not isinstance(error.value, NoImageryError)
    assert error.value.problem.startswith("127.0.0.1: tile 1")


@pytest.mark.usefixtures("no_collector")
def test_the_other_tiles_are_freed_as_soon_as_the_failure_of_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []

    class Broken(TileServer):
        def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
            return super().answer(path) if f"/{HERE.x}/" in path else (418, b"", {})

    class Noted(TileClient):
        def decoded(self, tile: Tile, body: bytes) -> np.ndarray | None:
            image = super().decoded(tile, body)
            decoded.append(weakref.ref(image))
            return image

    monkeypatch.setattr(xyz, "TileClient", Noted)
    wide = Bounds(AREA.left, AREA.bottom, AREA.left + 6 * (AREA.right - AREA.left), AREA.top)
    with http_server(Broken([])) as server, pytest.raises(ImageryError, match="418"):
        XyzImagery(server.address + "/{z}/{x}/{y}.png", max_zoom=18, tile_px=256).read(wide, 256, 6 * 256)
    assert len(decoded) == 1
    assert decoded[0]() is None


@pytest.mark.parametrize("template", ["https://tiles.example.com/{z}/{x}.png", "ftp://tiles/{z}/{x}/{y}"])
def test_a_template_must_be_one(template: str) -> None:
    with pytest.raises(SettingsError, match="not an http"):
        XyzImagery(template)


def test_a_patch_tells_the_resolution_it_was_read_at_and_its_date() -> None:
    with http_server(TileServer([])) as server:
        imagery = XyzImagery(server.address + "/{z}/{x}/{y}.png", max_zoom=16, date="2023-05")
        patch = imagery.read(AREA, 64, 64)
    assert patch.gsd_m == pytest.approx(156543.034 * np.cos(np.radians(22.9)) / 2**16, rel=1e-3)  # as textbooks have it
    assert patch.date == "2023-05"
    check_resolution(patch.source, patch.gsd_m, 1.2)
    check_resolution(patch.source, None, 1.2)
    with pytest.raises(
        TooCoarseError, match=r"zoom 16: pixels of 2\.20 m .* works at 1 m and takes up to 2 m"
    ) as error:
        check_resolution(patch.source, patch.gsd_m, 1.0)
    assert isinstance(error.value, RequestError)
    assert "max_zoom" in error.value.fix


def test_mapbox_is_asked_as_it_wants_and_the_token_stays_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    spoken: list[str] = []

    class Mapbox(TileServer):
        def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
            if self.side == 0:
                return 401, b"", {}
            return super().answer(path)

    server = Mapbox([], side=512)
    with http_server(server):
        monkeypatch.setattr(sources, "MAPBOX", xyz.MAPBOX.replace("https://api.mapbox.com", server.address))
        imagery = SourceSpec(mapbox=TOKEN).open(cache=TileCache(tmp_path, limit_bytes=1 << 20))
        patch = imagery.read(AREA, 512, 512)
        assert server.asked[0][0] == f"/v4/mapbox.satellite/18/{HERE.x}/{HERE.y}@2x.png?access_token={TOKEN}"
        server.side = 0
        with pytest.raises(ImageryError, match="is refused") as refused:
            imagery.read(Tile(18, HERE.x + 5, HERE.y).bounds_3857, 512, 512)
    with pytest.raises(
        ImageryError, match="cannot be fetched"
    ) as unreachable:  # the server is gone: retries, then fails
        imagery.read(Tile(18, HERE.x + 9, HERE.y).bounds_3857, 512, 512)

    for error in (refused.value, unreachable.value):
        spoken += [str(error), repr(error), *traceback.format_exception(error)]
    spoken += [repr(imagery), repr(vars(imagery)), imagery.name, imagery.attribution, patch.source]
    logged = [record.getMessage() for record in caplog.records]
    assert any('"GET /… HTTP/1.1" 401' in line for line in logged)
    assert not [text for text in spoken + logged if TOKEN in text]
    renewed = SourceSpec(mapbox="pk.renewed").open(cache=TileCache(tmp_path))
    assert renewed.read(AREA, 512, 512).source == patch.source  # what is kept is not called by the token
    assert not any(TOKEN.encode() in file.read_bytes() for file in tmp_path.iterdir())


def test_the_settings_open_the_imagery_they_name(tmp_path) -> None:
    city = write_city(tmp_path / "city.tif", Bounds(-43.2, -22.9, -43.199, -22.899), [])
    file = open_imagery(Settings(imagery=str(city), imagery_attribution="© me"))
    assert isinstance(file, GeoTiffImagery)
    assert file.attribution == "© me"
    tiles = open_imagery(Settings(imagery="https://user:pw@tiles.example.com/key/{z}/{x}/{y}", imagery_attribution="©"))
    assert isinstance(tiles, XyzImagery)
    assert tiles.name == "tiles.example.com"
    mapbox = open_imagery(Settings(imagery="mapbox", mapbox_access_token=SecretStr(TOKEN)))
    assert (repr(mapbox), mapbox.zooms) == ("XyzImagery('Mapbox satellite')", (0, 20))
    assert "Mapbox" in mapbox.attribution
    with pytest.raises(SettingsError, match="MAPBOX_ACCESS_TOKEN"):
        open_imagery(Settings(imagery="mapbox", mapbox_access_token=None))
    with pytest.raises(SettingsError, match=r"gone\.tif"):
        open_imagery(Settings(imagery=str(tmp_path / "gone.tif")))
    with pytest.raises(SettingsError, match="coarsest zoom"):
        open_imagery(Settings(imagery="https://t/{z}/{x}/{y}", imagery_min_zoom=9, imagery_max_zoom=3))


def test_a_tile_that_stands_for_none_tells_nothing_of_the_others_size() -> None:
    class Blank(TileServer):
        blanks = 1

        def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
            self.blanks -= 1
            return (200, png(np.zeros((1, 1, 4), np.uint8)), {}) if self.blanks >= 0 else super().answer(path)

    side = AREA.right - AREA.left
    beside = Bounds(AREA.left + 4 * side, AREA.bottom, AREA.right + 4 * side, AREA.top)
    with http_server(Blank([])) as server:
        imagery = XyzImagery(server.address + "/{z}/{x}/{y}.png")
        with pytest.raises(NoImageryError):
            imagery.read(AREA, 256, 256)
        assert imagery.read(beside, 256, 256).source == "127.0.0.1, zoom 18"
    assert {path.split("/")[1] for path, _ in server.asked} == {"18"}


def test_a_tile_that_is_not_square_is_none() -> None:
    class Oblong(Answers):
        def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
            return 200, png(np.full((128, 256, 3), 90, np.uint8)), {}

    with http_server(Oblong()) as server, pytest.raises(ImageryError, match="is not a square 8-bit image"):
        XyzImagery(server.address + "/{z}/{x}/{y}.png", retries=1).read(AREA, 64, 64)


def test_when_one_tile_fails_those_that_wait_are_not_asked_for() -> None:
    class Slow(Answers):
        def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
            time.sleep(0.2)
            return 418, b"", {}

    left, bottom, right, top = tile_at(*MIDDLE, 12).bounds_3857
    with http_server(Slow()) as server:
        with pytest.raises(ImageryError, match="answers HTTP 418"):
            XyzImagery(server.address + "/{z}/{x}/{y}.png", tile_px=256).read(
                Bounds(left, bottom, right, top), 2048, 2048
            )
        time.sleep(0.6)
        assert len(server.asked) <= 2 * PARALLEL
