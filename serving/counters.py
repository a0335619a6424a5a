"""What the service was asked, counted by model version and day: no imagery, no place, nobody who asked.

Every process writes a file of its own, so that neither processes nor restarts overwrite each other's; whoever wants to
know adds the files up (`footprint_pipeline.stages.drift`). What is kept of an answer is said in
`footprint_pipeline.footprints.domain`.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

from footprint_pipeline.files import atomic_path
from footprint_pipeline.footprints.domain import AskedCounts, AskedOfDay, CounterFile, InputProfile

log = logging.getLogger(__name__)


def _today() -> date:
    return datetime.now(UTC).date()


class Counters:
    """Counts answers, and writes the counts to a file now and then. Safe to use from several threads.

    A folder that cannot be written to is told in the log once, and tried again: no answer fails for it, and nothing
    that was counted is lost meanwhile.

    Args:
        folder: of the files; made when there is something to write.
        every_s: shortest pause between two writings, seconds.
        clock: seconds that never run backwards.
        today: the day that an answer counts to.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        today: Callable[[], date] = _today,
    ) -> None:
        name = f"{socket.gethostname()}-{os.getpid()}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.json"
        self.path = folder / name
        self._every_s, self._clock, self._today = every_s, clock, today
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._asked: dict[tuple[str, str, date], AskedCounts] = {}
        self._due = clock()
        self._dirty = False
        self._warned = False

    def count(self, model: str, version: str, profile: InputProfile) -> None:
        """Count an answer, and write when it is time to.

        Args:
            model: name of the registered model that answered.
            version: its version.
            profile: what the imagery looked like.
        """
        answer, key = AskedCounts.of(profile), (model, version, self._today())
        with self._lock:
            self._asked[key] = self._asked.get(key, AskedCounts()) + answer
            self._dirty = True
            now = self._clock()
            due = now >= self._due
            if due:
                self._due = now + self._every_s
        if due:
            self.write()

    def totals(self) -> tuple[dict[tuple[str, str], int], dict[tuple[str, str], int]]:
        """Answers since the start by (model, version), and how many of them were out of domain (`BEYOND`)."""
        answers: dict[tuple[str, str], int] = {}
        beyond: dict[tuple[str, str], int] = {}
        with self._lock:
            asked = list(self._asked.items())
        for (model, version, _), counts in asked:
            key = model, version
            answers[key] = answers.get(key, 0) + counts.answers
            beyond[key] = beyond.get(key, 0) + round((counts.beyond or 0.0) * sum(counts.out_of_domain))
        return answers, beyond

    def hurry(self) -> None:
        """Write what has been counted, and from now on every answer at once, for each may be the last."""
        with self._lock:
            self._every_s, self._due = 0.0, self._clock()
        self.write()

    def write(self) -> None:
        """Write what has been counted, unless it is written already."""
        with self._writing:
            with self._lock:
                dirty, self._dirty = self._dirty, False
                asked = [
                    AskedOfDay(model=model, version=version, day=day, counts=counts)
                    for (model, version, day), counts in self._asked.items()
                ]
            if not dirty:
                return
            try:
                with atomic_path(self.path) as temporary:
                    temporary.write_text(CounterFile(asked=tuple(asked)).model_dump_json() + "\n", "utf-8")
            except OSError as error:
                with self._lock:
                    self._dirty = True
                if not self._warned:
                    log.warning("%s: what is asked cannot be written there (%s).", self.path.parent, error.strerror)
                    self._warned = True
