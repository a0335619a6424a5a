"""Batches made in other processes are those made here, and the processes end when they should."""

import io
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from footprint_pipeline.dataset.augmentation import NONE, AugmentationSpec
from footprint_pipeline.dataset.batches import TrainingChips, stream
from footprint_pipeline.dataset.processes import POSSIBLE, ChipProcesses, _Pickler
from footprint_pipeline.errors import DatasetError, TrainingError
from footprint_pipeline_tests.dataset.test_batches import fails, memory_cache, noisy, plain

pytestmark = pytest.mark.skipif(not POSSIBLE, reason="needs memfd_create, which Linux has")


@pytest.fixture
def chips() -> TrainingChips:
    cache = memory_cache(*(noisy("train", seed) for seed in range(3)))
    return TrainingChips(cache, 32, 3, AugmentationSpec(), 7, ("building", "border"), np.uint8)


def mapped(chips: TrainingChips, folder: Path) -> TrainingChips:
    """The same chips of a cache whose files are mapped."""
    cache = chips.cache
    for name, array in {"images": cache.images, "labels": cache.labels}.items():
        array.tofile(folder / name)
    images = np.memmap(folder / "images", np.uint8, "r", shape=cache.images.shape)
    return replace(chips, cache=replace(cache, images=images, labels=np.memmap(folder / "labels", np.uint8, "r")))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_they_make_the_same_batches_in_the_same_order(chips: TrainingChips, tmp_path: Path, dtype: type) -> None:
    chips = mapped(replace(chips, dtype=dtype), tmp_path)
    with ChipProcesses(chips, 2) as processes:
        made = list(islice(stream(processes, steps_per_epoch=4, start=(1, 2), threads=2, ahead=5), 9))
    assert len(made) == 9
    for number, (images, truth) in enumerate(made, start=6):
        expected = chips.batch(*divmod(number, 4))
        assert (images.dtype, truth.dtype) == (dtype, np.uint8)
        assert np.array_equal(images, expected[0])
        assert np.array_equal(truth, expected[1])


def test_what_is_mapped_is_named_and_not_sent(chips: TrainingChips, tmp_path: Path) -> None:
    def sent(chips: TrainingChips) -> int:
        _Pickler(file := io.BytesIO()).dump(chips)
        return file.tell()

    whole = mapped(chips, tmp_path)
    part = replace(whole, cache=replace(whole.cache, images=whole.cache.images[10:]))
    assert sent(whole) < 4000 < whole.cache.images.nbytes
    assert sent(part) > part.cache.images.nbytes, "a part of a file has no name"


def test_what_fails_there_is_raised_here(chips: TrainingChips) -> None:
    with (
        ChipProcesses(replace(chips, cache=memory_cache(plain("test", 20))), 1) as processes,
        pytest.raises(DatasetError, match="No tile is in the train split") as caught,
    ):
        processes.batch(0, 0)
    assert caught.value.fix == "Prepare more tiles, or another split."


def test_after_a_failure_it_goes_on(chips: TrainingChips) -> None:
    broken = replace(chips, batch_size=1, spec=NONE, cache=replace(chips.cache, images=chips.cache.images[:3000]))
    bad, good = (next(step for step in range(50) if fails(broken, step) is wanted) for wanted in (True, False))
    with ChipProcesses(broken, 1) as processes:
        with pytest.raises(ValueError, match="reshape"):
            processes.batch(0, bad)
        assert np.array_equal(processes.batch(0, good)[0], broken.batch(0, good)[0])


def test_a_process_that_was_killed_is_told_of(chips: TrainingChips) -> None:
    with ChipProcesses(chips, 1) as processes:
        processes.batch(0, 0)
        os.kill(processes.ids[0], signal.SIGKILL)
        with pytest.raises(TrainingError, match=r"cuts chips has ended \(exit status -9\)") as caught:
            processes.batch(0, 1)
    assert "memory" in caught.value.fix


def test_what_is_printed_there_is_no_answer(
    chips: TrainingChips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('welcome', flush=True)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with ChipProcesses(chips, 1) as processes:
        assert np.array_equal(processes.batch(0, 0)[0], chips.batch(0, 0)[0])


def test_they_end_with_the_block(chips: TrainingChips) -> None:
    with ChipProcesses(chips, 2) as processes:
        processes.batch(0, 0)  # the other one has been told nothing
        assert len(processes.ids) == 2
        assert all(Path(f"/proc/{each}").exists() for each in processes.ids)
    assert not any(Path(f"/proc/{each}").exists() for each in processes.ids)


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_they_end_with_whoever_began_them(death: signal.Signals) -> None:
    program = (
        "import signal, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which who runs the tests may have put off
        "from footprint_pipeline_tests.dataset.test_batches import memory_cache, noisy\n"
        "from footprint_pipeline.dataset.augmentation import NONE\n"
        "from footprint_pipeline.dataset.batches import TrainingChips\n"
        "from footprint_pipeline.dataset.processes import ChipProcesses\n"
        "with ChipProcesses(TrainingChips(memory_cache(noisy('train', 0)), 32, 2, NONE, 0), 2) as processes:\n"
        "    processes.batch(0, 0)\n"
        "    print(*processes.ids, flush=True)\n"
        "    time.sleep(100)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as parent:
        ids = [int(each) for each in parent.stdout.readline().split()]
        assert all(Path(f"/proc/{each}").exists() for each in ids)
        os.killpg(parent.pid, death) if death == signal.SIGINT else parent.kill()
        parent.wait(30)
        said = parent.stderr.read().decode()
    assert len(ids) == 2
    for _ in range(100):
        if not any(Path(f"/proc/{each}").exists() for each in ids):
            break
        time.sleep(0.1)
    else:
        pytest.fail("a process is left")
    assert said.count("KeyboardInterrupt") == (death == signal.SIGINT), "only one of them was interrupted"
