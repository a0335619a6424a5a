"""One S3-compatible endpoint, read only: what is there, and the bytes of a range, with patience.

Nothing here writes to the disk; `download` does. What goes wrong is told by `errors`.
"""

import random
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self, TypeVar

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, IncompleteReadError

from footprint_pipeline.errors import SourceError
from footprint_pipeline.settings import Settings
from footprint_pipeline.spacenet.s3.errors import MISSING, changed, code, explained, may_pass, split_uri

_T = TypeVar("_T")

_BLOCK = 64 << 10
"""Bytes; a connection that breaks loses less than that of what has arrived."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 20.0
_KEYS_OF_OTHERS = {"aws:kms", "aws:kms:dsse"}


@dataclass(frozen=True)
class RemoteFile:
    """An object in a bucket, as the server describes it; `size` in bytes."""

    bucket: str
    key: str
    size: int
    etag: str

    @property
    def uri(self) -> str:
        """Its address."""
        return f"s3://{self.bucket}/{self.key}"


class Endpoint:
    """Reads from one S3-compatible endpoint; connects at the first request.

    Args:
        endpoint_url: the server; None for AWS.
        signed: sign requests with the usual AWS credentials; otherwise read anonymously.
        requester_pays: agree to pay for the reads.
        attempts: how often a request is tried in all, with growing pauses. Of a body that breaks off, every byte
            that arrives starts the count anew.
        timeout_s: how long a server may be silent before it counts as gone.
    """

    def __init__(
        self,
        *,
        endpoint_url: str | None = None,
        signed: bool = False,
        requester_pays: bool = False,
        attempts: int = 5,
        timeout_s: float = 30.0,
    ) -> None:
        self._signed = signed
        self._payer = {"RequestPayer": "requester"} if requester_pays else {}
        self._place = _without_secrets(endpoint_url) if endpoint_url else "AWS"
        self._endpoint_url, self._attempts, self._timeout_s = endpoint_url, attempts, timeout_s
        self._connecting = threading.Lock()

    @classmethod
    def from_settings(cls, settings: Settings, *, endpoint_url: str | None = None, **patience: Any) -> Self:
        """Access as the settings say; `endpoint_url` overrides theirs, `patience` is what else the class takes."""
        return cls(
            **patience,
            endpoint_url=endpoint_url or settings.s3_endpoint_url,
            signed=settings.s3_signed,
            requester_pays=settings.s3_requester_pays,
        )

    def head(self, uri: str) -> RemoteFile:
        """What is there.

        Raises:
            MissingKeyError: no such bucket or key.
            SourceError: access denied, or no answer.
        """
        bucket, key = split_uri(uri)
        answer = self._head(uri)
        return RemoteFile(bucket, key, answer["ContentLength"], answer["ETag"].strip('"'))

    def list(self, uri: str, *, page_size: int = 1000) -> list[RemoteFile]:
        """Every object whose key starts with the key of `uri`, in the order of the keys; may be empty.

        `page_size` is how many keys the server tells at a time, 1000 at most.

        Raises:
            MissingKeyError: no such bucket.
            SourceError: access denied, or no answer.
        """
        bucket, prefix = split_uri(uri)
        found: list[RemoteFile] = []
        more: dict[str, str] = {}
        while True:
            page = self._patiently(
                uri,
                lambda more=more: self._client.list_objects_v2(  # type: ignore[misc]
                    Bucket=bucket, Prefix=prefix, MaxKeys=page_size, **more, **self._payer
                ),
            )
            found += (
                RemoteFile(bucket, entry["Key"], entry["Size"], entry["ETag"].strip('"'))
                for entry in page.get("Contents", [])
            )
            if not page.get("IsTruncated"):
                return found
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def read(self, remote: RemoteFile, start: int, stop: int, *, halt: threading.Event) -> Iterator[bytes]:
        """Bytes `start` … `stop` - 1 of an object, in blocks; where a connection breaks, the next one goes on.

        Ends early, without an error, when `halt` is set.

        Raises:
            ChangedError: the object has been replaced since `remote` was looked up.
            MissingKeyError: it is gone.
            SourceError: access denied, no answer, or no ranges.
        """
        failures = 0
        with self._errors(remote.uri):
            while start < stop and not halt.is_set():
                try:
                    with closing(self._get(remote, start, stop)) as body:
                        while start < stop and not halt.is_set():
                            block = body.read(min(_BLOCK, stop - start))
                            if not block:
                                raise IncompleteReadError(actual_bytes=start, expected_bytes=stop)
                            start += len(block)
                            failures = 0
                            yield block
                except (BotoCoreError, ClientError) as error:
                    failures += 1
                    self._pause(error, failures, halt)

    def upload_part_size(self, remote: RemoteFile, parts: int) -> int | None:
        """Bytes of the parts that an object was uploaded in; None where the server does not tell, or they differ.

        Raises:
            SourceError: no answer.
        """
        if parts == 1:
            return remote.size
        first = self._part_length(remote, 1, parts)
        last = self._part_length(remote, parts, parts)
        return first if first and first * (parts - 1) + (last or 0) == remote.size else None

    def has_own_etag(self, remote: RemoteFile) -> bool:
        """Whether the ETag has nothing to do with the content's MD5, as under keys of a key service."""
        answer = self._head(remote.uri)
        return answer.get("ServerSideEncryption") in _KEYS_OF_OTHERS or "SSECustomerAlgorithm" in answer

    @property
    def _client(self) -> Any:
        with self._connecting:  # several threads may be the first
            return self._connection

    @cached_property
    def _connection(self) -> Any:
        config = Config(
            signature_version=None if self._signed else UNSIGNED,
            retries={"mode": "standard", "total_max_attempts": 1},  # `_pause` decides
            connect_timeout=min(10.0, self._timeout_s),
            read_timeout=self._timeout_s,
            max_pool_connections=128,
            response_checksum_validation="when_required",
        )
        try:
            return boto3.Session().client("s3", endpoint_url=self._endpoint_url, config=config)
        except (BotoCoreError, ValueError) as error:
            raise SourceError(
                f"No S3 client for {self._place} ({type(error).__name__}).",
                fix="Check FOOTPRINT_S3_ENDPOINT_URL, AWS_PROFILE and the AWS configuration file.",
            ) from None

    def _head(self, uri: str) -> Any:
        bucket, key = split_uri(uri)
        return self._patiently(uri, lambda: self._client.head_object(Bucket=bucket, Key=key, **self._payer))

    def _part_length(self, remote: RemoteFile, number: int, parts: int) -> int | None:
        def ask() -> dict[str, Any]:
            try:
                return self._client.head_object(Bucket=remote.bucket, Key=remote.key, PartNumber=number, **self._payer)
            except ClientError as error:
                if may_pass(error):
                    raise
                return {}  # a server that does not know its parts

        answer = self._patiently(remote.uri, ask)
        return answer.get("ContentLength") if answer.get("PartsCount", parts) == parts else None

    def _get(self, remote: RemoteFile, start: int, stop: int) -> Any:
        """The body of one answer, which begins at `start`."""
        whole = (start, stop) == (0, remote.size)
        answer = self._client.get_object(
            Bucket=remote.bucket,
            Key=remote.key,
            IfMatch=f'"{remote.etag}"',
            **({} if whole else {"Range": f"bytes={start}-{stop - 1}"}),
            **self._payer,
        )
        body = answer["Body"]
        place = re.match(r"bytes (\d+)-\d+/(\d+)", answer.get("ContentRange", ""))
        first, size = (int(place[1]), int(place[2])) if place else (0, answer["ContentLength"])
        same = (answer.get("ETag", remote.etag).strip('"'), size) == (remote.etag, remote.size)
        if same and first == start:
            return body
        body.close()
        if not same:  # and the server ignores If-Match
            raise changed(remote.uri)
        raise SourceError(
            f"{remote.uri}: {self._place} does not answer requests for a range of bytes.",
            fix="Fetch the file by other means and give its path as the source.",
        )

    def _patiently(self, uri: str, call: Callable[[], _T]) -> _T:
        """What a request answers, tried several times."""
        failures = 0
        with self._errors(uri):
            while True:
                try:
                    return call()
                except (BotoCoreError, ClientError) as error:
                    failures += 1
                    self._pause(error, failures, threading.Event())

    def _pause(self, error: BotoCoreError | ClientError, failures: int, halt: threading.Event) -> None:
        """Wait before another attempt; raise `error` when that is no use."""
        if failures >= self._attempts or not may_pass(error):
            raise error
        longest = min(_FIRST_PAUSE_S * 2 ** (failures - 1), _LONGEST_PAUSE_S)
        halt.wait(longest * random.uniform(0.5, 1.0))  # noqa: S311

    @contextmanager
    def _errors(self, uri: str) -> Iterator[None]:
        """Turn what botocore raises into errors that name the object and the way out, and no secrets."""
        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise explained(uri, error, place=self._place, signed=self._signed, has_bucket=self._has_bucket) from None

    def _has_bucket(self, bucket: str) -> bool:
        """Whether there is such a bucket, which a bare 404 does not tell; True when in doubt."""
        try:
            self._client.head_bucket(Bucket=bucket)
        except ClientError as error:
            return code(error) not in MISSING
        except BotoCoreError:
            return True
        return True


def _without_secrets(url: str) -> str:
    """An endpoint without user, password and query."""
    return re.sub(r"^(\w+://)?[^/]*@", r"\1", url.partition("?")[0])
