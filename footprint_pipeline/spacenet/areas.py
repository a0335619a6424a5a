"""What an area of interest is: its sources, their parts, and how its files are named.

Only descriptions belong here; which areas there are is `catalog`'s business. Imports nothing heavy.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Literal

Role = Literal["tile", "geojson", "summary"]
"""What a file is to the pipeline."""

SYNTHETIC_URI = "synthetic:"
ARCHIVES = (".tar.gz", ".tgz")
MAPS = (".geojson", ".json", ".gpkg", ".fgb", ".parquet")
"""How the name of a vector file with the buildings of all tiles ends."""
_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Part:
    """One archive, folder or prefix of a source.

    Attributes:
        uri: `s3://bucket/key.tar.gz`, `s3://bucket/prefix/`, the absolute path of a folder or of a .tar.gz, or
            `synthetic:`.
        size: bytes, exact or as published (rounded); None where unknown.
        md5: of the file of that size, as hexadecimal digits; None where unknown.
    """

    uri: str
    size: int | None = None
    md5: str | None = None


@dataclass(frozen=True)
class Source:
    """One way to have an AOI; all parts are needed.

    Attributes:
        parts: what it consists of.
        unpacked: bytes that its tiles take on the disk, about; None where unknown (then they are taken to need
            as much as the archives themselves, which compressed RGB tiles always do).
    """

    parts: tuple[Part, ...]
    unpacked: int | None = None

    @property
    def uris(self) -> tuple[str, ...]:
        """Where its parts are."""
        return tuple(part.uri for part in self.parts)

    @property
    def packed(self) -> bool:
        """Whether it consists of archives; otherwise its files can be had one by one."""
        return all(is_archive(uri) for uri in self.uris)

    @property
    def size(self) -> int | None:
        """Bytes of all its parts; None where one is unknown."""
        sizes = [part.size for part in self.parts if part.size is not None]
        return sum(sizes) if len(sizes) == len(self.parts) else None


@dataclass(frozen=True)
class Patterns:
    """File names of tiles that are not named as SpaceNet's.

    A pattern is the end of a file's path, with `/` between folders. `{tile}` stands for the id of the tile
    (twice the same id where it stands twice), `*` for anything within a name. The extension may be in capitals, and
    letters may be composed (NFC) or not, as a Mac writes them; the id is composed.

    Attributes:
        images: RGB tiles, such as `imagery/{tile}.tif`.
        labels: one GeoJSON a tile, such as `labels/{tile}.geojson`; None where `summary` is given.
        summary: the file of all labels: a table such as `labels.csv`, in the columns of SpaceNet's, or a vector file
            such as `buildings.gpkg`, in any CRS.
    """

    images: str
    labels: str | None = None
    summary: str | None = None

    def match(self, path: PurePath) -> tuple[Role, str] | None:
        """What a file is and of which tile (none for the summary table); None for any other file."""
        named: dict[Role, str | None] = {"tile": self.images, "geojson": self.labels, "summary": self.summary}
        for role, pattern in named.items():
            found = _compiled(composed(pattern)).fullmatch(composed(path.as_posix())) if pattern else None
            if found:
                return role, found.groupdict().get("tile", "")
        return None


@lru_cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """A pattern as a regular expression for whole paths."""
    extension = PurePath(pattern).suffix
    name = pattern.removesuffix(extension)
    first, *others = ("[^/]*".join(re.escape(text) for text in piece.split("*")) for piece in name.split("{tile}"))
    tile = f"(?P<tile>[^/]+){'(?P=tile)'.join(others)}" if others else ""
    return re.compile(f"(?:.*/)?{first}{tile}(?i:{re.escape(extension)})")


@dataclass(frozen=True)
class Aoi:
    """An area of interest.

    Attributes:
        name: letters, digits, `_` and `-`; the partition key.
        title: for people.
        sources: tried in this order; the next one only when a key of the former does not exist.
        gsd_m: ground size of a pixel in metres, as published; None where unknown. The tiles' own georeference
            is what everything is computed with.
        licence: of imagery and labels; empty where unknown.
        notes: what a user should know.
        endpoint_url: S3-compatible server of this AOI; None for the one of the settings.
        patterns: names of its files; None for SpaceNet's.
    """

    name: str
    title: str
    sources: tuple[Source, ...]
    gsd_m: float | None = None
    licence: str = ""
    notes: str = ""
    endpoint_url: str | None = None
    patterns: Patterns | None = None


def composed(name: str) -> str:
    """A name as most systems write it (NFC); names from a Mac may hold 'ü' as 'u' and two dots (NFD)."""
    return unicodedata.normalize("NFC", name)


def is_archive(name: str) -> bool:
    """Whether a file or key of this name is an archive that can be unpacked."""
    return name.lower().endswith(ARCHIVES)


def is_valid_name(name: str) -> bool:
    """Whether an AOI may be called so."""
    return _NAME.fullmatch(name) is not None


def normal_uri(text: str, base: Path) -> str:
    """An s3:// URI as it is, a local path made absolute (relative ones start at `base`)."""
    if text.startswith(("s3://", SYNTHETIC_URI)):
        return text
    return (base.absolute() / Path(text).expanduser()).resolve().as_posix()
