"""tar.gz archives → tile and label files in a folder: streaming, nested archives included, nothing outside it.

Only what the pipeline uses is written (RGB tiles, labels, summary table), so that of a 23 GB archive some 6 GB
reach the disk. Where archives come from is `download`'s and `sources`' business.
"""

import gzip
import json
import logging
import shutil
import tarfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from footprint_pipeline.errors import SourceError
from footprint_pipeline.files import atomic_folder
from footprint_pipeline.spacenet.layout import role, tile_id

_log = logging.getLogger(__name__)

SUFFIXES = (".tar.gz", ".tgz")
_MARKER = ".unpacked.json"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Unpacked:
    """A folder with the tiles and labels of archives, and the ids of every tile in them, written or not."""

    folder: Path
    tile_ids: frozenset[str]


@dataclass
class _Job:
    """One call of `unpack` under way."""

    folder: Path
    limit: int | None
    tile_ids: set[str] = field(default_factory=set)
    written: Counter[str] = field(default_factory=Counter)
    suffixes: Counter[str] = field(default_factory=Counter)


def is_archive(name: str) -> bool:
    """Whether a file or key of this name is an archive that can be unpacked."""
    return name.lower().endswith(SUFFIXES)


def unpack(archives: Sequence[Path], into: Path, *, tiles: int | None = None) -> Unpacked:
    """Unpack archives that belong together into one folder, which appears when all is done.

    A second call with the same archives, for as many tiles or fewer, returns at once.

    Args:
        archives: .tar.gz files; archives within them are unpacked as well and not kept.
        into: the folder; replaced when it was unpacked from other archives or for fewer tiles.
        tiles: write the first so many tiles in the order of the archive. Labels come after the tiles, so the
            whole archive is read all the same.

    Raises:
        SourceError: an archive is missing, damaged or truncated, holds a path that leads elsewhere, or
            holds nothing that the pipeline uses. `into` is then as it was.
    """
    identity = [_identity(archive) for archive in archives]
    known = _read_marker(into)
    if known is not None and known["archives"] == identity and _covers(known["tiles"], tiles):
        return Unpacked(into, frozenset(known["tile_ids"]))

    with atomic_folder(into) as folder:
        job = _Job(folder, tiles)
        for archive in archives:
            before = job.written.total()
            job.suffixes.clear()
            _unpack_one(archive, job)
            if job.written.total() == before:
                found = ", ".join(f"{count:,} {suffix}" for suffix, count in job.suffixes.most_common(4)) or "nothing"
                raise SourceError(
                    f"{archive.name} holds no SpaceNet RGB tiles and no labels; found {found}.",
                    fix="Give an archive with 3band/ or RGB-PanSharpen/ tiles, or with their labels.",
                )
        marker = {"archives": identity, "tiles": tiles, "tile_ids": sorted(job.tile_ids)}
        (folder / _MARKER).write_text(json.dumps(marker), encoding="utf-8")
    _log.info("%s: unpacked %s", into, ", ".join(f"{count} {name} files" for name, count in job.written.items()))
    return Unpacked(into, frozenset(job.tile_ids))


def _identity(archive: Path) -> list[str | int]:
    try:
        status = archive.stat()
    except OSError:
        raise SourceError(f"{archive}: there is no such archive.", fix="Check the path.") from None
    return [archive.name, status.st_size, status.st_mtime_ns]


def _read_marker(into: Path) -> dict | None:
    try:
        return json.loads((into / _MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _covers(done: int | None, wanted: int | None) -> bool:
    return done is None or (wanted is not None and wanted <= done)


def _unpack_one(archive: Path, job: _Job) -> None:
    try:
        with archive.open("rb") as raw:
            _unpack_stream(raw, PurePosixPath(), archive.name, job)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SourceError(
            f"{archive.name} is damaged or truncated ({error}).", fix=f"Delete {archive} and fetch it again."
        ) from error


def _unpack_stream(raw: IO[bytes], at: PurePosixPath, name: str, job: _Job) -> None:
    """Unpack one gzipped tar stream; `at` is where its members go, relative to the job's folder."""
    with gzip.GzipFile(fileobj=raw) as stream:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=_BLOCK) as tar:
            for member in tar:
                _check(member, name, job.folder)
                content = tar.extractfile(member) if member.isfile() else None
                if content is not None:
                    _take(PurePosixPath(member.name), content, at, name, job)
        # tarfile stops at its own end mark (or at a broken header, without a word); the checksum comes after.
        while stream.read(_BLOCK):
            pass


def _check(member: tarfile.TarInfo, archive: str, folder: Path) -> None:
    """Refuse whatever could end up outside of the folder, or is no plain file or folder."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name:
        reason = "leads out of the folder"
    elif not (member.isfile() or member.isdir()):
        reason = "is a link" if member.issym() or member.islnk() else "is a device or the like"
    else:
        try:
            tarfile.data_filter(member, str(folder))
            return
        except tarfile.FilterError as error:
            reason = str(error)
    raise SourceError(
        f"{archive} is not safe to unpack: {member.name!r} {reason}.",
        fix="Nothing was kept. Get the archive from where SpaceNet publishes it.",
    )


def _take(path: PurePosixPath, content: IO[bytes], at: PurePosixPath, archive: str, job: _Job) -> None:
    """Write one file of an archive, if the pipeline uses it."""
    if path.name.startswith("."):
        return
    if at.parts and at.name == path.parts[0]:  # 3band.tar.gz holds 3band/… in some releases, in others not
        at = at.parent
    if is_archive(path.name):
        inner = path.parent / path.name.split(".")[0]
        if role(inner / "3band_.tif"):  # not so in 8band.tar.gz and the like
            _unpack_stream(content, at / inner, f"{archive}/{path}", job)
        return
    what = role(at / path)
    job.suffixes[path.suffix.lower() or "without suffix"] += 1
    if what is None:
        return
    name = tile_id(path.stem)
    if what == "tile":
        job.tile_ids.add(name)
        if job.limit is not None and job.written["tile"] >= job.limit:
            return
    target = job.folder / at / path
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        shutil.copyfileobj(content, file, _BLOCK)
    job.written[what] += 1
