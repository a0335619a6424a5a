"""What the service makes of servers that do not say where an alias points; those that do are in `end_to_end`."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from footprint_pipeline.versions import Pointed
from serving.champion import told_version

ANSWERS = {
    "moved": (200, b'{"model_version": {"version": 7, "tags": [{"key": "exports", "value": "exports/0a1b2c3d4e"}]}}'),
    "plain": (200, b'{"model_version": {"version": "7", "run_id": "0123456789abcdef"}}'),
    "refused": (401, b"Who are you?"),
    "nobody": (404, b'{"error_code": "RESOURCE_DOES_NOT_EXIST"}'),
    "page": (200, b"<html>Sign in</html>"),
    "list": (200, b"[]"),
    "empty": (200, b'{"model_version": null}'),
    "less": (200, b'{"model_version": {}}'),
    "bytes": (200, b"\xff\xfe"),
}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Answers by the name of the alias, under a path of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            alias = query.rpartition("alias=")[2]
            known = path == "/mlflow/api/2.0/mlflow/registered-models/alias" and "name=my+model" in query
            status, body = ANSWERS[alias] if known else (500, b"")
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/mlflow"
        running.shutdown()


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_server_tells_the_version(server: str, slash: str) -> None:
    assert told_version(server + slash, "my model", "plain") == Pointed("7", "7-01234567")
    assert told_version(server + slash, "my model", "moved") == Pointed("7", "7-0a1b2c3d")


@pytest.mark.parametrize("alias", sorted(set(ANSWERS) - {"moved", "plain"}))
def test_what_a_server_does_not_tell_is_left_to_mlflow_s_client(server: str, alias: str) -> None:
    assert told_version(server, "my model", alias) is None


def test_so_is_what_is_no_server_at_all() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = free.getsockname()[1]
    for where in (
        "sqlite:///mlflow.db",
        f"http://127.0.0.1:{closed}",
        f"http://me:hunter2@127.0.0.1:{closed}",
        "http://",
    ):
        assert told_version(where, "my model", "champion") is None
