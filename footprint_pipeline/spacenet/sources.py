"""From an AOI of the catalogue (or what a user typed) to tiles and labels on disk.

Decides which source to use and how; the work itself is done by `download`, `archive`, `loose` and `synthetic`.
"""

import difflib
import hashlib
import logging
import math
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO

from footprint_pipeline.errors import MissingKeyError, SettingsError, SourceError
from footprint_pipeline.settings import Settings
from footprint_pipeline.spacenet.archive import Archive, has_unpacked, unpack, unpacked_before
from footprint_pipeline.spacenet.areas import SYNTHETIC_URI, Aoi, Part, Source, is_archive, normal_uri
from footprint_pipeline.spacenet.catalog import load_catalog
from footprint_pipeline.spacenet.download import S3, is_complete
from footprint_pipeline.spacenet.layout import Layout, aoi_name, discover, files_below, role
from footprint_pipeline.spacenet.loose import fetch_prefix, has_fetched
from footprint_pipeline.spacenet.s3.client import RemoteFile
from footprint_pipeline.spacenet.s3.errors import split_uri
from footprint_pipeline.spacenet.s3.progress import Progress

_log = logging.getLogger(__name__)

_SAME_FILE = 0.1  # a file whose size is further from the catalogue's than this share is another one


def fetch(aoi: Aoi, into: Path, *, tiles: int | None = None, settings: Settings, s3: S3 | None = None) -> Layout:
    """Bring the tiles and labels of an AOI onto the disk; what is there already is not fetched again.

    Args:
        aoi: from the catalogue or from `resolve_source`.
        into: folder for downloads and unpacked tiles of this AOI. A local folder is read where it is.
        tiles: at most so many tiles: of a folder or prefix the first in natural order, of archives the first in them,
            which are then read (and fetched) no further.
        settings: how S3 is read.
        s3: what reads it; by default made from the settings.

    Returns:
        Where everything is; `Layout.source` says which of the AOI's sources was used.

    Raises:
        SourceError: none of the sources exists, or the one that does cannot be read.
    """
    s3 = s3 or S3.from_settings(settings, endpoint_url=aoi.endpoint_url)
    missing: list[MissingKeyError] = []
    for source in _in_order(aoi, into, tiles):
        try:
            layout = _fetch(source, aoi, into, tiles, s3)
        except MissingKeyError as error:
            _log.warning("%s", error.problem)
            missing.append(error)
            continue
        _log.info("%s: %d tiles from %s", aoi.name, len(layout.tiles), layout.source)
        return layout
    if len(missing) == 1:
        raise missing[0]
    raise SourceError(
        f"{aoi.name}: none of its {len(missing)} sources exists:\n"
        + "\n".join(f"  {error.problem}" for error in missing),
        fix="Check FOOTPRINT_S3_ENDPOINT_URL, or fetch the data by hand and give its folder as the source.",
    )


def fingerprint(aoi: Aoi, *, used: str = "", settings: Settings, s3: S3 | None = None) -> str:
    """What tells the files of an AOI's source from other ones: a digest of their names, sizes and ETags (or times).

    Of several sources the one in use counts, then the first that exists; of loose files those that are imagery or
    labels. Nothing is fetched.

    Args:
        aoi: from the catalogue.
        used: `Layout.source` of when it was fetched.
        settings: how S3 is read.
        s3: what reads it; by default made from the settings.

    Raises:
        SourceError: none of the sources exists, or it cannot be looked at.
    """
    s3 = s3 or S3.from_settings(settings, endpoint_url=aoi.endpoint_url)
    for source in sorted(aoi.sources, key=lambda source: ", ".join(source.uris) != used):
        try:
            files = sorted(line for uri in source.uris for line in _told_apart(uri, aoi, s3, whole=source.packed))
        except MissingKeyError:
            continue
        if files:
            return _digest(files)
    raise SourceError(f"{aoi.name}: none of its sources exists.", fix="Check the source in aois.yaml.")


def _told_apart(uri: str, aoi: Aoi, s3: S3, *, whole: bool) -> list[str]:
    """A line for each file that is read of a folder or a prefix, or for an archive."""
    if uri == SYNTHETIC_URI:
        return [uri]
    if uri.startswith("s3://"):
        prefix = uri.rstrip("/") + "/"
        remotes = [s3.head(uri)] if whole else s3.list(prefix)
        return [
            f"{remote.uri} {remote.size} {remote.etag}"
            for remote in remotes
            if whole or role(PurePosixPath(remote.uri.removeprefix(prefix)), aoi.patterns)
        ]
    path = Path(uri)
    files = [path] if path.is_file() else [path / file for file in files_below(path) if role(file, aoi.patterns)]
    return [
        f"{file} {status.st_size} {status.st_mtime_ns}"
        for file in files if file.is_file()
        for status in [file.stat()]
    ]  # fmt: skip


