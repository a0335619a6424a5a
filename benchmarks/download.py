"""Speed of downloads from S3, against boto3's own transfer manager, and what a killed one costs.

The server is a small one in a process of its own, which serves one file under every key, in ranges and from the page
cache, so that the client is what is measured.
"""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
from boto3.s3.transfer import TransferConfig
from botocore import UNSIGNED
from botocore.config import Config

from benchmarks.form import Figure, in_turn, main
from footprint_pipeline.spacenet.download import S3, TransferSpec

_MB = 1_000_000
_BLOCK = 1 << 20
_PLAIN, _HASHED, _SLOW = "plain", "hashed", "slow"  # keys: the ETag is no hash; is the MD5; is it, and slowly
_SLOW_PAUSE_S = 0.02


def measure(quick: bool) -> list[Figure]:
    """Speed without and with verification, and the bytes that are fetched again after a kill."""
    size = (64 if quick else 1024) << 20
    with tempfile.TemporaryDirectory(prefix="benchmark-download-") as name:
        folder = Path(name)
        md5 = _write(folder / "object", size)
        with _server(folder / "object", md5) as url:
            return [*_speed(url, folder, size, md5, rounds=1 if quick else 5), _killed(url, folder, size)]


def _speed(url: str, folder: Path, size: int, md5: str, *, rounds: int) -> list[Figure]:
    s3 = S3(endpoint_url=url)
    client = boto3.client("s3", endpoint_url=url, config=Config(signature_version=UNSIGNED), region_name="us-east-1")
    eight = TransferConfig(multipart_chunksize=16 << 20, multipart_threshold=16 << 20, max_concurrency=8)
    target = folder / "target"

    def ours(key: str) -> None:
        s3.download(s3.head(f"s3://bucket/{key}"), target)
        _clear(target, size)

    def peer(config: TransferConfig | None, *, verify: bool = False) -> None:
        client.download_file("bucket", _PLAIN, str(target), Config=config)
        if verify:
            with target.open("rb") as file:
                assert hashlib.file_digest(file, _md5).hexdigest() == md5
        _clear(target, size)

    works = (
        lambda: ours(_PLAIN),
        lambda: peer(None),
        lambda: peer(eight),
        lambda: ours(_HASHED),
        lambda: peer(None, verify=True),
        lambda: peer(eight, verify=True),
    )
    for work in works[:2]:
        work()  # connections and imports
    plain_s, *peer_s, hashed_s, first_s, second_s = in_turn(*works, rounds=rounds)
    peer_plain_s, peer_hashed_s = min(peer_s), min(first_s, second_s)
    return [
        _faster("download, nothing to verify by", size, plain_s, peer_plain_s),
        _faster("download and verify the MD5", size, hashed_s, peer_hashed_s),
        Figure("verifying adds", hashed_s - plain_s, "s", peer_hashed_s - peer_plain_s),
    ]


def _faster(name: str, size: int, ours_s: float, peer_s: float) -> Figure:
    ratio = peer_s / ours_s
    return Figure(name, size / _MB / ours_s, "MB/s", size / _MB / peer_s, ratio, "≥ 0.8", ratio >= 0.8)


def _killed(url: str, folder: Path, size: int) -> Figure:
    """Kill a download when half of its parts are there, run it again, and compare what the server sent."""
    target = folder / "killed"
    code = (
        "import sys; from pathlib import Path; from footprint_pipeline.spacenet.download import S3\n"
        "s3 = S3(endpoint_url=sys.argv[1]); s3.download(s3.head(sys.argv[2]), Path(sys.argv[3]))"
    )
    command = [sys.executable, "-c", code, url, f"s3://bucket/{_SLOW}", str(target)]
    before, allowed = _served(url), TransferSpec().part_size * TransferSpec().connections
    first = subprocess.Popen(command)
    until = before + (size + allowed) / 2  # in the middle of the parts under way
    while _served(url) < until:
        assert first.poll() is None, "ended before it was killed"
        time.sleep(0.002)
    first.kill()
    first.wait()
    subprocess.run(command, check=True)
    again = _served(url) - before - size
    goal = f"≤ {allowed / _MB:.0f}: one part a connection"
    return Figure("fetched again after a kill", again / _MB, "MB", goal=goal, met=again <= allowed)


def _write(path: Path, size: int) -> str:
    """Random content, and its MD5."""
    digest = _md5()
    with path.open("wb") as file:
        for _ in range(size // _BLOCK):
            block = os.urandom(_BLOCK)
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def _md5() -> "hashlib._Hash":
    return hashlib.md5(usedforsecurity=False)


def _clear(target: Path, size: int) -> None:
    assert target.stat().st_size == size
    target.unlink()


@contextmanager
def _server(path: Path, md5: str) -> Iterator[str]:
    code = "import sys; from benchmarks.download import serve; serve(*sys.argv[1:])"
    process = subprocess.Popen([sys.executable, "-c", code, str(path), md5], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


def _served(url: str) -> int:
    with urllib.request.urlopen(f"{url}/served") as answer:  # noqa: S310
        return int(answer.read())


def serve(path: str, md5: str) -> None:
    """Serve a file under every key of every bucket until killed; prints the port. `/served` is the bytes sent."""
    size = Path(path).stat().st_size
    sent, lock = [0], threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(0, size)

        def do_GET(self) -> None:
            if self.path == "/served":
                content = str(sent[0]).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                return
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            start, stop = (int(asked[1]), int(asked[2] or size - 1) + 1) if asked else (0, size)
            self._answer(start, stop, status=206 if asked else 200)
            self.wfile.flush()
            with open(path, "rb") as file:  # noqa: PTH123
                while start < stop:
                    count = os.sendfile(self.connection.fileno(), file.fileno(), start, min(_BLOCK, stop - start))
                    start += count
                    with lock:
                        sent[0] += count
                    if self.path.endswith(_SLOW):
                        time.sleep(_SLOW_PAUSE_S)

        def _answer(self, start: int, stop: int, *, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(stop - start))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
            self.send_header("ETag", f'"{_PLAIN if self.path.endswith(_PLAIN) else md5}"')
            self.send_header("Last-Modified", self.date_time_string(0))
            self.end_headers()

        def handle(self) -> None:
            with suppress(ConnectionError):
                super().handle()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(measure, description=__doc__.splitlines()[0])
