"""Imagery from slippy-map tiles: any template of `tile_urls`, of which that of Mapbox satellite is one.

What belongs here: which tiles a grid needs, and how they are put together. How one is had is `tile_client`'s business.
"""

import math
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import cv2
import numpy as np

from footprint_pipeline.errors import ImageryError, SettingsError
from footprint_pipeline.footprints.mercator import (
    HALF_WORLD,
    Bounds,
    Tile,
    ground_scale,
    tile_side,
    tiles_covering,
)
from footprint_pipeline.footprints.patch import Patch, no_imagery
from footprint_pipeline.footprints.tile_cache import TileCache
from footprint_pipeline.footprints.tile_client import PARALLEL, TileClient
from footprint_pipeline.footprints.tile_urls import TileTemplate, without_secrets
from footprint_pipeline.footprints.warp import warp

MAPBOX = "https://api.mapbox.com/v4/mapbox.satellite/{z}/{x}/{y}@2x.png?access_token="
"""And then a token. Its tiles have 512 px."""
MAPBOX_ATTRIBUTION = "© Mapbox © OpenStreetMap © Maxar"
PATIENCE_S = 40.0
"""For all tiles of a rectangle; who waits for them has a turn that others wait for."""
_LEAST_TILE_PX = 64
"""A smaller image stands for a tile that there is not."""


