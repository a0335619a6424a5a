import socket
import threading
import time
import weakref
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flask.testing import FlaskClient

from footprint_pipeline.errors import ImageryError
from footprint_pipeline.footprints.geotiff import GeoTiffImagery
from footprint_pipeline.settings import Settings
from footprint_pipeline_tests.footprints.red_city import Answers, http_server, png
from footprint_pipeline_tests.serving.test_problems import assert_problem
from serving import remote_image
from serving.admission import Admission
from serving.app import create_app
from serving.model_store import ModelStore

PICTURE = np.full((70, 90, 3), 100, np.uint8)
PICTURE[20:40, 30:60] = (255, 0, 0)


@pytest.fixture
def open_client(store: ModelStore, city: GeoTiffImagery) -> FlaskClient:
    settings = Settings(image_url_hosts="127.0.0.1, Images.Example.com")
    return create_app(settings, store=store, imagery=city).test_client()


def ask(client: FlaskClient, url: str):
    return client.post("/predict/mask", json={"image_url": url})


def serve(body: bytes, status: int = 200) -> Answers:
    answers = Answers()
    answers["/a.png"] = (status, body)
    return answers


@pytest.mark.parametrize("kind", [".png", ".jpg", ".tif", ".webp"])
def test_an_image_is_answered_in_its_own_size(open_client: FlaskClient, kind: str) -> None:
    body = cv2.imencode(kind, PICTURE[..., ::-1])[1].tobytes()
    with http_server(serve(body)) as server:
        answer = ask(open_client, f"{server.address}/a.png")
    assert answer.status_code == 200
    mask = cv2.imdecode(np.frombuffer(answer.data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (70, 90)
    assert (mask[22:38, 32:58] > 200).all()
    assert (mask[:15] < 20).all()
    assert answer.headers["X-Model-Version"] == "3"
    assert "X-Imagery-Attribution" not in answer.headers


def test_it_is_off_unless_the_operator_lists_hosts(client: FlaskClient) -> None:
    problem = assert_problem(ask(client, "https://images.example.com/a.png"), 403, "turned off")
    assert "FOOTPRINT_IMAGE_URL_HOSTS" in problem["fix"]


@pytest.mark.parametrize(
    "url",
    [
        "https://elsewhere.example.com/a.png",
        "https://images.example.com.evil.org/a.png",
        "https://evilimages.example.com/a.png",
        "https://evil.images.example.com/a.png",
        "https://images.example.com@evil.org/a.png",
        "https://user:pw@images.example.com/a.png",
        "http://localhost/a.png",
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "ftp://images.example.com/a.png",
        "gopher://127.0.0.1/",
        "//images.example.com/a.png",
        "http://127.0.0.1:99999/a.png",
        "images.example.com",
        "http://[::1/a.png",
        "",
    ],
)
def test_other_urls_are_forbidden(open_client: FlaskClient, url: str) -> None:
    assert_problem(ask(open_client, url), 403)


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "192.168.1.1",
        "::1",
        "fe80::1%eth0",
        "::ffff:10.0.0.1",
        "::10.0.0.1",
        "64:ff9b::a00:1",
        "2002:7f00:1::",
        "100.64.0.1",
        "224.0.0.1",
        "ff0e::1",
    ],
)
def test_a_listed_host_must_be_public(open_client: FlaskClient, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    def resolve(host: str, port: int, **_: object) -> list[tuple]:
        assert host == "images.example.com"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ("93.184.215.14", address)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    problem = assert_problem(ask(open_client, "http://images.example.com/a.png"), 403, "not a public address")
    assert address not in str(problem)


def test_the_connection_goes_to_the_address_that_was_checked(
    open_client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is resolved once: a second answer that differs (DNS rebinding) has no chance."""
    with http_server(serve(png(PICTURE))) as server:
        port = int(server.address.rsplit(":", 1)[1])
        real, names = socket.getaddrinfo, []

        def resolve(host: str, *args: object, **options: object) -> list[tuple]:
            names.append(host)
            return real("127.0.0.1" if host == "images.example.com" else host, *args, **options)

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        monkeypatch.setattr(remote_image, "_is_public", lambda address: True)
        assert ask(open_client, f"http://images.example.com:{port}/a.png").status_code == 200
    assert names.count("images.example.com") == 1
    assert server.asked[0][1]["Host"] == f"images.example.com:{port}"


def test_a_host_is_reached_by_whichever_of_its_addresses_answers(
    open_client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with http_server(serve(png(PICTURE))) as server:
        port = int(server.address.rsplit(":", 1)[1])
        monkeypatch.setattr(remote_image, "_addresses", lambda parts, port: ["127.0.0.2", "127.0.0.1"])
        assert ask(open_client, f"http://images.example.com:{port}/a.png").status_code == 200
        monkeypatch.setattr(remote_image, "_addresses", lambda parts, port: ["127.0.0.2", "127.0.0.3"])
        assert_problem(ask(open_client, f"http://images.example.com:{port}/a.png"), 502, "ConnectionRefusedError")


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"])
def test_public_is_public_in_whatever_form(address: str) -> None:
    assert remote_image._is_public(address)


@pytest.mark.parametrize(("certified", "status"), [("images.example.com", 200), ("elsewhere.example.com", 502)])
def test_over_https_the_pinned_host_must_prove_its_name(
    open_client: FlaskClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, certified: str, status: int
) -> None:
    certificate = self_signed(certified, tmp_path / "host.pem")
    monkeypatch.setattr(remote_image.certs, "where", lambda: str(certificate))
    monkeypatch.setattr(remote_image, "_is_public", lambda address: True)
    monkeypatch.setattr(remote_image, "_addresses", lambda parts, port: ["127.0.0.1"])
    with http_server(serve(png(PICTURE)), certificate=certificate) as server:
        port = server.address.rsplit(":", 1)[1]
        assert ask(open_client, f"https://images.example.com:{port}/a.png").status_code == status


def self_signed(host: str, path: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(certificate.public_bytes(pem) + key.private_bytes(pem, pkcs8, plain))
    return path


def test_unknown_and_silent_hosts_are_502(open_client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    assert_problem(ask(open_client, f"http://127.0.0.1:{port}/a.png"), 502, "cannot be reached")

    def resolve(*_: object, **__: object) -> None:
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert_problem(ask(open_client, "http://images.example.com/a.png"), 502, "not known")


def test_redirects_are_not_followed(open_client: FlaskClient) -> None:
    class Redirecting(Answers):
        def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
            return 302, b"", {"Location": "http://169.254.169.254/"}

    with http_server(Redirecting()) as server:
        problem = assert_problem(ask(open_client, f"{server.address}/a.png"), 422, "HTTP 302")
    assert "redirects" in problem["fix"]


@pytest.mark.parametrize("body", [b"", b"<html>", png(PICTURE)[:200], b'<VRTDataset rasterXSize="9" rasterYSize="9"/>'])
def test_what_is_no_image_is_422(open_client: FlaskClient, body: bytes) -> None:
    with http_server(serve(body)) as server:
        assert_problem(ask(open_client, f"{server.address}/a.png"), 422, "not an image")


def test_large_images_are_422(open_client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = png(np.zeros((4200, 4200, 3), np.uint8))
    with http_server(serve(bomb)) as server:
        assert_problem(ask(open_client, f"{server.address}/a.png"), 422, "17,640,000 px")
        monkeypatch.setattr(remote_image, "MAX_BYTES", 1000)
        assert_problem(ask(open_client, f"{server.address}/a.png"), 422, "MiB")


def test_a_host_that_dawdles_is_given_up(open_client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Answers):
        def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
            time.sleep(0.3)
            return 200, png(PICTURE), {}

    monkeypatch.setattr(remote_image, "TIMEOUT_S", 0.1)
    with http_server(Slow()) as server:
        assert_problem(ask(open_client, f"{server.address}/a.png"), 502, "takes more than")


@pytest.mark.parametrize("start", [b"", b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\nContent-Length: 99\r\n\r\n"])
def test_a_host_that_drips_is_given_up_too(
    open_client: FlaskClient, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    monkeypatch.setattr(remote_image, "TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                connection.sendall(start)
                for _ in range(200):
                    connection.sendall(b"x")
                    time.sleep(0.05)

        threading.Thread(target=drip, daemon=True).start()
        started = time.monotonic()
        assert_problem(ask(open_client, f"http://127.0.0.1:{server.getsockname()[1]}/a.png"), 502, "takes more than")
    assert time.monotonic() - started < 5


def test_what_breaks_off_is_no_image(open_client: FlaskClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def break_off() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 9999\r\n\r\n" + png(PICTURE))

        threading.Thread(target=break_off, daemon=True).start()
        answer = ask(open_client, f"http://127.0.0.1:{server.getsockname()[1]}/a.png")
    assert_problem(answer, 502, "IncompleteRead")


def test_an_image_is_fetched_before_its_turn_and_decoded_in_it(store: ModelStore, city: GeoTiffImagery) -> None:
    admission = Admission(0, at_a_time=1)
    settings = Settings(image_url_hosts="127.0.0.1")
    client = create_app(settings, store=store, imagery=city, admission=admission).test_client()
    store.current()  # loaded
    admission.enter()
    with http_server(serve(b"<html>")) as server:
        assert_problem(ask(client, f"{server.address}/a.png"), 503)
        assert len(server.asked) == 1
        admission.leave(0.1)
        assert_problem(ask(client, f"{server.address}/a.png"), 422)


def test_deep_pictures_need_a_model_that_knows_them(open_client: FlaskClient, tmp_path: Path) -> None:
    deep = cv2.imencode(".png", PICTURE.astype(np.uint16) * 200)[1].tobytes()
    with http_server(serve(deep)) as server:
        assert_problem(ask(open_client, f"{server.address}/a.png"), 502, "uint16")


@pytest.mark.usefixtures("no_collector")
def test_a_failure_to_connect_keeps_nothing_of_the_request() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/a.png"
    hosts = frozenset({"127.0.0.1"})
    gone = weakref.ref(hosts)
    with pytest.raises(ImageryError, match="cannot be reached"):
        remote_image.fetch_image(address, hosts=hosts)
    del hosts
    assert gone() is None


def test_an_address_that_is_silent_leaves_time_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, float] = {}

    def connect(address: tuple[str, int], timeout: float) -> object:
        given[address[0]] = timeout
        if len(given) < 3:
            raise TimeoutError
        return "connected"

    monkeypatch.setattr(socket, "create_connection", connect)
    addresses = ["93.184.215.14", "93.184.215.15", "93.184.215.16"]
    assert remote_image._first_that_answers(addresses, 80, time.monotonic() + 12.0) == "connected"
    assert list(given.values()) == pytest.approx([4.0, 6.0, 12.0], abs=0.1)
