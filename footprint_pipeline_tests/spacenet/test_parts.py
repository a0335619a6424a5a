import json
import threading
from pathlib import Path

import pytest

from footprint_pipeline.errors import SourceError
from footprint_pipeline.spacenet.s3.client import RemoteFile
from footprint_pipeline.spacenet.s3.parts import Partial

_REMOTE = RemoteFile("b", "k", 25, "abc")
_OTHERS = [
    RemoteFile("b", "other", 25, "abc"),
    RemoteFile("b", "k", 26, "abc"),
    RemoteFile("b", "k", 25, "abd"),
]


def _leave(target: Path, *parts: int) -> Path:
    """What a run leaves that ends after some parts of ten bytes; the journal."""
    with Partial(_REMOTE, target, part_size=10) as partial:
        for part in parts:
            partial.add(part)
    return target.with_name(f".{target.name}.journal")


def test_parts_cover_the_object(tmp_path: Path) -> None:
    with Partial(_REMOTE, tmp_path / "new" / "k", part_size=10) as partial:
        assert [partial.bounds(part) for part in partial.missing] == [(0, 10), (10, 20), (20, 25)]
        assert partial.path.stat().st_size == 25
        partial.add(2)
        assert (partial.missing, partial.arrived) == ([0, 1], 5)
        partial.finish()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["k"]


def test_the_next_run_knows_which_parts_are_there(tmp_path: Path) -> None:
    _leave(tmp_path / "k", 1)
    _leave(tmp_path / "k", 0)
    with Partial(_REMOTE, tmp_path / "k", part_size=4) as partial:  # the earlier choice stays
        assert (partial.done, partial.part_size) == ({0, 1}, 10)


def test_a_torn_line_is_forgotten_and_overwritten(tmp_path: Path) -> None:
    journal = _leave(tmp_path / "k", 0, 1)
    journal.write_bytes(journal.read_bytes()[:-1])
    with Partial(_REMOTE, tmp_path / "k", part_size=10) as partial:
        assert partial.done == {0}
        partial.add(2)
    assert journal.read_bytes().endswith(b"}\n0\n2\n")


@pytest.mark.parametrize("keep", range(0, 80, 7))
def test_a_journal_cut_anywhere_never_claims_more_than_there_is(tmp_path: Path, keep: int) -> None:
    journal = _leave(tmp_path / "k", 0, 2)
    whole = journal.read_bytes()
    cut = whole[: len(whole) - keep]
    journal.write_bytes(cut)
    with Partial(_REMOTE, tmp_path / "k", part_size=10) as partial:
        assert partial.done == {part for part in (0, 2) if b"\n%d\n" % part in cut}
        assert partial.path.stat().st_size == 25


@pytest.mark.parametrize("other", _OTHERS, ids=["another key", "another size", "another version"])
def test_what_is_left_of_another_object_is_discarded(tmp_path: Path, other: RemoteFile) -> None:
    _leave(tmp_path / "k", 0, 1)
    with Partial(other, tmp_path / "k", part_size=10) as partial:
        assert partial.done == set()
        assert set(partial.path.read_bytes()) == {0}


@pytest.mark.parametrize(
    "text",
    ["", "[]\n0\n", "{}\n", "\n", "null\n0\n", "ÿ\n", json.dumps({"part_size": 0}) + "\n0\n"],
)
def test_a_journal_that_is_none_is_ignored(tmp_path: Path, text: str) -> None:
    _leave(tmp_path / "k", 0).write_text(text, encoding="latin-1")
    with Partial(_REMOTE, tmp_path / "k", part_size=10) as partial:
        assert partial.done == set()


def test_a_partial_file_that_is_gone_counts_for_nothing(tmp_path: Path) -> None:
    _leave(tmp_path / "k", 0)
    (tmp_path / ".k.partial").unlink()
    with Partial(_REMOTE, tmp_path / "k", part_size=10) as partial:
        assert partial.done == set()


def test_nothing_stays_of_nothing(tmp_path: Path) -> None:
    _leave(tmp_path / "k")
    assert list(tmp_path.iterdir()) == []
    _leave(tmp_path / "k", 0)
    with Partial(_REMOTE, tmp_path / "k", part_size=10) as partial:
        partial.discard()
    assert list(tmp_path.iterdir()) == []


def test_one_at_a_time_even_when_the_file_is_renamed_meanwhile(tmp_path: Path) -> None:
    found: list[set[int]] = []

    def second() -> None:
        with Partial(_REMOTE, tmp_path / "k", part_size=10) as partial:
            found.append(partial.done)

    with Partial(_REMOTE, tmp_path / "k", part_size=10) as partial:
        partial.add(0)
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.3)
        assert found == []
        partial.finish()
    thread.join()
    assert found == [set()]  # a file of its own
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match=r"\.k\.partial cannot be written \(Not a directory\)") as caught:
        Partial(_REMOTE, tmp_path / "file" / "below" / "k", part_size=10)
    assert "permissions" in caught.value.fix
