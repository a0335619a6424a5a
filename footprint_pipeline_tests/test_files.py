import ast
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from footprint_pipeline.errors import SourceError
from footprint_pipeline.files import atomic_folder, atomic_path, locked, require_room, write_if_other


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole_and_makes_its_folders(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "table.parquet"
    with atomic_path(target) as temporary:
        assert temporary.suffix == ".parquet"
        assert temporary.parent == target.parent
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert names(target.parent) == ["table.parquet"]


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "f.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="halfway"), atomic_path(target) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise RuntimeError("halfway")
    assert target.read_text() == "old"
    assert names(tmp_path) == ["f.txt"]
    with atomic_path(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"


def test_a_block_that_writes_nothing_is_an_error_and_changes_nothing(tmp_path: Path) -> None:
    target = tmp_path / "f.txt"
    target.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_path(target):
        pass
    assert target.read_text() == "old"


def test_a_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for content in ("old", "new"):
        with atomic_folder(target) as temporary:
            (temporary / f"{content}.txt").write_text(content)
        assert names(target) == [f"{content}.txt"]
    assert names(tmp_path) == ["model"]


def test_folders_may_be_swapped_at_the_same_moment(tmp_path: Path) -> None:
    target, together = tmp_path / "model", threading.Barrier(4)

    def swap(number: int) -> None:
        for _ in range(50):
            with atomic_folder(target) as temporary:
                (temporary / f"{number}.txt").touch()
                together.wait(20)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(swap, range(4)))
    assert len(names(target)) == 1
    assert names(tmp_path) == ["model"]


def test_an_error_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "old.txt").touch()
    with pytest.raises(KeyboardInterrupt), atomic_folder(target) as temporary:  # noqa: PT012
        (temporary / "half.txt").touch()
        raise KeyboardInterrupt
    assert names(target) == ["old.txt"]
    assert names(tmp_path) == ["model"]


def test_who_does_not_wait_is_told_that_somebody_else_holds_a_lock(tmp_path: Path) -> None:
    lock = tmp_path / "new" / "lock"
    with locked(lock, waiting=None) as held:
        assert held
        with pytest.raises(BlockingIOError), locked(lock, waiting=None):
            pass
    with locked(lock, waiting=None) as held:
        assert held


def test_room_is_asked_for_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_room(tmp_path / "not" / "yet", 100_000, "a little")
    monkeypatch.setattr("shutil.disk_usage", lambda at: SimpleNamespace(free=70_000_000))
    require_room(tmp_path, 1_000_000, "a little")
    with pytest.raises(SourceError, match=r"^a lot needs 10\.0 MB and 67 MB to spare; .* has room for 70\.0 MB"):
        require_room(tmp_path, 10_000_000, "a lot")


def test_what_is_as_long_but_other_is_written(tmp_path: Path) -> None:
    target = tmp_path / "mask.tif"
    write_if_other(target, b"one")
    before = target.stat()
    write_if_other(target, b"one")
    assert target.stat().st_ino == before.st_ino
    write_if_other(target, b"two")
    assert target.read_bytes() == b"two"


def test_what_must_outlive_a_power_cut_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, there = tmp_path / "checkpoint", []
    monkeypatch.setattr(os, "fsync", lambda handle: there.append(target.exists()))
    with atomic_path(target, synced=True) as temporary:
        temporary.write_text("state")
    assert there == [False]
    with atomic_path(target) as temporary:
        temporary.write_text("state")
    assert there == [False]


@pytest.mark.parametrize("package", ["footprint_pipeline", "serving", "deploy"])
def test_text_is_utf_8_whatever_the_machine_speaks(package: str) -> None:
    beside = {"read_text": 0, "write_text": 1}  # how many arguments stand before the encoding
    left_to_the_locale = [
        f"{path.name}:{call.lineno}"
        for path in (Path(__file__).parents[1] / package).rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in beside
        if len(call.args) <= beside[call.func.attr] and "encoding" not in [word.arg for word in call.keywords]
    ]
    assert left_to_the_locale == []
