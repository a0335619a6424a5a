"""What work on very many things needs, whatever the work: geometries by the hundred thousand, or a few of many."""

import gc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np

_AT_ONCE = 8192


@contextmanager
def collector_paused() -> Iterator[None]:
    """While very many geometries are made, the collector would look through all of them again and again.

    They are freed as ever when the last name of them goes: geometries hold no reference to another.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def spread(count: int, most: int) -> np.ndarray:
    """At most `most` positions of `count`, evenly from the first to the last: int, ascending, each once."""
    return np.linspace(0, count - 1, min(most, count)).round().astype(int)


def in_threads(function: Callable[[np.ndarray], np.ndarray], geometry: np.ndarray) -> np.ndarray:
    """`function(geometry)` on all cores, for a shapely function that lets go of the interpreter.

    Args:
        function: element by element, such as `shapely.is_valid`.
        geometry: shapely geometries, shape (N,).
    """
    if len(geometry) <= _AT_ONCE:
        return function(geometry)
    with ThreadPoolExecutor() as pool:
        parts = np.array_split(geometry, len(geometry) // _AT_ONCE)
        return np.concatenate(list(pool.map(function, parts)))
