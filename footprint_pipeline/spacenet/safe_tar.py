"""The files of a .tar.gz that nobody vouches for, one after the other, without trusting it.

Refuses paths that lead elsewhere, links, devices and decompression bombs. Which files are wanted, and where they
go, is `archive`'s business.
"""

import gzip
import tarfile
import zlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Protocol

from footprint_pipeline.errors import SourceError

BLOCK = 1 << 20
BROKEN = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, RecursionError)
"""What reading a damaged or truncated archive raises; tarfile does not foresee all that can be wrong with a header."""
_LONGEST_NAME, _LONGEST_PATH = 255, 1024
"""Bytes that every file system takes."""


class Reader(Protocol):
    """What can be read from front to end."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; none at the end."""
        ...


_UNSAFE_FIX = "Nothing was kept. Get the archive from where SpaceNet publishes it."


@dataclass(frozen=True)
class Limits:
    """What an archive may plausibly unpack to; more is a decompression bomb.

    gzip makes imagery a few times smaller (uncompressed tiles of SpaceNet 1 about 1.5 times), blank tiles up to a
    thousand times. All that is unpacked counts, whether it is written or not, and what comes out of an archive
    within the archive once more.

    Attributes:
        ratio: unpacked bytes for each byte read so far.
        floor: unpacked bytes that are always granted.
    """

    ratio: float = 100.0
    floor: int = 256 << 20


LIMITS = Limits()


class Meter:
    """Counts what goes into the unpacking of one archive and what comes out of it, and stops a bomb.

    Args:
        name: the archive, for messages.
        size: its bytes.
        limits: what is plausible.
        told: called now and then, with the share of the archive that was read.
    """

    def __init__(self, name: str, size: int, limits: Limits, told: Callable[[float], None]) -> None:
        self._name, self._size, self._limits, self._told = name, size, limits, told
        self._read = self._unpacked = 0

    def packed(self, stream: Reader) -> Reader:
        """The archive itself, counted."""
        return _Counted(stream, self._add_read)

    def unpacked(self, stream: Reader) -> Reader:
        """What comes out of it, or out of an archive within it, counted."""
        return _Counted(stream, self._add_unpacked)

    def check_size(self, member: tarfile.TarInfo) -> None:
        """Refuse a file that claims to be larger than anything that the archive could hold."""
        if member.size > self._limits.floor + self._limits.ratio * self._size:
            raise SourceError(
                f"{self._name} is not safe to unpack: {member.name!r} is said to have {member.size:,} bytes, in an "
                f"archive of {self._size:,}.",
                fix=_UNSAFE_FIX,
            )

    def _add_read(self, count: int) -> None:
        self._read += count
        self._told(min(1.0, self._read / max(self._size, 1)))

    def _add_unpacked(self, count: int) -> None:
        self._unpacked += count
        if self._unpacked > self._limits.floor + self._limits.ratio * self._read:
            raise SourceError(
                f"{self._name} is not safe to unpack: its first {self._read:,} bytes became more than "
                f"{self._unpacked - count:,}, which is no imagery but a decompression bomb.",
                fix=_UNSAFE_FIX,
            )


class _Counted:
    """A stream that says how much was read."""

    def __init__(self, stream: Reader, add: Callable[[int], None]) -> None:
        self._stream, self._add = stream, add

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._add(len(data))
        return data


def plain_files(raw: Reader, name: str, meter: Meter) -> Generator[tuple[PurePosixPath, int, Reader], None, None]:
    """Every plain file of a gzipped tar stream: its path, its bytes, and its content, to be read before the next.

    Args:
        raw: the archive, read once from front to end.
        name: the archive, for messages.
        meter: counts what comes out. Count `raw` itself with `Meter.packed`, if it is no archive within an archive.

    Raises:
        SourceError: a member could end up elsewhere, is no plain file or folder, or is a bomb.
        Whatever is in `BROKEN`: the archive is damaged or truncated.
    """
    with gzip.GzipFile(fileobj=raw) as unzipped:  # type: ignore[call-overload]
        stream = meter.unpacked(unzipped)
        with tarfile.open(fileobj=stream, mode="r|", bufsize=BLOCK) as tar:  # type: ignore[call-overload]
            for member in tar:
                _check(member, name)
                meter.check_size(member)
                content = tar.extractfile(member) if member.isfile() else None
                if content is not None:
                    yield PurePosixPath(member.name), member.size, content
            # tarfile stops at its end mark, or at a broken header, without a word; zeros and a checksum may follow.
            while rest := tar.fileobj.read(BLOCK):
                if rest.strip(b"\0"):
                    raise SourceError(
                        f"{name}: more follows the end of the archive, or a damaged header within it.",
                        fix="Fetch it again; if it was made of several, one behind the other, unpack it "
                        "(tar --ignore-zeros) and give the folder.",
                    )


def _check(member: tarfile.TarInfo, archive: str) -> None:
    """Refuse whatever could end up outside of a folder, or is no plain file or folder."""
    path, encoded = PurePosixPath(member.name), member.name.encode(errors="replace")
    if path.is_absolute() or ".." in path.parts or "\\" in member.name or PureWindowsPath(path).drive:
        reason = "leads out of the folder"
    elif b"\0" in encoded or len(encoded) > _LONGEST_PATH or max(map(len, encoded.split(b"/"))) > _LONGEST_NAME:
        reason = "is no name of a file"
    elif member.issparse():
        reason = "is a sparse file"
    elif member.isfile() or member.isdir():
        return
    else:
        reason = "is a link" if member.issym() or member.islnk() else "is a device or the like"
    raise SourceError(f"{archive} is not safe to unpack: {member.name!r} {reason}.", fix=_UNSAFE_FIX)
