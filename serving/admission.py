"""How many predictions are made at a time, how many may wait for their turn, and who is turned away.

A prediction takes memory while it is made and the CPU from all others, so only some are made at once. The others wait
in order of arrival; one more than may wait is told when to come again, so that those who wait get their answer.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from footprint_pipeline.errors import FootprintError

AT_A_TIME = 8
"""Predictions that are made at once, in one process: enough to keep the CPU busy while some wait for imagery."""
_LONGEST_WAIT_S = 60.0


class OverloadedError(FootprintError):
    """Too many requests are waiting already.

    Args:
        problem: why.
        retry_after_s: when to ask again, seconds.
    """

    def __init__(self, problem: str, *, retry_after_s: int) -> None:
        super().__init__(problem, fix=f"Ask again in {retry_after_s} s, or start more services.")
        self.retry_after_s = retry_after_s


class Admission:
    """A bounded queue in front of the predictions of one process, or of what else takes long. Safe to use from threads.

    Args:
        waiting: how many may wait.
        at_a_time: how many are made at once.
        longest_wait_s: after which one that still waits is turned away, seconds.

    Attributes:
        turned_away: that did not get a turn, since the start.
    """

    def __init__(self, waiting: int, *, at_a_time: int = AT_A_TIME, longest_wait_s: float = _LONGEST_WAIT_S) -> None:
        self._most_waiting = waiting
        self._free = at_a_time
        self._at_a_time = at_a_time
        self._longest_wait_s = longest_wait_s
        self._queue: deque[threading.Event] = deque()
        self._lock = threading.Lock()
        self._usual_s = 1.0
        self.turned_away = 0

    @property
    def waiting(self) -> int:
        """How many wait for their turn now."""
        return len(self._queue)

    @property
    def making(self) -> int:
        """How many have it now."""
        return self._at_a_time - self._free

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Make a prediction in the block, when it is its turn.

        Raises:
            OverloadedError: as `enter`.
        """
        self.enter()
        started = time.monotonic()
        try:
            yield
        finally:
            self.leave(time.monotonic() - started)

    def enter(self) -> None:
        """Wait for a turn; whoever got one must `leave`.

        Raises:
            OverloadedError: as many wait as may, or it took too long.
        """
        with self._lock:
            if self._free:
                self._free -= 1
                return
            if len(self._queue) >= self._most_waiting:
                raise self._overloaded(f"{len(self._queue)} requests wait already.")
            turn = threading.Event()
            self._queue.append(turn)
        if not turn.wait(self._longest_wait_s):
            with self._lock:
                if turn in self._queue:  # otherwise its turn came this very moment
                    self._queue.remove(turn)
                    raise self._overloaded(f"It was not its turn within {self._longest_wait_s:g} s.")

    def leave(self, taken_s: float) -> None:
        """Give the turn to whoever has waited longest.

        Args:
            taken_s: how long the prediction took, seconds; tells others when to come again.
        """
        with self._lock:
            self._usual_s += 0.1 * (taken_s - self._usual_s)
            if self._queue:
                self._queue.popleft().set()
            else:
                self._free += 1

    def _overloaded(self, problem: str) -> OverloadedError:
        self.turned_away += 1
        until_empty = self._usual_s * (1 + len(self._queue) / self._at_a_time)
        return OverloadedError(problem, retry_after_s=math.ceil(max(1.0, until_empty)))
