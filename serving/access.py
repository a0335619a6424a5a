"""Who may ask, and how often; which pages may; what browsers may do with an answer. Predictions know nothing of it."""

import hashlib
import hmac
import math
import threading
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from flask import Flask, Response, g, request

from footprint_pipeline.errors import FootprintError
from footprint_pipeline.settings import comma_separated

OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/docs", "/openapi.json"})
"""What answers without a key: whether it is alive, and what there is to ask; beside it, what the map is made of."""
_MAP = "/map/"

_NEVER = dict.fromkeys(("base-uri", "form-action", "frame-ancestors"), "'none'")
_TOLD_TO_PAGES = (
    "Content-Disposition, ETag, Retry-After, Server-Timing, X-Imagery-Attribution, X-Model-Version, X-Out-Of-Domain"
)


class KeyNeededError(FootprintError):
    """A request brings no key, or one that is not known."""


class TooManyRequestsError(FootprintError):
    """A key has asked more than it may.

    Args:
        problem: how much it may.
        retry_after_s: when to ask again, seconds.
    """

    def __init__(self, problem: str, *, retry_after_s: int) -> None:
        super().__init__(problem, fix=f"Ask again in {retry_after_s} s.")
        self.retry_after_s = retry_after_s


class ForeignNameError(FootprintError):
    """A request reaches the service by a name that leads elsewhere, as far as anybody knows."""


class ForeignPageError(FootprintError):
    """A page of elsewhere has a browser send what it may not."""


class Keys:
    """The keys that open the service; kept as digests.

    Args:
        keys: any of them opens; when there is none, it is open.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def owner(self, brought: str | None) -> int:
        """Which of the keys was brought; 0 where none is needed. Takes as long for any wrong one.

        Raises:
            KeyNeededError: there are keys, and it is none of them.
        """
        if not self._digests:
            return 0
        digest = _digest(brought or "")
        same = [hmac.compare_digest(digest, known) for known in self._digests]
        if True not in same:
            raise KeyNeededError(
                "The key is not known." if brought else "A key is needed.",
                fix="Send 'Authorization: Bearer KEY' or 'X-API-Key: KEY' with one of the operator's keys.",
            )
        return same.index(True)


class RateLimit:
    """So many requests a minute of each key: as many at once, then one whenever its share of the minute is over.

    Args:
        per_minute: how many; any number when None.
        clock: seconds that never run backwards.
    """

    def __init__(self, per_minute: int | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._left: dict[int, tuple[float, float]] = {}

    def spend(self, owner: int) -> None:
        """Count a request of a key.

        Raises:
            TooManyRequestsError: it has none left.
        """
        if self._per_minute is None:
            return
        with self._lock:
            now = self._clock()
            left, since = self._left.get(owner, (float(self._per_minute), now))
            left = min(float(self._per_minute), left + (now - since) * self._per_minute / 60)
            if left < 1:
                self._left[owner] = left, now
                raise TooManyRequestsError(
                    f"{self._per_minute} requests a minute are the most for one key.",
                    retry_after_s=math.ceil((1 - left) * 60 / self._per_minute),
                )
            self._left[owner] = left - 1, now


def is_open(path: str) -> bool:
    """Whether a path answers without a key."""
    return path in OPEN_PATHS or path.startswith(_MAP)


def guard(app: Flask, keys: Keys, rate: RateLimit) -> None:
    """Ask every request for its key, and count it, except where it is only about what there is."""

    @app.before_request
    def check() -> None:
        preflight = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        if preflight or is_open(request.path):
            return
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        bearer = token.strip() if scheme.lower() == "bearer" else None
        rate.spend(keys.owner(bearer or request.headers.get("X-API-Key")))


def keep_to_this_machine(app: Flask, origins: str) -> None:
    """Answer who is on this machine, but not what pages of elsewhere have its browsers ask: no key tells them apart.

    Such a page can let a name of its own lead to this machine, and reads the answers as its own. So only addresses are
    answered, and names without a dot, which nobody can register: localhost, and those of containers.

    Args:
        app: the service.
        origins: whose pages may ask all the same; as for `allow_origins`.
    """
    allowed = _listed(origins)

    @app.before_request
    def check() -> None:
        host = request.headers.get("Host", "")
        if not _is_near(host):
            raise ForeignNameError(
                f"Without keys this service is not asked by the name {host[:100]}.",
                fix="Ask http://localhost or an IP address. The operator can set FOOTPRINT_API_KEYS, or "
                "FOOTPRINT_OPEN=true if a proxy asks for a password.",
            )
        asks_only = request.method in ("GET", "HEAD", "OPTIONS")
        if asks_only or request.headers.get("Sec-Fetch-Site") != "cross-site":
            return
        origin = request.headers.get("Origin", "")
        if not {"*", origin} & allowed:
            raise ForeignPageError(
                f"A page of {origin[:100] or 'elsewhere'} may not send this.",
                fix="The operator can add its origin to FOOTPRINT_CORS_ORIGINS.",
            )


def allow_origins(app: Flask, origins: str) -> None:
    """Let pages of other origins ask from a browser.

    Args:
        app: the service.
        origins: comma-separated, as in `https://maps.example.org`; * for all; none when empty.
    """
    allowed = _listed(origins)
    if not allowed:
        return

    @app.after_request
    def allow(response: Response) -> Response:
        response.vary.add("Origin")
        origin = request.headers.get("Origin")
        if origin is None or not ("*" in allowed or origin in allowed):
            return response
        response.headers["Access-Control-Allow-Origin"] = "*" if "*" in allowed else origin
        response.headers["Access-Control-Expose-Headers"] = _TOLD_TO_PAGES
        if request.method == "OPTIONS":
            response.headers["Access-Control-Allow-Methods"] = response.headers.get("Allow", "GET, POST, OPTIONS")
            response.headers["Access-Control-Allow-Headers"] = (
                "Accept, Authorization, Content-Type, If-None-Match, X-API-Key"
            )
            response.headers["Access-Control-Max-Age"] = "600"
        return response


def harden(app: Flask) -> None:
    """Tell browsers to take answers for what they are, and pages to load nothing but what `g.allowed` says."""

    @app.after_request
    def tell(response: Response) -> Response:
        response.headers["X-Content-Type-Options"] = "nosniff"
        if response.mimetype == "text/html":
            policy = {"default-src": "'none'", **g.get("allowed", {}), **_NEVER}
            response.headers["Content-Security-Policy"] = "; ".join(f"{what} {where}" for what, where in policy.items())
            response.headers["Referrer-Policy"] = "no-referrer"
            response.headers["X-Frame-Options"] = "DENY"
        return response


def _is_near(host: str) -> bool:
    try:
        ip_address(urlsplit(f"//{host}").hostname or "")
    except ValueError:  # no address
        return "." not in host
    return True


def _listed(origins: str) -> frozenset[str]:
    return frozenset(origin.rstrip("/") for origin in comma_separated(origins))


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
