"""Downloads through a network and from a server that fail in every way."""

import hashlib
import random
import re
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from footprint_pipeline.errors import MissingKeyError, SourceError
from footprint_pipeline.spacenet.download import S3, TransferSpec, is_complete
from footprint_pipeline.spacenet.s3.errors import ChangedError
from footprint_pipeline_tests.conftest import Bucket
from footprint_pipeline_tests.spacenet.faulty_proxy import Faults, faulty_proxy

_KB = 1024
_SPEC = TransferSpec(part_size=128 * _KB, connections=4, ahead=2)
_CONTENT = random.Random(7).randbytes(2048 * _KB - 11)  # noqa: S311
_OTHER = random.Random(8).randbytes(len(_CONTENT))  # noqa: S311
_ONE_RUN = """
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from footprint_pipeline.spacenet.download import S3, TransferSpec
signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts in the background is told to ignore it
s3 = S3(endpoint_url=sys.argv[1], transfer=TransferSpec(part_size=131072, connections=4, ahead=2))
s3.download(s3.head(sys.argv[2]), Path(sys.argv[3]))
"""


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("footprint_pipeline.spacenet.s3.client._FIRST_PAUSE_S", 0.02)


@pytest.fixture
def faults(bucket: Bucket) -> Iterator[Faults]:
    with faulty_proxy(bucket.endpoint_url) as proxy:
        yield proxy


@pytest.fixture
def reader(faults: Faults) -> Callable[..., S3]:
    """Reads through the proxy, in small parts."""

    def make(*, transfer: TransferSpec = _SPEC, **options: object) -> S3:
        return S3(endpoint_url=faults.url, transfer=transfer, **options)

    return make


def _start(faults: Faults, uri: str, target: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _ONE_RUN, faults.url, uri, str(target)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_connections_that_close_are_taken_up_at_the_byte_reached(
    bucket: Bucket, faults: Faults, reader: Callable[..., S3], tmp_path: Path
) -> None:
    s3 = reader(attempts=2)
    remote = s3.head(bucket.put("k", _CONTENT))
    faults.close_after = 48 * _KB
    assert s3.download(remote, tmp_path / "k").read_bytes() == _CONTENT
    assert faults.served == len(_CONTENT)  # nothing twice
    assert faults.gets > 2 * 16


def test_a_line_that_breaks_again_and_again_gets_on_by_what_arrives(
    bucket: Bucket, faults: Faults, reader: Callable[..., S3], tmp_path: Path
) -> None:
    s3 = reader(transfer=TransferSpec(part_size=8 << 20, connections=1, ahead=1), attempts=2)
    remote = s3.head(bucket.put("object", _CONTENT))
    faults.reset_after = 200 * _KB
    s3.download(remote, tmp_path / "object")
    assert (tmp_path / "object").read_bytes() == _CONTENT
    assert faults.gets > len(_CONTENT) // (200 * _KB)


def test_a_download_that_is_given_up_ends_though_the_server_is_silent(
    bucket: Bucket, faults: Faults, reader: Callable[..., S3], tmp_path: Path
) -> None:
    remote, given_up = reader().head(bucket.put("object", _CONTENT)), threading.Event()
    faults.hold_after = 300 * _KB
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(reader().download, remote, tmp_path / "object", given_up=given_up)
        assert faults.held.wait(30)
        given_up.set()
        with pytest.raises(SourceError, match="given up"):
            under_way.result(timeout=10)
    faults.release.set()


def test_a_stalled_connection_is_given_up(
    bucket: Bucket, faults: Faults, reader: Callable[..., S3], tmp_path: Path
) -> None:
    s3 = reader(timeout_s=0.5)
    remote = s3.head(bucket.put("k", _CONTENT))
    faults.stall_once_after = 16 * _KB
    assert s3.download(remote, tmp_path / "k").read_bytes() == _CONTENT
    assert faults.gets == 17


def test_refusals_pass(bucket: Bucket, faults: Faults, reader: Callable[..., S3], tmp_path: Path) -> None:
    s3 = reader()
    remote = s3.head(bucket.put("k", _CONTENT))
    faults.refuse.extend([503, 429, 500, 502])
    assert s3.download(remote, tmp_path / "k").read_bytes() == _CONTENT


def test_a_server_that_goes_on_refusing_costs_nothing_that_arrived(
    bucket: Bucket, faults: Faults, reader: Callable[..., S3], tmp_path: Path
) -> None:
    s3 = reader(attempts=3)
    remote = s3.head(bucket.put("k", _CONTENT))
    faults.before_get = lambda number: faults.refuse.append(503) if number >= 8 else None
    with pytest.raises(SourceError, match=r"answered SlowDown. \d\.\d of 2\.1 MB are here and kept") as caught:
        s3.download(remote, tmp_path / "k")
    assert "The next try goes on from there" in caught.value.fix
    assert _names(tmp_path) == [".k.journal", ".k.partial"]

    faults.before_get = lambda number: None
    faults.refuse.clear()
    before = faults.served
    assert s3.download(remote, tmp_path / "k").read_bytes() == _CONTENT
    assert before > 4 * _SPEC.part_size
    assert faults.served <= len(_CONTENT) + 4 * _SPEC.part_size
    assert _names(tmp_path) == [".k.etag.json", "k"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "Ctrl-C"])
