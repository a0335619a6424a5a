"""Recipes: a training's spec as a YAML file. Fields that a file leaves out have their defaults. No Keras here."""

import re
from pathlib import Path
from typing import Any

import yaml

from footprint_pipeline.errors import SettingsError
from footprint_pipeline.model.spec import TrainingSpec
from footprint_pipeline.model.spec_fields import change, plain


def read_spec(path: Path) -> TrainingSpec:
    """Read a recipe.

    Raises:
        SettingsError: the file is missing, is not YAML or says something that cannot be; names the file and the field.
    """
    return change(TrainingSpec(), read_mapping(path), where=str(path))


def to_yaml(spec: TrainingSpec) -> str:
    """The whole spec as YAML; `read_spec` reads it back."""
    return yaml.safe_dump(plain(spec), sort_keys=False, default_flow_style=None, width=110)


def read_mapping(path: Path) -> dict[str, Any]:
    """Names and values of a YAML file, not looked into; nothing when the file is empty.

    Raises:
        SettingsError: the file is missing or is not YAML with names and values.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read ({error.strerror}).", fix="Check the path; configs/ holds recipes to start from."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        at = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or "not text"
        raise SettingsError(
            f"{path}{at} cannot be read as YAML ({reason}).", fix="Write lines such as epochs: 30."
        ) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(f"{path} holds no names with values.", fix="Write lines such as epochs: 30.")
    return content


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """YAML as people write it: 2e-3 is a number, and a name that stands twice is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names: list[Any] = []
        for key, _ in node.value:
            names.append(self.construct_object(key, deep=True))
            if names[-1] in names[:-1]:
                raise yaml.MarkedYAMLError(problem=f"{names[-1]} stands twice", problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)
