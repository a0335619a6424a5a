"""What work on very many things needs, whatever the work: geometries by the hundred thousand, or a few of many."""

import gc
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import numpy as np

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_R = TypeVar("_R")

SAY_EVERY_S = 5.0
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


def listed(names: Iterable[object], *, shown: int = 3) -> str:
    """The first few of some names, and how many more there are."""
    told = [str(name) for name in names]
    return ", ".join(told[:shown]) + (f" and {len(told) - shown} more" if len(told) > shown else "")


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


def each_in_threads(
    function: Callable[[_T], _R], things: Sequence[_T], what: str, *, threads: int | None = None
) -> Iterator[_R]:
    """`function` of each thing, in their order, by one thread a core; the log hears how far it is every few seconds.

    What fails is raised in its turn, and no more is begun.
    """
    pool = ThreadPoolExecutor(threads or os.cpu_count() or 1)
    started = said = time.monotonic()
    try:
        for done, made in enumerate(pool.map(function, things), start=1):
            if (now := time.monotonic()) - said > SAY_EVERY_S:
                said, rate = now, done / (now - started)
                left_s = (len(things) - done) / rate
                _log.info("%s: %d of %d, %.0f a second, %.0f s left", what, done, len(things), rate, left_s)
            yield made
    finally:
        pool.shutdown(cancel_futures=True)
