"""The home as a whole: it stays where it was made, and its databases are made by one process at a time."""

import re
import shlex
from contextlib import AbstractContextManager
from pathlib import Path

from footprint_pipeline.errors import SettingsError
from footprint_pipeline.files import atomic_path, locked

_PLACE = ".place"
"""File that says where the home was made: tables and databases below it name their files by that."""


def check_name(home: Path) -> None:
    """Make sure that the addresses of databases can hold the home's path.

    Raises:
        SettingsError: they would read it otherwise than it is meant.
    """
    if found := re.search(r"\?|%[0-9A-Fa-f]{2}", str(home.absolute())):
        raise SettingsError(
            f"{home}: {found[0]!r} in a path means something else in the address of a database.",
            fix="Give the home another name (--home, FOOTPRINT_HOME).",
        )


def check_place(home: Path) -> None:
    """Make sure that a home is where it was made; one of which nobody knows is.

    Raises:
        SettingsError: it has been moved or copied, and was not linked to from there.
    """
    try:
        made_at = Path((home / _PLACE).read_text(encoding="utf-8").rstrip("\n"))
    except (OSError, UnicodeDecodeError):
        return
    try:
        if made_at.samefile(home):
            return
        fix = "It is a copy: use that one, or make a new home."
    except OSError:  # nothing is there, or nothing that may be looked into
        here, there = (shlex.quote(str(place)) for place in (home.absolute(), made_at))
        fix = f"Move it back, or let a link lead from there: ln -s {here} {there}"
    raise SettingsError(f"{home.absolute()} was made at {made_at}, and what is kept in it names that place.", fix=fix)


def keep_place(home: Path) -> None:
    """Write down where a home is made, unless that was done."""
    check_place(home)
    if not (home / _PLACE).exists():
        with atomic_path(home / _PLACE) as temporary:
            temporary.write_text(f"{home.absolute()}\n", encoding="utf-8")


def one_opening(home: Path) -> AbstractContextManager[bool]:
    """Hold what only one process at a time may: making the home's databases, or bringing them up to date."""
    return locked(home / ".databases.lock", waiting="Another command opens the databases of this home: waiting for it.")
