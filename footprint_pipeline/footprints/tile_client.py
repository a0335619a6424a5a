"""Tiles of a provider over HTTP: asked for, asked again when it is busy, kept as it wishes, decoded.

What belongs here: one tile at a time. Which tiles a place needs is `xyz`'s business.

A tile URL can hold an access token. So no error, name, log line or provenance ever shows more of it than its
host and the tile's numbers.
"""

import logging
from dataclasses import replace

import numpy as np
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from footprint_pipeline.errors import ImageryError
from footprint_pipeline.footprints.cache_headers import freshness, speaks_of_age
from footprint_pipeline.footprints.discretion import be_discreet
from footprint_pipeline.footprints.mercator import Tile
from footprint_pipeline.footprints.patch import decode_image
from footprint_pipeline.footprints.tile_cache import Entry, TileCache
from footprint_pipeline.footprints.tile_urls import TileTemplate

TIMEOUT_S = (5.0, 10.0)
PARALLEL = 8
NOTHING_S = 3600.0
"""How long at most it is remembered that there is no imagery at a tile."""
_FOR_ANYONE = {"user-agent", "referer", "accept", "accept-language"}
"""Headers that whoever is redirected to may see."""
PAUSE_S = 30.0
"""How long a provider that failed is left alone where kept tiles can stand in."""

_log = logging.getLogger(__name__)


class TileClient:
    """Decoded tiles of a provider. Safe to use from several threads.

    Args:
        template: where the tiles are.
        name: what to call the provider.
        headers: sent with every request.
        retries: tries after the first, with growing pauses, when the provider is busy or broken.
        cache: where tiles are kept.
        identity: what tells the source apart in the cache, beside its name; holds no secret.
    """

    def __init__(
        self,
        template: TileTemplate,
        *,
        name: str,
        headers: dict[str, str],
        retries: int,
        cache: TileCache,
        identity: str,
    ) -> None:
        self._template, self._name, self._cache = template, name, cache
        self._source = f"{name}\n{identity}"
        self._session = _session(headers, retries)
        self._asked_again_at = 0.0
        be_discreet(template.path_pattern())

    def kept(self, tile: Tile) -> Entry | None:
        """What is kept of a tile, where nobody need be asked for it; see `decoded`."""
        kept = self._cache.get(self._source, tile)
        return kept if kept is not None and self._serves(kept) else None

    def _serves(self, kept: Entry) -> bool:
        now = self._cache.clock()
        return kept.fresh(now) or (kept.stands_in(now) and now < self._asked_again_at)

    def image(self, tile: Tile) -> np.ndarray | None:
        """RGBA uint8 of a tile, shape (S, S, 4), or None where the provider has no imagery.

        Raises:
            ImageryError: the provider failed, and nothing that is kept may stand in.
        """
        now = self._cache.clock()
        kept = self._cache.get(self._source, tile)
        if kept is not None and self._serves(kept):
            return self.decoded(tile, kept.body)
        try:
            response = self._ask(tile, kept)
        except _FailedError as error:
            if kept is None or not kept.stands_in(now):
                raise
            if now >= self._asked_again_at:
                _log.warning("%s Tiles kept from before stand in for it.", error.problem)
            self._asked_again_at = now + PAUSE_S
            return self.decoded(tile, kept.body)
        if kept is not None and response.status_code == 304:
            return self.decoded(tile, self._keep(tile, response, kept).body)
        entry = Entry(b"" if response.status_code in (204, 404) else bytes(response.content), now, 0.0)
        if response.status_code == 200 and not entry.body:
            raise self._no_image(tile)
        image = self.decoded(tile, entry.body)
        self._keep(tile, response, entry)
        return image

    def _ask(self, tile: Tile, kept: Entry | None) -> requests.Response:
        """The provider's answer: a tile, none, or that the one kept is still good."""
        where = f"{self._name}: tile {tile.z}/{tile.x}/{tile.y}"
        headers = {}
        if kept is not None:
            said = {"If-None-Match": kept.etag, "If-Modified-Since": kept.modified}
            headers = {name: value for name, value in said.items() if value}
        try:
            response = self._session.get(self._template.url(tile), headers=headers, timeout=TIMEOUT_S)
        except (requests.RequestException, ValueError) as error:  # ValueError: redirected to what is no address
            raise _FailedError(
                f"{where} cannot be fetched ({type(error).__name__}).", fix="Check the network, then try again."
            ) from None
        status = response.status_code
        if status in (200, 204, 404) or (status == 304 and headers):
            return response
        if status in (401, 403):
            raise ImageryError(f"{where} is refused (HTTP {status}).", fix="Check the access token.")
        kind = _FailedError if status == 429 or status >= 500 else ImageryError
        raise kind(f"{where} answers HTTP {status}.", fix="Try again later.")

    def _keep(self, tile: Tile, response: requests.Response, entry: Entry) -> Entry:
        """Put a tile into the cache for as long as the answer allows, and return it as it is kept."""
        headers = response.headers
        allowed = freshness(headers)
        if allowed is None:
            return entry
        if response.status_code == 304 and not speaks_of_age(headers):
            entry = replace(entry, checked=self._cache.clock())
        else:
            entry = replace(
                entry,
                checked=self._cache.clock(),
                lifetime_s=allowed.lifetime_s if entry.body else min(allowed.lifetime_s, NOTHING_S),
                grace_s=allowed.grace_s if entry.body else 0.0,
                etag=headers.get("ETag", entry.etag),
                modified=headers.get("Last-Modified", entry.modified),
            )
        self._cache.put(self._source, tile, entry)
        return entry

    def decoded(self, tile: Tile, body: bytes) -> np.ndarray | None:
        """As `image`, of what a provider answered."""
        if not body:
            return None
        decoded = decode_image(body)
        if decoded is None or decoded[0].dtype != np.uint8 or decoded[0].shape[0] != decoded[0].shape[1]:
            raise self._no_image(tile)
        pixels, opaque = decoded
        return np.dstack([pixels, opaque.astype(np.uint8) * 255])

    def _no_image(self, tile: Tile) -> ImageryError:
        return ImageryError(
            f"{self._name}: tile {tile.z}/{tile.x}/{tile.y} is not a square 8-bit image.",
            fix="Check the imagery template.",
        )


class _FailedError(ImageryError):
    """The provider is down or busy; what was kept may stand in."""


class _Session(requests.Session):  # type: ignore[misc]  # requests has no types
    """A session whose own headers, which may hold a key, are for the host that it asks alone: redirects lead away."""

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__()
        self._private = [name for name in headers if name.lower() not in _FOR_ANYONE]
        self.headers.update({"User-Agent": "footprint-pipeline", **headers})

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        super().rebuild_auth(prepared_request, response)
        if self.should_strip_auth(response.request.url, prepared_request.url):
            for name in self._private:
                prepared_request.headers.pop(name, None)


def _session(headers: dict[str, str], retries: int) -> requests.Session:
    session = _Session(headers)
    retry = Retry(
        retries,
        read=min(retries, 1),  # who lets us wait will do so again
        backoff_factor=0.2,
        status_forcelist=(429, 500, 502, 503, 504),
        raise_on_status=False,
        respect_retry_after_header=False,
    )
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=PARALLEL, max_retries=retry))
    return session
