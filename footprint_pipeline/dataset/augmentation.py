"""Augmentation of image and mask together: one affine warp for both, colour for the image alone."""

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class AugmentationSpec:
    """How far a chip may be changed; every draw is uniform within these bounds.

    Attributes:
        translate_px: shift of the chip's centre, pixels, either way.
        rotate_deg: rotation, degrees, either way.
        scale: magnification, from and to.
        flip: mirror left-right and top-bottom, and turn by quarters.
        brightness: added to all bands, as a share of full scale, either way.
        contrast: stretch about the chip's mean, as a share, either way.
        tint: gain of each band on its own, as a share, either way.
    """

    translate_px: float = 40.0
    rotate_deg: float = 30.0
    scale: tuple[float, float] = (0.8, 1.5)
    flip: bool = True
    brightness: float = 0.10
    contrast: float = 0.20
    tint: float = 0.08


ARTICLE = AugmentationSpec(scale=(1.0, 1.5), flip=False, brightness=0.0, contrast=0.0, tint=0.0)
"""The article's: translate ±40 px, rotate ±30°, scale 1 to 1.5."""

NONE = AugmentationSpec(0.0, 0.0, (1.0, 1.0), False, 0.0, 0.0, 0.0)
"""No change at all."""


def draw_warp(
    rng: np.random.Generator, spec: AugmentationSpec, *, centre: tuple[float, float], size: int
) -> np.ndarray:
    """A random warp from chip pixels to tile pixels.

    Args:
        rng: source of chance.
        spec: bounds.
        centre: (x, y) on the tile that the chip looks at before it is shifted, pixels.
        size: side of the chip, pixels.

    Returns:
        float64, shape (2, 3): tile_xy = matrix @ (chip_x, chip_y, 1), both at pixel centres.
    """
    angle = np.deg2rad(rng.uniform(-spec.rotate_deg, spec.rotate_deg))
    scale = rng.uniform(*spec.scale)
    shift = rng.uniform(-spec.translate_px, spec.translate_px, 2)
    mirror = np.eye(2)
    if spec.flip:
        mirror = np.linalg.matrix_power(np.array([[0.0, -1.0], [1.0, 0.0]]), int(rng.integers(4)))
        mirror = mirror @ np.diag([rng.choice([-1.0, 1.0]), 1.0])
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = rotation @ mirror / scale
    middle = np.full(2, (size - 1) / 2)
    offset = np.asarray(centre) - 0.5 + shift - linear @ middle
    return np.column_stack([linear, offset])


def warp(image: np.ndarray, labels: np.ndarray, matrix: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A chip of image and labels under the same warp; beyond the tile both are mirrored.

    Args:
        image: uint8, shape (H, W, 3).
        labels: uint8, shape (H, W).
        matrix: from `draw_warp`.
        size: side of the chip, pixels.

    Returns:
        uint8, shape (size, size, 3), bilinear, and uint8, shape (size, size), nearest.
    """
    options = {"borderMode": cv2.BORDER_REFLECT_101}
    picture = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, **options)
    truth = cv2.warpAffine(labels, matrix, (size, size), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP, **options)
    return picture, truth


def jitter_colour(rng: np.random.Generator, spec: AugmentationSpec, image: np.ndarray) -> np.ndarray:
    """The image in another light: uint8, same shape. One table a band, so it costs next to nothing."""
    if not (spec.brightness or spec.contrast or spec.tint):
        return image
    mean = float(image.mean())
    gain = 1.0 + rng.uniform(-spec.contrast, spec.contrast) + rng.uniform(-spec.tint, spec.tint, 3)
    lift = 255.0 * rng.uniform(-spec.brightness, spec.brightness)
    levels = np.arange(256, dtype=np.float32)[:, None]
    table = np.rint(np.clip((levels - mean) * gain + mean + lift, 0, 255)).astype(np.uint8)
    table[0] = 0  # black is "no imagery" and stays black
    return cv2.LUT(image, table[:, None, :])
