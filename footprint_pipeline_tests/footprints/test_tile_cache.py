import contextlib
import logging
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from footprint_pipeline.footprints import tile_client
from footprint_pipeline.footprints.mercator import Tile, tile_at
from footprint_pipeline.footprints.tile_cache import FILE, Entry, TileCache
from footprint_pipeline.footprints.xyz import XyzImagery
from footprint_pipeline_tests.footprints.red_city import TileServer, http_server

HERE = tile_at(-43.2, -22.9, 18)
AREA = HERE.bounds_3857
DAY_S = 24 * 3600.0
TOKEN = "pk.very-secret-indeed"


class Clock:
    now = 1.8e9

    def __call__(self) -> float:
        return self.now


class Provider(TileServer):
    """Tiles with the headers that a test gives them; `status` takes the place of a tile's 200."""

    def __init__(self) -> None:
        super().__init__([])
        self.headers: dict[str, str] = {}
        self.status = 200
        self.body: bytes | None = None

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        sent = self.asked[-1][1]
        _, body, _ = super().answer(path)
        if self.status != 200:
            return self.status, b"", self.headers
        validators = {"If-None-Match": "ETag", "If-Modified-Since": "Last-Modified"}
        if any(self.headers.get(mine, "none") == sent.get(theirs) for theirs, mine in validators.items()):
            return 304, b"", self.headers
        return 200, body if self.body is None else self.body, self.headers


@pytest.fixture
def provider() -> Iterator[Provider]:
    with http_server(Provider()) as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


def imagery(provider: Provider, folder: Path, clock: Clock, **options: object) -> XyzImagery:
    """As a process that has just started opens it: nothing in memory."""
    cache = TileCache(folder, limit_bytes=10**7, clock=clock)
    options = {"max_zoom": 18, "tile_px": 256, "retries": 0, **options}
    return XyzImagery(provider.address + "/{z}/{x}/{y}.png", cache=cache, **options)


def read(source: XyzImagery) -> bool:
    return bool(source.read(AREA, 256, 256).valid.all())


@pytest.mark.parametrize(
    ("headers", "lifetime_s"),
    [({"Cache-Control": "max-age=60"}, 60), ({}, DAY_S), ({"Cache-Control": "max-age=60", "Age": "50"}, 10)],
)
def test_a_tile_is_asked_for_again_when_its_time_is_over(
    provider: Provider, tmp_path: Path, clock: Clock, headers: dict[str, str], lifetime_s: float
) -> None:
    provider.headers = headers
    assert read(imagery(provider, tmp_path, clock))
    clock.now += lifetime_s - 1
    assert read(imagery(provider, tmp_path, clock))
    assert len(provider.asked) == 1
    clock.now += 2
    assert read(imagery(provider, tmp_path, clock))
    assert len(provider.asked) == 2


