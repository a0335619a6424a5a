"""Objects of S3-compatible storage onto the disk: in parallel parts, resumed, verified, fetched once.

What the files mean is not known here. The endpoint is `s3.client`'s, the unfinished file `s3.parts`', the threads are
`s3.transfer`'s; here they are put together.
"""

import io
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from footprint_pipeline.errors import SourceError
from footprint_pipeline.files import atomic_path, require_room
from footprint_pipeline.spacenet.s3.checksum import ContentHash, Expectation, expectation
from footprint_pipeline.spacenet.s3.client import Endpoint, RemoteFile
from footprint_pipeline.spacenet.s3.errors import ChangedError
from footprint_pipeline.spacenet.s3.parts import Partial
from footprint_pipeline.spacenet.s3.progress import Progress
from footprint_pipeline.spacenet.s3.transfer import Reader, Transfer

_log = logging.getLogger(__name__)

_MB = 1_000_000
_BLOCK = 1 << 20


@dataclass(frozen=True)
class TransferSpec:
    """How objects are cut and fetched.

    Attributes:
        part_size: bytes a request; smaller objects take one request.
        connections: requests at a time, of one object.
        ahead: parts that a stream fetches beyond the one it reads.
    """

    part_size: int = 8 << 20
    connections: int = 8
    ahead: int = 8


class S3(Endpoint):
    """Downloads from one S3-compatible endpoint; see `Endpoint` for the other arguments.

    Args:
        transfer: how objects are cut and fetched.
    """

    def __init__(self, *, transfer: TransferSpec = TransferSpec(), **endpoint: Any) -> None:
        super().__init__(**endpoint)
        self._spec = transfer

    def download(
        self,
        remote: RemoteFile,
        target: Path,
        *,
        md5: str | None = None,
        progress: Progress | None = None,
        also_needed: int = 0,
        given_up: threading.Event | None = None,
    ) -> Path:
        """Fetch one object, unless `target` already is that very object.

        What an earlier run or a `stream` left unfinished is taken up. An object that is replaced under way is looked
        up anew and fetched from its beginning, once. A second process that wants the same target waits.

        Args:
            remote: what to fetch, from `head` or `list`.
            target: the file; appears when it is complete and verified.
            md5: what the content must have, as hexadecimal digits; by default the ETag is verified where it tells.
            progress: told of every byte that arrives; by default one of its own.
            also_needed: bytes that the caller will write to the same disk besides.
            given_up: ends it, soon after being set, with a SourceError.

        Raises:
            ChangedError: it was replaced twice under way.
            MissingKeyError: it is gone.
            SourceError: access denied, no answer, no room on the disk (what arrived is kept); or the content is not
                what it should be (nothing is kept).
        """
        try:
            self._download(remote, target, md5, progress, also_needed, given_up)
        except ChangedError as error:
            _log.warning("%s", error.problem)
            self._download(self.head(remote.uri), target, md5, progress, also_needed, given_up)
        return target

    @contextmanager
    def stream(
        self,
        remote: RemoteFile,
        target: Path,
        *,
        md5: str | None = None,
        progress: Progress | None = None,
    ) -> Iterator[BinaryIO]:
        """Read one object from its first byte on while it is fetched, some parts ahead; the arguments are `download`'s.

        Nobody knows how far it will be read, so there need not be room for all of it.

        Reading to the end does what `download` does: the content is verified, before the end is told, and `target`
        appears. Leaving the block earlier stops fetching; what arrived is kept for the next `stream` or `download`
        of this target. Within the block, no other call may have the same target.

        Raises:
            ChangedError: the object was replaced under way; the stream cannot go on.
            SourceError: as `download`, also while reading.
        """
        with self._open(remote, target, md5, progress, ahead=self._spec.ahead) as raw:
            if raw is None:
                with target.open("rb") as file:
                    yield file
            else:
                with io.BufferedReader(raw, _BLOCK) as reader:
                    yield reader

    def _download(
        self,
        remote: RemoteFile,
        target: Path,
        md5: str | None,
        progress: Progress | None,
        also_needed: int,
        given_up: threading.Event | None,
    ) -> None:
        with self._open(remote, target, md5, progress, also_needed=also_needed, given_up=given_up) as raw:
            if raw is not None:
                raw.exhaust()

    @contextmanager
    def _open(
        self,
        remote: RemoteFile,
        target: Path,
        md5: str | None,
        progress: Progress | None,
        *,
        also_needed: int = 0,
        ahead: int | None = None,
        given_up: threading.Event | None = None,
    ) -> Iterator[Reader | None]:
        """A reader of the object under way; None when the target is there."""
        with ExitStack() as stack:
            if is_complete(remote, target):
                _log.info("%s: already here", remote.uri)
                yield None
                return
            partial = stack.enter_context(Partial(remote, target, part_size=self._spec.part_size))
            if is_complete(remote, target):  # by whoever had the lock
                yield None
                return
            missing = remote.size - partial.arrived
            if ahead is None:
                what = "fetching and unpacking it" if also_needed else "fetching it"
                require_room(target.parent, missing + also_needed, f"{remote.uri}: {what}")
            if progress is None:
                _log.info("%s: fetching %.1f MB of %.1f MB", remote.uri, missing / _MB, remote.size / _MB)
                progress = stack.enter_context(Progress(remote.uri, remote.size))
            progress.already(partial.arrived)
            transfer = Transfer(
                self, remote, partial, connections=self._spec.connections, ahead=ahead, progress=progress,
                given_up=given_up,
            )  # fmt: skip
            stack.callback(transfer.stop)
            expected = expectation(remote, md5, self)
            hashed = ContentHash(expected.upload_part_size) if expected else None

            def at_end() -> None:
                if expected and hashed and hashed.hexdigest() != expected.digest:
                    self._refuse(remote, partial, expected, hashed.hexdigest())
                _finish(remote, target, partial)

            yield stack.enter_context(Reader(transfer, partial, size=remote.size, hashed=hashed, at_end=at_end))

    def _refuse(self, remote: RemoteFile, partial: Partial, expected: Expectation, found: str) -> None:
        """Discard content of the wrong hash, unless it turns out that the ETag is no hash of the content."""
        if expected.name == "ETag" and self.has_own_etag(remote):
            _log.debug("%s: encrypted with a key of its own, so its ETag tells nothing", remote.uri)
            return
        partial.discard()
        raise SourceError(
            f"{remote.uri}: the content has the MD5 {found}, not {expected.digest}"
            f"{' of its ETag' if expected.name == 'ETag' else ''}; it is discarded.",
            fix="Try again; if it fails the same way, the file at the source has changed or is damaged on the way.",
        )


def is_complete(remote: RemoteFile, target: Path) -> bool:
    """Whether `target` is this very object, fetched earlier."""
    try:
        record = json.loads(_record(target).read_text(encoding="utf-8"))
        return target.stat().st_size == remote.size == record["size"] and record["etag"] == remote.etag
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _record(target: Path) -> Path:
    """Where it is written down which object a file is."""
    return target.with_name(f".{target.name}.etag.json")


def _finish(remote: RemoteFile, target: Path, partial: Partial) -> None:
    """Record and file; a former version goes first, so that the record is never beside another file."""
    target.unlink(missing_ok=True)
    with atomic_path(_record(target)) as temporary:
        temporary.write_text(json.dumps({"uri": remote.uri, "size": remote.size, "etag": remote.etag}), "utf-8")
    partial.finish()