def resolve_source(text: str, home: Path) -> Aoi:
    """The AOI that a user means: a name of the catalogue, a folder, an archive, or an s3:// URI.

    The name of an AOI that is not in the catalogue is read off its folders, tiles or file name.

    Raises:
        SourceError: it is none of these; the message suggests the nearest name.
        SettingsError: the user's catalogue is broken.
    """
    catalog = load_catalog(home)
    if text in catalog:
        return catalog[text]
    uri = normal_uri(text, Path.cwd())
    for known in catalog.values():
        for source in known.sources:
            if source.uris == (uri,):
                return known if source == known.sources[0] else replace(known, sources=(source,))
    _check_exists(text, uri, list(catalog))
    if not uri.startswith("s3://") and Path(uri).is_dir():
        name = discover(Path(uri)).aoi
    else:
        name = aoi_name([uri]) or _plain_name(uri)
    return Aoi(name, name, (Source((Part(uri),)),))


def resolve_sources(sources: Sequence[str], names: Sequence[str], home: Path) -> list[Aoi]:
    """`resolve_source` of each, called by the names where there are any.

    Raises:
        SourceError: as `resolve_source`.
        SettingsError: there are not as many names, two areas have the same one, or the user's catalogue is broken.
    """
    areas = [resolve_source(source, home) for source in sources]
    if names:
        if len(sources) != len(names):
            raise SettingsError(
                f"{len(sources)} sources, but {len(names)} names.", fix="Give one --aoi for each --source, or none."
            )
        areas = [replace(area, name=name) for area, name in zip(areas, names, strict=True)]
    source_of: dict[str, str] = {}
    for source, area in zip(sources, areas, strict=True):
        if area.name in source_of:
            raise SettingsError(
                f"{source_of[area.name]} and {source} are both called {area.name}.",
                fix=f"Give each source once, and every one its name: --aoi {area.name}1, --aoi {area.name}2 and so on.",
            )
        source_of[area.name] = source
    return areas


def _in_order(aoi: Aoi, into: Path, tiles: int | None) -> list[Source]:
    """The sources of an AOI as they are to be tried.

    First those that are on the disk already; with a limit then those whose files can be had one by one, so that
    the rest stays where it is.
    """

    def rank(source: Source) -> tuple[bool, bool]:
        folder = _folder(source, into)
        here = has_unpacked(folder, tiles=tiles) if source.packed else has_fetched(folder, tiles=tiles)
        return not here, tiles is not None and source.packed

    return sorted(aoi.sources, key=rank)


def _folder(source: Source, into: Path) -> Path:
    """Where the tiles of a source go."""
    uris = source.uris if source.packed else tuple(uri.rstrip("/") + "/" for uri in source.uris)
    return into / f"tiles-{_digest(uris)}"


def _fetch(source: Source, aoi: Aoi, into: Path, tiles: int | None, s3: S3) -> Layout:
    """One source of an AOI; MissingKeyError when it does not exist."""
    if source.packed:
        return _fetch_archives(source, aoi, into, tiles, s3)
    uri, *others = source.uris
    if others:
        raise SourceError(
            f"{aoi.name}: {', '.join(source.uris)} cannot be combined.",
            fix="Only archives can be given several at a time.",
        )
    if uri.startswith("s3://"):
        layout = fetch_prefix(uri, aoi, _folder(source, into), tiles=tiles, s3=s3)
    elif uri == SYNTHETIC_URI:
        layout = discover(_synthetic(into / "synthetic", tiles), aoi=aoi.name)
    elif Path(uri).is_file():
        raise SourceError(f"{uri}: neither a folder nor a .tar.gz archive.", fix="Give one of these, or an s3:// URI.")
    else:
        layout = discover(Path(uri), aoi=aoi.name, patterns=aoi.patterns)
    return replace(layout.first(tiles), source=uri)


