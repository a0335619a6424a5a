"""Image of any size → what the network tells: overlapping windows, blended so that no seam shows; turned, if wished."""

from collections.abc import Callable, Iterator

import cv2
import numpy as np

Infer = Callable[[np.ndarray], np.ndarray]
"""float32 (B, H, W, 3) in [0, 1] → float32 (B, H, W, heads) in [0, 1]; the first head is the building."""

FLIPS = (1, 2, 4, 8)
WINDOW_PX = 640
"""Windows have as many pixels as a square of this side at most; a tile of 512 with a halo of 64 is just that."""


def predict_probability(
    image: np.ndarray,
    infer: Infer,
    *,
    window: int = WINDOW_PX,
    overlap: int = 64,
    stride: int = 16,
    batch_size: int = 4,
    flips: int = 1,
) -> np.ndarray:
    """What a network tells of every pixel of an image.

    An image is padded by reflection to a multiple of `stride`. One that has no more pixels than a window may have is
    predicted in one go. A larger one is cut into windows that overlap, all of one size, and of the size that makes the
    network see the fewest pixels; where they do, their answers are blended with weights that fall towards each window's
    edge. Windows begin at multiples of `stride`, so that its pixels meet the network's grid alike in all of them.

    Args:
        image: float32 in [0, 1], shape (H, W, 3).
        infer: the network.
        window: side of the square that has as many pixels as a window may have at most, a multiple of `stride`.
        overlap: pixels that neighbouring windows share at least, a multiple of `stride`.
        stride: the network's input must be a multiple of this.
        batch_size: windows a call.
        flips: orientations that are averaged, one of `FLIPS`: as it is, mirrored left to right, both also upside
            down, all four also along the diagonal.

    Returns:
        float32 in [0, 1], shape (H, W, heads).
    """
    if flips > 1:
        infer = _averaged(infer, flips)
    height, width = image.shape[:2]
    sides = window_sides(height, width, window=window, overlap=overlap, stride=stride)
    padded = _pad(image, *(max(_up(size, stride), side) for size, side in zip((height, width), sides, strict=True)))
    if sides == padded.shape[:2]:
        return np.clip(infer(padded[None])[0, :height, :width], 0.0, 1.0)

    total, weight = np.zeros(0, np.float32), np.zeros((*padded.shape[:2], 1), np.float32)
    ramp = _window_weight(*sides, overlap)
    corners = [
        (top, left)
        for top in _starts(padded.shape[0], sides[0], overlap, stride)
        for left in _starts(padded.shape[1], sides[1], overlap, stride)
    ]
    for chunk in _chunks(corners, batch_size):
        places = [(slice(top, top + sides[0]), slice(left, left + sides[1])) for top, left in chunk]
        answer = infer(np.stack([padded[place] for place in places]))
        if not total.size:
            total = np.zeros((*padded.shape[:2], answer.shape[-1]), np.float32)
        for place, probability in zip(places, answer, strict=True):
            total[place] += probability * ramp
            weight[place] += ramp
    return np.clip(total / weight, 0.0, 1.0)[:height, :width]


def window_sides(height: int, width: int, *, window: int, overlap: int, stride: int) -> tuple[int, int]:
    """Height and width of the windows that cover an image with the fewest pixels, as `predict_probability` does.

    Args:
        height: of the image, pixels.
        width: of the image, pixels.
        window: side of the square that has as many pixels as a window may have at most, a multiple of `stride`.
        overlap: pixels that neighbouring windows share at least.
        stride: both are multiples of this.
    """

    def cuts(size: int) -> Iterator[tuple[int, int]]:
        most = _count(size, window, overlap)
        return ((count, _up(-(-(size + (count - 1) * overlap) // count), stride)) for count in range(1, most + 1))

    fitting = [
        (rows * columns * high * wide, rows * columns, (high, wide))
        for rows, high in cuts(height)
        for columns, wide in cuts(width)
        if high * wide <= window**2
    ]
    return min(fitting)[2]


def _averaged(infer: Infer, flips: int) -> Infer:
    def turned(batch: np.ndarray, number: int) -> np.ndarray:
        batch = batch[:, :, ::-1] if number & 1 else batch
        batch = batch[:, ::-1] if number & 2 else batch
        return batch.transpose(0, 2, 1, 3) if number & 4 else batch

    def turned_back(answer: np.ndarray, number: int) -> np.ndarray:
        answer = answer.transpose(0, 2, 1, 3) if number & 4 else answer
        return turned(answer, number & 3)

    def infer_all(batch: np.ndarray) -> np.ndarray:
        answers = (turned_back(infer(np.ascontiguousarray(turned(batch, number))), number) for number in range(flips))
        return np.add.reduce(list(answers)) / np.float32(flips)

    return infer_all


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _pad(image: np.ndarray, height: int, width: int) -> np.ndarray:
    missing_y, missing_x = height - image.shape[0], width - image.shape[1]
    if not (missing_y or missing_x):
        return image
    border = cv2.BORDER_REFLECT_101 if min(image.shape[:2]) > 1 else cv2.BORDER_REPLICATE
    return cv2.copyMakeBorder(image, 0, missing_y, 0, missing_x, border)


def _count(size: int, window: int, overlap: int) -> int:
    return 1 if size <= window else 1 - (window - size) // (window - overlap)


def _starts(size: int, window: int, overlap: int, stride: int) -> list[int]:
    gaps = _count(size, window, overlap) - 1
    return [0, *((size - window) // stride * gap // gaps * stride for gap in range(1, gaps + 1))]


def _window_weight(height: int, width: int, overlap: int) -> np.ndarray:
    ramps = (np.minimum(np.arange(side) + 1, side - np.arange(side)) / max(overlap, 1) for side in (height, width))
    return np.outer(*(np.clip(ramp, 1e-3, 1.0).astype(np.float32) for ramp in ramps))[..., None]


def _chunks(items: list[tuple[int, int]], size: int) -> Iterator[list[tuple[int, int]]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
