"""Fetching an image that a client names, without becoming a door into the operator's network.

Only hosts that the operator lists, only public addresses (unless the listed host is a loopback one), the
connection pinned to the address that was checked, no redirects, no proxies, and limits on bytes and time.
"""

import io
import ipaddress
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, IncompleteRead
from string import punctuation
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

from requests import certs

from footprint_pipeline.errors import ImageryError, RequestError
from serving.encoded_image import MAX_BYTES

TIMEOUT_S = 20.0
_LAST_32_BITS = (ipaddress.ip_network("::/96"), ipaddress.ip_network("64:ff9b::/96"))
"""IPv6 networks whose addresses end in the IPv4 address that they lead to: compatible ones, and those of NAT64."""
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class ForbiddenUrlError(RequestError):
    """The operator does not allow this URL."""


def fetch_image(url: str, *, hosts: frozenset[str]) -> bytes:
    """The image behind a URL, encoded and not looked at yet.

    Args:
        url: http or https.
        hosts: the hosts it may name, lower case.

    Raises:
        ForbiddenUrlError: the scheme, the host or its address is not allowed.
        RequestError: what comes back is no file, or too large.
        ImageryError: the host does not answer, or not in time.
    """
    parts, port = _allowed(url, hosts)
    return _download(parts, _addresses(parts, port), port)


def _allowed(url: str, hosts: frozenset[str]) -> tuple[SplitResult, int]:
    if not hosts:
        raise ForbiddenUrlError(
            "image_url is turned off.", fix="The operator can list hosts in FOOTPRINT_IMAGE_URL_HOSTS."
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ForbiddenUrlError("image_url is not a URL.", fix="Give an http or https URL.") from None
    if parts.scheme not in ("http", "https") or parts.username is not None or not parts.hostname:
        raise ForbiddenUrlError(
            "image_url is not an http or https URL without credentials.", fix="Give an http or https URL."
        )
    if parts.hostname not in hosts:
        raise ForbiddenUrlError(
            f"image_url: the host {parts.hostname} is not allowed.",
            fix="The operator can add it to FOOTPRINT_IMAGE_URL_HOSTS.",
        )
    return parts, port or (443 if parts.scheme == "https" else 80)


def _addresses(parts: SplitResult, port: int) -> list[str]:
    host = parts.hostname or ""
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        raise ImageryError(f"image_url: the host {host} is not known.", fix="Check the URL.") from None
    addresses = [str(answer[4][0]) for answer in answers]
    if host not in LOOPBACK and not all(_is_public(address) for address in addresses):
        raise ForbiddenUrlError(
            f"image_url: {host} is not a public address.",
            fix="Only public hosts, or localhost itself, can be allowed by FOOTPRINT_IMAGE_URL_HOSTS.",
        )
    return addresses


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    led_to = _carried(ip) or ip
    return led_to.is_global and not led_to.is_multicast


def _carried(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address leads to: mapped, compatible, 6to4 or NAT64."""
    if isinstance(ip, ipaddress.IPv4Address):
        return None
    if any(ip in network for network in _LAST_32_BITS):
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour


def _download(parts: SplitResult, addresses: Sequence[str], port: int) -> bytes:
    host = parts.hostname or ""
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    deadline = time.monotonic() + TIMEOUT_S
    try:
        with _connected(parts, addresses, port, deadline) as connection:
            asking = HTTPConnection(host, port)
            asking.sock = _Hurried(connection, deadline)
            headers = {"Host": parts.netloc, "User-Agent": "footprint-pipeline"}
            asking.request("GET", quote(target, safe=punctuation), headers=headers)
            response = asking.getresponse()
            if response.status != 200:
                raise RequestError(
                    f"image_url: {host} answers HTTP {response.status}.",
                    fix="Give the URL of the image itself; redirects are not followed.",
                )
            encoded = response.read(MAX_BYTES + 1)
            if len(encoded) > MAX_BYTES:
                raise RequestError(
                    f"image_url: the image has more than {MAX_BYTES // 2**20} MiB.", fix="Give a smaller image."
                )
            if response.length:
                raise IncompleteRead(encoded, response.length)
    except TimeoutError:
        raise ImageryError(f"image_url: {host} takes more than {TIMEOUT_S:g} s.", fix="Try again.") from None
    except (OSError, HTTPException, ValueError) as error:
        raise ImageryError(
            f"image_url: {host} cannot be reached ({type(error).__name__}).", fix="Check the URL."
        ) from None
    return encoded


@contextmanager
def _connected(parts: SplitResult, addresses: Sequence[str], port: int, deadline: float) -> Iterator[socket.socket]:
    """A connection to the first of the addresses that answers; over https, the certificate must be the host's."""
    with _first_that_answers(addresses, port, deadline) as connection:
        if parts.scheme == "http":
            yield connection
            return
        tls = ssl.create_default_context(cafile=certs.where())
        connection.settimeout(_left(deadline))
        with tls.wrap_socket(connection, server_hostname=parts.hostname) as secured:
            yield secured


def _first_that_answers(addresses: Sequence[str], port: int, deadline: float) -> socket.socket:
    for number, address in enumerate(addresses):
        share_s = _left(deadline) / (len(addresses) - number)  # one that is silent leaves time for the others
        try:
            return socket.create_connection((address, port), timeout=share_s)
        except OSError as error:
            failure = error
    try:
        raise failure
    finally:
        del failure  # it keeps this frame; the frame must not keep it


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _Hurried(io.RawIOBase):
    """A connection for `http.client` that is given up at a deadline, also when something drips in all the time."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection, self._deadline = connection, deadline

    def sendall(self, request: bytes) -> None:
        self._connection.sendall(request)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(_left(self._deadline))
        return self._connection.recv_into(buffer)

    def close(self) -> None:
        """Left to whoever connected: `http.client` closes it before the body is read."""
