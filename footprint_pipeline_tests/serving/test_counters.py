"""What the service counts, and how it survives threads, restarts and folders that cannot be written to."""

import atexit
import logging
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from footprint_pipeline.footprints.domain import CounterFile, DomainReference, InputProfile, brightness_counts
from footprint_pipeline.footprints.geotiff import GeoTiffImagery
from footprint_pipeline.settings import Settings
from footprint_pipeline.stages.drift import read_counters
from footprint_pipeline_tests.footprints.red_city import png, write_model
from footprint_pipeline_tests.serving.conftest import LATITUDE, LONGITUDE, ZOOM, FakeRegistry, started
from serving.app import create_app
from serving.counters import Counters
from serving.model_store import ModelStore

QUESTION = {"coordinate": {"latitude": LATITUDE, "longitude": LONGITUDE}, "zoom": ZOOM}
PROFILE = InputProfile(np.arange(48).reshape(3, 16), gsd_m=0.5, out_of_domain=0.97)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def counted(folder: Path) -> dict[tuple[str, date], int]:
    found: dict[tuple[str, date], int] = {}
    for each in read_counters(folder):
        found[each.version, each.day] = found.get((each.version, each.day), 0) + each.counts.answers
    return found


def test_many_threads_lose_nothing(tmp_path: Path) -> None:
    counters = Counters(tmp_path, every_s=0.0, today=lambda: date(2025, 5, 1))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: counters.count("roofs", str(n % 2), PROFILE), range(200)))
    counters.write()
    (file,) = tmp_path.iterdir()
    assert re.fullmatch(r".+-\d+-\d{8}T\d{12}\.json", file.name)
    one, two = read_counters(tmp_path)
    assert (one.counts.answers, two.counts.answers) == (100, 100)
    assert np.array_equal(one.counts.brightness, 100 * PROFILE.brightness)
    assert one.counts.gsd_m == {0.5: 100}
    assert one.counts.out_of_domain[-1] == 100


def test_every_process_adds_a_file_and_days_and_versions_stay_apart(tmp_path: Path) -> None:
    day = date(2025, 5, 1)
    for version in ("1", "1", "2"):  # started three times
        counters = Counters(tmp_path, today=lambda: day)
        counters.count("roofs", version, PROFILE)
    day = date(2025, 5, 2)
    counters.count("roofs", "2", PROFILE)
    counters.write()
    assert len(list(tmp_path.iterdir())) == 3
    assert counted(tmp_path) == {("1", date(2025, 5, 1)): 2, ("2", date(2025, 5, 1)): 1, ("2", day): 1}


def test_it_writes_now_and_then_and_at_the_end(tmp_path: Path) -> None:
    clock = Clock()
    counters = Counters(tmp_path, every_s=30.0, clock=clock)

    def written() -> int:
        return sum(counted(tmp_path).values())

    counters.write()
    assert not list(tmp_path.iterdir())  # nothing was asked
    counters.count("roofs", "1", PROFILE)
    assert written() == 1
    counters.count("roofs", "1", PROFILE)
    clock.now += 29
    counters.count("roofs", "1", PROFILE)
    assert written() == 1
    clock.now += 1
    counters.count("roofs", "1", PROFILE)
    assert written() == 4
    counters.count("roofs", "1", PROFILE)
    counters.write()
    assert written() == 5
    counters.count("roofs", "1", PROFILE)
    counters.hurry()
    assert written() == 6
    counters.count("roofs", "1", PROFILE)
    assert written() == 7


def test_a_folder_that_cannot_be_written_to_is_told_once_and_nothing_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "counters"
    folder.write_text("in the way")
    counters = Counters(folder, every_s=0.0)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            counters.count("roofs", "1", PROFILE)
    (told,) = caplog.messages
    assert str(folder) in told
    folder.unlink()
    counters.write()
    assert sum(counted(folder).values()) == 3


def test_answers_say_how_far_out_of_domain_they_are_and_are_counted(tmp_path: Path, city: GeoTiffImagery) -> None:
    def look(grey: int) -> np.ndarray:
        return brightness_counts(np.full((8, 8, 3), grey, np.uint8), np.ones((8, 8), bool))

    domain = DomainReference.of([look(120)] * 9 + [look(60)])
    model = write_model(tmp_path / "model", domain=domain)
    store = started(FakeRegistry(model), tmp_path / "cache")
    client = create_app(Settings(counters=tmp_path / "counters"), store=store, imagery=city).test_client()

    answer = client.post("/v1/footprints", json=QUESTION)
    share = answer.json["out_of_domain"]
    assert 0 <= share < 1  # grey ground with one roof on it
    assert answer.headers["X-Out-Of-Domain"] == f"{share:.3f}"
    assert answer.json["features"][0]["properties"]["out_of_domain"] == share
    others = (
        client.post("/predict/polygon", json=QUESTION),
        client.post("/predict/mask", json=QUESTION),
    )
    assert {other.headers["X-Out-Of-Domain"] for other in others} == {f"{share:.3f}"}
    assert client.post("/predict/polygon", json={**QUESTION, "zoom": 3}).status_code == 422

    (asked,) = read_counters(tmp_path / "counters")  # of the others so far in memory
    assert (asked.model, asked.version, asked.counts.answers) == ("red-roofs", "3", 1)


def test_a_model_that_does_not_know_its_domain_is_counted_without_the_number(
    tmp_path: Path, store: ModelStore, city: GeoTiffImagery
) -> None:
    app = create_app(Settings(counters=tmp_path), store=store, imagery=city)
    answer = app.test_client().post("/v1/footprints", json=QUESTION)
    assert "X-Out-Of-Domain" not in answer.headers
    assert "out_of_domain" not in answer.json
    (counted,) = read_counters(tmp_path)
    assert counted.counts.answers == 1
    assert sum(counted.counts.out_of_domain) == 0
    assert np.sum(counted.counts.brightness) > 0


def test_what_is_written_names_no_place(tmp_path: Path, store: ModelStore, city: GeoTiffImagery) -> None:
    app = create_app(Settings(counters=tmp_path), store=store, imagery=city)
    app.test_client().post("/predict/polygon", json=QUESTION)
    (file,) = tmp_path.iterdir()
    (asked,) = read_counters(tmp_path)
    assert set(asked.model_dump()) == {"model", "version", "day", "counts"}
    assert set(asked.counts.model_dump()) == {"answers", "brightness", "gsd_m", "out_of_domain"}
    for secret in (str(LONGITUDE), str(LATITUDE), "city.tif"):
        assert secret not in file.read_text()


def test_a_service_that_ends_writes_down_what_it_counted(
    store: ModelStore, city: GeoTiffImagery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_the_end: list = []
    monkeypatch.setattr(atexit, "register", at_the_end.append)
    client = create_app(Settings(counters=tmp_path), store=store, imagery=city).test_client()
    for number in range(3):
        image = np.full((64, 64, 3), 40 * number, np.uint8)
        assert client.post("/v1/footprints/image", data=png(image), content_type="image/png").status_code == 200
    for do in at_the_end:
        do()
    (written,) = tmp_path.glob("*.json")
    assert [each.counts.answers for each in CounterFile.model_validate_json(written.read_text()).asked] == [3]
