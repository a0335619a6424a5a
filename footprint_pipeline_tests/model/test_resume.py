"""A training that was killed takes the very steps that it would have taken."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from footprint_pipeline.dataset.cache import TileCache
from footprint_pipeline.errors import TrainingError
from footprint_pipeline.model.checkpoints import (
    Checkpoint,
    alone_in,
    checkpoint_key,
    clear,
    forget_old,
    load_checkpoint,
    remember_done,
    remember_run,
    remembered_done,
    remembered_run,
    save_checkpoint,
)
from footprint_pipeline.model.conductor import Conductor
from footprint_pipeline.model.spec import TrainingSpec, UNetSpec
from footprint_pipeline.model.training import train
from footprint_pipeline_tests.model.conftest import toy_cache, toy_spec

CURVES = ("loss", "f1", "val_loss", "val_f1", "learning_rate")


def spec_with_everything() -> TrainingSpec:
    return toy_spec(
        network=UNetSpec(width=4, depth=1, dropout=0.3, norm="batch"), epochs=4, ema=0.95, chips_per_epoch=24
    )


def train_until_killed(folder: Path) -> None:
    """Runs in a process of its own, which kills itself within the third epoch."""

    def kill(self: Conductor, batch: int, logs: dict | None = None) -> None:
        if (len(self.history), batch) == (2, 3):
            os.kill(os.getpid(), signal.SIGKILL)

    Conductor.on_train_batch_begin = kill
    train(spec_with_everything(), toy_cache(), folder)


@pytest.mark.slow
def test_a_killed_training_goes_on_as_if_nothing_had_happened(cache: TileCache, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from footprint_pipeline_tests.model.test_resume import train_until_killed; "
        "train_until_killed(pathlib.Path(sys.argv[1]))"
    )
    root = Path(__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "killed")], cwd=root, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    gone_on = train(spec_with_everything(), cache, tmp_path / "killed")
    whole = train(spec_with_everything(), cache, tmp_path / "whole")
    assert len(gone_on.history) == 4
    for name in CURVES:
        assert [entry[name] for entry in gone_on.history] == [entry[name] for entry in whole.history]
    for ours, theirs in zip(gone_on.model.get_weights(), whole.model.get_weights(), strict=True):
        assert np.array_equal(ours, theirs)
    assert gone_on.seconds > sum(entry["seconds"] for entry in gone_on.history)

    # One that is complete only hands over its result.
    again = train(spec_with_everything(), cache, tmp_path / "killed")
    assert again.history == gone_on.history
    assert all(map(np.array_equal, again.model.get_weights(), gone_on.model.get_weights()))


def checkpoint(epochs: int) -> Checkpoint:
    history = [{"loss": 0.1 * epoch, "val_loss": 1 / 3} for epoch in range(epochs)]
    state = [np.full((2, 3), epochs, np.float32), np.array(7, np.int64), np.arange(2, dtype=np.uint32)]
    return Checkpoint(history, 12.5, state, [np.ones(4, np.float32)])


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    shapes = [(2, 3), (), (2,)]
    assert load_checkpoint(tmp_path, shapes) is None
    for epochs in (1, 2):
        save_checkpoint(tmp_path, checkpoint(epochs))
    found = load_checkpoint(tmp_path, shapes)
    assert found is not None
    assert (found.history, found.seconds) == (checkpoint(2).history, 12.5)
    for values, wanted in ((found.state, checkpoint(2).state), (found.best, checkpoint(2).best)):
        for ours, theirs in zip(values, wanted, strict=True):
            assert ours.dtype == theirs.dtype
            assert np.array_equal(ours, theirs)


def test_what_cannot_be_gone_on_from_is_said_and_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING")
    save_checkpoint(tmp_path, checkpoint(1))
    assert load_checkpoint(tmp_path, [(2, 4), (), (2,)]) is None
    assert "made by another version" in caplog.text
    whole = (tmp_path / "checkpoint.npz").read_bytes()
    for at, value in (
        (len(whole) // 2, None),
        (whole.index(b"PK\x01\x02") + 8, 1),
        (whole.index(b"PK\x01\x02") + 10, 99),
    ):
        caplog.clear()  # half of it, one that claims to be encrypted, one packed in a way that nobody knows
        broken = whole[:at] if value is None else whole[:at] + bytes([value]) + whole[at + 1 :]
        (tmp_path / "checkpoint.npz").write_bytes(broken)
        assert load_checkpoint(tmp_path, [(2, 3), (), (2,)]) is None
        assert "cannot be read" in caplog.text


def test_a_death_while_writing_leaves_the_former_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, checkpoint(1))

    def full(path: Path, **parts: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        with pytest.raises(TrainingError, match="No space left on device") as caught:
            save_checkpoint(tmp_path, checkpoint(2))
    assert "goes on from the epoch before" in caught.value.fix
    assert len(load_checkpoint(tmp_path, [(2, 3), (), (2,)]).history) == 1
    (tmp_path / ".0123abcd-checkpoint.npz").write_bytes(b"left by a process that was killed")
    with alone_in(tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.npz", "lock"]


def test_folders_are_held_cleared_and_forgotten(tmp_path: Path) -> None:
    for number in range(4):
        folder = tmp_path / f"training-{number}"
        with alone_in(folder):
            save_checkpoint(folder, checkpoint(1))
            remember_run(folder, f"run-{number}")
        os.utime(folder, (number, number))
    assert remembered_run(tmp_path / "training-2") == "run-2"
    clear(tmp_path / "training-2")
    assert remembered_run(tmp_path / "training-2") is None
    assert load_checkpoint(tmp_path / "training-2", [(2, 3), (), (2,)]) is None
    os.utime(tmp_path / "training-2", (2, 2))
    with alone_in(tmp_path / "training-0"):
        os.utime(tmp_path / "training-0", (0, 0))
        with pytest.raises(TrainingError, match="running already"), alone_in(tmp_path / "training-0"):
            pass
        forget_old(tmp_path, kept=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["training-0", "training-2", "training-3"]
    for number in (5, 6, 7):  # those that are finished push out none that can go on
        with alone_in(tmp_path / f"training-{number}"):
            remember_done(tmp_path / f"training-{number}", "{}")
        os.utime(tmp_path / f"training-{number}", (number, number))
    forget_old(tmp_path, kept=2)
    assert sorted(path.name[-1] for path in tmp_path.iterdir()) == ["2", "3", "6", "7"]
    assert remembered_done(tmp_path / "training-7") == "{}"
    clear(tmp_path / "training-7")
    assert remembered_done(tmp_path / "training-7") is None


def test_a_key_tells_trainings_apart() -> None:
    key = checkpoint_key(spec={"seed": 1, "heads": ("building",)}, gsd_m=0.5, path=Path("a"))
    assert key == checkpoint_key(gsd_m=0.5, path=Path("a"), spec={"heads": ("building",), "seed": 1})
    assert len({key, checkpoint_key(spec={"seed": 2, "heads": ("building",)}, gsd_m=0.5, path=Path("a"))}) == 2


def test_where_a_disk_has_no_locks_a_training_is_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", Mock(side_effect=OSError(errno.ENOLCK, "No locks available")))
    with alone_in(tmp_path):
        save_checkpoint(tmp_path, checkpoint(1))
    assert load_checkpoint(tmp_path, [(2, 3), (), (2,)]) is not None


def test_a_training_that_is_done_leaves_no_state_on_the_disk(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(2))
    remember_done(tmp_path, "made")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["done.json"]
