"""tar.gz archives → tile and label files in a folder: streaming, archives within archives included.

Only what the pipeline uses is written (RGB tiles, labels, summary table), so that of a 23 GB archive some 10 GB
reach the disk; an archive within an archive never does. Where archives come from is `download`'s and `sources`'
business, what makes one unsafe `safe_tar`'s.
"""

import glob
import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from footprint_pipeline.errors import SourceError
from footprint_pipeline.files import atomic_folder, locked, require_room
from footprint_pipeline.spacenet.areas import Patterns, is_archive
from footprint_pipeline.spacenet.layout import role, tile_of
from footprint_pipeline.spacenet.safe_tar import BLOCK, BROKEN, LIMITS, Limits, Meter, Reader, plain_files

_log = logging.getLogger(__name__)

_MARKER = ".unpacked.json"
_SAY_EVERY_S = 5.0


@dataclass(frozen=True)
class Archive:
    """A .tar.gz, on the disk or arriving.

    Attributes:
        name: for messages.
        size: bytes.
        stamp: what tells it from another archive of that name and size.
        open: its content, read once from front to end.
        renew: what to do when it is damaged.
    """

    name: str
    size: int
    stamp: str
    open: Callable[[], AbstractContextManager[IO[bytes]]]
    renew: str

    @classmethod
    def at(cls, path: Path) -> "Archive":
        """One on the disk."""
        try:
            status = path.stat()
        except OSError:
            raise SourceError(f"{path}: there is no such archive.", fix="Check the path.") from None
        renew = f"Delete {path} and fetch it again."
        return cls(path.name, status.st_size, str(status.st_mtime_ns), lambda: path.open("rb"), renew)

    @property
    def identity(self) -> list[str | int]:
        """What to recognise it by."""
        return [self.name, self.size, self.stamp]


@dataclass(frozen=True)
class Unpacked:
    """A folder with the tiles and labels of archives.

    Attributes:
        folder: where they are.
        tile_ids: every tile that was seen in the archives, written or not.
        complete: whether the archives were read to the end, so that there are no other tiles in them.
    """

    folder: Path
    tile_ids: frozenset[str]
    complete: bool


def unpack(
    archives: Sequence[Archive | Path],
    into: Path,
    *,
    tiles: int | None = None,
    patterns: Patterns | None = None,
    needed: int | None = None,
    limits: Limits = LIMITS,
) -> Unpacked:
    """Unpack archives that belong together into one folder, which appears when all is done.

    A second call with the same archives and names, for as many tiles or fewer, returns at once. Two processes that
    unpack into the same folder do so one after the other.

    Args:
        archives: .tar.gz files, on the disk or arriving; archives within them are unpacked as well.
        into: the folder; replaced when it was unpacked from other archives, by other names or for fewer tiles.
        tiles: write the first so many tiles, in the order of the archives, and read no further than it takes to
            have these and their labels: a summary table, or a GeoJSON file for each.
        patterns: names of the files, where they are not SpaceNet's.
        needed: bytes that all tiles will take, about; the size of the archives when None.
        limits: what is taken for a decompression bomb.

    Raises:
        SourceError: an archive is damaged, truncated, not safe, or holds nothing that the pipeline uses; or the
            disk has no room. `into` is then as it was.
    """
    given = [Archive.at(archive) if isinstance(archive, Path) else archive for archive in archives]
    with _alone(into):
        known = unpacked_before(given, into, tiles=tiles, patterns=patterns)
        if known is not None:
            return known
        if tiles is None:
            names = ", ".join(archive.name for archive in given)
            require_room(into.parent, needed or sum(archive.size for archive in given), f"{names}: unpacking")
        with atomic_folder(into) as folder:
            job = _Job(folder, tiles, patterns)
            for archive in given:
                if not job.satisfied:
                    _unpack_one(archive, job, limits)
            unpacked = Unpacked(into, frozenset(job.tile_ids), complete=not job.satisfied)
            limit = None if unpacked.complete and job.tile_ids == job.written_ids else tiles
            marker = {
                "archives": [archive.identity for archive in given],
                "patterns": _told(patterns),
                "tiles": limit,
                "tile_ids": sorted(job.tile_ids),
                "complete": unpacked.complete,
            }
            (folder / _MARKER).write_text(json.dumps(marker), encoding="utf-8")
    _log.info("%s: unpacked %s", into, ", ".join(f"{count} {name} files" for name, count in job.written.items()))
    return unpacked


def unpacked_before(
    archives: Sequence[Archive], into: Path, *, tiles: int | None, patterns: Patterns | None = None
) -> Unpacked | None:
    """What an earlier call left in a folder, if it is of these archives and names and has so many tiles."""
    marker = _marker(into)
    if (
        marker
        and has_unpacked(into, tiles=tiles)
        and marker["archives"] == [archive.identity for archive in archives]
        and marker.get("patterns") == _told(patterns)
    ):
        return Unpacked(into, frozenset(marker["tile_ids"]), marker["complete"])
    return None


def _told(patterns: Patterns | None) -> dict[str, str | None] | None:
    return None if patterns is None else asdict(patterns)


