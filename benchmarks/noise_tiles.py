"""Tiles to train on, as a cache holds them: soft noise with bright roofs. NumPy and OpenCV make them, nothing else."""

from pathlib import Path

import cv2
import numpy as np

from footprint_pipeline.dataset.cache import BORDER, BUILDING, CONTACT, VALID, TileCache

SIDE = 448
"""Of a tile, pixels."""


def write_tiles(folder: Path, *, tiles: int) -> TileCache:
    """Make tiles of all labels in a folder; the last one is for validation."""
    rng = np.random.default_rng(1337)
    ground = cv2.GaussianBlur(rng.integers(1, 200, (2 * SIDE, 2 * SIDE, 3), np.uint8), (0, 0), 1.5)
    images, labels = np.empty((tiles, SIDE, SIDE, 3), np.uint8), np.full((tiles, SIDE, SIDE), VALID, np.uint8)
    for image, label in zip(images, labels, strict=True):
        top, left = rng.integers(0, SIDE, 2)
        image[:] = ground[top : top + SIDE, left : left + SIDE]
        for y, x, height, width in rng.integers((0, 0, 8, 8), (SIDE - 26, SIDE - 26, 26, 26), (60, 4)):
            label[y : y + height, x : x + width] |= BORDER | CONTACT
            label[y + 1 : y + height - 1, x + 1 : x + width - 1] = VALID | BUILDING
        image[label & BUILDING > 0] += 55
    images.tofile(folder / "images.u8")
    labels.tofile(folder / "labels.u8")
    return open_cache(folder)


def open_cache(folder: Path) -> TileCache:
    """What `write_tiles` made, memory-mapped."""
    images, labels = (np.memmap(folder / name, np.uint8, "r") for name in ("images.u8", "labels.u8"))
    tiles = len(labels) // SIDE**2
    return TileCache(
        images.reshape(-1, 3),
        labels,
        gsd_m=0.5,
        tile_ids=np.arange(tiles).astype(str),
        aois=np.full(tiles, "Noise"),
        splits=np.array(["train"] * (tiles - 1) + ["validation"]),
        heights=np.full(tiles, SIDE),
        widths=np.full(tiles, SIDE),
        offsets=np.arange(tiles) * SIDE**2,
        valid_share=np.ones(tiles),
    )
