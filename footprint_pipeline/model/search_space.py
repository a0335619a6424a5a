"""What to search: a recipe, and which of its fields may vary, each with a range or with choices. No Keras here.

A file of what may vary:

```yaml
learning_rate: {low: 3e-4, high: 1e-2, log: true}
network.width: {choices: [16, 32, 48]}
network.dropout: {low: 0.0, high: 0.3}
```
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from footprint_pipeline.errors import SettingsError
from footprint_pipeline.model.spec import LOSSES, TrainingSpec
from footprint_pipeline.model.spec_fields import SpecField, change, fields_of, near
from footprint_pipeline.model.spec_files import read_mapping

OBJECTIVES: Mapping[str, Literal["maximize", "minimize"]] = {"val_f1": "maximize", "val_loss": "minimize"}
"""What can be searched for, and which way is better."""


@dataclass(frozen=True)
class Range:
    """Every number from `low` to `high`, both included; whole ones when both are. `log`: by their magnitude."""

    low: float
    high: float
    log: bool = False

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high

    @property
    def whole(self) -> bool:
        """Whether it holds whole numbers alone."""
        return isinstance(self.low, int) and isinstance(self.high, int)


@dataclass(frozen=True)
class Choices:
    """Values that are no range; lists among them are tuples."""

    values: tuple[Any, ...]

    def __contains__(self, value: object) -> bool:
        return value in self.values

    @property
    def by_text(self) -> dict[Any, Any]:
        """The values by how a study keeps them: lists as text."""
        return {json.dumps(value) if isinstance(value, tuple) else value: value for value in self.values}


Space = Mapping[str, Range | Choices]
"""Dotted field → what it may be."""

_IN_LOSS = ("loss", "head_weights", "network.heads", "batch_size", "chip_size", "gsd_m")
"""What the validation loss is measured by: Dice is taken over the chips of a batch."""

DEFAULT_SPACE: Space = {
    "learning_rate": Range(3e-4, 1e-2, log=True),
    "weight_decay": Range(1e-5, 1e-1, log=True),
    "batch_size": Choices((8, 16, 32)),
    "loss": Choices(LOSSES),
    "network.width": Choices((16, 24, 32, 48)),
    "network.dropout": Range(0.0, 0.3),
    "augmentation.brightness": Range(0.0, 0.25),
    "augmentation.contrast": Range(0.0, 0.4),
    "augmentation.hue": Range(0.0, 20.0),
}


@dataclass(frozen=True)
class SearchSpec:
    """What to search.

    Attributes:
        base: what every trial has but for what the space varies; the first trial is the base itself, as far as the
            space allows it.
        space: what may be varied, and how far.
        objective: `val_f1` or `val_loss`, of the epoch whose weights are kept.
        max_minutes_per_trial: of each training, not of the recipe that comes of it; the base's own limit when None.
        seed: of the search; a trial's own seed is the base's.
    """

    base: TrainingSpec = field(default_factory=TrainingSpec)
    space: Space = field(default_factory=lambda: DEFAULT_SPACE)
    objective: str = "val_f1"
    max_minutes_per_trial: float | None = None
    seed: int = 1337

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise SettingsError(
                f"No objective is called {self.objective!r}.", fix=f"Choose one of {', '.join(OBJECTIVES)}."
            )
        if self.objective == "val_loss" and (varied := [name for name in _IN_LOSS if name in self.space]):
            raise SettingsError(
                f"The losses of trials that vary {' and '.join(varied)} are not to be compared.",
                fix=f"Search for val_f1, or leave {' and '.join(varied)} out of the space.",
            )
        if not 0 <= self.seed < 2**32:
            raise SettingsError(f"seed is {self.seed}.", fix="It must be from 0 to 4294967295.")
        _ = self.limited_base  # which may be refused

    @property
    def limited_base(self) -> TrainingSpec:
        """The base with the time that a trial may take."""
        minutes = self.max_minutes_per_trial
        limit = {} if minutes is None else {"max_minutes": minutes}
        return change(self.base, limit, where="max_minutes_per_trial")


def read_space(path: Path, base: TrainingSpec) -> dict[str, Range | Choices]:
    """Read a search space.

    Args:
        path: a YAML file: names of fields, each with `{low, high}`, `{low, high, log}` or `{choices}`.
        base: what is varied; the ends of each range and each choice must suit it.

    Raises:
        SettingsError: the file cannot be read or asks for what cannot be; names it and the field.
    """
    entries = read_mapping(path)
    if not entries:
        raise SettingsError(
            f"{path}: nothing is to be varied.", fix="Name a field: learning_rate: {low: .., high: ..}."
        )
    known = {found.name: found for found in fields_of(base)}
    space: dict[str, Range | Choices] = {}
    for name, entry in entries.items():
        if name not in known:
            raise SettingsError(f"{path}: nothing is called {name}.", fix=near(name, known))
        space[name] = _axis(known[name], entry, f"{path}: {name}")
        for value in _ends(space[name]):
            change(base, {name: value}, where=str(path))
    return space


def own_point(spec: SearchSpec) -> dict[str, Any]:
    """Where in the space the base itself lies, as a study keeps it: field → value, for those that the space allows."""
    own = {known.name: known.default for known in fields_of(spec.base)}
    return {
        name: next(text for text, value in axis.by_text.items() if value == own[name])
        if isinstance(axis, Choices)
        else own[name]
        for name, axis in spec.space.items()
        if own[name] in axis
    }


def recipe_at(spec: SearchSpec, point: Mapping[str, Any], *, limited: bool) -> TrainingSpec:
    """The base with the values of a point of the space, as a study keeps it.

    Args:
        spec: the search.
        point: field → value.
        limited: with the time that a trial may take, or with the base's own.

    Raises:
        SettingsError: these values do not go together.
    """
    texts = {name: axis.by_text for name, axis in spec.space.items() if isinstance(axis, Choices)}
    values = {name: texts[name][value] if name in texts else value for name, value in point.items()}
    return change(spec.limited_base if limited else spec.base, values, where="In this trial")


def _axis(known: SpecField, entry: Any, what: str) -> Range | Choices:
    keys = set(entry) if isinstance(entry, Mapping) else set()
    if keys == {"choices"} and isinstance(entry["choices"], list) and entry["choices"]:
        return Choices(tuple(tuple(value) if isinstance(value, list) else value for value in entry["choices"]))
    if keys - {"log"} != {"low", "high"}:
        raise SettingsError(
            f"{what} is {entry!r}.", fix="Give {low: 1e-4, high: 1e-2, log: true} or {choices: [16, 32]}."
        )
    kind = next(iter(get_args(known.kind) or (known.kind,)))
    low, high, log = entry["low"], entry["high"], entry.get("log", False)
    numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high))
    if kind not in (int, float) or isinstance(known.default, tuple):
        raise SettingsError(f"{what} has no range: it is no number.", fix="Give {choices: [...]}.")
    if not numbers or low >= high or not isinstance(log, bool) or (log and low <= 0):
        raise SettingsError(
            f"{what}: {low!r} to {high!r}{' by magnitude' if log else ''} is no range.",
            fix="Give two numbers, low below high; with log: true, low above zero.",
        )
    return Range(low, high, log) if kind is int else Range(float(low), float(high), log)


def _ends(axis: Range | Choices) -> tuple[Any, ...]:
    return axis.values if isinstance(axis, Choices) else (axis.low, axis.high)