def has_unpacked(into: Path, *, tiles: int | None) -> bool:
    """Whether an earlier call left so many tiles in a folder, of whatever archives."""
    marker = _marker(into)
    return marker is not None and (marker["tiles"] is None or (tiles is not None and tiles <= marker["tiles"]))


def _marker(into: Path) -> dict | None:
    try:
        found = json.loads((into / _MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if found.keys() >= {"archives", "tiles", "tile_ids", "complete"} else None


@dataclass
class _Job:
    """One call of `unpack` under way."""

    folder: Path
    limit: int | None
    patterns: Patterns | None
    tile_ids: set[str] = field(default_factory=set)
    written_ids: set[str] = field(default_factory=set)
    labelled: set[str] = field(default_factory=set)
    written: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    used: int = 0
    said_s: float = field(default_factory=time.monotonic)

    @property
    def full(self) -> bool:
        """Whether as many tiles are there as were asked for."""
        return self.limit is not None and len(self.written_ids) >= self.limit

    @property
    def satisfied(self) -> bool:
        """Whether these tiles have labels too, so that nothing more needs to be read."""
        return self.full and (self.written["summary"] > 0 or self.written_ids <= self.labelled)

    def say(self, name: str, share: float) -> None:
        """Log how far the unpacking is, every few seconds."""
        now = time.monotonic()
        if now - self.said_s >= _SAY_EVERY_S:
            self.said_s = now
            _log.info("%s: %d tiles, %.0f %% of the archive read", name, len(self.written_ids), 100 * share)


def _unpack_one(archive: Archive, job: _Job, limits: Limits) -> None:
    meter = Meter(archive.name, archive.size, limits, lambda share: job.say(archive.name, share))
    job.used, job.ignored = 0, Counter()
    with archive.open() as raw:
        try:
            _unpack_stream(meter.packed(raw), PurePosixPath(), archive.name, job, meter)
        except BROKEN as error:
            raise SourceError(f"{archive.name} is damaged or truncated ({error}).", fix=archive.renew) from error
    if not job.used:
        found = ", ".join(f"{count:,} {suffix}" for suffix, count in job.ignored.most_common(4)) or "nothing"
        wanted = "files of the patterns in aois.yaml" if job.patterns else "SpaceNet RGB tiles and no labels"
        raise SourceError(
            f"{archive.name} holds no {wanted}; found {found}.",
            fix="Correct the patterns."
            if job.patterns
            else "Give an archive with 3band/ or RGB-PanSharpen/ tiles, or "
            "with their labels; tiles of other names need patterns in aois.yaml.",
        )


def _unpack_stream(raw: Reader, at: PurePosixPath, name: str, job: _Job, meter: Meter) -> None:
    """Unpack one gzipped tar stream; `at` is where its members go, relative to the job's folder."""
    with closing(plain_files(raw, name, meter)) as members:
        for path, size, content in members:
            if not path.name or path.name.startswith("."):
                continue
            # 3band.tar.gz holds 3band/… in some releases, in others not
            folder = at.parent if at.parts and at.name == path.parts[0] else at
            if is_archive(path.name):
                inner = path.parent / path.name.split(".")[0]
                if job.patterns or role(inner / "3band_.tif"):  # not so in 8band.tar.gz and the like
                    _unpack_stream(content, folder / inner, f"{name}/{path}", job, meter)
            else:
                _take(folder / path, size, content, job)
            if job.satisfied:
                return


def _take(path: PurePosixPath, size: int, content: Reader, job: _Job) -> None:
    """Write one file of an archive, if the pipeline uses it."""
    what = role(path, job.patterns)
    if what is None:
        job.ignored[path.suffix.lower() or "without suffix"] += 1
        return
    job.used += 1
    name = tile_of(path, job.patterns) if what != "summary" else ""
    if what == "tile":
        job.tile_ids.add(name)
    if what != "summary" and job.full and name not in job.written_ids:
        return
    require_room(job.folder, size, str(path))
    target = job.folder / path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            shutil.copyfileobj(content, file, BLOCK)
    except (FileExistsError, IsADirectoryError, NotADirectoryError):
        raise SourceError(
            f"{path} cannot be unpacked: the archive has a file where it has a folder.",
            fix="Nothing was kept. Pack the archive anew, or give the folder itself.",
        ) from None
    job.written[what] += 1
    if what != "summary":
        (job.written_ids if what == "tile" else job.labelled).add(name)


@contextmanager
def _alone(into: Path) -> Iterator[None]:
    """Wait until no other process unpacks into a folder; then clear away what a killed one left beside it.

    The operating system gives the lock back when its holder dies, so that whatever lies there is nobody's.
    """
    lock = into.with_name(f".{into.name}.lock")
    with locked(lock, waiting=f"{into}: waiting for another process that unpacks into it") as held:
        if held:
            for kind in ("", "former-"):
                for left in into.parent.glob(f".????????-{kind}{glob.escape(into.name)}"):
                    _log.info("%s: removing what an interrupted run left", left)
                    shutil.rmtree(left)
        yield