def _fetch_archives(source: Source, aoi: Aoi, into: Path, tiles: int | None, s3: S3) -> Layout:
    """Tiles out of archives: with a limit out of what arrives, as far as needed; without one out of whole files."""
    arriving = {
        part.uri: _Arriving(part, s3.head(part.uri), into, s3) for part in source.parts if part.uri.startswith("s3://")
    }
    archives = [arriving[uri].archive() if uri in arriving else Archive.at(Path(uri)) for uri in source.uris]
    if tiles is not None:  # the smallest first: labels, say, which are then there when the tiles begin
        archives.sort(key=lambda archive: archive.size)
    folder = _folder(source, into)
    if tiles is None and unpacked_before(archives, folder, tiles=None, patterns=aoi.patterns) is None:
        _download(source, list(arriving.values()))
    unpacked = unpack(archives, folder, tiles=tiles, patterns=aoi.patterns, needed=source.unpacked)
    layout = discover(
        folder, aoi=aoi.name, patterns=aoi.patterns, tile_ids=unpacked.tile_ids, complete=unpacked.complete
    )
    return replace(layout.first(tiles), source=", ".join(source.uris))


class _Arriving:
    """An archive in a bucket, as far as it is on the disk."""

    def __init__(self, part: Part, remote: RemoteFile, into: Path, s3: S3) -> None:
        self._part, self._remote, self._s3 = part, remote, s3
        self._target = into / "downloads" / _digest((part.uri,)) / PurePosixPath(part.uri).name

    @property
    def missing(self) -> int:
        """Bytes to fetch, not counting what an interrupted run left."""
        return 0 if is_complete(self._remote, self._target) else self._remote.size

    def archive(self) -> Archive:
        """What can be unpacked, while it arrives if need be."""
        renew = f"Delete {self._target.parent} and fetch it again."
        return Archive(self._target.name, self._remote.size, self._remote.etag, self._open, renew)

    def download(self, *, also_needed: int) -> None:
        """All of it onto the disk."""
        self._s3.download(self._remote, self._target, md5=self._checksum(), also_needed=also_needed)

    def _open(self) -> AbstractContextManager[IO[bytes]]:
        remote = self._remote
        if not self.missing:
            return self._target.open("rb")
        _log.info("%s: reading as far as needed (it has %.1f MB)", remote.uri, remote.size / 1e6)
        return self._s3.stream(
            remote,
            self._target,
            md5=self._checksum(),
            progress=Progress(remote.uri, remote.size, every_s=math.inf, bar=False),  # unpacking says how far it is
        )

    def _checksum(self) -> str | None:
        """The MD5 to expect; None where the file is another than the catalogue's (a mirror's own cut, say)."""
        part, remote = self._part, self._remote
        if part.md5 and part.size and abs(remote.size - part.size) > _SAME_FILE * part.size:
            _log.warning(
                "%s has %s bytes, the catalogue says %s: its checksum is not verified",
                *(remote.uri, f"{remote.size:,}", f"{part.size:,}"),
            )
            return None
        return part.md5


def _download(source: Source, arriving: list[_Arriving]) -> None:
    """Bring the archives of a source onto the disk, if they and their tiles have room there."""
    packed = sum(archive.archive().size for archive in arriving)
    missing = [archive for archive in arriving if archive.missing]
    for number, archive in enumerate(missing, start=1):
        later = sum(other.missing for other in missing[number:])
        archive.download(also_needed=later + (source.unpacked or packed))


def _synthetic(folder: Path, tiles: int | None) -> Path:
    """A synthetic city of at least so many tiles, drawn when it is not there yet."""
    from footprint_pipeline.spacenet.synthetic.city import CitySpec, write_city

    spec = CitySpec()
    if tiles is not None:
        columns = math.ceil(math.sqrt(tiles))
        spec = CitySpec(rows=math.ceil(tiles / columns), columns=columns)
    return write_city(folder.with_name(f"{folder.name}-{_digest((repr(spec),))}"), spec).folder


def _check_exists(given: str, uri: str, names: list[str]) -> None:
    """Raise SourceError for what cannot be a source. Nothing is asked of a server."""
    if uri.startswith("s3://"):
        split_uri(uri)
        return
    if Path(uri).is_dir() or (is_archive(uri) and Path(uri).is_file()):
        return
    near = difflib.get_close_matches(given, names, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    what = "is a file, but no .tar.gz" if Path(uri).is_file() else "is no name of the catalogue, folder or archive"
    raise SourceError(
        f"{given!r} {what}.{hint}", fix=f"Give a folder, a .tar.gz, an s3:// URI, or one of {', '.join(names)}."
    )


def _plain_name(uri: str) -> str:
    """Name of an AOI that its address does not tell: the last part of the address."""
    last = PurePosixPath(uri.removeprefix("s3://")).name
    return re.sub(r"[^A-Za-z0-9_-]+", "_", re.sub(r"\.(tar\.gz|tgz)$", "", last)).strip("_") or "AOI"


def _digest(texts: Sequence[str]) -> str:
    """Short name for a source, so that two sources of one AOI never mix."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:8]
