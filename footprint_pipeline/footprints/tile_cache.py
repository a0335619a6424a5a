"""Map tiles kept on disk: one SQLite file of bounded size, shared by threads and processes.

What belongs here: keeping and finding, and how old an entry may get (`cache_headers` says what the provider wishes).
Who asks the provider is `tile_client`. A tile is found by a keyed hash of its source's identity, which holds no token,
and of its numbers; neither addresses nor headers are kept.

Caches at hand do half of it: those for `requests` keep addresses and headers with their tokens and have no limit of
size; those with a limit keep pickles and know no HTTP.
"""

import logging
import os
import sqlite3
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from footprint_pipeline.files import locked
from footprint_pipeline.footprints.mercator import Tile

FILE = "tiles-1.sqlite"
"""The number grows when the table changes, so that an old file is not read as a new one."""
MEMORY_BYTES = 64 << 20
"""What is kept in memory when nothing can be kept on disk: the tiles of a request are read more than once."""

_TOUCHED_AFTER_S = 60.0
_PATIENCE_S = 5.0
_LONGEST_LOG = 8 << 20
"""Bytes. What is written goes to a log first, which SQLite does not shorten by itself while others read on and on."""
_TABLES = """
CREATE TABLE IF NOT EXISTS tiles (
    key BLOB PRIMARY KEY, body BLOB NOT NULL, checked REAL NOT NULL, lifetime_s REAL NOT NULL, grace_s REAL NOT NULL,
    etag TEXT NOT NULL, modified TEXT NOT NULL, used REAL NOT NULL);
CREATE INDEX IF NOT EXISTS by_use ON tiles (used);
CREATE TABLE IF NOT EXISTS salt (id INTEGER PRIMARY KEY CHECK (id = 0), value BLOB NOT NULL);
"""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """A tile as the provider gave it.

    Attributes:
        body: the encoded image; empty where the provider has none.
        checked: when the provider last vouched for it, seconds since 1970.
        lifetime_s: how long after that it is fresh.
        grace_s: how long after that it may stand in for a provider that fails.
        etag: the provider's `ETag`; empty when it gave none.
        modified: the provider's `Last-Modified`; empty when it gave none.
    """

    body: bytes
    checked: float
    lifetime_s: float
    grace_s: float = 0.0
    etag: str = ""
    modified: str = ""

    def fresh(self, now: float) -> bool:
        """Whether it may be used without asking."""
        return now < self.checked + self.lifetime_s

    def stands_in(self, now: float) -> bool:
        """Whether it may be used while the provider fails."""
        return now < self.checked + self.lifetime_s + self.grace_s


class TileCache:
    """Tiles by source and number. Safe to use from several threads; several processes may share the folder.

    Where the folder cannot be used, or there is none, some tiles are kept in memory; that never is an error.

    Args:
        folder: where the file lies, made when it is first needed; None keeps tiles in memory only.
        limit_bytes: how large the file may grow; what was not used for longest goes first.
        clock: seconds since 1970.
    """

    def __init__(
        self, folder: Path | None = None, *, limit_bytes: int = MEMORY_BYTES, clock: Callable[[], float] = time.time
    ) -> None:
        self.clock = clock
        self._folder, self._limit_bytes = folder, limit_bytes
        self._lock = Lock()
        self._connection: sqlite3.Connection | None = None
        self._salt = b""
        self._warned = False

    def get(self, source: str, tile: Tile) -> Entry | None:
        """What is kept of a tile, however old; None when nothing is.

        Args:
            source: identity of the provider and its layer, without secrets.
            tile: which.
        """
        found: tuple | None = None
        with self._open() as connection:
            key, now = self._key(source, tile), self.clock()
            found = connection.execute(
                "SELECT body, checked, lifetime_s, grace_s, etag, modified, used FROM tiles WHERE key = ?", (key,)
            ).fetchone()
            if found is not None and abs(now - found[-1]) > _TOUCHED_AFTER_S:
                connection.execute("UPDATE tiles SET used = ? WHERE key = ?", (now, key))
        return None if found is None else Entry(*found[:-1])

    def put(self, source: str, tile: Tile, entry: Entry) -> None:
        """Keep a tile in place of what was kept of it; `source` and `tile` as in `get`."""
        with self._open() as connection:
            with connection:  # COMMIT, or ROLLBACK where there is something to roll back
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(
                    "INSERT OR REPLACE INTO tiles VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        self._key(source, tile),
                        entry.body,
                        entry.checked,
                        entry.lifetime_s,
                        entry.grace_s,
                        entry.etag,
                        entry.modified,
                        self.clock(),
                    ),
                )
                self._evict(connection)
            pages = _pages(connection)
            beyond = pages.all - self._limit_bytes // pages.size
            if beyond > 0:  # as a script: `execute` frees one page only
                connection.executescript(f"PRAGMA incremental_vacuum({beyond})")
            if self._log_bytes() > _LONGEST_LOG:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _log_bytes(self) -> int:
        try:
            return 0 if self._folder is None else (self._folder / f"{FILE}-wal").stat().st_size
        except OSError:
            return 0

    def _key(self, source: str, tile: Tile) -> bytes:
        return blake2b(f"{source}\n{tile.z}/{tile.x}/{tile.y}".encode(), key=self._salt, digest_size=20).digest()

    def _evict(self, connection: sqlite3.Connection) -> None:
        """Drop what was not used for longest once the pages in use pass the limit."""
        pages = _pages(connection)
        too_much = (pages.all - pages.free) * pages.size - self._limit_bytes
        if too_much <= 0:
            return
        too_much += self._limit_bytes // 10  # so that not every tile has to drop another
        dropped = []
        for row, size in connection.execute("SELECT rowid, length(body) FROM tiles ORDER BY used"):
            if too_much <= 0:
                break
            dropped.append((row,))
            too_much -= size
        connection.executemany("DELETE FROM tiles WHERE rowid = ?", dropped)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The connection, to be used by one thread at a time; what goes wrong in the block is logged once."""
        with self._lock:
            if self._connection is None:
                self._connection = self._connect()
            try:
                yield self._connection
            except sqlite3.Error as error:
                self._warn(f"The tile cache does without this tile: {error}.")

    def _connect(self) -> sqlite3.Connection:
        if self._folder is not None:
            try:
                with locked(
                    self._folder / f".{FILE}.lock", waiting="The tile cache is being opened by another process."
                ):
                    return self._prepared(str(self._folder / FILE))
            except (OSError, sqlite3.Error) as error:
                self._warn(f"The tile cache {self._folder} cannot be used ({error}); some tiles are kept in memory.")
        self._limit_bytes = min(self._limit_bytes, MEMORY_BYTES)
        return self._prepared(":memory:")

    def _prepared(self, path: str) -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=_PATIENCE_S, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(_TABLES)
            connection.execute("INSERT OR IGNORE INTO salt VALUES (0, ?)", (os.urandom(32),))
            self._salt = connection.execute("SELECT value FROM salt").fetchone()[0]
        except BaseException:
            connection.close()
            raise
        weakref.finalize(self, connection.close)
        return connection

    def _warn(self, problem: str) -> None:
        if not self._warned:
            self._warned = True
            _log.warning("%s", problem)


class _Pages(NamedTuple):
    """Of the file: how many, how many of them hold nothing, bytes of each."""

    all: int
    free: int
    size: int


def _pages(connection: sqlite3.Connection) -> _Pages:
    names = ("page_count", "freelist_count", "page_size")
    return _Pages(*(connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names))
