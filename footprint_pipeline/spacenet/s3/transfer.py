"""The parts of one object, fetched by several threads at once and read in order while they arrive.

Where a part lies is `parts`' business, and how one connection reads is `client`'s.
"""

import io
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from footprint_pipeline.errors import SourceError
from footprint_pipeline.spacenet.s3.checksum import ContentHash
from footprint_pipeline.spacenet.s3.client import Endpoint, RemoteFile
from footprint_pipeline.spacenet.s3.errors import ChangedError
from footprint_pipeline.spacenet.s3.parts import Partial, writing
from footprint_pipeline.spacenet.s3.progress import Progress

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_MB = 1_000_000
_PATIENCE_S = 1.0
_BLOCK = 1 << 20


class Transfer:
    """Brings the missing parts of an object into its partial file, the first ones first.

    Args:
        endpoint: where the object is.
        remote: the object.
        partial: takes the bytes.
        connections: how many parts are fetched at a time.
        ahead: how many parts may be fetched beyond the one waited for; None for all.
        progress: told of every byte that arrives.
        given_up: whoever waits is told so, soon after it is set.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        remote: RemoteFile,
        partial: Partial,
        *,
        connections: int,
        ahead: int | None,
        progress: Progress,
        given_up: threading.Event | None = None,
    ) -> None:
        self._given_up = given_up or threading.Event()
        self._endpoint, self._remote, self._partial, self._progress = endpoint, remote, partial, progress
        self._queue = deque(partial.missing)
        self._ahead = partial.count if ahead is None else ahead
        self._wanted = 0
        self._halt = threading.Event()
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        # A thread that hangs in a connection must not keep the process alive: hence daemons.
        self._threads = [
            threading.Thread(target=self._work, name=f"{remote.key} {number}", daemon=True)
            for number in range(min(connections, len(self._queue)))
        ]
        for thread in self._threads:
            thread.start()

    def wait(self, part: int) -> None:
        """Return when a part is there.

        Raises:
            ChangedError: the object was replaced; nothing of the old one is kept.
            SourceError: it cannot be fetched; what arrived is kept.
        """
        with self._changed:
            self._wanted = max(self._wanted, part)
            self._changed.notify_all()
            while part not in self._partial.done and self._error is None:
                if self._given_up.is_set():
                    self._error = SourceError(f"{self._remote.uri}: given up.", fix="Start it again.")
                else:
                    self._changed.wait(_PATIENCE_S)
            error = None if part in self._partial.done else self._error
        if error is None:
            return
        self.stop()
        if isinstance(error, ChangedError):
            self._partial.discard()
        elif isinstance(error, SourceError) and self._partial.done:
            raise type(error)(
                f"{error.problem} {self._partial.arrived / _MB:,.1f} of {self._remote.size / _MB:,.1f} MB are here "
                "and kept.",
                fix=f"{error.fix} The next try goes on from there.",
            ) from None
        raise error

    def stop(self) -> None:
        """Fetch no more. Complete parts stay; a thread that hangs is left alone, it does no harm."""
        self._halt.set()
        with self._changed:
            self._changed.notify_all()
        deadline = time.monotonic() + _PATIENCE_S
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))

    def _work(self) -> None:
        try:
            while (part := self._next()) is not None:
                self._fetch(part)
                with self._changed:
                    if self._halt.is_set():
                        return
                    self._partial.add(part)
                    self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                self._error = self._error or error
                self._halt.set()
                self._changed.notify_all()

    def _next(self) -> int | None:
        """The next part to fetch, once it is near enough to the one waited for; None when there is no more to do."""
        with self._changed:
            while self._queue and not self._halt.is_set():
                if self._queue[0] <= self._wanted + self._ahead:
                    return self._queue.popleft()
                self._changed.wait(_PATIENCE_S)
        return None

    def _fetch(self, part: int) -> None:
        start, stop = self._partial.bounds(part)
        path = self._partial.path
        with writing(path), path.open("r+b") as file:  # a handle of its own, which nobody closes under its hands
            file.seek(start)
            for block in self._endpoint.read(self._remote, start, stop, halt=self._halt):
                file.write(block)
                self._progress(len(block))


class Reader(io.RawIOBase):
    """The object from its first byte to its last, as far as it has arrived; waits for the rest.

    Args:
        transfer: brings the parts.
        partial: where they lie.
        size: bytes of the object.
        hashed: takes in every byte that is read; None where nothing is known to compare it with.
        at_end: called once when the last byte has been read.
    """

    def __init__(
        self,
        transfer: Transfer,
        partial: Partial,
        *,
        size: int,
        hashed: ContentHash | None,
        at_end: Callable[[], None],
    ) -> None:
        self._transfer, self._partial, self._size = transfer, partial, size
        self._hashed, self._at_end = hashed, at_end
        self._at, self._ended = 0, False
        self._file = partial.path.open("rb", buffering=0)

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Read as much as fits and is of one part; 0 at the end, where the content has been verified."""
        view = memoryview(buffer).cast("B")
        count = 0
        if self._at < self._size and len(view):
            part = self._at // self._partial.part_size
            self._transfer.wait(part)
            count = self._file.readinto(view[: self._partial.bounds(part)[1] - self._at])
            if self._hashed:
                self._hashed.update(view[:count])
            self._at += count
        self._check_end()
        return count

    def exhaust(self) -> None:
        """Read to the end for the sake of the hash; without one, only wait until everything is there."""
        if self._hashed:
            block = bytearray(_BLOCK)
            while self.readinto(block):
                pass
        else:
            for part in range(self._partial.count):
                self._transfer.wait(part)
            self._at = self._size
        self._check_end()

    def _check_end(self) -> None:
        if self._at == self._size and not self._ended:
            self._file.close()  # Windows renames no open file
            self._at_end()
            self._ended = True

    def close(self) -> None:
        """Let go of the file."""
        if not self.closed:
            self._file.close()
        super().close()
