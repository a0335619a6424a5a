import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from footprint_pipeline.errors import MissingKeyError, SourceError
from footprint_pipeline.settings import Settings
from footprint_pipeline.spacenet.download import S3, is_complete
from footprint_pipeline.spacenet.s3.errors import split_uri
from footprint_pipeline_tests.conftest import Bucket


@pytest.fixture
def anonymous(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> S3:
    """A reader on a machine without any AWS credentials."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    return S3(endpoint_url=bucket.endpoint_url, attempts=1)


def test_a_file_of_several_parts_arrives_whole(bucket: Bucket, anonymous: S3, tmp_path: Path) -> None:
    content = bytes(range(256)) * 80_000  # 20 MB: three ranges
    uri = bucket.put("deep/key.tar.gz", content)
    target = tmp_path / "new" / "key.tar.gz"
    remote = anonymous.head(uri)
    assert (remote.size, remote.uri) == (len(content), uri)
    assert anonymous.download(remote, target, md5=hashlib.md5(content).hexdigest().upper()) == target  # noqa: S324
    assert target.read_bytes() == content
    assert sorted(path.name for path in target.parent.iterdir()) == [".key.tar.gz.etag.json", "key.tar.gz"]


def test_a_complete_file_is_not_fetched_again(bucket: Bucket, anonymous: S3, tmp_path: Path) -> None:
    remote = anonymous.head(bucket.put("k", b"one"))
    target = tmp_path / "k"
    anonymous.download(remote, target)
    fetched = target.stat().st_mtime_ns, target.stat().st_ino
    anonymous.download(remote, target)
    assert (target.stat().st_mtime_ns, target.stat().st_ino) == fetched

    changed = anonymous.head(bucket.put("k", b"two"))  # as long as before
    assert not is_complete(changed, target)
    anonymous.download(changed, target)
    assert target.read_bytes() == b"two"

    target.write_bytes(b"cut short"[:2])
    anonymous.download(changed, target)
    assert target.read_bytes() == b"two"
    (tmp_path / ".k.etag.json").write_text("[]")
    assert not is_complete(changed, target)


def test_an_empty_object_is_a_file_too(bucket: Bucket, anonymous: S3, tmp_path: Path) -> None:
    target = anonymous.download(anonymous.head(bucket.put("empty.geojson", b"")), tmp_path / "e")
    assert target.read_bytes() == b""


def test_wrong_content_never_takes_the_files_place(bucket: Bucket, anonymous: S3, tmp_path: Path) -> None:
    remote = anonymous.head(bucket.put("k", b"damaged"))
    with pytest.raises(SourceError, match=r"/k: the content has the MD5 [0-9a-f]{32}, not 0{32}") as caught:
        anonymous.download(remote, tmp_path / "k", md5="0" * 32)
    assert "Try again" in caught.value.fix
    assert list(tmp_path.iterdir()) == []


def test_a_listing_has_every_key_in_order(bucket: Bucket, anonymous: S3) -> None:
    for number in range(8):
        bucket.put(f"tiles/{number}.tif", b"x" * number)
    bucket.put("other", b"")
    found = anonymous.list(f"s3://{bucket.name}/tiles/", page_size=3)
    assert [remote.key for remote in found] == [f"tiles/{number}.tif" for number in range(8)]
    assert found[2].size == 2
    assert found[2].etag == anonymous.head(found[2].uri).etag
    assert anonymous.list(f"s3://{bucket.name}/nothing/") == []


def test_missing_keys_and_buckets_are_told_apart(bucket: Bucket, anonymous: S3, tmp_path: Path) -> None:
    with pytest.raises(MissingKeyError, match=f"s3://{bucket.name}/a/gone: there is no key 'a/gone'") as caught:
        anonymous.head(f"s3://{bucket.name}/a/gone")
    assert caught.value.fix == f"Look with: aws s3 ls s3://{bucket.name}/a/"
    with pytest.raises(MissingKeyError, match=r"s3://no-such-bucket-here/k: there is no bucket .* at http://127"):
        anonymous.head("s3://no-such-bucket-here/k")
    with pytest.raises(MissingKeyError, match="there is no bucket 'no-such-bucket-here'"):
        anonymous.list("s3://no-such-bucket-here/k/")
    remote = anonymous.head(bucket.put("k", b"1"))
    bucket.client.delete_object(Bucket=bucket.name, Key="k")
    with pytest.raises(MissingKeyError, match="there is no key 'k'"):
        anonymous.download(remote, tmp_path / "k")
    assert list(tmp_path.iterdir()) == []


def test_a_private_object_needs_signed_requests(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    uri = bucket.put("private", b"secret", public=False)
    with pytest.raises(SourceError, match=f"{uri}: access denied") as caught:
        S3(endpoint_url=bucket.endpoint_url, attempts=1).head(uri)
    assert "FOOTPRINT_S3_SIGNED=true" in caught.value.fix
    signed = S3.from_settings(Settings(s3_signed=True, s3_requester_pays=True), endpoint_url=bucket.endpoint_url)
    assert signed.download(signed.head(uri), tmp_path / "p").read_bytes() == b"secret"

    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(SourceError, match=f"{uri}: no AWS credentials") as caught:
        S3(endpoint_url=bucket.endpoint_url, signed=True, attempts=1).head(uri)
    assert "FOOTPRINT_S3_SIGNED=false" in caught.value.fix


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    s3 = S3(endpoint_url="http://user:hunter2@127.0.0.1:9/?token=hunter3", attempts=1)
    with pytest.raises(SourceError, match=r"s3://b/k: http://127\.0\.0\.1:9/ cannot be reached") as caught:
        s3.head("s3://b/k")
    assert "hunter" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert "FOOTPRINT_S3_ENDPOINT_URL" in caught.value.fix


def test_settings_that_make_no_client_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match="No S3 client for not a url") as caught:
        S3(endpoint_url="not a url").head("s3://b/k")
    assert "FOOTPRINT_S3_ENDPOINT_URL" in caught.value.fix
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(SourceError, match="No S3 client for AWS"):
        S3().head("s3://b/k")


@pytest.mark.parametrize("uri", ["s3://", "s3:///key", "http://bucket/key", "bucket/key"])
def test_what_is_no_s3_address(uri: str) -> None:
    with pytest.raises(SourceError, match="is not an S3 address"):
        split_uri(uri)


def test_more_than_the_disk_holds_is_refused_first(
    bucket: Bucket, anonymous: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = anonymous.head(bucket.put("k", b"123"))
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 2})())
    with pytest.raises(SourceError, match=r"/k: fetching it needs 0\.0 MB .* has room for 0\.0 MB") as caught:
        anonymous.download(remote, tmp_path / "k")
    assert "FOOTPRINT_HOME" in caught.value.fix


class _Stumbling(BaseHTTPRequestHandler):
    """Answers the first request with 503, then with an object."""

    asked: list[dict[str, str]] = []  # noqa: RUF012

    def do_HEAD(self) -> None:
        self.asked.append(dict(self.headers))
        self.send_response(503 if len(self.asked) == 1 else 200)
        self.send_header("Content-Length", "0" if len(self.asked) == 1 else "7")
        self.send_header("ETag", '"abc"')
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def stumbling_server() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Stumbling)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_that_stumbles_is_asked_again_without_a_signature(stumbling_server: str, bucket: Bucket) -> None:
    remote = S3(endpoint_url=stumbling_server, requester_pays=True, attempts=3).head("s3://b/k")
    assert (remote.size, remote.etag) == (7, "abc")
    first, second = ({name.lower(): value for name, value in headers.items()} for headers in _Stumbling.asked)
    assert second["x-amz-request-payer"] == "requester"
    assert "authorization" not in first  # although the environment of the bucket fixture has credentials


def test_the_record_names_the_object(bucket: Bucket, anonymous: S3, tmp_path: Path) -> None:
    remote = anonymous.head(bucket.put("k", b"123"))
    anonymous.download(remote, tmp_path / "k")
    record = json.loads((tmp_path / ".k.etag.json").read_text())
    assert record == {"uri": remote.uri, "size": 3, "etag": remote.etag}