@pytest.mark.parametrize("validator", [{"ETag": '"v1"'}, {"Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}])
def test_what_has_not_changed_is_not_sent_again(
    provider: Provider, tmp_path: Path, clock: Clock, validator: dict[str, str]
) -> None:
    provider.headers = {"Cache-Control": "max-age=60", **validator}
    assert read(imagery(provider, tmp_path, clock))
    provider.body = b"never sent"
    for expected in (2, 3):
        clock.now += 61
        assert read(imagery(provider, tmp_path, clock))
        assert read(imagery(provider, tmp_path, clock))  # the 304 has made it fresh
        assert len(provider.asked) == expected
    name = "If-None-Match" if "ETag" in validator else "If-Modified-Since"
    assert provider.asked[-1][1][name] == next(iter(validator.values()))


def test_a_304_that_says_nothing_of_age_leaves_it_as_it_was(provider: Provider, tmp_path: Path, clock: Clock) -> None:
    provider.headers = {"Cache-Control": "max-age=60", "ETag": '"v1"'}
    assert read(imagery(provider, tmp_path, clock))
    provider.headers = {"ETag": '"v1"'}
    for _ in range(2):
        clock.now += 61
        assert read(imagery(provider, tmp_path, clock))
    assert len(provider.asked) == 3


@pytest.mark.parametrize("directive", ["no-store", "no-cache"])
def test_what_may_not_be_kept_or_trusted_is_asked_for_each_time(
    provider: Provider, tmp_path: Path, clock: Clock, directive: str
) -> None:
    provider.headers = {"Cache-Control": f"{directive}, max-age=60", "ETag": '"v1"'}
    source = imagery(provider, tmp_path, clock)
    assert read(source)
    assert read(source)
    assert len(provider.asked) == 2
    assert ("If-None-Match" in provider.asked[1][1]) == (directive == "no-cache")
    provider.status = 503
    with pytest.raises(tile_client.ImageryError, match="HTTP 503"):
        read(source)


def test_that_there_is_no_imagery_is_remembered_for_a_short_while(
    provider: Provider, tmp_path: Path, clock: Clock
) -> None:
    provider.status, provider.headers = 404, {"Cache-Control": "max-age=999999"}
    source = imagery(provider, tmp_path, clock)
    for asked in (1, 1):
        with pytest.raises(tile_client.ImageryError, match="no imagery"):
            read(source)
        assert len(provider.asked) == asked
    provider.status = 200
    clock.now += tile_client.NOTHING_S + 1
    assert read(source)


def test_kept_tiles_stand_in_for_a_provider_that_is_down_and_the_log_says_so(
    provider: Provider, tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    provider.headers = {"Cache-Control": "max-age=60"}
    source = imagery(provider, tmp_path, clock)
    assert read(source)
    clock.now += 61
    provider.status = 503
    for _ in range(3):  # asked once, then left alone for a while
        assert read(source)
    assert len(provider.asked) == 2
    warnings = [record.getMessage() for record in caplog.records if record.name == tile_client.__name__]
    assert len(warnings) == 1
    assert "HTTP 503" in warnings[0]
    assert "stand in" in warnings[0]
    clock.now += tile_client.PAUSE_S
    provider.status = 200
    assert read(source)
    assert read(source)
    assert len(provider.asked) == 3


def test_kept_tiles_do_not_stand_in_when_the_token_is_refused_or_the_provider_forbids_it(
    provider: Provider, tmp_path: Path, clock: Clock
) -> None:
    for headers, status, reason in (
        ({"Cache-Control": "max-age=60"}, 403, "is refused"),
        ({"Cache-Control": "max-age=60, must-revalidate"}, 503, "HTTP 503"),
        ({"Cache-Control": "max-age=60, stale-if-error=1"}, 503, "HTTP 503"),
    ):
        provider.headers, provider.status = headers, 200
        source = imagery(provider, tmp_path / reason, clock)
        assert read(source)
        provider.status = status
        clock.now += 62
        with pytest.raises(tile_client.ImageryError, match=reason):
            read(source)
        clock.now += DAY_S


def test_an_answer_that_is_no_image_is_not_kept(provider: Provider, tmp_path: Path, clock: Clock) -> None:
    provider.body = b"<html>Please log in</html>"
    source = imagery(provider, tmp_path, clock)
    with pytest.raises(tile_client.ImageryError, match="not a square"):
        read(source)
    provider.body = None
    assert read(source)


def test_sources_are_kept_apart_and_a_new_token_finds_what_the_old_one_fetched(
    provider: Provider, tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    cache = TileCache(tmp_path, limit_bytes=10**7, clock=clock)

    def asked(query: str) -> int:
        before = len(provider.asked)
        template = f"{provider.address.replace('//', f'//me:{TOKEN}@')}/tiles-of-mine/{{z}}/{{x}}/{{y}}.png?{query}"
        headers = {"Authorization": f"Bearer {TOKEN}", "X-Key": TOKEN}
        assert read(XyzImagery(template, headers=headers, max_zoom=18, tile_px=256, cache=cache))
        return len(provider.asked) - before

    assert asked(f"layer=city&access_token={TOKEN}") == 1
    assert asked(f"layer=land&access_token={TOKEN}") == 1
    assert asked(f"layer=city&access_token={TOKEN}-renewed") == 0
    stored = list(tmp_path.iterdir())
    assert tmp_path / FILE in stored
    for path in stored:
        assert TOKEN not in path.name
        content = path.read_bytes()
        for secret in (TOKEN, "access_token", "127.0.0.1"):
            assert secret.encode() not in content
    assert not [record for record in caplog.records if TOKEN in record.getMessage()]


def test_a_key_in_the_path_stays_out_of_the_log(
    provider: Provider, tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    template = f"{provider.address}/{TOKEN}/{{z}}/{{x}}/{{y}}.png"
    source = XyzImagery(template, max_zoom=18, retries=1, cache=TileCache(tmp_path, clock=clock))
    assert read(source)
    provider.status = 503
    clock.now += 2 * DAY_S
    assert read(source)
    assert any('"GET /… HTTP/1.1" 503' in record.getMessage() for record in caplog.records)
    assert not [record for record in caplog.records if TOKEN in record.getMessage()]
    assert all(TOKEN.encode() not in path.read_bytes() for path in tmp_path.iterdir())


# ---- the store ----


def entry(size: int = 10_000, fill: int = 1) -> Entry:
    return Entry(bytes([fill]) * size, checked=1.8e9, lifetime_s=60.0, grace_s=5.0, etag='"e"', modified="then")


def tile(number: int) -> Tile:
    return Tile(20, number, 0)


def test_what_was_used_last_stays_when_there_is_no_more_room(tmp_path: Path, clock: Clock) -> None:
    limit = 1 << 20
    cache = TileCache(tmp_path, limit_bytes=limit, clock=clock)
    for number in range(300):
        clock.now += 100
        cache.put("s", tile(number), entry(fill=number % 256))
        assert cache.get("s", tile(0)) == entry(fill=0)
    kept = {number for number in range(300) if cache.get("s", tile(number)) is not None}
    assert {0, 299} <= kept
    assert kept - {0} == set(range(300 - len(kept) + 1, 300))  # the newest
    assert 60 < len(kept) <= limit // 10_000
    assert (tmp_path / FILE).stat().st_size <= limit + 50_000


def test_a_lowered_limit_shrinks_the_file(tmp_path: Path, clock: Clock) -> None:
    cache = TileCache(tmp_path, limit_bytes=4 << 20, clock=clock)
    for number in range(300):
        cache.put("s", tile(number), entry())
    smaller = TileCache(tmp_path, limit_bytes=1 << 20, clock=clock)
    smaller.put("s", tile(999), entry())
    assert smaller.get("s", tile(999)) == entry()
    with sqlite3.connect(tmp_path / FILE) as reader:
        assert reader.execute("PRAGMA page_count").fetchone()[0] * 4096 <= 1 << 20
        assert reader.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    reader.close()


def test_what_others_read_meanwhile_does_not_leave_a_long_log(tmp_path: Path) -> None:
    cache, log = TileCache(tmp_path, limit_bytes=4 << 20), tmp_path / f"{FILE}-wal"
    cache.put("s", tile(0), entry())
    reader = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM tiles").fetchone()
    for number in range(12):
        cache.put("s", tile(number), Entry(bytes(600_000), 1.8e9, 60.0))
    assert log.stat().st_size > 6 << 20
    reader.execute("COMMIT")
    for number in range(4):
        cache.put("s", tile(number), Entry(bytes(600_000), 1.8e9, 60.0))
    assert log.stat().st_size < 4 << 20
    reader.close()


def test_threads_share_a_cache(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = TileCache(tmp_path, limit_bytes=8 << 20)

    def work(mine: int) -> list[bytes]:
        for number in range(40):
            cache.put("s", Tile(20, number, mine), Entry(bytes([mine]) * 1000, 1.8e9, 60.0))
        return [found.body for number in range(40) if (found := cache.get("s", Tile(20, number, mine)))]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [[bytes([mine]) * 1000] * 40 for mine in range(8)]
    assert caplog.text == ""


def test_processes_share_the_folder(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from footprint_pipeline.footprints.mercator import Tile
from footprint_pipeline.footprints.tile_cache import Entry, TileCache

cache, mine = TileCache(Path(sys.argv[1]), limit_bytes=1 << 20), int(sys.argv[2])
for number in range(200):
    cache.put("s", Tile(20, number, mine), Entry(bytes([mine]) * 10_000, 1.8e9, 60.0))
    found = cache.get("s", Tile(20, number, mine))
    assert found is None or found.body[:1] == bytes([mine])  # the other one may have needed the room
"""
    command = [sys.executable, "-W", "error", "-c", program, str(tmp_path)]
    writers = [subprocess.Popen([*command, str(mine)], stderr=subprocess.PIPE, text=True) for mine in (1, 2)]
    assert [writer.communicate(timeout=120)[1] for writer in writers] == ["", ""]
    cache = TileCache(tmp_path, limit_bytes=1 << 20)
    kept = {
        mine: [found for number in range(200) if (found := cache.get("s", Tile(20, number, mine)))] for mine in (1, 2)
    }
    assert sum(map(len, kept.values())) > 60
    assert all(found.body == bytes([mine]) * 10_000 for mine, all_found in kept.items() for found in all_found)
    assert (tmp_path / FILE).stat().st_size <= (1 << 20) + 100_000


def unusable(folder: Path, how: str) -> Path:
    if how == "a file in the way":
        folder.write_text("in the way")
        return folder / "below"
    folder.mkdir()
    (folder / FILE).write_bytes(b"this is no database" * 100)
    return folder


@pytest.mark.parametrize("how", ["a file in the way", "not a database"])
def test_a_folder_that_cannot_be_used_costs_nothing_but_the_cache(
    provider: Provider, tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    folder = unusable(tmp_path / "cache", how)
    source = imagery(provider, folder, clock)
    assert read(source)
    assert read(source)
    assert len(provider.asked) == 1  # kept in memory
    warnings = [record.getMessage() for record in caplog.records if "tile cache" in record.getMessage()]
    assert len(warnings) == 1
    assert str(folder) in warnings[0]


def test_a_disk_that_is_full_is_told_as_such(tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    cache = TileCache(tmp_path, limit_bytes=10**7, clock=clock)
    with cache._open() as connection:
        connection.execute("PRAGMA max_page_count = 20")
    for column in range(40):
        cache.put("a", Tile(9, column, 0), Entry(b"x" * 4000, clock(), 10))
    assert "database or disk is full" in caplog.text
    with cache._open() as connection:
        connection.execute("PRAGMA max_page_count = 10000")
    cache.put("a", Tile(9, 99, 0), Entry(b"y", clock(), 10))
    assert cache.get("a", Tile(9, 99, 0)) is not None


def test_a_cache_that_fails_later_fails_no_request(
    provider: Provider, tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    source = imagery(provider, tmp_path, clock)
    assert read(source)
    with sqlite3.connect(tmp_path / FILE) as vandal:
        vandal.execute("DROP TABLE tiles")
    vandal.close()
    for _ in range(2):
        assert read(source)
    assert len(provider.asked) == 3
    assert len([record for record in caplog.records if "no such table" in record.getMessage()]) == 1


def test_what_is_kept_does_not_tell_which_tiles_to_who_knows_the_source(tmp_path: Path) -> None:
    keys = set()
    for name in ("a", "b"):
        TileCache(tmp_path / name).put("provider", Tile(18, 1, 2), Entry(b"image", 0.0, 60.0))
        with contextlib.closing(sqlite3.connect(tmp_path / name / FILE)) as file:
            keys |= set(file.execute("SELECT key FROM tiles").fetchall())
    assert len(keys) == 2


def test_tiles_of_two_zooms_are_two() -> None:
    cache = TileCache()
    cache.put("provider", Tile(17, 1, 2), Entry(b"image", 0.0, 60.0))
    assert cache.get("provider", Tile(17, 1, 2)) is not None
    others = [Tile(18, 1, 2), Tile(17, 2, 1), Tile(17, 12, 2)]
    assert [cache.get("provider", tile) for tile in others] == [None] * 3
    assert cache.get("another", Tile(17, 1, 2)) is None
