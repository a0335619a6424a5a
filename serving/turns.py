"""Whose turn it is, and how many wait: what stands around what takes long. Who may wait is `admission`'s business."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from serving.admission import Admission, OverloadedError


class Turns:
    """Lets predictions, or what else takes long, be made in their turn, and counts them. Safe to use from threads.

    Args:
        admission: the queue.

    Attributes:
        waiting: that wait for their turn now.
        making: that are made now.
        turned_away: that did not get one, since the start.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._lock = threading.Lock()
        self.waiting = self.making = self.turned_away = 0

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Make a prediction in the block, when it is its turn.

        Raises:
            OverloadedError: too many wait already.
        """
        self._add(waiting=1)
        try:
            self._admission.enter()
        except OverloadedError:
            self._add(turned_away=1)
            raise
        finally:
            self._add(waiting=-1)
        self._add(making=1)
        started = time.monotonic()
        try:
            yield
        finally:
            self._add(making=-1)
            self._admission.leave(time.monotonic() - started)

    def _add(self, *, waiting: int = 0, making: int = 0, turned_away: int = 0) -> None:
        with self._lock:
            self.waiting += waiting
            self.making += making
            self.turned_away += turned_away
