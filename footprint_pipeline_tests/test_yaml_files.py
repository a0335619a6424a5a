from pathlib import Path

import pytest

from footprint_pipeline.errors import SettingsError
from footprint_pipeline.yaml_files import read_mapping


def test_names_and_values_are_read_as_yaml_has_them(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text("base: &base {a: 1, b: 2}\nother: {<<: *base, b: 3}\n1e5: 1e5\n", encoding="utf-8")
    assert read_mapping(path, fix="") == {"base": {"a": 1, "b": 2}, "other": {"a": 1, "b": 3}, "1e5": "1e5"}
    path.write_text("# nothing", encoding="utf-8")
    assert read_mapping(path, fix="") == {}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: 1\nb:\n  c: 2\n  c: 3\n", ", line 4: cannot be read as YAML (c stands twice)."),
        (b"a: 1\n? [x, y]\n: 2", ", line 2: cannot be read as YAML (found unhashable key)."),
        (b"a: [1", ", line 1: cannot be read as YAML ("),
        (b"a: \xff", ": cannot be read as YAML (not text)."),
        (b"3", ": holds a int, not names with values."),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_line_and_reason(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "some.yaml"
    path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        read_mapping(path, fix="Mend it.")
    assert caught.value.problem.startswith(f"{path}{said}")
    assert caught.value.fix == "Mend it."


def test_only_a_file_that_is_missing_is_taken_for_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for missing in (tmp_path / "none.yaml", tmp_path / "file" / "none.yaml"):
        assert read_mapping(missing, fix="", missing_ok=True) == {}
        with pytest.raises(SettingsError, match=r"none\.yaml: cannot be read \(No"):
            read_mapping(missing, fix="")
    with pytest.raises(SettingsError, match=r"cannot be read \(Is a directory\)"):
        read_mapping(tmp_path, fix="", missing_ok=True)
