"""How gunicorn's threads deal with connections: no client holds up another, and no request is forgotten."""

import logging
import socket
import struct
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

STALLED_S = 10
"""A client that sends, or takes, nothing for so long in the midst of a request is given up: it holds a thread."""


class ImpatientWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's gthread, whose sockets would wait for ever, which waits for a client's end before it looks at any
    other, and which forgets a request that it has read already.
    """  # noqa: D205 - one sentence

    def init_process(self) -> None:
        """Set the limits before the application is loaded."""
        for listener in self.sockets:  # an accepted socket has what its listener has
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                listener.sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", STALLED_S, 0))
        logging.getLogger("gunicorn.error").addFilter(_in_a_line)
        super().init_process()

    def handle(self, conn: TConn) -> Any:
        """Serve a connection's next request, and what it has sent besides; one that is not kept is closed here."""
        kept = super().handle(conn)
        while kept is True and conn.parser.unreader.buf.tell():  # it came along with a body that nobody wanted to read
            kept = super().handle(conn)
        if not kept:
            conn.close(graceful=True)
            conn.close = _closed
        return kept


def _closed(graceful: bool = False) -> None:
    """What was closed is not closed again."""


def _in_a_line(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], BlockingIOError):
        record.msg, record.args, record.exc_info = f"A client stalled for {STALLED_S} s and was given up.", (), None
    return True
