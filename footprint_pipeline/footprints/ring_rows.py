"""Rows that belong to rings: a row is an edge, a chord or a side, and those of a ring follow one another."""

import numpy as np


def around(ring: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the row before and of the row after each, within its ring."""
    position = np.arange(len(ring))
    begin, end = np.searchsorted(ring, ring), np.searchsorted(ring, ring, side="right") - 1
    return np.where(position == begin, end, position - 1), np.where(position == end, begin, position + 1)


def begun_at(ring: np.ndarray, start: np.ndarray) -> np.ndarray:
    """An order of the rows in which each ring begins at its `start`, a position, shape (rings,)."""
    size = np.bincount(ring)
    begin = (np.cumsum(size) - size)[ring]
    return begin + (np.arange(len(ring)) - begin + start[ring] - begin) % size[ring]
