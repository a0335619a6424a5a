"""The model that answers: pulled from the registry, held for all threads of a worker process."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from footprint_pipeline.errors import FootprintError
from footprint_pipeline.footprints.runtime import Runtime

log = logging.getLogger(__name__)


class NoModelError(FootprintError):
    """No model is loaded, for now.

    Args:
        problem: why.
        fix: what to do about it.
        retry_after_s: when to ask again, seconds.
    """

    def __init__(self, problem: str, *, fix: str = "", retry_after_s: int) -> None:
        super().__init__(problem, fix=fix)
        self.retry_after_s = retry_after_s


class ModelSource(Protocol):
    """What the store needs of a registry; see `footprint_pipeline.registry.Registry`."""

    def version(self, alias: str) -> str:
        """The version that an alias points at."""

    def pull(self, *, alias: str | None = None, version: str | None = None, into: Path) -> Path:
        """The folder of a version's exported model."""


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to answer, and the registry version it is."""

    version: str
    runtime: Runtime


class ModelStore:
    """Holds the model that an alias points at. Safe to ask from several threads.

    Until there is one, whoever asks makes the store try again, though at most every `retry_s`; a single
    thread tries, the others are told at once.

    Args:
        registry: where models come from.
        alias: which of its versions to load.
        cache: folder for pulled models.
        threads: CPU threads of the runtime; all when None.
        retry_s: shortest pause between two tries, seconds.
        clock: seconds that never run backwards.
    """

    def __init__(
        self,
        registry: ModelSource,
        *,
        alias: str,
        cache: Path,
        threads: int | None = None,
        retry_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._alias = alias
        self._cache = cache
        self._threads = threads
        self._retry_s = retry_s
        self._clock = clock
        self._loading = threading.Lock()
        self._tried: float | None = None
        self._model: LoadedModel | None = None
        self._reason = ("The model is loading.", "Ask again in a few seconds.")

    def current(self) -> LoadedModel:
        """The model that answers now.

        Raises:
            NoModelError: there is none; says why.
        """
        if self._model is None and self._loading.acquire(blocking=False):
            try:
                if self._model is None and (self._tried is None or self._clock() - self._tried >= self._retry_s):
                    self._load()
                    self._tried = self._clock()
            finally:
                self._loading.release()
        if self._model is None:
            problem, fix = self._reason
            raise NoModelError(problem, fix=fix, retry_after_s=max(1, round(self._retry_s)))
        return self._model

    def load_in_background(self) -> None:
        """Start loading, without waiting for it."""
        threading.Thread(target=self._load_quietly, name="model-loader", daemon=True).start()

    def _load_quietly(self) -> None:
        try:
            self.current()
        except NoModelError as error:
            log.warning("%s", error)

    def _load(self) -> None:
        try:
            version = self._registry.version(self._alias)
            folder = self._registry.pull(version=version, into=self._cache)
            self._model = LoadedModel(version, Runtime(folder, threads=self._threads))
            log.info("Serving model version %s", version)
        except FootprintError as error:
            self._reason = (error.problem, error.fix)
        except Exception:
            log.exception("The model cannot be loaded")
            self._reason = ("The model cannot be loaded.", "The service's log says why.")
