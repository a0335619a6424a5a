"""Augmentation of image and mask together: one affine warp for both, light and focus for the image alone.

What belongs here: what may change about a chip, the draws, and the pixels' arithmetic. Which tile a chip is cut
from, and when, is `batches`' business. Every draw comes from the generator that is handed in.
"""

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from footprint_pipeline.errors import SettingsError


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
        hue: rotation of the colours about grey, degrees, either way.
        blur: largest standard deviation of the Gaussian that softens a chip, pixels.
        blur_share: share of the chips that are softened.
        gamma: tone curve: full scale stays, the rest is raised to a power from 1 / (1 + gamma) to 1 + gamma.
        grey_share: share of the chips that lose their colours.
    """

    translate_px: float = 40.0
    rotate_deg: float = 30.0
    scale: tuple[float, float] = (0.75, 1.5)
    flip: bool = True
    brightness: float = 0.15
    contrast: float = 0.30
    tint: float = 0.12
    hue: float = 15.0
    blur: float = 1.2
    blur_share: float = 0.25
    gamma: float = 0.3
    grey_share: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", tuple(self.scale))  # YAML and JSON know lists only
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise SettingsError(
                f"augmentation.scale is {list(self.scale)}.", fix="Give two magnifications above 0, the smaller first."
            )
        for name in ("translate_px", "rotate_deg", "brightness", "contrast", "tint", "hue", "blur", "gamma"):
            if not getattr(self, name) >= 0:
                raise SettingsError(f"augmentation.{name} is {getattr(self, name)}.", fix="It must not be below zero.")
        for name in ("blur_share", "grey_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"augmentation.{name} is {getattr(self, name)}.", fix="It must be from 0 to 1.")


NONE = AugmentationSpec(
    0.0, 0.0, (1.0, 1.0), flip=False, brightness=0.0, contrast=0.0, tint=0.0, hue=0.0, blur=0.0, gamma=0.0,
    grey_share=0.0,
)  # fmt: skip
"""No change at all."""

ARTICLE = replace(NONE, translate_px=40.0, rotate_deg=30.0, scale=(1.0, 1.5))
"""The article's: translate ±40 px, rotate ±30°, scale 1 to 1.5."""

