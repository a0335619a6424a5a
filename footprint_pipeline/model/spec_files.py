"""Recipes: a training's spec as a YAML file. Fields that a file leaves out have their defaults. No Keras here."""

import re
from pathlib import Path
from typing import Any

import yaml

from footprint_pipeline import yaml_files
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
    """`yaml_files.read_mapping` of what holds fields of recipes."""
    fix = "Give a file with lines such as epochs: 30; configs/ holds recipes to start from."
    return yaml_files.read_mapping(path, fix=fix, loader=_Loader)


class _Loader(yaml_files.Loader):
    """To which 2e-3 is a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)
