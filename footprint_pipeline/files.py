"""Writing files: room first, one writer at a time; a crash leaves the old file or the new one, never half of one."""

import contextlib
import errno
import logging
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

from footprint_pipeline.errors import SourceError

if sys.platform != "win32":
    import fcntl

_log = logging.getLogger(__name__)

_RESERVE = 64 << 20
"""Bytes that stay free on a disk."""


@contextlib.contextmanager
def atomic_path(target: Path, *, synced: bool = False) -> Iterator[Path]:
    """A temporary path beside `target` (same suffix) that replaces it when the block ends without an error.

    Args:
        target: what is written.
        synced: be sure that it is on the disk before it takes the former one's place, should the power fail.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{uuid.uuid4().hex[:8]}-{target.name}")
    try:
        yield temporary
        if synced:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_if_other(target: Path, content: bytes) -> None:
    """Write a file unless it holds just that: what is made of it, and goes by its date, need not be made again."""
    try:
        if target.stat().st_size == len(content) and target.read_bytes() == content:
            return
    except OSError:
        pass  # there is none, or none to be read
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def copy_file(source: Path, target: Path) -> Path:
    """Copy a file, whole or not at all, and return where it is now."""
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
    return target


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its place when the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{uuid.uuid4().hex[:8]}-{target.name}")
    temporary.mkdir()
    try:
        yield temporary
        _swap(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _swap(folder: Path, target: Path) -> None:
    """Put a folder in the place of another one, which somebody else may do at the same time; the last one stays."""
    while True:
        try:
            folder.replace(target)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) and not target.is_dir():
                raise
        former = target.with_name(f".{uuid.uuid4().hex[:8]}-former-{target.name}")
        with contextlib.suppress(FileNotFoundError):  # somebody has just moved it
            target.replace(former)
            shutil.rmtree(former)


@contextlib.contextmanager
def locked(path: Path, *, waiting: str | None) -> Iterator[bool]:
    """Hold the lock of a file, made if need be, once nobody else does; whoever dies lets go of it.

    Args:
        path: of the lock; the file stays, empty.
        waiting: line to log when somebody else holds it; not waited for when None.

    Yields:
        Whether it is held; not where there is no such thing (Windows, some network disks).

    Raises:
        BlockingIOError: somebody else holds it, and `waiting` is None.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as handle:
        yield _lock(handle.fileno(), waiting)


def _lock(handle: int, waiting: str | None) -> bool:
    if sys.platform == "win32":
        return False
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is None:
                raise
            _log.info(waiting)
            fcntl.flock(handle, fcntl.LOCK_EX)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def require_room(folder: Path, needed: int, what: str) -> None:
    """Make sure that a disk has room.

    Args:
        folder: where the bytes will go; it need not exist yet.
        needed: how many.
        what: who needs them, for the message.

    Raises:
        SourceError: it has not; says how much there is.
    """
    at = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(at).free
    if free < needed + _RESERVE:
        raise SourceError(
            f"{what} needs {needed / 1e6:,.1f} MB and {_RESERVE / 1e6:.0f} MB to spare; {at} has room for "
            f"{free / 1e6:,.1f} MB.",
            fix="Make room, set FOOTPRINT_HOME to a folder on a larger disk, or take fewer tiles (--tiles).",
        )


def without_tilde(path: str | Path) -> Path:
    """A path that begins with ~ as a shell would have it; as it is where nobody has such a home."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - a Path's own raises then
