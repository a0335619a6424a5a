"""Tiles that lie in a bucket as loose files: listed, chosen, fetched many at a time, each of them once."""

import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath

from footprint_pipeline.errors import MissingKeyError
from footprint_pipeline.files import atomic_path, require_room
from footprint_pipeline.spacenet.areas import Aoi
from footprint_pipeline.spacenet.download import S3, is_complete
from footprint_pipeline.spacenet.layout import Layout, choose, discover, tile_of
from footprint_pipeline.spacenet.s3.progress import Progress

_log = logging.getLogger(__name__)

_THREADS = 16
_MARKER = ".fetched.json"


def fetch_prefix(uri: str, aoi: Aoi, folder: Path, *, tiles: int | None, s3: S3) -> Layout:
    """Fetch the loose tiles below a prefix: of the first `tiles` tiles, image and label, and the summary table.

    Args:
        uri: `s3://bucket/prefix`.
        aoi: whose tiles they are.
        folder: where they go, under the names that they have below the prefix.
        tiles: at most so many; all when None.
        s3: how they are read.

    Raises:
        MissingKeyError: nothing is there.
        SourceError: no tiles, no labels, no room on the disk, or the server does not answer.
    """
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
    images, labels, summary = choose(listing, where=uri, patterns=aoi.patterns)
    wanted = {tile_of(image, aoi.patterns) for image in images[:tiles]}
    paths = [path for path in (*images[:tiles], *labels) if tile_of(path, aoi.patterns) in wanted]
    if summary is not None:
        paths.append(summary)

    jobs = [(listing[PurePosixPath(path)], folder / path) for path in paths]
    jobs = [job for job in jobs if not is_complete(*job)]
    total = sum(remote.size for remote, _ in jobs)
    if jobs:
        require_room(folder, total, f"{uri}: fetching {len(jobs):,} files")
    _log.info("%s: fetching %d of %d files", uri, len(jobs), len(paths))
    given_up = threading.Event()
    with Progress(uri, total) as progress, ThreadPoolExecutor(_THREADS) as pool:
        running = [
            pool.submit(s3.download, remote, target, progress=progress, given_up=given_up) for remote, target in jobs
        ]
        try:
            for future in running:
                future.result()
        except BaseException:
            given_up.set()
            pool.shutdown(cancel_futures=True)
            raise
    count = None if len(wanted) == len(images) else len(wanted)
    if not has_fetched(folder, tiles=count):
        with atomic_path(folder / _MARKER) as temporary:
            temporary.write_text(json.dumps({"tiles": count}), encoding="utf-8")
    known = frozenset(tile_of(image, aoi.patterns) for image in images)
    there = {path.as_posix() for path in listing}
    layout = discover(folder, aoi=aoi.name, patterns=aoi.patterns, tile_ids=known, among=there)
    return replace(layout, source=uri)


def has_fetched(folder: Path, *, tiles: int | None) -> bool:
    """Whether an earlier call brought so many tiles into a folder."""
    try:
        count = json.loads((folder / _MARKER).read_text(encoding="utf-8"))["tiles"]
    except (OSError, ValueError, KeyError):
        return False
    return count is None or (tiles is not None and tiles <= count)
