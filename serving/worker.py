"""How gunicorn's threads deal with connections: no client holds up another, and no request is forgotten."""

import logging
import selectors
import socket
import struct
import threading
import time
from contextlib import suppress
from functools import partial
from itertools import takewhile
from typing import Any

from gunicorn.http.errors import (
    ExpectationFailed,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
    UnsupportedTransferCoding,
)
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import TConn, ThreadWorker

STALLED_S = 10
"""A client is given up when its header is not there by then, when its body makes a thread wait for so long, or when it
takes nothing of its answer for so long."""
_LEAST_BYTES_S = 10_000
"""A body that comes at this pace makes nobody wait."""
_LONGEST_HEADER = 16_384
"""Bytes. The rest of a longer one is read by a thread."""

# status, type, title, detail of gunicorn's settings and the error, and the way out.
_REFUSED: dict[type[ParseException], tuple[int, str, str, str, str]] = {
    LimitRequestLine: (
        414,
        "address-too-long",
        "The address is too long",
        "With the method it may have {0.limit_request_line} characters.",
        "Send the question as a body, with POST.",
    ),
    LimitRequestHeaders: (
        431,
        "headers-too-large",
        "The headers are too large",
        "There may be {0.limit_request_fields}, of {0.limit_request_field_size} characters each.",
        "Send shorter headers, or fewer.",
    ),
    ExpectationFailed: (417, "expectation-failed", "The expectation cannot be met", "{1}.", "Leave the header out."),
    UnsupportedTransferCoding: (501, "not-implemented", "The body is coded", "{1}.", "Send it plain, or in chunks."),
}
_NO_REQUEST = (400, "malformed-request", "The request is not HTTP", "{1}.", "")


class ImpatientWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's gthread, which gives a thread to whoever connects, and for as long as that one likes; which waits for
    a client's end before it looks at any other, and forgets a request that it has read already.
    """  # noqa: D205 - one sentence

    def init_process(self) -> None:
        """Set the limit of sending before the application is loaded."""
        for listener in self.sockets:  # an accepted socket has what its listener has
            listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", STALLED_S, 0))
        logging.getLogger("gunicorn.error").addFilter(_in_a_line)
        super().init_process()

    def handle_exit(self, sig: int, frame: object) -> None:
        """Begin to end; whoever still has an answer to wait for then is killed, and what it counted must be written."""
        counters = getattr(self.wsgi, "extensions", {}).get("counters")
        if self.alive and counters:
            threading.Thread(target=counters.hurry).start()  # a signal interrupts this one wherever it is
        super().handle_exit(sig, frame)

    def enqueue_req(self, conn: TConn) -> None:
        """Let a connection wait until the header of its next request is there, which takes no thread."""
        if self.cfg.is_ssl:  # whose header nobody can read before a thread has decrypted it
            super().enqueue_req(conn)
            return
        conn.begun = bytearray()
        conn.timeout = time.monotonic() + STALLED_S
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def on_pending_socket_readable(self, conn: TConn, client: socket.socket) -> None:
        """Read on in a header; the connection gets a thread when that is whole, or will never be."""
        try:
            more = client.recv(_LONGEST_HEADER)
        except BlockingIOError:
            return
        except OSError:
            more = b""
        conn.begun += more
        if more and b"\r\n\r\n" not in conn.begun and len(conn.begun) < _LONGEST_HEADER:
            return
        self.poller.unregister(client)
        self.pending_conns.remove(conn)
        super().enqueue_req(conn)

    def murder_pending(self) -> None:
        """Give up those whose header does not come; nothing is said of those who never began one, as browsers do."""
        now = time.monotonic()
        for conn in takewhile(lambda conn: conn.timeout <= now, self.pending_conns):
            if conn.begun:
                self.log.warning(_STALLED)
        super().murder_pending()

    def handle(self, conn: TConn) -> Any:
        """Serve a connection's next request, and what it has sent besides; one that is not kept is closed here."""
        if self.cfg.is_ssl:
            return super().handle(conn)
        if not conn.initialized:
            conn.init()
            conn.parser.unreader = _Hurried(conn.sock)
        came, kept = conn.parser.unreader, bool(conn.begun)
        came.unread(bytes(conn.begun))
        while kept is True and came.buf.tell():  # the next one may have come along with a body that nobody wanted
            came.left_s = STALLED_S
            kept = super().handle(conn)
        if not kept:
            conn.close(graceful=True)
            conn.close = _closed
        return kept

    def handle_error(self, req: object, client: socket.socket, addr: Any, exc: Exception) -> None:
        """Answer what does not reach the application, in the shape of its own errors."""
        from serving.problems import internal, problem  # what it imports is for the process that answers

        if isinstance(exc, ParseException):
            self.log.warning("Invalid request from %s: %s", addr[0] if addr else "a socket", exc)
            status, kind, title, detail, fix = _REFUSED.get(type(exc), _NO_REQUEST)
            answer = problem(status, kind=kind, title=title, detail=detail.format(self.cfg, exc), fix=fix)
        else:
            self.log.error("Unexpected error", exc_info=exc)
            answer = internal()
        answer.headers["Connection"] = "close"
        head = "".join(f"{name}: {value}\r\n" for name, value in answer.headers)
        with suppress(OSError):
            client.sendall(f"HTTP/1.1 {answer.status}\r\n{head}\r\n".encode("latin-1") + answer.get_data())


class _Hurried(SocketUnreader):  # type: ignore[misc]  # gunicorn has no types
    """What a client sends; it is given up when a thread has waited too long, also when something drips in all the time.

    Attributes:
        left_s: how long a thread waits for more of this request; grows with what comes.
    """

    left_s: float = STALLED_S

    def chunk(self) -> bytes:
        if self.left_s <= 0:
            raise TimeoutError
        began, limit_s = time.monotonic(), self.sock.gettimeout()
        self.sock.settimeout(min(self.left_s, limit_s or self.left_s))
        try:
            data: bytes = super().chunk()
        finally:
            self.sock.settimeout(limit_s)
            self.left_s -= time.monotonic() - began
        self.left_s = min(self.left_s + len(data) / _LEAST_BYTES_S, STALLED_S)
        return data


_STALLED = f"A client stalled for {STALLED_S} s and was given up."


def _closed(graceful: bool = False) -> None:
    """What was closed is not closed again."""


def _in_a_line(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], BlockingIOError | TimeoutError):
        record.msg, record.args, record.exc_info = _STALLED, (), None
    return True
