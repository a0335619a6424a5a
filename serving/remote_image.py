"""Fetching an image that a client names, without becoming a door into the operator's network.

Only hosts that the operator lists, only public addresses (unless the listed host is a loopback one), the
connection pinned to the address that was checked, no redirects, no proxies, and limits on bytes, pixels and
time.
"""

import ipaddress
import socket
import time
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

import requests
from requests.adapters import HTTPAdapter

from footprint_pipeline.errors import ImageryError, RequestError
from footprint_pipeline.footprints.patch import Patch
from serving.encoded_image import MAX_BYTES, check_image, decode

TIMEOUT_S = 20.0
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class ForbiddenUrlError(RequestError):
    """The operator does not allow this URL."""


def fetch_image(url: str, *, hosts: frozenset[str]) -> Patch:
    """The image behind a URL.

    Args:
        url: http or https.
        hosts: the hosts it may name, lower case.

    Raises:
        ForbiddenUrlError: the scheme, the host or its address is not allowed.
        RequestError: what comes back is not an image, or too large.
        ImageryError: the host does not answer.
    """
    parts, port = _allowed(url, hosts)
    address = _address(parts, port)
    encoded = _download(parts, address, port)
    check_image(encoded, name="image_url")
    return decode(encoded, name="image_url", source=parts.hostname or "")


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


def _address(parts: SplitResult, port: int) -> str:
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
    return addresses[0]


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    return (mapped or ip).is_global and not ip.is_multicast


class _PinnedTls(HTTPAdapter):  # type: ignore[misc]
    """Connects to an address, but asks for and verifies the certificate of a host."""

    def __init__(self, host: str) -> None:
        self._host = host
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, server_hostname=self._host, assert_hostname=self._host, **options)


def _download(parts: SplitResult, address: str, port: int) -> bytes:
    host = parts.hostname or ""
    literal = f"[{address}]" if ":" in address else address
    pinned = urlunsplit((parts.scheme, f"{literal}:{port}", parts.path or "/", parts.query, ""))
    deadline = time.monotonic() + TIMEOUT_S
    encoded = bytearray()
    with requests.Session() as session:
        session.trust_env = False
        session.mount("https://", _PinnedTls(host))
        try:
            with session.get(
                pinned, headers={"Host": parts.netloc}, timeout=5, stream=True, allow_redirects=False
            ) as response:
                if response.status_code != 200:
                    raise RequestError(
                        f"image_url: {host} answers HTTP {response.status_code}.",
                        fix="Give the URL of the image itself; redirects are not followed.",
                    )
                for chunk in response.iter_content(64 * 1024):
                    encoded += chunk
                    if len(encoded) > MAX_BYTES:
                        raise RequestError(
                            f"image_url: the image has more than {MAX_BYTES // 2**20} MiB.", fix="Give a smaller image."
                        )
                    if time.monotonic() > deadline:
                        raise ImageryError(f"image_url: {host} takes more than {TIMEOUT_S:g} s.", fix="Try again.")
        except requests.RequestException as error:
            raise ImageryError(
                f"image_url: {host} cannot be reached ({type(error).__name__}).", fix="Check the URL."
            ) from None
    return bytes(encoded)
