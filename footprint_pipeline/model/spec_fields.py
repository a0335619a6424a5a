"""What a training can be told: every field of the specs, by name, and how to change some of them.

The dataclasses in `spec` are the one source: names, types, defaults and descriptions are read off them, so that a
field added there appears in recipes, on the command line, in Dagster and in search spaces by itself. No Keras here.
"""

import difflib
import inspect
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from footprint_pipeline.errors import SettingsError
from footprint_pipeline.model.spec import (
    ENCODER_WEIGHTS,
    HEADS,
    LOSSES,
    NORMS,
    OPTIMIZERS,
    PRECISIONS,
    SCHEDULES,
    UPSAMPLINGS,
    TrainingSpec,
)

CHOICES = {
    "loss": LOSSES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "precision": PRECISIONS,
    "network.norm": NORMS,
    "network.upsampling": UPSAMPLINGS,
    "network.encoder_weights": ENCODER_WEIGHTS,
    "network.heads": HEADS,
}
"""Fields that are one of a few words, or some of them."""


@dataclass(frozen=True)
class SpecField:
    """One thing to choose.

    Attributes:
        name: dotted, as in `network.width`.
        kind: its type, such as `int`, `float | None` or `tuple[str, ...]`.
        default: what it is when nobody chooses.
        description: what its dataclass says of it.
    """

    name: str
    kind: Any
    default: Any
    description: str

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that it may be, or may hold; none when it is not so limited."""
        return CHOICES.get(self.name, ())

    @property
    def leaf(self) -> str:
        """The name without the spec that it belongs to."""
        return self.name.rpartition(".")[2]


def fields_of(spec: Any, prefix: str = "") -> list[SpecField]:
    """The fields of a spec in their order, those of the specs within it included.

    Args:
        spec: an instance; its values are the defaults.
        prefix: put before the names.
    """
    found = []
    kinds, says = get_type_hints(type(spec)), descriptions(type(spec))
    for field in fields(spec):
        name, value = prefix + field.name, getattr(spec, field.name)
        if is_dataclass(value):
            found += fields_of(value, f"{name}.")
        else:
            found.append(SpecField(name, kinds[field.name], value, says.get(field.name, "")))
    return found


def descriptions(spec: type) -> dict[str, str]:
    """Field → what the docstring's `Attributes:` say of it, in one line."""
    section = (inspect.getdoc(spec) or "").partition("Attributes:\n")[2].split("\n\n")[0]
    entries = re.findall(r"^    (\w+): (.*(?:\n {6,}.*)*)", section, re.MULTILINE)
    lines = ((name, " ".join(text.split())) for name, text in entries)
    # A value in backticks that opens a description keeps its case.
    return {name: (line[:1].upper() + line[1:]).replace("`", "") for name, line in lines}


def plain(spec: Any) -> dict[str, Any]:
    """A spec as YAML, JSON and Dagster know it: names and values, nested, lists instead of tuples."""
    return json.loads(json.dumps(asdict(spec)))


def change(spec: TrainingSpec, values: Mapping[str, Any], *, where: str) -> TrainingSpec:
    """The spec with some values changed.

    Args:
        spec: what stays as it is.
        values: by name; dotted (`network.width`), nested (`{"network": {"width": 8}}`) or both.
        where: where the values are from, for messages.

    Raises:
        SettingsError: an unknown name, a value of the wrong type, or one that makes no sense; names it.
    """
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *above, leaf = str(name).split(".")
        inner = nested
        for part in above:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise SettingsError(f"{where}: {part} is given as a whole and in parts.", fix=f"Leave out {name}.")
        if isinstance(value, Mapping) and isinstance(inner.get(leaf), dict):
            inner[leaf] |= value
        else:
            inner[leaf] = dict(value) if isinstance(value, Mapping) else value
    try:
        return _changed(spec, nested, where=where, prefix="")
    except SettingsError as error:
        if error.problem.startswith(where):
            raise
        raise SettingsError(f"{where}: {error.problem}", fix=error.fix) from None


def near(name: str, known: Iterable[str]) -> str:
    """The way out for a name that is unknown: the nearest known ones, or all."""
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=2)
    return f"Did you mean {' or '.join(close)}?" if close else f"There is {', '.join(known)}."


def _changed(spec: Any, values: Mapping[str, Any], *, where: str, prefix: str) -> Any:
    known = {field.name: getattr(spec, field.name) for field in fields(spec)}
    kinds = get_type_hints(type(spec))
    changes = {}
    for name, value in values.items():
        dotted = f"{prefix}{name}"
        if name not in known:
            raise SettingsError(f"{where}: nothing is called {dotted}.", fix=near(name, known))
        if not is_dataclass(known[name]):
            changes[name] = _checked(kinds[name], value, f"{where}: {dotted}")
        elif isinstance(value, Mapping):
            changes[name] = _changed(known[name], value, where=where, prefix=f"{dotted}.")
        else:
            raise SettingsError(
                f"{where}: {dotted} is {value!r}, but it holds fields of its own.",
                fix=f"Give some of {', '.join(field.name for field in fields(known[name]))} under it.",
            )
    return replace(spec, **changes)


def _checked(kind: Any, value: Any, what: str) -> Any:
    try:
        # As JSON, the strict rules are those of a file: lists are tuples, 1 is a float, "1" and true are no numbers.
        return TypeAdapter(kind).validate_json(json.dumps(value, default=str, allow_nan=False), strict=True)
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"]
        reason = reason[:1].lower() + reason[1:]
    except ValueError:
        reason = "it should be a finite number"
    raise SettingsError(f"{what} is {value!r}: {reason}.", fix=f"Give {_in_words(kind)}.")


def _in_words(kind: Any) -> str:
    text = kind.__name__ if isinstance(kind, type) and kind in (int, float, bool, str) else str(kind)
    words = {
        "int": "a whole number", "float": "a number", "bool": "true or false", "str": "a word",
        "int | None": "a whole number, or null", "float | None": "a number, or null", "str | None": "a word, or null",
    }  # fmt: skip
    given = get_args(kind) if get_origin(kind) is tuple else ()
    count = f"{len(given)} " if given and given[-1] is not ... else ""
    return words.get(text, f"a list of {count}words" if "str" in text else f"a list of {count}numbers")
