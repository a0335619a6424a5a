"""The model that answers: follows the registry's alias, and is held for all threads of a worker process."""

import logging
import random
import shutil
import threading
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from footprint_pipeline.errors import FootprintError, ModelError, NoSuchVersionError, RegistryError
from footprint_pipeline.footprints.onnx_runtime import has_cuda, open_runtime
from footprint_pipeline.footprints.runtime import Runtime
from footprint_pipeline.footprints.selftest import run_selftest
from footprint_pipeline.versions import Pointed
from serving.model_cache import CacheError, ModelCache

log = logging.getLogger(__name__)

Origin = Literal["registry", "cache"]

_WARMING_PX = 128
"""The first image costs most of what is done once; one of another size costs little more than the next."""
_PATIENCE_S = 10.0
"""How long a look waits for the end of another one."""
MEND = "Promote another version, register this one again, or mend it and send POST /v1/model/refresh."
"""The way out when a version is refused."""


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

    model_name: str

    def pointed(self, alias: str) -> Pointed:
        """The version that an alias points at."""

    def pull(self, *, version: str, into: Path, onnx: bool = False) -> Path:
        """The folder of a version's exported model, in `into`."""


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to answer.

    Attributes:
        version: of the registry.
        folder: its name in the cache, which no other version has.
        runtime: what computes.
        origin: whether the registry named it, or the cache while the registry has not.
        since: when it was loaded.
    """

    version: str
    folder: str
    runtime: Runtime
    origin: Origin = "registry"
    since: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class Refusal:
    """A version that cannot serve: it does not load, or fails its self-test."""

    version: str
    reason: str
    when: datetime


@dataclass(frozen=True)
class StoreStatus:
    """What is known of the model that serves.

    Attributes:
        alias: that is followed.
        model: in force; None when there is none.
        checked: when the registry was last asked; None before it was.
        registry_answers: whether it answered then; None before it was asked.
        problem: why there was no following the alias at the last look; empty when there was.
        fix: what to do about it.
        refused: the last version that was refused, unless it serves by now.
    """

    alias: str
    model: LoadedModel | None = None
    checked: datetime | None = None
    registry_answers: bool | None = None
    problem: str = "The model is loading."
    fix: str = "Ask again in a few seconds."
    refused: Refusal | None = None


@dataclass(frozen=True)
class Refreshed:
    """What a look at the registry came to.

    Attributes:
        outcome: "same": the alias points to what serves; "swapped": another version serves now; "refused": that
            version cannot serve; "unreachable": the registry does not tell, or does not hand over, or the cache takes
            nothing; "busy": another look is under way.
        version: that serves now.
        reason: why it is not what the alias points to; empty when it is.
    """

    outcome: Literal["same", "swapped", "refused", "unreachable", "busy"]
    version: str | None
    reason: str = ""


class ModelStore:
    """Holds the model that an alias points at. Safe to ask from several threads; nobody waits for a new version.

    `load_in_background` makes it follow the alias; whoever asks while there is no model is told so at once.

    Args:
        registry: where models come from.
        alias: which of its versions to serve.
        cache: folder for pulled models; see `ModelCache`.
        threads: CPU threads of the runtime; all when None.
        retry_s: pause between two looks while there is no model, seconds.
        poll_s: pause between two looks while there is one, give or take a fifth, seconds.
    """

    def __init__(
        self,
        registry: ModelSource,
        *,
        alias: str,
        cache: Path,
        threads: int | None = None,
        retry_s: float = 5.0,
        poll_s: float = 30.0,
    ) -> None:
        self._registry = registry
        self._alias = alias
        self._cache = ModelCache(cache, model_name=registry.model_name, alias=alias)
        self._threads = threads
        self._retry_s, self._poll_s = retry_s, poll_s
        self._looking = threading.Lock()  # held by whoever writes what follows
        self._status = StoreStatus(alias)
        self._seen: Pointed | None = None  # the version that the alias pointed to at the last look
        self._cache_was_tried = False
        self._cache_looked_at = threading.Event()
        self._stopped = threading.Event()

    def current(self) -> LoadedModel:
        """The model that answers now.

        Raises:
            NoModelError: there is none; says why.
        """
        status = self._status
        if status.model is None:
            raise NoModelError(status.problem, fix=status.fix, retry_after_s=max(1, round(self._retry_s)))
        return status.model

    def refresh(self) -> Refreshed:
        """Look where the alias points and serve that, now; a version that was refused is tried again.

        Who finds another look under way waits for its end, though not for long.
        """
        if not self._looking.acquire(timeout=_PATIENCE_S):
            model = self._status.model
            return Refreshed("busy", model.version if model else None, "Another look at the registry is under way.")
        try:
            return self._look(again=True)
        finally:
            self._looking.release()

    def status(self) -> StoreStatus:
        """What is known of the model that serves. Asks nobody."""
        return self._status

    def load_in_background(self) -> None:
        """Follow the alias from now on, without waiting for the first model, which is the one that served last."""
        threading.Thread(target=self._follow, name="model-loader", daemon=True).start()

    def await_cached(self, at_most_s: float) -> None:
        """Wait until the model that served last serves again, if there is one."""
        self._cache_looked_at.wait(at_most_s)

    def stop(self) -> None:
        """Follow the alias no longer; what serves goes on serving."""
        self._stopped.set()

    def _follow(self) -> None:
        with self._looking:
            self._serve_cached()
        self._cache_looked_at.set()
        pause = 0.0
        while not self._stopped.wait(pause):
            with self._looking:
                self._look()
            pause = self._retry_s if self._status.model is None else self._poll_s
            pause *= random.uniform(0.8, 1.2)  # noqa: S311 - so that many services do not ask at once

    def _look(self, *, again: bool = False) -> Refreshed:
        """Ask the registry, and serve what it names when that is another version and fit to serve."""
        try:
            pointed = self._registry.pointed(self._alias)
            model, refused = self._status.model, self._status.refused
            moved, self._seen = pointed != self._seen, pointed
            if model is not None and model.folder == pointed.folder:
                self._note(registry_answers=True, model=replace(model, origin="registry"))
                return Refreshed("same", pointed.version)
            if refused is not None and refused.version == pointed.version and not (again or moved):
                self._note(registry_answers=True, problem=refused.reason, fix=MEND)
                return Refreshed("refused", model.version if model else None, refused.reason)
            return self._swap(pointed.version)
        except Exception as error:
            problem, fix = _told(error)
            answers = isinstance(error, NoSuchVersionError | CacheError)
            self._note(registry_answers=answers, problem=problem, fix=fix)
            return self._as_before("unreachable", problem)

    def _swap(self, version: str) -> Refreshed:
        try:
            folder, runtime = self._pulled(version)
        except (RegistryError, CacheError):  # no fault of the version's
            raise
        except Exception as error:
            problem, _ = _told(error)
            refusal = Refusal(version, problem, datetime.now(UTC))
            self._note(registry_answers=True, problem=problem, fix=MEND, refused=refusal)
            return self._as_before("refused", problem)
        self._note(registry_answers=True, model=LoadedModel(version, folder.name, runtime))
        log.info("Serving model version %s", version)
        self._cache.remember(version, folder)
        return Refreshed("swapped", version)

    def _as_before(self, outcome: Literal["refused", "unreachable"], reason: str) -> Refreshed:
        """What served goes on serving; at the start, what served last."""
        self._serve_cached()
        model = self._status.model
        return Refreshed(outcome, model.version if model else None, reason)

    def _note(
        self,
        *,
        registry_answers: bool,
        problem: str = "",
        fix: str = "",
        model: LoadedModel | None = None,
        refused: Refusal | None = None,
    ) -> None:
        if problem and problem != self._status.problem:
            log.warning("%s", problem)
        refused = refused or self._status.refused
        if model is not None and refused is not None and refused.version == model.version:
            refused = None  # it was mended
        self._status = StoreStatus(
            alias=self._alias,
            model=model or self._status.model,
            checked=datetime.now(UTC),
            registry_answers=registry_answers,
            problem=problem,
            fix=fix,
            refused=refused,
        )

    def _pulled(self, version: str) -> tuple[Path, Runtime]:
        """The version's folder, and the model in it; pulled once more when what was in the cache is broken."""
        there = set(self._cache.folder.glob("*"))
        while True:
            try:
                folder = self._registry.pull(version=version, into=self._cache.folder, onnx=has_cuda())
            except OSError as error:
                raise CacheError(
                    f"{self._cache.folder}: no model can be kept there ({error.strerror or error}).",
                    fix="Let the service write to this folder and give it room, or set FOOTPRINT_HOME to where it may.",
                ) from None
            with suppress(OSError):  # which may be read-only
                folder.touch()  # others that share the cache see that somebody wants it
            try:
                return folder, self._opened(folder)
            except ModelError:
                shutil.rmtree(folder, ignore_errors=True)
                if folder not in there:
                    raise
                there.discard(folder)

    def _opened(self, folder: Path) -> Runtime:
        """The model in a folder: loaded, tested, and warm, so that no request pays for its first time."""
        runtime = open_runtime(folder, threads=self._threads)
        run_selftest(runtime, folder)
        side = -(-_WARMING_PX // runtime.spec.stride) * runtime.spec.stride
        runtime(np.zeros((runtime.streams, side, side, 3), np.float32))  # the self-test was one image, on all cores
        return runtime

    def _serve_cached(self) -> None:
        """Serve what served last, where there is no model; tried once."""
        if self._cache_was_tried or self._status.model is not None or (last := self._cache.last()) is None:
            return
        self._cache_was_tried = True
        try:
            runtime = self._opened(self._cache.folder / last.folder)
        except Exception as error:
            log.warning("The cached model version %s cannot serve: %s", last.version, _told(error)[0])
            return
        self._status = replace(self._status, model=LoadedModel(last.version, last.folder, runtime, origin="cache"))
        log.info("Serving model version %s from the cache", last.version)


def _told(error: Exception) -> tuple[str, str]:
    if isinstance(error, FootprintError):
        return error.problem, error.fix
    log.error("The model cannot be loaded", exc_info=error)
    return "The model cannot be loaded.", "The service's log says why."
