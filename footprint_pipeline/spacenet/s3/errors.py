"""What can go wrong with an S3 endpoint, told with the object's name and the way out, and without secrets.

Says whether another attempt can help, too; attempts themselves are `client`'s.
"""

from collections.abc import Callable

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
)

from footprint_pipeline.errors import MissingKeyError, SourceError

MISSING = frozenset({"404", "NoSuchKey", "NoSuchBucket", "NotFound"})
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_DENIED = frozenset({"401", "403", "AccessDenied", "AllAccessDisabled", "Forbidden"})
_CREDENTIALS = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "400"})
_CHANGED = frozenset({"412", "PreconditionFailed"})


class ChangedError(SourceError):
    """The object is no longer the one that was looked up."""


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and key of `s3://bucket/key`; the key may be empty.

    Raises:
        SourceError: it is no such URI.
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket:
        raise SourceError(f"{uri!r} is not an S3 address.", fix="Write it as s3://bucket/key.")
    return bucket, key


def code(error: ClientError) -> str:
    """What the server calls it: a name, or the HTTP status where the answer has no body."""
    return str(error.response.get("Error", {}).get("Code", "unknown"))


def may_pass(error: BotoCoreError | ClientError) -> bool:
    """Whether the same request can succeed a little later."""
    if isinstance(error, ClientError):
        return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in _PASSING
    return isinstance(error, ConnectionError | HTTPClientError | IncompleteReadError)


def changed(uri: str) -> ChangedError:
    """The error for an object that is not the expected one any more."""
    return ChangedError(
        f"{uri} was replaced while it was fetched; what had arrived of the old version is discarded.",
        fix="Run the same command again.",
    )


def explained(
    uri: str,
    error: BotoCoreError | ClientError,
    *,
    place: str,
    signed: bool,
    has_bucket: Callable[[str], bool],
) -> SourceError:
    """What to raise instead of an error of botocore.

    Args:
        uri: what was asked for.
        error: what came of it.
        place: the endpoint, without secrets.
        signed: whether the request was.
        has_bucket: tells whether a bucket exists, which a bare 404 does not.
    """
    if isinstance(error, ClientError):
        return _answered(uri, code(error), place=place, signed=signed, has_bucket=has_bucket)
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return SourceError(
            f"{uri}: no AWS credentials to sign the request with.",
            fix="Set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or FOOTPRINT_S3_SIGNED=false.",
        )
    return SourceError(
        f"{uri}: {place} cannot be reached or stopped answering ({type(error).__name__}).",
        fix="Check the network, HTTPS_PROXY and FOOTPRINT_S3_ENDPOINT_URL, then try again.",
    )


def _answered(uri: str, code: str, *, place: str, signed: bool, has_bucket: Callable[[str], bool]) -> SourceError:
    bucket, key = split_uri(uri)
    if code in _CHANGED:
        return changed(uri)
    if code in MISSING:
        if code == "NoSuchBucket" or not has_bucket(bucket):
            return MissingKeyError(
                f"{uri}: there is no bucket {bucket!r} at {place}.",
                fix="Check the bucket's name and FOOTPRINT_S3_ENDPOINT_URL.",
            )
        return MissingKeyError(
            f"{uri}: there is no key {key!r} in the bucket.", fix=f"Look with: aws s3 ls {uri.rpartition('/')[0]}/"
        )
    if code in _CREDENTIALS and signed:
        return SourceError(
            f"{uri}: the AWS credentials were refused ({code}).",
            fix="Renew them, or set FOOTPRINT_S3_SIGNED=false.",
        )
    if code in _DENIED:
        fix = (
            "Check the AWS credentials, ask the owner of the bucket for access, or set "
            "FOOTPRINT_S3_REQUESTER_PAYS=true if readers pay."
            if signed
            else "Set FOOTPRINT_S3_SIGNED=true and AWS credentials; also FOOTPRINT_S3_REQUESTER_PAYS=true "
            "if readers pay."
        )
        unlisted = f", or there is no such key {key!r}: a bucket that may not be listed does not tell" if key else ""
        return SourceError(f"{uri}: access denied{unlisted}.", fix=fix)
    return SourceError(f"{uri}: {place} answered {code}.", fix="Try again later.")
