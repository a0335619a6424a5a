"""Batches made in processes of their own, for an accelerator that takes more than one interpreter's threads can make.

What belongs here: how batches come from one process into another. What is in them is `batches`' business. It needs
Linux's `memfd_create`; elsewhere threads have to do. Not `multiprocessing`, whose workers outlive a parent that is
killed.
"""

import mmap
import os
import pickle
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

import cv2
import numpy as np

from footprint_pipeline.dataset.batches import TrainingChips
from footprint_pipeline.errors import TrainingError

POSSIBLE = hasattr(os, "memfd_create")
_PATIENCE_S = 10.0


class ChipProcesses:
    """Makes the batches of `TrainingChips`, and the same ones, in as many processes as there are asked at a time.

    They end with the block, and with the process that began them, however that ends.

    Attributes:
        ids: of the processes.
    """

    def __init__(self, chips: TrainingChips, processes: int) -> None:
        self._free: SimpleQueue[_Maker] = SimpleQueue()
        self._makers = [_Maker(chips) for _ in range(processes)]
        self.ids = [maker.process.pid for maker in self._makers]
        for maker in self._makers:
            self._free.put(maker)

    def batch(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """As `TrainingChips.batch`; waits for a process that has nothing to do. Call it from as many threads.

        Raises:
            TrainingError: the process has ended.
        """
        maker = self._free.get()
        try:
            return maker.batch(epoch, step)
        finally:
            self._free.put(maker)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for maker in self._makers:
            maker.dismiss()
        for maker in self._makers:
            maker.wait()


class _Maker:
    """One process, and the memory that is shared with it: room for one batch."""

    def __init__(self, chips: TrainingChips) -> None:
        self._untold: TrainingChips | None = chips
        shared = os.memfd_create("chips")
        os.ftruncate(shared, sum(part.nbytes for part in chips.empty_batch()))
        self._made = _laid_out(chips, shared)
        answers, answered = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(shared), str(answered)],
            stdin=subprocess.PIPE,
            stdout=2,  # what it prints
            pass_fds=[shared, answered],
            process_group=0,  # Ctrl-C is for the process that began it
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self._asks, self._answers = cast(BinaryIO, self.process.stdin), os.fdopen(answers, "rb")
        os.close(shared)
        os.close(answered)

    def batch(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """A batch, copied out of the shared memory."""
        try:
            if self._untold is not None:  # not when it begins, for what is long waits until it is read
                _Pickler(self._asks).dump(self._untold)
                self._untold = None
            pickle.dump((epoch, step), self._asks)
            self._asks.flush()
            failure = pickle.load(self._answers)  # noqa: S301  # of our own process
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):
            self.dismiss()
            self.wait()
            raise TrainingError(
                f"A process that cuts chips has ended (exit status {self.process.returncode}).",
                fix="See whether memory was full; lower batch_size or chip_size then.",
            ) from None
        if failure is not None:
            raise failure
        images, truth = self._made
        return images.copy(), truth.copy()

    def dismiss(self) -> None:
        """Let it end."""
        with suppress(OSError):
            self._asks.close()

    def wait(self) -> None:
        """Until it has ended."""
        try:
            self.process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._answers.close()


class _Pickler(pickle.Pickler):
    """Of a whole file that is mapped it writes the name, not what is in it."""

    def reducer_override(self, thing: Any) -> Any:
        if isinstance(thing, np.memmap) and thing.offset + thing.nbytes == Path(str(thing.filename)).stat().st_size:
            return np.memmap, (thing.filename, thing.dtype, "r", thing.offset, thing.shape)
        return NotImplemented


def _laid_out(chips: TrainingChips, shared: int) -> tuple[np.ndarray, np.ndarray]:
    """A batch's arrays, one behind the other in the shared memory."""
    whole = np.frombuffer(mmap.mmap(shared, 0), np.uint8)
    images, truth = chips.empty_batch()
    return (
        whole[: images.nbytes].view(images.dtype).reshape(images.shape),
        whole[images.nbytes :].view(truth.dtype).reshape(truth.shape),
    )


def _make(shared: int, asked: BinaryIO, answered: BinaryIO) -> None:
    """Make what is asked for until nobody can ask any more."""
    chips: TrainingChips = pickle.load(asked)  # noqa: S301  # of the process that began this one
    into = _laid_out(chips, shared)
    while True:
        try:
            key = pickle.load(asked)  # noqa: S301
        except EOFError:
            return
        failure = None
        try:
            chips.batch(*key, into=into)
        except Exception as error:
            failure = error
        pickle.dump(failure, answered)
        answered.flush()


if __name__ == "__main__":
    cv2.setNumThreads(1)
    with suppress(BrokenPipeError), os.fdopen(int(sys.argv[2]), "wb") as answers:
        _make(int(sys.argv[1]), sys.stdin.buffer, answers)
