"""YAML as people write it, read from a file. What a file may say is its reader's business."""

from pathlib import Path
from typing import Any

import yaml

from footprint_pipeline.errors import SettingsError


class Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """Refuses a name that stands twice, of which the first would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """The values of a mapping by name."""
        names: list[Any] = []
        for key, _ in node.value:
            if key.value in names:
                raise yaml.MarkedYAMLError(problem=f"{key.value} stands twice", problem_mark=key.start_mark)
            names.append(key.value)
        return super().construct_mapping(node, deep)


def read_mapping(path: Path, *, fix: str, missing_ok: bool = False, loader: type[Loader] = Loader) -> dict[Any, Any]:
    """Names and values of a YAML file, not looked into; nothing when the file is empty.

    Args:
        path: of the file.
        fix: how it should be, for the message.
        missing_ok: whether there need not be such a file; then it is as an empty one.
        loader: what is to be understood in it.

    Raises:
        SettingsError: the file is missing or is not YAML with names and values; names it, the line and the reason.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), loader)  # noqa: S506 - a safe one
    except OSError as error:
        if missing_ok and isinstance(error, FileNotFoundError | NotADirectoryError):
            return {}
        raise SettingsError(f"{path}: cannot be read ({error.strerror}).", fix=fix) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or "not text"
        raise SettingsError(f"{path}{line}: cannot be read as YAML ({reason}).", fix=fix) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: holds a {type(content).__name__}, not names with values.", fix=fix)
    return content
