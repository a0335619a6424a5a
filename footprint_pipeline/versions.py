"""Which version of a registered model is meant. No MLflow: the service asks before it imports that."""

from collections.abc import Mapping
from typing import NamedTuple

EXPORTS = "exports"
"""Tag of a version: in which artifact folder of its logged model its own folders lie, for one model may be registered
several times; in the uppermost one where there is no such tag."""


class Pointed(NamedTuple):
    """What an alias points at.

    Attributes:
        version: its number, which another registry has given as well, and this one too where it began anew.
        folder: the name of its folder once it is pulled; another version's is another.
    """

    version: str
    folder: str


def pointed(version: str, *, run_id: str, tags: Mapping[str, str]) -> Pointed:
    """A version, told from another of the same number by what was exported for it, or by its run."""
    mark = tags.get(EXPORTS, "").rpartition("/")[2] or run_id or "imported"
    return Pointed(version, f"{version}-{mark[:8]}")
