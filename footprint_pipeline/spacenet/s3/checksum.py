"""What the content of an object must hash to, and the hash of content that comes in order."""

import hashlib
import re
from dataclasses import dataclass

from footprint_pipeline.spacenet.s3.client import Endpoint, RemoteFile


@dataclass(frozen=True)
class Expectation:
    """A digest that the content must have.

    Attributes:
        name: what kind of digest it is, for messages.
        digest: hexadecimal, lower case; of an object that was uploaded in parts the MD5 of the parts' MD5s,
            a dash, and their number.
        upload_part_size: bytes of these parts; None for the plain MD5.
    """

    name: str
    digest: str
    upload_part_size: int | None = None


def expectation(remote: RemoteFile, md5: str | None, endpoint: Endpoint) -> Expectation | None:
    """What is known about the content: the MD5 given, else what the ETag tells, else nothing.

    Raises:
        SourceError: the server does not answer.
    """
    if md5 is not None:
        return Expectation("MD5", md5.lower())
    if re.fullmatch("[0-9a-f]{32}", remote.etag):
        return Expectation("ETag", remote.etag)
    in_parts = re.fullmatch("[0-9a-f]{32}-([1-9][0-9]*)", remote.etag)
    upload_part_size = endpoint.upload_part_size(remote, int(in_parts[1])) if in_parts else None
    return Expectation("ETag", remote.etag, upload_part_size) if upload_part_size else None


class ContentHash:
    """The MD5 of content as it comes, or of its parts where it was uploaded in parts."""

    def __init__(self, upload_part_size: int | None = None) -> None:
        self._size = upload_part_size
        self._current, self._room = _md5(), upload_part_size
        self._parts: list[bytes] = []

    def update(self, block: memoryview) -> None:
        """Take in the next bytes."""
        while self._room is not None and len(block) >= self._room:
            self._current.update(block[: self._room])
            block = block[self._room :]
            self._parts.append(self._current.digest())
            self._current, self._room = _md5(), self._size
        self._current.update(block)
        if self._room is not None:
            self._room -= len(block)

    def hexdigest(self) -> str:
        """The digest of everything so far, as an `Expectation` writes it."""
        if self._size is None:
            return self._current.hexdigest()
        parts = self._parts if self._room == self._size else [*self._parts, self._current.digest()]
        return f"{_md5(b''.join(parts)).hexdigest()}-{len(parts)}"


def _md5(content: bytes = b"") -> "hashlib._Hash":
    return hashlib.md5(content, usedforsecurity=False)