class XyzImagery:
    """Tiles behind a URL template. Safe to read from several threads.

    Reads the coarsest zoom that is no coarser than the grid asked for, as far as the zooms reach. Tiles may
    be of any square size, usually 256 or 512 px. A tile that answers 404 or 204 has no imagery.

    Args:
        template: URL with `{z}`, `{x}` and `{y}`, or in another form that `TileTemplate` knows.
        headers: sent with every request.
        min_zoom: coarsest zoom that is answered.
        max_zoom: finest zoom that is answered.
        attribution: whom to credit.
        name: what to call it; the template's host when None.
        tile_px: side of the tiles; seen from the first one when None.
        retries: tries after the first, with growing pauses, when the provider is busy or broken.
        subdomains: what `{s}` stands for.
        date: when the imagery was taken.
        cache: where tiles are kept; a little in memory when None.
        identity: the template by which the cache tells sources apart, if it is not to be that with every secret in
            place; the template itself when None. User, password and tokens of the query are left out of it.

    Raises:
        SettingsError: the template is none, or no zoom is left.
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
        subdomains: Sequence[str] = "abc",
        date: str | None = None,
        cache: TileCache | None = None,
        identity: str | None = None,
    ) -> None:
        urls = TileTemplate(template, subdomains=subdomains)
        if min_zoom > max_zoom:
            raise SettingsError(
                f"The imagery's coarsest zoom {min_zoom} is beyond its finest, {max_zoom}.",
                fix="Set FOOTPRINT_IMAGERY_MIN_ZOOM and FOOTPRINT_IMAGERY_MAX_ZOOM, or the source's min_zoom and "
                "max_zoom.",
            )
        self.name = name or urls.host
        self.attribution = attribution
        self.date = date
        self._zooms = (min_zoom, max_zoom)
        self._tile_px = tile_px
        self._client = TileClient(
            urls,
            name=self.name,
            headers=headers or {},
            retries=retries,
            cache=cache or TileCache(),
            identity=without_secrets(identity or template),
        )
        self._fetching = ThreadPoolExecutor(PARALLEL, thread_name_prefix="tiles")
        self._decoding = ThreadPoolExecutor(PARALLEL, thread_name_prefix="kept-tiles")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @property
    def zooms(self) -> tuple[int, int]:
        """Coarsest and finest zoom of 256-px map tiles; see `Imagery.zooms`. Larger tiles reach further down."""
        coarsest, finest = self._zooms
        return coarsest, min(finest + max(0, math.ceil(math.log2((self._tile_px or 256) / 256))), 24)

    def read(self, bounds_3857: Bounds, height: int, width: int) -> Patch:
        """Pixels of a rectangle on a grid of `height` × `width`; see `Imagery.read`."""
        zoom = self._zoom(bounds_3857, width)
        tiles = list(tiles_covering(bounds_3857, zoom))
        images = self._images(tiles)
        found = [image.shape[0] for image in images.values() if image is not None]
        if not found:
            raise no_imagery(self, bounds_3857)
        side_px, metres = max(found), tile_side(zoom) / max(found)
        corner = tiles[0].bounds_3857
        mosaic, there = _mosaic(images, side_px)
        centres = (
            (
                bounds_3857.left
                - corner.left
                + (np.arange(width) + 0.5) * (bounds_3857.right - bounds_3857.left) / width
            ),
            (
                corner.top
                - bounds_3857.top
                + (np.arange(height) + 0.5) * (bounds_3857.top - bounds_3857.bottom) / height
            ),
        )
        pixels, valid = warp(mosaic, there, *np.meshgrid(*((along / metres).astype(np.float32) for along in centres)))
        if not valid.any():
            raise no_imagery(self, bounds_3857)
        return Patch(
            pixels,
            valid,
            f"{self.name}, zoom {zoom}",
            gsd_m=metres * ground_scale(bounds_3857),
            date=self.date,
        )

    def _zoom(self, bounds_3857: Bounds, width: int) -> int:
        wanted = (bounds_3857.right - bounds_3857.left) / width

        def nearest(tile_px: int) -> int:
            exact = math.log2(2 * HALF_WORLD / tile_px / wanted)
            return min(max(math.ceil(exact - 0.01), self._zooms[0]), self._zooms[1])

        if self._tile_px is None:  # how large the tiles are shows in the first that is there
            tiles = list(tiles_covering(bounds_3857, nearest(256)))
            (image,) = self._images([tiles[len(tiles) // 2]]).values()
            if image is not None and image.shape[0] >= _LEAST_TILE_PX:  # else it stands for none
                self._tile_px = image.shape[0]
        return nearest(self._tile_px or 256)

    def _images(self, tiles: Sequence[Tile]) -> dict[Tile, np.ndarray | None]:
        """Each tile's image. Those that are kept do not wait behind those that a provider is asked for.

        Raises:
            ImageryError: a tile cannot be had, or not in time; those that nobody has asked for yet are not asked for.
        """
        end = time.monotonic() + PATIENCE_S
        images: dict[Tile, Future[np.ndarray | None]] = {}
        for tile in tiles:
            if kept := self._client.kept(_on_earth(tile)):
                images[tile] = self._decoding.submit(self._client.decoded, _on_earth(tile), kept.body)
            else:
                images[tile] = self._fetching.submit(self._image, tile)
        try:  # a Future that failed goes at once: kept in a frame, its error, which keeps the frame, would keep itself
            return {tile: images.pop(tile).result(max(end - time.monotonic(), 0.0)) for tile in list(images)}
        except TimeoutError:
            raise ImageryError(
                f"{self.name}: does not answer within {PATIENCE_S:g} s.", fix="Try again later, or another source."
            ) from None
        finally:
            while images:
                images.popitem()[1].cancel()

    def _image(self, tile: Tile) -> np.ndarray | None:
        """RGBA uint8 of a tile, shape (S, S, 4), or None where there is no imagery."""
        return self._client.image(_on_earth(tile)) if 0 <= tile.y < 2**tile.z else None


def _on_earth(tile: Tile) -> Tile:
    """The tile that lies there on the globe, whichever turn of it is meant."""
    return Tile(tile.z, tile.x % 2**tile.z, tile.y)


def _mosaic(images: dict[Tile, np.ndarray | None], side_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Neighbouring tiles as one, uint8, shape (H, W, 3), and where there is imagery, bool, shape (H, W)."""
    left, top = min(tile.x for tile in images), min(tile.y for tile in images)
    columns, rows = (max(tile[axis] for tile in images) - low + 1 for axis, low in ((1, left), (2, top)))
    mosaic = np.zeros((rows * side_px, columns * side_px, 3), np.uint8)
    there = np.zeros(mosaic.shape[:2], bool)
    for tile, image in images.items():
        if image is not None:
            if image.shape[0] != side_px:
                image = cv2.resize(image, (side_px, side_px), interpolation=cv2.INTER_LINEAR)
            y, x = (tile.y - top) * side_px, (tile.x - left) * side_px
            mosaic[y : y + side_px, x : x + side_px] = image[..., :3]
            there[y : y + side_px, x : x + side_px] = image[..., 3] > 0
    return mosaic, there
