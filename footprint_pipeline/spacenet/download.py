"""Files from S3-compatible storage onto the disk: listed, fetched in parallel ranges, verified, fetched once.

What the files mean is not known here.
"""

import hashlib
import json
import logging
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
from boto3.exceptions import RetriesExceededError, S3TransferFailedError
from boto3.s3.transfer import TransferConfig
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from footprint_pipeline.errors import SourceError
from footprint_pipeline.files import atomic_path
from footprint_pipeline.settings import Settings

_log = logging.getLogger(__name__)

_MB = 1_000_000
_TRANSFER = TransferConfig(
    multipart_threshold=16 * _MB, multipart_chunksize=16 * _MB, max_concurrency=8, preferred_transfer_client="classic"
)
_MISSING = {"404", "NoSuchKey", "NoSuchBucket", "NotFound"}
_DENIED = {"401", "403", "AccessDenied", "AllAccessDisabled", "Forbidden"}
_CREDENTIALS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "400"}


class MissingKeyError(SourceError):
    """There is no such bucket or key."""


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


class Progress:
    """Logs how far a download is: at most every `every_s` seconds, from any thread."""

    def __init__(self, name: str, total: int, *, every_s: float = 2.0) -> None:
        self._name, self._total, self._every_s = name, total, every_s
        self._done, self._lock = 0, threading.Lock()
        self._started = self._logged = time.monotonic()

    def __call__(self, count: int) -> None:
        """Add `count` bytes (negative when a part is fetched again)."""
        with self._lock:
            self._done += count
            now = time.monotonic()
            if now - self._logged < self._every_s:
                return
            self._logged = now
            rate = max(self._done, 0) / (now - self._started)
            left = f"{(self._total - self._done) / rate:,.0f} s left" if rate else "stalled"
            _log.info(
                "%s: %.1f of %.1f MB (%.0f %%), %.1f MB/s, %s",
                *(self._name, self._done / _MB, self._total / _MB),
                *(100 * self._done / max(self._total, 1), rate / _MB, left),
            )


