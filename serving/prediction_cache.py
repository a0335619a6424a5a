"""What was predicted lately, so that the same place is not predicted again for another tolerance, form or tile.

What belongs here: keeping things in memory, bounded in bytes and time, and making each of them once when several ask at
the same time. What is kept, and under which key, is the business of those who ask.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

from footprint_pipeline.footprints.extract import Stages

LIFETIME_S = 600.0
"""How long something is kept at most, seconds: the imagery may have changed by then."""

T = TypeVar("T")


class _Entry(NamedTuple):
    value: Any
    size: int
    until: float


class PredictionCache:
    """Keeps what was made; what was not asked for for longest goes first. Safe to use from several threads.

    Args:
        most_bytes: how much is kept at most; with 0 nothing is kept, and nobody waits for what others make.
        lifetime_s: how long each is kept, seconds.
        clock: seconds that never run backwards.

    Attributes:
        bytes: that are kept now.
        hits: how often something was there, or made by another one already, since the start.
        misses: how often it had to be made.
    """

    def __init__(
        self, most_bytes: int, *, lifetime_s: float = LIFETIME_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most_bytes, self._lifetime_s, self._clock = most_bytes, lifetime_s, clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._making: dict[Hashable, Future[Any]] = {}
        self.bytes = self.hits = self.misses = 0

    def __bool__(self) -> bool:
        """Whether anything is kept at all."""
        return self._most_bytes > 0

    def get(self, key: Hashable, make: Callable[[], T], *, size: Callable[[T], int], stages: Stages) -> T:
        """What is kept under a key, or is being made for it; made now where there is no such thing.

        Args:
            key: says everything that the value depends on.
            make: makes the value; what it raises is raised here, and by those who wait for it.
            size: bytes that a value takes.
            stages: where the time spent waiting is noted, as `cache`.
        """
        if not self:
            return make()
        with self._lock:
            self._forget_old()
            if entry := self._kept.get(key):
                self._kept.move_to_end(key)
                self.hits += 1
                stages.setdefault("cache", 0.0)
                return entry.value
            making = self._making.get(key)
            if making is None:
                self._making[key] = Future()
                self.misses += 1
            else:
                self.hits += 1
        if making is None:
            return self._make(key, make, size)
        try:
            with stages.timed("cache"):
                return making.result()
        finally:
            del making  # an error keeps this frame, and what was read below it; the frame must not keep the error

    def _make(self, key: Hashable, make: Callable[[], T], size: Callable[[T], int]) -> T:
        try:
            value = make()
        except BaseException as error:
            with self._lock:
                made = self._making.pop(key)
            made.set_exception(error)
            del made  # as in `get`
            raise
        with self._lock:
            made = self._making.pop(key)
            self._keep(key, value, size(value))
        made.set_result(value)
        return value

    def _keep(self, key: Hashable, value: object, size: int) -> None:
        if size > self._most_bytes:
            return
        self._kept[key] = _Entry(value, size, self._clock() + self._lifetime_s)
        self.bytes += size
        while self.bytes > self._most_bytes:
            self.bytes -= self._kept.popitem(last=False)[1].size

    def _forget_old(self) -> None:
        now = self._clock()
        for key in [key for key, entry in self._kept.items() if entry.until <= now]:
            self.bytes -= self._kept.pop(key).size