_QUARTER = np.array([[0.0, -1.0], [1.0, 0.0]])
_ORIENTATIONS = np.stack(
    [np.linalg.matrix_power(_QUARTER, turns) @ np.diag([side, 1.0]) for turns in range(4) for side in (1.0, -1.0)]
)
_LUMA = (0.299, 0.587, 0.114)
_ABOUT_GREY = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
_BLACK = np.array([0, 0, 0, 255], np.uint8).view(np.uint32)[0]
"""A black, opaque pixel as one number: one comparison instead of three."""


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
    angle = math.radians(rng.uniform(-spec.rotate_deg, spec.rotate_deg))
    scale = rng.uniform(*spec.scale)
    shift = rng.uniform(-spec.translate_px, spec.translate_px, 2)
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    linear = np.array([[cos, -sin], [sin, cos]])
    if spec.flip:
        linear = linear @ _ORIENTATIONS[rng.integers(len(_ORIENTATIONS))]
    offset = np.asarray(centre) - 0.5 + shift - linear.sum(axis=1) * (size - 1) / 2
    return np.hstack([linear, offset[:, None]])


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
    last = size - 1
    corners = matrix[:, :2] @ np.array([[0, last, 0, last], [0, 0, last, last]]) + matrix[:, 2:]
    left, top = (int(edge) - 2 for edge in np.floor(corners.min(axis=1)))
    right, bottom = (int(edge) + 3 for edge in np.ceil(corners.max(axis=1)))
    matrix = matrix - [[0, 0, left], [0, 0, top]]
    # OpenCV warps four channels with no border to look up in a third of the time of three with one.
    window = cv2.cvtColor(mirrored_window(image, (top, bottom), (left, right)), cv2.COLOR_RGB2RGBA)
    picture = cv2.warpAffine(window, matrix, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    window = mirrored_window(labels, (top, bottom), (left, right))
    truth = cv2.warpAffine(window, matrix, (size, size), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
    return cv2.cvtColor(picture, cv2.COLOR_RGBA2RGB), truth


def mirrored_window(raster: np.ndarray, rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
    """A window of a raster, which is mirrored about its outermost pixels wherever the window leaves it.

    Args:
        raster: shape (H, W) or (H, W, bands).
        rows: first row and the one after the last; may be negative or beyond the raster.
        columns: the same across.

    Returns:
        Shape (rows, columns) or (rows, columns, bands); a view where the window lies within the raster.
    """
    (top, row_slice, bottom), (left, column_slice, right) = (
        _mirrored_span(*span, length) for span, length in zip((rows, columns), raster.shape[:2], strict=True)
    )
    inside = raster[row_slice, column_slice]
    if not (top or bottom or left or right):
        return inside
    padded = cv2.copyMakeBorder(inside, top, bottom, left, right, cv2.BORDER_REFLECT_101)
    first_row, first_column = rows[0] + top - row_slice.start, columns[0] + left - column_slice.start
    return padded[first_row : first_row + rows[1] - rows[0], first_column : first_column + columns[1] - columns[0]]


def jitter_look(rng: np.random.Generator, spec: AugmentationSpec, image: np.ndarray) -> np.ndarray:
    """The image in another light and focus; black is "no imagery" and stays black.

    Args:
        rng: source of chance.
        spec: bounds.
        image: uint8, shape (H, W, 3).

    Returns:
        uint8, same shape; the image itself when nothing is to change.
    """
    blurs = bool(spec.blur) and rng.random() < spec.blur_share
    lights = bool(spec.brightness or spec.contrast or spec.tint or spec.hue or spec.grey_share)
    if not (blurs or lights or spec.gamma):
        return image
    seen = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA).view(np.uint32)[..., 0] != _BLACK
    if blurs:
        image = cv2.GaussianBlur(image, (0, 0), spec.blur * (1.0 - rng.random()))
    if spec.gamma:
        bound = math.log1p(spec.gamma)
        image = cv2.LUT(image, _tone_curve(math.exp(rng.uniform(-bound, bound))))
    if lights:
        image = cv2.transform(image, _draw_light(rng, spec, mean=sum(cv2.mean(image)[:3]) / 3))
    if not seen.all():
        image *= seen[..., None]
    return image


def _draw_light(rng: np.random.Generator, spec: AugmentationSpec, *, mean: float) -> np.ndarray:
    """Brightness, contrast, tint and hue as one matrix, shape (3, 4): out = matrix @ (r, g, b, 1)."""
    gain = 1.0 + rng.uniform(-spec.contrast, spec.contrast) + rng.uniform(-spec.tint, spec.tint, 3)
    lift = 255.0 * rng.uniform(-spec.brightness, spec.brightness)
    angle = math.radians(rng.uniform(-spec.hue, spec.hue))
    # A rotation about the grey axis: 120° turns red into green, grey stays.
    hue = math.cos(angle) * np.eye(3) + math.sin(angle) * _ABOUT_GREY + (1 - math.cos(angle)) / 3
    if spec.grey_share and rng.random() < spec.grey_share:
        hue = np.tile(_LUMA, (3, 1))
    return np.hstack([gain[:, None] * hue, (mean + lift - mean * gain)[:, None]])


def _tone_curve(power: float) -> np.ndarray:
    """What each of the 256 values becomes: uint8, shape (256,)."""
    return np.rint(255 * np.linspace(0, 1, 256) ** power).astype(np.uint8)


def _mirrored_span(first: int, stop: int, length: int) -> tuple[int, slice, int]:
    """How much to mirror before and after, and the part of the axis that is needed for it."""
    before, after = max(-first, 0), max(stop - length, 0)
    needed_from = max(0, min(first, length - 1 - after))
    needed_to = min(length, max(stop, before + 1))
    return before, slice(needed_from, needed_to), after
