"""Pixels of one grid → those of another, by where each wanted pixel lies in the first. Whose grids they are is the
business of the providers.

What GDAL's warper does for 8-bit and deeper imagery alike, in a fraction of its time.
"""  # noqa: D205 - one sentence

import math

import cv2
import numpy as np

SHRINKS = 1.2
"""From so many of the given pixels to one of the wanted ones on, they are averaged before it is looked between them."""
_MOST_COUNTED = 2**15 - 2
"""Rows or columns that OpenCV's remapping can count."""
_KNOWN = (np.uint8, np.uint16, np.int16, np.float32, np.float64)
"""The kinds of numbers that OpenCV looks between."""


def warp(pixels: np.ndarray, valid: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bilinear between pixels that are valid; averaged first where the wanted grid is coarser.

    Args:
        pixels: any real dtype, shape (H, W, 3), at least a pixel.
        valid: where there is imagery, bool, shape (H, W).
        x: where the centres of the wanted pixels lie, in given pixels from their left edge, float32, shape (h, w).
        y: the same from their upper edge.

    Returns:
        Pixels of the same dtype, shape (h, w, 3), and which of them are valid, bool, shape (h, w): those whose centres
        lie in a valid pixel. What is not valid is black, see `darkest`; beyond their edges the pixels are mirrored, as
        those of tiles are in training.
    """
    kind = pixels.dtype
    height, width = valid.shape
    there = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    black = None
    if valid.all():
        told = _between(pixels if kind in _KNOWN else pixels.astype(np.float64), x, y)
    else:
        beyond = ~there
        there[there] = valid[y[there].astype(int), x[there].astype(int)]
        depth = np.float64 if kind.itemsize > 2 else np.float32
        share = np.repeat(valid[..., None], 3, axis=2).astype(depth)
        told = _between(np.where(valid[..., None], pixels, 0).astype(depth), x, y)
        seen = _between(share, x, y)
        told /= np.maximum(seen, 1e-6)
        black = np.where(beyond, seen[..., 0] < 0.5, ~there)
    if kind != told.dtype and np.issubdtype(kind, np.integer):
        told = np.rint(told)
    told = told.astype(kind, copy=False)
    if black is not None:
        told[black] = darkest(kind)
    return told, there


def darkest(kind: np.dtype) -> float:
    """The lowest number of a dtype, which every stretch makes black."""
    return np.iinfo(kind).min if np.issubdtype(kind, np.integer) else float(np.finfo(kind).min)


def footsteps(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """How many given columns, and rows, there are from one wanted pixel to the next; see `warp`."""
    height, width = x.shape

    def step(along: np.ndarray) -> float:
        across, down = (along[:, -1] - along[:, 0]).mean(), (along[-1] - along[0]).mean()
        return math.hypot(across / max(width - 1, 1), down / max(height - 1, 1))

    return step(x), step(y)


def spread_out(knots: np.ndarray, height: int, width: int) -> np.ndarray:
    """A value for every pixel, from knots that lie evenly from the first to the last of them; linear in between.

    Args:
        knots: float64, shape (rows, columns), at least 2 each.
        height: pixels.
        width: pixels.

    Returns:
        float32, shape (height, width).
    """
    down, across = (_weights(*sizes) for sizes in zip((height, width), knots.shape, strict=True))
    rows = (knots @ across.T).astype(np.float32)
    # Not NumPy's product: for matrices this narrow the threads of its BLAS wait for each other longer than they work.
    return cv2.gemm(down.astype(np.float32), rows, 1.0, None, 0.0)


def _weights(size: int, knots: int) -> np.ndarray:
    at = np.linspace(0, knots - 1, size)
    return np.maximum(0.0, 1.0 - np.abs(at[:, None] - np.arange(knots)))


def _between(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    steps = footsteps(x, y)
    if max(steps) > SHRINKS:  # around each pixel: cells, as of a resized image, would begin elsewhere in every read
        across, down = (_box(step if step > SHRINKS else 1.0) for step in steps)
        image = cv2.sepFilter2D(image, -1, across, down, borderType=cv2.BORDER_REFLECT_101)
    return _remapped(image, x - np.float32(0.5), y - np.float32(0.5))


def _remapped(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """OpenCV's bilinear remapping, in parts where the image has more rows or columns than that can count."""
    if max(image.shape[:2]) <= _MOST_COUNTED and max(x.shape) <= _MOST_COUNTED:
        return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    along = int(x.shape[1] >= x.shape[0])
    parts = []
    for part_x, part_y in zip(np.array_split(x, 2, along), np.array_split(y, 2, along), strict=True):
        (left, right), (top, bottom) = (
            (int(np.clip(part.min() - 1, 0, size - 1)), int(np.clip(part.max() + 3, 1, size)))
            for part, size in ((part_x, image.shape[1]), (part_y, image.shape[0]))
        )
        parts.append(_remapped(image[top:bottom, left:right], part_x - np.float32(left), part_y - np.float32(top)))
    return np.concatenate(parts, along)


def _box(width: float) -> np.ndarray:
    """The weights of pixels whose mean is taken over a width of so many, the middle one in its middle."""
    reach = math.ceil((width - 1.0) / 2.0)
    weights = np.clip((width + 1.0) / 2.0 - np.abs(np.arange(-reach, reach + 1)), 0.0, 1.0)
    return weights / weights.sum()
