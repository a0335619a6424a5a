"""The unfinished file of a download: which object it is of, which of its parts are there, and who works on it.

Survives the end of the process at any byte: at most the parts under way are lost. How the bytes get here is
`transfer`'s business, and whether they are the right ones is `checksum`'s.
"""

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Self

from footprint_pipeline.errors import SourceError
from footprint_pipeline.spacenet.s3.client import RemoteFile

try:
    import fcntl
except ImportError:  # Windows; two processes that fetch the same file are then not kept apart
    fcntl = None  # type: ignore[assignment]

_log = logging.getLogger(__name__)


class Partial:
    """A file beside the target that grows part by part, locked while it is in use.

    A journal beside it names the object in its first line and a complete part in each further one. An object of
    one part has none. Closing removes both when no part is complete.

    Args:
        remote: the object.
        target: what the file will be called when it is complete.
        part_size: bytes a part; an earlier run's choice is kept.

    Raises:
        SourceError: there is no writing to this place.
    """

    def __init__(self, remote: RemoteFile, target: Path, *, part_size: int) -> None:
        self.path = target.with_name(f".{target.name}.partial")
        self._journal = target.with_name(f".{target.name}.journal")
        self._remote, self._target, self.part_size = remote, target, part_size
        self.done: set[int] = set()
        self._ours = True
        with writing(self.path):
            target.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(self.path)
            if not self._resume():
                self._begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._ours and not self.done:
            self.discard()
        self._lock.close()

    @property
    def count(self) -> int:
        """How many parts the object has."""
        return -(-self._remote.size // self.part_size)

    @property
    def missing(self) -> list[int]:
        """The parts that are not there yet, ascending."""
        return [part for part in range(self.count) if part not in self.done]

    @property
    def arrived(self) -> int:
        """Bytes of the parts that are there."""
        return sum(stop - start for start, stop in map(self.bounds, self.done))

    def bounds(self, part: int) -> tuple[int, int]:
        """The first byte of a part, and the first one after it."""
        start = part * self.part_size
        return start, min(start + self.part_size, self._remote.size)

    def add(self, part: int) -> None:
        """Write down that a part is complete; not for several threads at once."""
        if self.count > 1:
            with writing(self._journal), self._journal.open("ab", buffering=0) as file:
                file.write(b"%d\n" % part)
        self.done.add(part)

    def discard(self) -> None:
        """Remove what has arrived."""
        self.done.clear()
        self._ours = False
        self.path.unlink(missing_ok=True)
        self._journal.unlink(missing_ok=True)

    def finish(self) -> None:
        """Let the complete file take the target's place."""
        self._ours = False
        self.path.replace(self._target)
        self._journal.unlink(missing_ok=True)

    def _identity(self) -> dict[str, str | int]:
        return {"uri": self._remote.uri, "size": self._remote.size, "etag": self._remote.etag}

    def _resume(self) -> bool:
        """Take over what an earlier run left of the very same object, if anything."""
        try:
            *lines, torn = self._journal.read_bytes().split(b"\n")
            header = json.loads(lines[0])
            part_size = header.pop("part_size")
            whole = part_size > 0 and self.path.stat().st_size == self._remote.size
            if header != self._identity() or not whole:
                return False
            done = {int(line) for line in lines[1:]}
            if torn:
                os.truncate(self._journal, self._journal.stat().st_size - len(torn))
        except (OSError, ValueError, KeyError, IndexError, AttributeError, TypeError):
            return False
        self.part_size = part_size
        self.done = {part for part in done if 0 <= part < self.count}
        return True

    def _begin(self) -> None:
        self._journal.unlink(missing_ok=True)
        os.truncate(self.path, 0)
        os.truncate(self.path, self._remote.size)
        if self.count > 1:
            header = json.dumps({**self._identity(), "part_size": self.part_size})
            self._journal.write_text(header + "\n", encoding="utf-8")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the file system objects to into a SourceError."""
    try:
        yield
    except OSError as error:
        raise SourceError(
            f"{path} cannot be written ({error.strerror}).",
            fix="Make room or check the permissions, then run the same command again.",
        ) from None


def _lock(path: Path) -> BinaryIO:
    """The file, created when it is not there, for nobody else until it is closed; waits for whoever has it now."""
    waiting = False
    while True:
        file = path.open("ab")
        if fcntl is None:
            file.close()  # Windows neither renames nor removes an open file
            return file
        if _try_lock(file):
            try:
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return file
            except FileNotFoundError:
                pass
            file.close()  # renamed or removed by whoever had it
            continue
        file.close()
        if not waiting:
            _log.info("%s: somebody else is fetching it; waiting", path)
            waiting = True
        time.sleep(0.2)


def _try_lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # a file system without locks
        _log.debug("%s is not locked (%s)", file.name, error.strerror)
    return True
