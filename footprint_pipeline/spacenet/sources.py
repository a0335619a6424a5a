"""From an AOI of the catalogue (or what a user typed) to tiles and labels on disk.

Decides which source to use and how; the work itself is done by `download`, `archive` and `synthetic`.
"""

import difflib
import hashlib
import logging
import math
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath

from footprint_pipeline.errors import SourceError
from footprint_pipeline.settings import Settings
from footprint_pipeline.spacenet.archive import is_archive, unpack
from footprint_pipeline.spacenet.catalog import SYNTHETIC_URI, Aoi, Part, Source, load_catalog, normal_uri
from footprint_pipeline.spacenet.download import S3, MissingKeyError, Progress, RemoteFile, is_complete
from footprint_pipeline.spacenet.layout import Layout, aoi_name, choose, discover, tile_id

_log = logging.getLogger(__name__)

_SAME_FILE = 0.1  # a file whose size is further from the catalogue's than this share is another one
_LOOSE_THREADS = 16


def fetch(aoi: Aoi, into: Path, *, tiles: int | None = None, settings: Settings) -> Layout:
    """Bring the tiles and labels of an AOI onto the disk; what is there already is not fetched again.

    Args:
        aoi: from the catalogue or from `resolve_source`.
        into: folder for downloads and unpacked tiles of this AOI. A local folder is read where it is.
        tiles: at most so many tiles: of a folder or prefix the first in natural order, of an archive the first in it.
        settings: how S3 is read.

    Returns:
        Where everything is; `Layout.source` says which of the AOI's sources was used.

    Raises:
        SourceError: none of the sources exists, or the one that does cannot be read.
    """
    s3 = S3.from_settings(settings, endpoint_url=aoi.endpoint_url)
    missing: list[MissingKeyError] = []
    for source in aoi.sources:
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


def resolve_source(text: str | Sequence[str], home: Path) -> Aoi:
    """The AOI that a user means: a name of the catalogue, a folder, archives (one or several), or an s3:// URI.

    The name of an AOI that is not in the catalogue is read off its folders, tiles or file name.

    Raises:
        SourceError: it is none of these; the message suggests the nearest name.
        SettingsError: the user's catalogue is broken.
    """
    catalog = load_catalog(home)
    texts = (text,) if isinstance(text, str) else tuple(text)
    if len(texts) == 1 and texts[0] in catalog:
        return catalog[texts[0]]
    uris = tuple(normal_uri(given, Path.cwd()) for given in texts)
    for known in catalog.values():
        if any(source.uris == uris for source in known.sources):
            return known
    for given, uri in zip(texts, uris, strict=True):
        _check_exists(given, uri, list(catalog))
    first = uris[0]
    if not first.startswith("s3://") and Path(first).is_dir():
        name = discover(Path(first)).aoi
    else:
        name = aoi_name([uris[0]]) or _plain_name(first)
    return Aoi(name, name, (Source(tuple(Part(uri) for uri in uris)),))


def _fetch(source: Source, aoi: Aoi, into: Path, tiles: int | None, s3: S3) -> Layout:
    """One source of an AOI; MissingKeyError when it does not exist."""
    uris = source.uris
    if not all(is_archive(uri) for uri in uris):
        if len(uris) > 1:
            raise SourceError(
                f"{aoi.name}: {', '.join(uris)} cannot be combined.",
                fix="Only archives can be given several at a time.",
            )
        layout = _fetch_loose(uris[0], aoi, into, tiles, s3)
        return replace(layout.first(tiles), source=uris[0])

    archives = _archives(source, into / "downloads", s3)
    unpacked = unpack(archives, into / f"tiles-{_digest(uris)}", tiles=tiles)
    layout = discover(unpacked.folder, aoi=aoi.name)
    return replace(layout.first(tiles), tile_ids=unpacked.tile_ids, source=", ".join(uris))


