"""Trainings that were interrupted: all that it takes to go on, in one file that is replaced as a whole.

Of one that is finished there is what it made, for whoever asked may have been interrupted before taking it.

What belongs here: the file, the folders that hold one each, and who may use them. What is in the file is `training`'s
business. A folder is named for what is trained, so that the same command finds its own.
"""

import hashlib
import json
import logging
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from footprint_pipeline.errors import TrainingError
from footprint_pipeline.files import atomic_path, locked

log = logging.getLogger(__name__)

_FILE = "checkpoint.npz"
_RUN = "run.txt"
_DONE = "done.json"
_LOCK = "lock"
_KEPT_FOLDERS = 5


@dataclass(frozen=True)
class Checkpoint:
    """A training at the end of an epoch.

    Attributes:
        history: one dict of metrics an epoch.
        seconds: spent on them.
        state: every variable of learner and optimizer, in their order: weights, averages, statistics, seeds, moments.
        best: the weights of the best epoch, in the network's order.
    """

    history: list[dict[str, float]]
    seconds: float
    state: list[np.ndarray]
    best: list[np.ndarray]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Put a checkpoint in the place of the former one, atomically.

    Raises:
        TrainingError: it cannot be written; the former one is whole.
    """
    said = {"history": checkpoint.history, "seconds": checkpoint.seconds}
    parts: dict[str, Any] = {"said": np.frombuffer(json.dumps(said).encode(), np.uint8)}
    for name, values in (("state", checkpoint.state), ("best", checkpoint.best)):
        parts.update({f"{name}.{number}": value for number, value in enumerate(values)})
    try:
        with atomic_path(folder / _FILE, synced=True) as temporary:
            np.savez(temporary, **parts)
    except OSError as error:
        size = sum(part.nbytes for part in parts.values()) / 1e6
        raise TrainingError(
            f"{folder}: a checkpoint of {size:,.0f} MB cannot be written ({error.strerror or error}).",
            fix="Free space there and start the same training again; it goes on from the epoch before.",
        ) from None


def load_checkpoint(folder: Path, shapes: list[tuple[int, ...]]) -> Checkpoint | None:
    """The checkpoint in a folder; None, with a warning where due, when there is none that fits.

    Args:
        folder: where it lies.
        shapes: of the variables that it is for.
    """
    path = folder / _FILE
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as parts:
            said = json.loads(bytes(parts["said"]))
            state, best = (
                [parts[f"{name}.{number}"] for number in range(sum(key.startswith(f"{name}.") for key in parts.files))]
                for name in ("state", "best")
            )
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile) as error:  # all that zipfile has
        log.warning("%s cannot be read (%s); the training starts anew", path, error)
        return None
    if [value.shape for value in state] != shapes:
        log.warning("%s was made by another version of this program; the training starts anew", path)
        return None
    return Checkpoint(said["history"], said["seconds"], state, best)


def checkpoint_key(**what: object) -> str:
    """Sixteen hexadecimal digits that tell one training from any other.

    Args:
        what: all that it is made of, as JSON knows it or as text says it.
    """
    text = json.dumps(what, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def alone_in(folder: Path, *, what: str = "Just this training") -> Iterator[None]:
    """Hold a folder of checkpoints, made if need be; whoever dies lets go of it.

    Nobody is kept out where there are no locks (Windows, some network disks).

    Raises:
        TrainingError: another process holds it.
    """
    with ExitStack() as held:
        try:
            held.enter_context(locked(folder / _LOCK, waiting=None))
        except BlockingIOError:
            raise TrainingError(
                f"{what} is running already, in another process ({folder}).", fix="Wait for it, or end it."
            ) from None
        for half_written in folder.glob(f".*-{_FILE}"):
            half_written.unlink()
        yield


def remember_run(folder: Path, run_id: str) -> None:
    """Note which run the training in this folder is logged to."""
    with atomic_path(folder / _RUN, synced=True) as temporary:
        temporary.write_text(run_id, encoding="utf-8")


def remembered_run(folder: Path) -> str | None:
    """The run that the training in this folder was logged to when it was interrupted."""
    path = folder / _RUN
    return path.read_text(encoding="utf-8").strip() if path.exists() else None


def remember_done(folder: Path, told: str) -> None:
    """Note what the training in this folder made; the state that it would go on from is not needed any more."""
    with atomic_path(folder / _DONE, synced=True) as temporary:
        temporary.write_text(told, encoding="utf-8")
    (folder / _FILE).unlink(missing_ok=True)


def remembered_done(folder: Path) -> str | None:
    """What the training in this folder made; None when it is not finished."""
    path = folder / _DONE
    return path.read_text(encoding="utf-8") if path.exists() else None


def clear(folder: Path) -> None:
    """Remove what a training left in its folder, so that the next one starts anew."""
    for name in (_DONE, _FILE, _RUN):
        (folder / name).unlink(missing_ok=True)


def forget_old(root: Path, *, kept: int = _KEPT_FOLDERS) -> None:
    """Remove all folders below `root` but those used last and those in use; as many that are finished may stay."""
    folders = sorted((path for path in root.iterdir() if path.is_dir()), key=lambda path: -path.stat().st_mtime)
    for finished in (False, True):
        for folder in [path for path in folders if (path / _DONE).exists() == finished][kept:]:
            with suppress(TrainingError, OSError), alone_in(folder):
                shutil.rmtree(folder)