class S3:
    """Reads from one S3-compatible endpoint; connects at the first request.

    Args:
        endpoint_url: the server; None for AWS.
        signed: sign requests with the usual AWS credentials; otherwise read anonymously.
        requester_pays: agree to pay for the reads.
        attempts: how often a request is tried in all, with growing pauses.
    """

    def __init__(
        self,
        *,
        endpoint_url: str | None = None,
        signed: bool = False,
        requester_pays: bool = False,
        attempts: int = 5,
    ) -> None:
        self._signed = signed
        self._payer = {"RequestPayer": "requester"} if requester_pays else {}
        self._place = _without_secrets(endpoint_url) if endpoint_url else "AWS"
        self._endpoint_url, self._attempts = endpoint_url, attempts

    @cached_property
    def _client(self) -> Any:
        config = Config(
            signature_version=None if self._signed else UNSIGNED,
            retries={"mode": "standard", "total_max_attempts": self._attempts},
            connect_timeout=10,
            read_timeout=60,
            max_pool_connections=32,
        )
        try:
            return boto3.Session().client("s3", endpoint_url=self._endpoint_url, config=config)
        except (BotoCoreError, ValueError) as error:
            raise SourceError(
                f"No S3 client for {self._place} ({type(error).__name__}).",
                fix="Check FOOTPRINT_S3_ENDPOINT_URL, AWS_PROFILE and the AWS configuration file.",
            ) from None

    @classmethod
    def from_settings(cls, settings: Settings, *, endpoint_url: str | None = None) -> "S3":
        """Access as the settings say; `endpoint_url` overrides theirs."""
        return cls(
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
        with self._errors(uri):
            answer = self._client.head_object(Bucket=bucket, Key=key, **self._payer)
        return RemoteFile(bucket, key, answer["ContentLength"], answer["ETag"].strip('"'))

    def list(self, uri: str, *, page_size: int = 1000) -> list[RemoteFile]:
        """Every object whose key starts with the key of `uri`, in the order of the keys; may be empty.

        `page_size` is how many keys the server tells at a time, 1000 at most.

        Raises:
            MissingKeyError: no such bucket.
            SourceError: access denied, or no answer.
        """
        bucket, prefix = split_uri(uri)
        with self._errors(uri):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=bucket, Prefix=prefix, PaginationConfig={"PageSize": page_size}, **self._payer
            )
            return [
                RemoteFile(bucket, entry["Key"], entry["Size"], entry["ETag"].strip('"'))
                for page in pages
                for entry in page.get("Contents", [])
            ]

    def download(
        self, remote: RemoteFile, target: Path, *, md5: str | None = None, progress: Progress | None = None
    ) -> Path:
        """Fetch one object, unless `target` already is that very object.

        Args:
            remote: what to fetch, from `head` or `list`.
            target: the file; appears when it is complete and verified.
            md5: what the content must have, as hexadecimal digits.
            progress: told of every byte that arrives; by default one of its own.

        Raises:
            MissingKeyError: it is gone.
            SourceError: access denied, no answer, no room on the disk, or the content is not what it should be.
        """
        if is_complete(remote, target):
            _log.info("%s: already here", remote.uri)
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(target.parent).free
        if free < remote.size:
            raise SourceError(
                f"{remote.uri} has {remote.size / _MB:,.0f} MB; {target.parent} has room for {free / _MB:,.0f} MB.",
                fix="Make room, or set FOOTPRINT_HOME to a folder on a larger disk.",
            )
        if progress is None:
            _log.info("%s: fetching %.1f MB", remote.uri, remote.size / _MB)
            progress = Progress(remote.uri, remote.size)
        with atomic_path(target) as temporary:
            self._transfer(remote, temporary, progress)
            _verify(remote, temporary, md5)
            _record(target).unlink(missing_ok=True)
        with atomic_path(_record(target)) as temporary:
            temporary.write_text(json.dumps({"uri": remote.uri, "size": remote.size, "etag": remote.etag}), "utf-8")
        return target

    def _transfer(self, remote: RemoteFile, target: Path, progress: Progress) -> None:
        """Every byte of an object into a file."""
        with self._errors(remote.uri):
            self._client.download_file(
                remote.bucket,
                remote.key,
                str(target),
                ExtraArgs=dict(self._payer),
                Callback=progress,
                Config=_TRANSFER,
            )

    @contextmanager
    def _errors(self, uri: str) -> Iterator[None]:
        """Turn what botocore raises into errors that name the object and the way out, and no secrets."""
        try:
            yield
        except ClientError as error:
            raise self._explain(uri, str(error.response.get("Error", {}).get("Code", "unknown"))) from None
        except (NoCredentialsError, PartialCredentialsError):
            raise SourceError(
                f"{uri}: no AWS credentials to sign the request with.",
                fix="Set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or FOOTPRINT_S3_SIGNED=false.",
            ) from None
        except (BotoCoreError, S3TransferFailedError, RetriesExceededError) as error:
            raise SourceError(
                f"{uri}: {self._place} cannot be reached or stopped answering ({type(error).__name__}).",
                fix="Check the network, HTTPS_PROXY and FOOTPRINT_S3_ENDPOINT_URL, then try again.",
            ) from None

    def _explain(self, uri: str, code: str) -> SourceError:
        bucket, key = split_uri(uri)
        if code in _MISSING:
            if code == "NoSuchBucket" or not self._has_bucket(bucket):
                return MissingKeyError(
                    f"{uri}: there is no bucket {bucket!r} at {self._place}.",
                    fix="Check the bucket's name and FOOTPRINT_S3_ENDPOINT_URL.",
                )
            return MissingKeyError(
                f"{uri}: there is no key {key!r} in the bucket.", fix=f"Look with: aws s3 ls {uri.rpartition('/')[0]}/"
            )
        if code in _CREDENTIALS and self._signed:
            return SourceError(
                f"{uri}: the AWS credentials were refused ({code}).",
                fix="Renew them, or set FOOTPRINT_S3_SIGNED=false.",
            )
        if code in _DENIED:
            fix = (
                "Ask the owner of the bucket for access, or set FOOTPRINT_S3_REQUESTER_PAYS=true if readers pay."
                if self._signed
                else "Set FOOTPRINT_S3_SIGNED=true and AWS credentials; also FOOTPRINT_S3_REQUESTER_PAYS=true "
                "if readers pay."
            )
            return SourceError(f"{uri}: access denied.", fix=fix)
        return SourceError(f"{uri}: {self._place} answered {code}.", fix="Try again later.")

    def _has_bucket(self, bucket: str) -> bool:
        """Whether there is such a bucket, which a bare 404 does not tell; True when in doubt."""
        try:
            self._client.head_bucket(Bucket=bucket)
        except ClientError as error:
            return str(error.response.get("Error", {}).get("Code")) not in _MISSING
        except BotoCoreError:
            return True
        return True


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and key of `s3://bucket/key`; the key may be empty.

    Raises:
        SourceError: it is no such URI.
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket:
        raise SourceError(f"{uri!r} is not an S3 address.", fix="Write it as s3://bucket/key.")
    return bucket, key


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


def _verify(remote: RemoteFile, path: Path, md5: str | None) -> None:
    fix = "Try again; if it fails the same way, the file at the source has changed."
    size = path.stat().st_size
    if size != remote.size:
        raise SourceError(f"{remote.uri}: {size:,} bytes arrived of {remote.size:,}.", fix=fix)
    if md5 is None:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5.lower():
        raise SourceError(f"{remote.uri}: the content has the MD5 {found}, not {md5.lower()}.", fix=fix)


def _without_secrets(url: str) -> str:
    """An endpoint without user, password and query."""
    return re.sub(r"^(\w+://)?[^/]*@", r"\1", url.partition("?")[0])