def _archives(source: Source, downloads: Path, s3: S3) -> list[Path]:
    """The archives of a source on disk. All are looked up before the first is fetched."""
    found = {part.uri: s3.head(part.uri) for part in source.parts if part.uri.startswith("s3://")}
    paths = []
    for part in source.parts:
        if part.uri not in found:
            paths.append(Path(part.uri))
            continue
        target = downloads / _digest((part.uri,)) / PurePosixPath(part.uri).name
        paths.append(s3.download(found[part.uri], target, md5=_checksum(part, found[part.uri])))
    return paths


def _checksum(part: Part, remote: RemoteFile) -> str | None:
    """The MD5 to expect; None where the file is another than the one in the catalogue (a mirror's own cut, say)."""
    if part.md5 and part.size and abs(remote.size - part.size) > _SAME_FILE * part.size:
        _log.warning(
            "%s has %s bytes, the catalogue says %s: its checksum is not verified",
            *(remote.uri, f"{remote.size:,}", f"{part.size:,}"),
        )
        return None
    return part.md5


def _fetch_loose(uri: str, aoi: Aoi, into: Path, tiles: int | None, s3: S3) -> Layout:
    """Tiles that are files already, or are made."""
    if uri.startswith("s3://"):
        return _fetch_prefix(uri, aoi, into, tiles, s3)
    if uri == SYNTHETIC_URI:
        return discover(_synthetic(into / "synthetic", tiles), aoi=aoi.name)
    path = Path(uri)
    if path.is_file():
        raise SourceError(f"{uri}: neither a folder nor a .tar.gz archive.", fix="Give one of these, or an s3:// URI.")
    return discover(path, aoi=aoi.name)


def _fetch_prefix(uri: str, aoi: Aoi, into: Path, tiles: int | None, s3: S3) -> Layout:
    """Loose tiles below a prefix of a bucket: of the first `tiles` tiles, image and label, and the summary table."""
    prefix = uri.rstrip("/") + "/"
    listing = {}
    for remote in s3.list(prefix):
        path = PurePosixPath(remote.uri.removeprefix(prefix))
        if path.name and not path.is_absolute() and ".." not in path.parts and not remote.key.endswith("/"):
            listing[path] = remote
    if not listing:
        raise MissingKeyError(
            f"{uri}: nothing there.", fix="Give a prefix that holds tiles, or the full key of a .tar.gz."
        )
    images, labels, summary = choose(listing, where=uri)
    wanted = {tile_id(image.stem) for image in images[:tiles]}
    paths = [path for path in (*images[:tiles], *labels) if tile_id(path.stem) in wanted]
    if summary is not None:
        paths.append(summary)

    folder = into / f"tiles-{_digest((prefix,))}"
    jobs = [(listing[PurePosixPath(path)], folder / path) for path in paths]
    jobs = [job for job in jobs if not is_complete(*job)]
    progress = Progress(uri, sum(remote.size for remote, _ in jobs))
    _log.info("%s: fetching %d of %d files", uri, len(jobs), len(paths))
    with ThreadPoolExecutor(_LOOSE_THREADS) as pool:
        running = [pool.submit(s3.download, remote, target, progress=progress) for remote, target in jobs]
        try:
            for future in running:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    layout = discover(folder, aoi=aoi.name)
    return replace(layout, tile_ids=frozenset(tile_id(image.stem) for image in images))


def _synthetic(folder: Path, tiles: int | None) -> Path:
    """A synthetic city of at least so many tiles, drawn when it is not there yet."""
    from footprint_pipeline.spacenet.synthetic import CitySpec, write_city

    spec = CitySpec()
    if tiles is not None:
        columns = math.ceil(math.sqrt(tiles))
        spec = CitySpec(rows=math.ceil(tiles / columns), columns=columns)
    return write_city(folder.with_name(f"{folder.name}-{_digest((repr(spec),))}"), spec).folder


def _check_exists(given: str, uri: str, names: list[str]) -> None:
    """Raise SourceError for what cannot be a source."""
    if uri.startswith("s3://") or Path(uri).is_dir() or (is_archive(uri) and Path(uri).is_file()):
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
