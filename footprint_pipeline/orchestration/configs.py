"""Dagster configs with the fields of the core's specs: names, types, defaults and descriptions are read off them."""

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

import dagster as dg
from pydantic import Field, create_model

from footprint_pipeline.model.spec_fields import CHOICES, descriptions


def config_of(
    spec: Any, *, only: Iterable[str] = (), choices: Mapping[str, tuple[str, ...]] = CHOICES, prefix: str = ""
) -> Any:
    """A Dagster config with the fields of a spec: a class, but mypy takes no class that is made at run time.

    Its method `spec()` makes a spec of what was chosen, unless specs are within it.

    Args:
        spec: an instance; its values are the defaults.
        only: names of the fields to take; all when empty.
        choices: fields that are one of a few words.
        prefix: put before the names when looking up what they may be.
    """
    kinds, says = get_type_hints(type(spec)), descriptions(type(spec))
    names = tuple(only) or tuple(field.name for field in fields(spec))
    members: dict[str, Any] = {}
    for name in names:
        kind, value = kinds[name], getattr(spec, name)
        if is_dataclass(value):
            kind = config_of(value, choices=choices, prefix=f"{prefix}{name}.")
            value = kind()
        elif get_origin(kind) is tuple:  # Dagster knows lists only
            kind, value = list[get_args(kind)[0]], list(value)  # type: ignore[misc]
        elif prefix + name in choices:
            kind = Literal[choices[prefix + name]]
        members[name] = (kind, Field(value, description=says.get(name)))

    class Made(dg.Config):
        def spec(self) -> Any:
            return type(spec)(**self.model_dump(include=set(names)))

    return create_model(f"{type(spec).__name__}Config", __base__=Made, **members)