def test_an_interrupted_download_loses_a_part_a_connection_at_most(
    bucket: Bucket, faults: Faults, reader: Callable[..., S3], tmp_path: Path, how: signal.Signals
) -> None:
    uri = bucket.put("k", _CONTENT)
    faults.hold_after = 1200 * _KB
    process = _start(faults, uri, tmp_path / "k")
    assert faults.held.wait(60)
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -how
    assert ("KeyboardInterrupt" in errors) == (how == signal.SIGINT)
    assert _names(tmp_path) == [".k.journal", ".k.partial"]

    faults.hold_after = None
    faults.release.set()
    s3 = reader()
    assert s3.download(s3.head(uri), tmp_path / "k").read_bytes() == _CONTENT
    assert faults.served <= len(_CONTENT) + _SPEC.connections * _SPEC.part_size
    assert _names(tmp_path) == [".k.etag.json", "k"]


def test_a_second_process_waits_and_fetches_nothing(
    bucket: Bucket, faults: Faults, reader: Callable[..., S3], tmp_path: Path
) -> None:
    uri = bucket.put("k", _CONTENT)
    faults.hold_after = 300 * _KB
    process = _start(faults, uri, tmp_path / "k")
    assert faults.held.wait(60)
    s3 = reader()
    second = threading.Thread(target=s3.download, args=(s3.head(uri), tmp_path / "k"))
    second.start()
    second.join(0.3)
    assert second.is_alive()
    faults.release.set()
    second.join(60)
    assert process.communicate(timeout=60)[1] == ""
    assert (tmp_path / "k").read_bytes() == _CONTENT
    assert faults.served == len(_CONTENT)
    assert _names(tmp_path) == [".k.etag.json", "k"]


@pytest.mark.parametrize("ignored", ["", "if-match"])
def test_an_object_that_is_replaced_under_way_is_fetched_anew(
    bucket: Bucket, faults: Faults, reader: Callable[..., S3], tmp_path: Path, ignored: str
) -> None:
    s3 = reader()
    old = s3.head(bucket.put("k", _CONTENT))
    faults.drop_headers = (ignored,)
    faults.before_get = lambda number: bucket.put("k", _OTHER) if number == 9 else None
    s3.download(old, tmp_path / "k")
    assert (tmp_path / "k").read_bytes() == _OTHER
    assert is_complete(s3.head(old.uri), tmp_path / "k")
    assert not is_complete(old, tmp_path / "k")


def test_an_object_that_is_replaced_again_and_again_is_given_up(
    bucket: Bucket, faults: Faults, reader: Callable[..., S3], tmp_path: Path
) -> None:
    s3 = reader()
    remote = s3.head(bucket.put("k", _CONTENT))
    faults.before_get = lambda number: bucket.put("k", number.to_bytes(2) + _OTHER) if number % 4 == 0 else None
    with pytest.raises(ChangedError, match="replaced while it was fetched") as caught:
        s3.download(remote, tmp_path / "k")
    assert "Run the same command again" in caught.value.fix
    assert _names(tmp_path) == []


