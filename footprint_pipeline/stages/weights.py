"""Where a training starts from when not at random: a file, or a version in the registry; and what that knows."""

import logging
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd

from footprint_pipeline.errors import SettingsError
from footprint_pipeline.settings import Settings

log = logging.getLogger(__name__)

SUFFIXES = (".keras", ".h5")
LEARNED_BEFORE = "training/learned_before.csv"
"""Artifact of a training's run: the tiles that its weights had learned from when it began, as far as that is known."""
_KEY = ["aoi", "tile_id"]
NOTHING_LEARNED = pd.DataFrame(columns=_KEY, dtype=str)


def find_weights(settings: Settings, weights: str) -> Path:
    """The file that holds weights, fetched when it is in the registry.

    Args:
        settings: which registry.
        weights: a `.keras` or `.weights.h5` file; or the alias or the number of a registered version.

    Raises:
        SettingsError: there is no such file.
        RegistryError: there is no such version, or the registry cannot be reached.
    """
    if weights.endswith(SUFFIXES):
        path = Path(weights).absolute()
        if not path.is_file():
            raise SettingsError(
                f"No weights are at {path}.", fix="Give a .keras or .weights.h5 file, an alias or a version's number."
            )
        return path
    from footprint_pipeline.registry import Registry  # MLflow takes a second, and most trainings need none of it

    registry = Registry.of(settings)
    return registry.pull_keras(version=registry.named(weights).version, into=settings.lake.pulled)


def learned_by_weights(weights: Path, manifest: pd.DataFrame) -> pd.DataFrame:
    """The tiles (`aoi`, `tile_id`) that weights have learned from, as far as is known; told where some are to judge.

    Args:
        weights: file to start from.
        manifest: of the training that starts from it.
    """
    from footprint_pipeline.registry import learned_beside

    path = learned_beside(weights)
    if not path.exists():
        return NOTHING_LEARNED
    learned = read_learned(path)
    met = manifest.merge(learned)["split"].value_counts()
    if met.get("test", 0):
        log.warning(
            "%s has learned from %d of the %d test tiles: they do not judge what comes of it",
            weights.name, met["test"], (manifest["split"] == "test").sum(),
        )  # fmt: skip
    if met.get("validation", 0):
        log.warning(
            "%s has learned from %d of the %d validation tiles: the tolerance will be chosen partly on what it knows",
            weights.name, met["validation"], (manifest["split"] == "validation").sum(),
        )  # fmt: skip
    return learned


def read_learned(source: Path | IO[bytes]) -> pd.DataFrame:
    """A list of tiles: `aoi` and `tile_id`, text."""
    return pd.read_csv(source, dtype=str, keep_default_na=False)[_KEY]


def are_in(tiles: pd.DataFrame, others: pd.DataFrame) -> np.ndarray:
    """bool, shape (N,): which of these tiles another table holds too, by `aoi` and `tile_id`."""
    one, other = (pd.MultiIndex.from_frame(table[_KEY]) for table in (tiles, others))
    return one.isin(other)
