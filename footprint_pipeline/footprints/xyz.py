"""Imagery from slippy-map tiles: any XYZ template, and Mapbox satellite.

A tile URL can hold an access token. So no error, name, log line or provenance ever shows more of it than its
host and the tile's numbers.
"""

import logging
import math
import re
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from urllib.parse import urlsplit

import cv2
import numpy as np
import requests
from pydantic import SecretStr
from rasterio.enums import Resampling
from rasterio.transform import from_bounds
from rasterio.warp import reproject
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from footprint_pipeline.errors import ImageryError, SettingsError
from footprint_pipeline.footprints.mercator import HALF_WORLD, Bounds, Tile, tile_side, tiles_covering
from footprint_pipeline.footprints.patch import Patch, decode_image, no_imagery

TIMEOUT_S = (5.0, 20.0)
CACHED_TILES = 512
PARALLEL = 8

MAPBOX = "https://api.mapbox.com/v4/mapbox.satellite/{z}/{x}/{y}@2x.png?access_token="


class XyzImagery:
    """Tiles behind a `{z}/{x}/{y}` URL template. Safe to read from several threads.

    Reads the coarsest zoom that is no coarser than the grid asked for, as far as the zooms reach. Tiles may
    be of any square size, usually 256 or 512 px. A tile that answers 404 or 204 has no imagery.

    Args:
        template: URL with `{z}`, `{x}` and `{y}`.
        headers: sent with every request.
        min_zoom: coarsest zoom that is answered.
        max_zoom: finest zoom that is answered.
        attribution: whom to credit.
        name: what to call it; the template's host when None.
        tile_px: side of the tiles; seen from the first one when None.
        retries: tries after the first, with growing pauses, when the provider is busy or broken.

    Raises:
        SettingsError: the template lacks a placeholder, or is no http(s) URL.
    """

    extent_wgs84: Bounds | None = None

    def __init__(
        self,
        template: str,
        *,
        headers: dict[str, str] | None = None,
        min_zoom: int = 0,
        max_zoom: int = 19,
        attribution: str = "",
        name: str | None = None,
        tile_px: int | None = None,
        retries: int = 3,
    ) -> None:
        url = urlsplit(template)
        if url.scheme not in ("http", "https") or not all(part in template for part in ("{z}", "{x}", "{y}")):
            raise SettingsError(
                "The imagery template is not an http(s) URL with {z}, {x} and {y}.",
                fix="Set FOOTPRINT_IMAGERY to something like https://tiles.example.com/{z}/{x}/{y}.png.",
            )
        if min_zoom > max_zoom:
            raise SettingsError(
                f"The imagery's coarsest zoom {min_zoom} is beyond its finest, {max_zoom}.",
                fix="Set FOOTPRINT_IMAGERY_MIN_ZOOM and FOOTPRINT_IMAGERY_MAX_ZOOM.",
            )
        self.name = name or url.hostname or "XYZ"
        self.attribution = attribution
        self._template = SecretStr(template)
        self._zooms = (min_zoom, max_zoom)
        self._tile_px = tile_px
        self._session = _session(headers or {}, retries)
        self._pool = ThreadPoolExecutor(PARALLEL, thread_name_prefix="tiles")
        self._encoded = lru_cache(CACHED_TILES)(self._fetch)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def read(self, bounds_3857: Bounds, height: int, width: int) -> Patch:
        """Pixels of a rectangle on a grid of `height` × `width`; see `Imagery.read`."""
        zoom = self._zoom(bounds_3857, width)
        tiles = list(tiles_covering(bounds_3857, zoom))
        images = dict(zip(tiles, self._pool.map(self._image, tiles), strict=True))
        found = [image.shape[0] for image in images.values() if image is not None]
        if not found:
            raise no_imagery(self, bounds_3857)
        mosaic = _mosaic(images, max(found))
        warped = np.zeros((4, height, width), np.uint8)
        first, side = tiles[0].bounds_3857, tile_side(zoom)
        mosaic_bounds = Bounds(
            first.left,
            first.top - side * mosaic.shape[1] / max(found),
            first.left + side * mosaic.shape[2] / max(found),
            first.top,
        )
        reproject(
            mosaic,
            warped,
            src_transform=from_bounds(*mosaic_bounds, mosaic.shape[2], mosaic.shape[1]),
            dst_transform=from_bounds(*bounds_3857, width, height),
            src_crs="EPSG:3857",
            dst_crs="EPSG:3857",
            src_alpha=4,
            dst_alpha=4,
            resampling=Resampling.bilinear,
        )
        valid = warped[3] > 0
        if not valid.any():
            raise no_imagery(self, bounds_3857)
        return Patch(np.ascontiguousarray(warped[:3].transpose(1, 2, 0)), valid, f"{self.name}, zoom {zoom}")

    def _zoom(self, bounds_3857: Bounds, width: int) -> int:
        wanted = (bounds_3857.right - bounds_3857.left) / width

        def nearest(tile_px: int) -> int:
            exact = math.log2(2 * HALF_WORLD / tile_px / wanted)
            return min(max(math.ceil(exact - 0.01), self._zooms[0]), self._zooms[1])

        if self._tile_px is None:  # how large the tiles are shows in the first that is there
            tiles = list(tiles_covering(bounds_3857, nearest(256)))
            image = self._image(tiles[len(tiles) // 2])
            self._tile_px = None if image is None else image.shape[0]
        return nearest(self._tile_px or 256)

    def _image(self, tile: Tile) -> np.ndarray | None:
        """RGBA uint8 of a tile, shape (S, S, 4), or None where there is no imagery."""
        count = 2**tile.z
        if not 0 <= tile.y < count:
            return None
        encoded = self._encoded(Tile(tile.z, tile.x % count, tile.y))
        if encoded is None:
            return None
        decoded = decode_image(encoded)
        if decoded is None or decoded[0].dtype != np.uint8 or decoded[0].shape[0] != decoded[0].shape[1]:
            raise ImageryError(
                f"{self.name}: tile {tile.z}/{tile.x}/{tile.y} is not a square 8-bit image.",
                fix="Check the imagery template.",
            )
        pixels, opaque = decoded
        return np.dstack([pixels, opaque.astype(np.uint8) * 255])

    def _fetch(self, tile: Tile) -> bytes | None:
        where = f"{self.name}: tile {tile.z}/{tile.x}/{tile.y}"
        url = self._template.get_secret_value()
        for key, value in zip("zxy", tile, strict=True):
            url = url.replace(f"{{{key}}}", str(value))
        try:
            response = self._session.get(url, timeout=TIMEOUT_S)
        except requests.RequestException as error:
            raise ImageryError(
                f"{where} cannot be fetched ({type(error).__name__}).", fix="Check the network, then try again."
            ) from None
        if response.status_code in (204, 404):
            return None
        if response.status_code in (401, 403):
            raise ImageryError(f"{where} is refused (HTTP {response.status_code}).", fix="Check the access token.")
        if response.status_code != 200:
            raise ImageryError(f"{where} answers HTTP {response.status_code}.", fix="Try again later.")
        return bytes(response.content)


class MapboxImagery(XyzImagery):
    """Mapbox satellite, in 512-px tiles.

    Args:
        token: access token; stays secret.
        max_zoom: finest zoom to ask for.
        retries: see `XyzImagery`.
    """

    def __init__(self, token: SecretStr, *, max_zoom: int = 19, retries: int = 3) -> None:
        super().__init__(
            MAPBOX + token.get_secret_value(),
            max_zoom=max_zoom,
            attribution="© Mapbox © OpenStreetMap © Maxar",
            name="Mapbox satellite",
            tile_px=512,
            retries=retries,
        )


def _mosaic(images: dict[Tile, np.ndarray | None], side_px: int) -> np.ndarray:
    """RGBA uint8, shape (4, H, W), of neighbouring tiles; transparent where one is missing."""
    left, top = min(tile.x for tile in images), min(tile.y for tile in images)
    columns, rows = (max(tile[axis] for tile in images) - low + 1 for axis, low in ((1, left), (2, top)))
    mosaic = np.zeros((4, rows * side_px, columns * side_px), np.uint8)
    for tile, image in images.items():
        if image is not None:
            if image.shape[0] != side_px:
                image = cv2.resize(image, (side_px, side_px), interpolation=cv2.INTER_LINEAR)
            y, x = (tile.y - top) * side_px, (tile.x - left) * side_px
            mosaic[:, y : y + side_px, x : x + side_px] = image.transpose(2, 0, 1)
    return mosaic


class _WithoutQuery(logging.Filter):
    """Cuts query strings out of urllib3's own log lines: they can hold access tokens."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = re.sub(r"\?[^\s\"']*", "?…", record.getMessage()), ()
        return True


_without_query = _WithoutQuery()


def _session(headers: dict[str, str], retries: int) -> requests.Session:
    for logger in ("urllib3.connectionpool", "urllib3.util.retry"):
        logging.getLogger(logger).addFilter(_without_query)
    session = requests.Session()
    session.headers.update({"User-Agent": "footprint-pipeline", **headers})
    retry = Retry(
        retries,
        backoff_factor=0.2,
        status_forcelist=(429, 500, 502, 503, 504),
        raise_on_status=False,
        respect_retry_after_header=False,
    )
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=PARALLEL, max_retries=retry))
    return session