def test_an_object_that_is_deleted_under_way_is_missing(
    bucket: Bucket, faults: Faults, reader: Callable[..., S3], tmp_path: Path
) -> None:
    s3 = reader()
    remote = s3.head(bucket.put("k", _CONTENT))
    faults.before_get = lambda number: bucket.client.delete_object(Bucket=bucket.name, Key="k") if number == 9 else None
    with pytest.raises(MissingKeyError, match="there is no key 'k'"):
        s3.download(remote, tmp_path / "k")


def test_damage_on_the_way_is_found_by_the_etag(
    bucket: Bucket, faults: Faults, reader: Callable[..., S3], tmp_path: Path
) -> None:
    s3 = reader()
    remote = s3.head(bucket.put("k", _CONTENT))
    faults.damage_at = 1_000_000
    with pytest.raises(SourceError, match=rf"has the MD5 \w+, not {remote.etag} of its ETag; it is discarded"):
        s3.download(remote, tmp_path / "k")
    assert _names(tmp_path) == []
    md5 = hashlib.md5(_CONTENT[:1_000_000] + bytes([_CONTENT[1_000_000] ^ 0xFF]) + _CONTENT[1_000_001:])  # noqa: S324
    assert s3.download(remote, tmp_path / "k", md5=md5.hexdigest()).exists()  # what the caller says, counts


def test_what_was_uploaded_in_parts_is_verified_in_these_parts(
    bucket: Bucket, faults: Faults, reader: Callable[..., S3], tmp_path: Path
) -> None:
    content = _CONTENT * 3
    place = {"Bucket": bucket.name, "Key": "k"}
    upload = bucket.client.create_multipart_upload(ACL="public-read", **place)["UploadId"]
    parts = [content[: 5 << 20], content[5 << 20 :]]
    done = [
        {
            "PartNumber": number,
            "ETag": bucket.client.upload_part(Body=part, PartNumber=number, UploadId=upload, **place)["ETag"],
        }
        for number, part in enumerate(parts, 1)
    ]
    bucket.client.complete_multipart_upload(MultipartUpload={"Parts": done}, UploadId=upload, **place)
    s3 = reader(transfer=TransferSpec(part_size=1 << 20))
    remote = s3.head(f"s3://{bucket.name}/k")
    assert remote.etag.endswith("-2")
    assert s3.upload_part_size(remote, 2) == 5 << 20
    assert s3.download(remote, tmp_path / "k").read_bytes() == content
    faults.damage_at = len(content) - 1
    with pytest.raises(SourceError, match=rf"has the MD5 \w+-2, not {remote.etag} of its ETag"):
        s3.download(remote, tmp_path / "damaged")


def test_the_etag_of_what_a_key_service_encrypts_is_no_checksum(
    bucket: Bucket, faults: Faults, reader: Callable[..., S3], tmp_path: Path
) -> None:
    bucket.client.put_object(
        Bucket=bucket.name, Key="k", Body=_CONTENT, ServerSideEncryption="aws:kms", ACL="public-read"
    )
    faults.damage_at = 5  # so the ETag fits as little as it does on AWS
    s3 = reader()
    assert s3.download(s3.head(f"s3://{bucket.name}/k"), tmp_path / "k").exists()


def test_a_server_without_ranges_serves_small_objects_only(
    bucket: Bucket, faults: Faults, reader: Callable[..., S3], tmp_path: Path
) -> None:
    faults.drop_headers = ("range",)
    s3 = reader()
    assert s3.download(s3.head(bucket.put("small", b"abc")), tmp_path / "small").read_bytes() == b"abc"
    with pytest.raises(SourceError, match="does not answer requests for a range of bytes") as caught:
        s3.download(s3.head(bucket.put("k", _CONTENT)), tmp_path / "k")
    assert "give its path as the source" in caught.value.fix


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_disk_that_fills_up_is_named(
    bucket: Bucket, faults: Faults, reader: Callable[..., S3], tmp_path: Path
) -> None:
    s3 = reader()
    remote = s3.head(bucket.put("k", _CONTENT))
    partial = tmp_path / ".k.partial"

    def fill(number: int) -> None:
        if number == 6:
            partial.unlink()
            partial.symlink_to("/dev/full")

    faults.before_get = fill
    with pytest.raises(SourceError, match=r"\.k\.partial cannot be written \(No space left on device\)") as caught:
        s3.download(remote, tmp_path / "k")
    assert "Make room" in caught.value.fix
    assert not (tmp_path / "k").exists()


