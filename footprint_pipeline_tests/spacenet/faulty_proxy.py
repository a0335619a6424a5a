"""A real HTTP proxy in front of the test's S3 server that misbehaves on demand, and counts what it passes on."""

import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_BLOCK = 16 * 1024
_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"


@dataclass
class Faults:
    """What goes wrong, and what has passed so far; tests change it while requests are under way.

    Attributes:
        refuse: status codes that the next GETs are answered with.
        close_after: bytes of a body after which the connection is closed.
        reset_after: bytes of a body after which the connection is cut off.
        stall_once_after: bytes of a body after which one answer says no more.
        hold_after: bytes of all bodies together after which everything waits for `release`.
        damage_at: the byte of the object that arrives inverted.
        drop_headers: of requests, lower case.
        before_get: called with the number of the GET, from 0, before it is passed on.
        served: bytes of bodies so far.
        gets: how many GETs there were.
    """

    refuse: deque[int] = field(default_factory=deque)
    close_after: int | None = None
    reset_after: int | None = None
    stall_once_after: int | None = None
    hold_after: int | None = None
    damage_at: int | None = None
    drop_headers: tuple[str, ...] = ()
    before_get: Callable[[int], None] = lambda number: None
    served: int = 0
    gets: int = 0
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)
    held: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)


@contextmanager
def faulty_proxy(upstream: str) -> Iterator[Faults]:
    """Pass requests on to `upstream`, with faults."""
    faults = Faults()
    place = urlsplit(upstream).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._pass_on()

        def do_GET(self) -> None:
            with faults.lock:
                number, faults.gets = faults.gets, faults.gets + 1
                status = faults.refuse.popleft() if faults.refuse else None
            faults.before_get(number)
            if status is None:
                self._pass_on()
                return
            self.send_response(status)
            self.send_header("Content-Length", str(len(_SLOW_DOWN)))
            self.end_headers()
            self.wfile.write(_SLOW_DOWN)

        def _pass_on(self) -> None:
            server = HTTPConnection(place)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in faults.drop_headers}
            server.request(self.command, self.path, headers=headers)
            answer = server.getresponse()
            body = answer.read()
            server.close()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("connection", "date", "server"):
                    self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self._send(body, start=int(self.headers.get("Range", "bytes=0-")[6:].partition("-")[0]))

        def _send(self, body: bytes, *, start: int) -> None:
            for at in range(0, len(body), _BLOCK):
                if faults.close_after is not None and at >= faults.close_after:
                    self.close_connection = True
                    return
                if faults.reset_after is not None and at >= faults.reset_after:
                    time.sleep(0.1)  # what was sent is read by then
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.connection.close()
                    raise ConnectionResetError
                if faults.stall_once_after is not None and at >= faults.stall_once_after:
                    faults.stall_once_after = None
                    faults.release.wait()
                if faults.hold_after is not None and faults.served >= faults.hold_after:
                    faults.held.set()
                    faults.release.wait()
                block = bytearray(body[at : at + _BLOCK])
                if faults.damage_at is not None and 0 <= faults.damage_at - start - at < len(block):
                    block[faults.damage_at - start - at] ^= 0xFF
                with faults.lock:  # before it is written: who got the last block may ask at once how many there were
                    faults.served += len(block)
                self.wfile.write(block)

        def handle(self) -> None:
            with suppress(ConnectionError):
                super().handle()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    faults.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield faults
    finally:
        faults.release.set()
        server.shutdown()
        thread.join()
        server.server_close()
