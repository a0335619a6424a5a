"""Imagery for people to look at: 256-px map tiles, encoded. What the network sees is `extract`'s business."""

import threading
from dataclasses import dataclass

import cv2
import numpy as np

from footprint_pipeline.errors import NoImageryError, RequestError
from footprint_pipeline.footprints.mercator import Tile, tile_at
from footprint_pipeline.footprints.normalization import Normalization
from footprint_pipeline.footprints.patch import Imagery, Patch

TILE_PX = 256

_SAMPLED = (1 / 6, 1 / 2, 5 / 6)
_JPEG_QUALITY = 85


@dataclass(frozen=True)
class EncodedTile:
    """A tile as a browser takes it.

    Attributes:
        content: the image.
        media_type: image/jpeg, or image/png where some of it has no imagery and is transparent.
    """

    content: bytes
    media_type: str


class ImageryTiles:
    """The map tiles of a source. Safe to read from several threads.

    Args:
        imagery: the source; of more than eight bits a pixel, it is stretched alike in all tiles, as for training.
    """

    def __init__(self, imagery: Imagery) -> None:
        self._imagery = imagery
        self._lock = threading.Lock()
        self._stretch: Normalization | None = None

    def read(self, tile: Tile) -> EncodedTile:
        """One tile.

        Raises:
            RequestError: there is no such tile, or it is so coarse that too much would have to be read for it.
            NoImageryError: there is no imagery in it.
            ImageryError: the provider failed.
        """
        tile.check()
        coarsest, _ = self._imagery.zooms
        if tile.z < coarsest:
            raise RequestError(
                f"{self._imagery.name}: zoom {tile.z} shows too much at once.", fix=f"Ask for zoom {coarsest} or finer."
            )
        patch = self._imagery.read(tile.bounds_3857, TILE_PX, TILE_PX)
        pixels = patch.pixels if patch.pixels.dtype == np.uint8 else self._stretched(patch)
        image = np.ascontiguousarray(pixels[..., ::-1])
        if patch.valid.all():
            encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
            return EncodedTile(encoded.tobytes(), "image/jpeg")
        alpha = patch.valid.astype(np.uint8) * 255
        return EncodedTile(cv2.imencode(".png", np.dstack([image, alpha]))[1].tobytes(), "image/png")

    def _stretched(self, patch: Patch) -> np.ndarray:
        with self._lock:
            if self._stretch is None:
                self._stretch = Normalization.of(np.concatenate(self._samples() or [patch.pixels[patch.valid]]))
        return self._stretch.to_uint8(patch.pixels)

    def _samples(self) -> list[np.ndarray]:
        """Pixels of nine tiles from all over the imagery, shape (N, 3) each."""
        extent, samples = self._imagery.extent_wgs84, []
        if extent is None:
            return []
        for across in _SAMPLED:
            for up in _SAMPLED:
                longitude = extent.left + across * (extent.right - extent.left)
                latitude = extent.bottom + up * (extent.top - extent.bottom)
                tile = tile_at(longitude, latitude, self._imagery.zooms[1])
                try:
                    patch = self._imagery.read(tile.bounds_3857, TILE_PX, TILE_PX)
                except NoImageryError:
                    continue
                samples.append(patch.pixels[patch.valid])
        return samples