def test_the_room_for_what_is_still_missing_suffices(
    bucket: Bucket, faults: Faults, reader: Callable[..., S3], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3 = reader(attempts=1)
    remote = s3.head(bucket.put("k", _CONTENT))
    faults.before_get = lambda number: faults.refuse.append(503) if number >= 12 else None
    with pytest.raises(SourceError, match="kept"):
        s3.download(remote, tmp_path / "k")
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=69_000_000))
    with pytest.raises(
        SourceError, match=r"/k: fetching and unpacking it needs \d\.\d MB and 67 MB to spare; .* 69\.0 MB"
    ):
        s3.download(remote, tmp_path / "k", also_needed=3_000_000)
    faults.before_get = lambda number: None
    faults.refuse.clear()
    assert s3.download(remote, tmp_path / "k").read_bytes() == _CONTENT  # 2.1 MB in all


def test_a_stream_is_read_while_it_arrives(
    bucket: Bucket, faults: Faults, reader: Callable[..., S3], tmp_path: Path
) -> None:
    for number in range(6):
        (tmp_path / str(number)).write_bytes(_CONTENT[number : number + 300 * _KB])
    with tarfile.open(tmp_path / "t.tar.gz", "w:gz", compresslevel=1) as tar:
        for number in range(6):
            tar.add(tmp_path / str(number), arcname=str(number))
    content = (tmp_path / "t.tar.gz").read_bytes()
    s3 = reader()
    remote = s3.head(bucket.put("t.tar.gz", content))
    target = tmp_path / "into" / "t.tar.gz"

    with s3.stream(remote, target) as stream, tarfile.open(fileobj=stream, mode="r|gz") as tar:
        first = tar.next()
        assert tar.extractfile(first).read() == (tmp_path / "0").read_bytes()
    fetched = faults.served
    assert not target.exists()
    assert 0 < fetched < len(content) - 4 * _SPEC.part_size  # no further than read ahead

    with s3.stream(remote, target) as stream, tarfile.open(fileobj=stream, mode="r|gz") as tar:
        assert [member.size for member in tar] == [300 * _KB] * 6
        assert stream.read() == b""
        assert is_complete(remote, target)  # at its end, it is what `download` would have made
    assert target.read_bytes() == content
    assert faults.served <= len(content) + _SPEC.connections * _SPEC.part_size

    served = faults.served
    with s3.stream(remote, target) as stream:
        assert stream.read() == content
    assert s3.download(remote, target) == target
    assert faults.served == served


def test_a_download_takes_up_what_a_stream_left(
    bucket: Bucket, faults: Faults, reader: Callable[..., S3], tmp_path: Path
) -> None:
    s3 = reader()
    remote = s3.head(bucket.put("k", _CONTENT))
    with s3.stream(remote, tmp_path / "k") as stream:
        assert stream.read(1000 * _KB) == _CONTENT[: 1000 * _KB]
    parts_kept = (tmp_path / ".k.journal").read_bytes().count(b"\n") - 1
    assert parts_kept >= 8
    before = faults.gets
    assert s3.download(remote, tmp_path / "k").read_bytes() == _CONTENT
    assert faults.gets - before == 16 - parts_kept


def test_a_stream_tells_damage_and_change_before_its_end(
    bucket: Bucket, faults: Faults, reader: Callable[..., S3], tmp_path: Path
) -> None:
    s3 = reader()
    remote = s3.head(bucket.put("k", _CONTENT))
    faults.damage_at = 7
    with s3.stream(remote, tmp_path / "k") as stream:
        for _ in range(2):  # whoever asks again is told again
            with pytest.raises(SourceError, match="of its ETag; it is discarded"):
                hashlib.file_digest(stream, "md5")
    assert _names(tmp_path) == []
    faults.before_get = lambda number: bucket.put("k", _OTHER)
    with s3.stream(remote, tmp_path / "k") as stream, pytest.raises(ChangedError, match="replaced"):
        stream.read()
    assert _names(tmp_path) == []


def test_no_error_tells_a_secret(bucket: Bucket, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    faults.refuse.append(403)
    s3 = S3(endpoint_url=faults.url, signed=True, attempts=1)
    with pytest.raises(SourceError) as caught:
        s3.list(f"s3://{bucket.name}/")
    assert not re.search("hunter2|testing", f"{caught.value!r} {caught.value.__cause__!r}")
