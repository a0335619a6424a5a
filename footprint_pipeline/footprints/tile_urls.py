"""URL templates of map tiles in the forms that providers write them: XYZ, TMS, quadkeys, WMTS. No network.

A template can hold a token. `without_secrets` is what tells sources apart.
"""

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from footprint_pipeline.errors import SettingsError
from footprint_pipeline.footprints.mercator import Tile

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([a-z])-([a-z])|([0-9])-([0-9])")
_SECRET_NAME = re.compile(r"(token|key|secret|passw(or)?d|signature|credentials?|auth)$|^(sig|sas|pat)$", re.IGNORECASE)
_COLUMN, _ROW = {"x", "tilecol"}, {"y", "-y", "tilerow"}
_ZOOM = {"z", "tilematrix"}
_KNOWN = _COLUMN | _ROW | _ZOOM | {"quadkey", "s"}


class TileTemplate:
    """An http(s) URL with placeholders for a tile's numbers.

    `{z}` `{x}` `{y}`, or as WMTS names them `{TileMatrix}` `{TileCol}` `{TileRow}`; `{-y}` counts rows from the
    south (TMS); `{quadkey}` stands for all three. `{s}` is one of the subdomains, `{a-c}` one of a range of letters
    or digits.

    Args:
        template: the URL; WMTS in key-value form is one too (`…&TileMatrix={z}&TileRow={y}&TileCol={x}`).
        subdomains: what `{s}` stands for.

    Raises:
        SettingsError: it is no http(s) URL, lacks a number, or has a placeholder that means nothing.
    """

    def __init__(self, template: str, *, subdomains: Sequence[str] = "abc") -> None:
        names = {name.lower() for name in _PLACEHOLDER.findall(template)}
        whole = "quadkey" in names or all(names & axis for axis in (_ZOOM, _COLUMN, _ROW))
        if not template.startswith(("http://", "https://")) or not whole:
            raise SettingsError(
                "The imagery template is not an http(s) URL with {z}, {x} and {y}.",
                fix="Write something like https://tiles.example.com/{z}/{x}/{y}.png; {-y} counts rows from the south, "
                "{quadkey} stands for all three.",
            )
        unknown = sorted(name for name in names - _KNOWN if not _range(name))
        if unknown:
            raise SettingsError(
                f"The imagery template has {{{unknown[0]}}}, which stands for nothing here.",
                fix="Write its value instead, as in a style, a tile matrix set or a resolution.",
            )
        if "s" in names and not subdomains:
            raise SettingsError("The imagery template has {s}, but there are no subdomains.", fix="Name them.")
        self._template, self._subdomains = template, subdomains

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.host!r})"

    @property
    def host(self) -> str:
        """The host that answers, without what changes from tile to tile."""
        return _PLACEHOLDER.sub("", urlsplit(self._template).hostname or "").lstrip(".") or "XYZ"

    def url(self, tile: Tile) -> str:
        """Where a tile is; holds the token if there is one."""
        return _PLACEHOLDER.sub(lambda found: self._value(found[1].lower(), tile), self._template)

    def path_pattern(self) -> str | None:
        """Regular expression of every tile's path and query, to find them in a log; None where no token fits in."""
        url = urlsplit(self._template)
        literals = _PLACEHOLDER.split(url._replace(scheme="", netloc="", fragment="").geturl())[::2]
        if not any(re.search(r"[\w-]{8}", literal) for literal in literals):
            return None
        return r"[\w-]+".join(re.escape(literal) for literal in literals)

    def _value(self, name: str, tile: Tile) -> str:
        if name in _ZOOM:
            return str(tile.z)
        if name in _COLUMN:
            return str(tile.x)
        if name in _ROW:
            return str(2**tile.z - 1 - tile.y if name == "-y" else tile.y)
        if name == "quadkey":
            return "".join(str((tile.x >> bit & 1) + 2 * (tile.y >> bit & 1)) for bit in reversed(range(tile.z)))
        choices = _range(name) or self._subdomains
        return choices[(tile.x + tile.y) % len(choices)]


def _range(name: str) -> list[str]:
    """What a placeholder such as `a-c` stands for; nothing where it is no range."""
    if not _RANGE.fullmatch(name):
        return []
    return [chr(code) for code in range(ord(name[0]), ord(name[2]) + 1)]


def without_secrets(template: str) -> str:
    """A template without user, password and the values of parameters of its query that are named like a secret."""
    url = urlsplit(template)
    query = "&".join(
        part.partition("=")[0] if names_a_secret(part.partition("=")[0]) else part for part in url.query.split("&")
    )
    return url._replace(netloc=url.netloc.rpartition("@")[2], query=query, fragment="").geturl()


def names_a_secret(name: str) -> bool:
    """Whether a variable or parameter is named like one that holds a secret."""
    return bool(_SECRET_NAME.search(name))
