"""How far a download is: a bar at a terminal, lines in the log elsewhere. Knows bytes, not files or servers."""

import logging
import sys
import threading
import time
from collections import deque
from typing import Any, Self

_log = logging.getLogger(__name__)

_MB = 1_000_000
_RECENT_S = 10.0


class Progress:
    """Counts bytes, from any thread, for one file or several; the rate is that of the last ten seconds.

    Args:
        name: what is fetched.
        total: its bytes in all.
        every_s: how long at least from one line in the log to the next, seconds.
        bar: draw a bar instead; by default where stderr is a terminal.
    """

    def __init__(self, name: str, total: int, *, every_s: float = 2.0, bar: bool | None = None) -> None:
        self._name, self._total, self._every_s = name, total, every_s
        self._done, self._lock = 0, threading.Lock()
        self._logged = time.monotonic()
        self._recent = deque([(self._logged, 0)])  # when, and how many had arrived; one entry a tenth of a second
        self._arrived = 0
        self._bar: Any = None
        if sys.stderr.isatty() if bar is None else bar:
            from tqdm import tqdm  # type: ignore[import-untyped]

            self._bar = tqdm(desc=name, total=total, unit="B", unit_scale=True, leave=False, dynamic_ncols=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, count: int) -> None:
        """Add `count` bytes that have arrived."""
        with self._lock:
            self._done += count
            self._arrived += count
            now = time.monotonic()
            if now - self._recent[-1][0] >= _RECENT_S / 100:
                self._recent.append((now, self._arrived))
            while len(self._recent) > 1 and now - self._recent[1][0] >= _RECENT_S:
                self._recent.popleft()
            if self._bar is not None:
                self._bar.update(count)
            elif now - self._logged >= self._every_s:
                self._logged = now
                _log.info("%s", self._line(now))

    def already(self, count: int) -> None:
        """Add `count` bytes that an earlier run brought: part of the whole, not of the rate."""
        with self._lock:
            self._done += count
            if self._bar is not None:
                self._bar.initial += count
                self._bar.n += count
                self._bar.refresh()

    def _line(self, now: float) -> str:
        since, before = self._recent[0]
        rate = (self._arrived - before) / max(now - since, 1e-9)
        share = 100 * self._done / max(self._total, 1)
        left = f"{max(self._total - self._done, 0) / rate:,.0f} s left" if rate else "stalled"
        return (
            f"{self._name}: {self._done / _MB:.1f} of {self._total / _MB:.1f} MB ({share:.0f} %), "
            f"{rate / _MB:.1f} MB/s, {left}"
        )
