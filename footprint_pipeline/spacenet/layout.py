"""What a folder of SpaceNet tiles holds: which file is a tile, its label, the summary table, and of which tile.

The file names of SpaceNet 1 and 2 belong here, and those that a user describes by patterns, for folders, archives
and bucket listings alike. Nothing here opens a file.
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Literal

from footprint_pipeline.errors import SourceError
from footprint_pipeline.spacenet.areas import Patterns, Role, composed, is_valid_name
from footprint_pipeline.spacenet.catalog import BUILT_IN

_log = logging.getLogger(__name__)

Kind = Literal["spacenet1", "spacenet2", "spacenet2-loose", "patterns"]

_KINDS: dict[str, Kind] = {"3band": "spacenet1", "rgb-pansharpen": "spacenet2", "ps-rgb": "spacenet2-loose"}
_IGNORED_FOLDERS = {"8band", "mul", "mul-pansharpen", "pan", "ms", "ps-ms"}
_LABEL_FOLDERS = {"geojson", "buildings", "geojson_buildings"}
_BAND = re.compile(r"^(?:3band|RGB-PanSharpen|PS-RGB)_", re.IGNORECASE)
_LABEL = re.compile(r"^(?:Geo|buildings|geojson_buildings)_|_Geo$", re.IGNORECASE)
_LOOSE = re.compile(
    r"^SN\d+_buildings_(?:train|test\w*?)_(?P<aoi>.+)_(?:PS-RGB|geojson_buildings)_(?P<image>img\d+)$", re.IGNORECASE
)
_AFTER_NAME = r"(?i:(?:train|test|public|img|rgb|ps|pan|mul|geojson|polygons|buildings?|roads?)(?![a-z]))"
_AOI = re.compile(rf"AOI_\d+_[A-Za-z]+(?:_(?!{_AFTER_NAME})[A-Za-z]+(?![A-Za-z0-9]))*")
_TILES_LOOKED_FOR = "3band/3band_*.tif (SpaceNet 1), RGB-PanSharpen/*.tif or PS-RGB/*.tif (SpaceNet 2)"
_LABELS_LOOKED_FOR = (
    "vectordata/summarydata/*_3band.csv, summaryData/*.csv, geojson/*.geojson, geojson/buildings/*.geojson, "
    "geojson_buildings/*.geojson"
)
_FIX_PATTERNS = "Correct the patterns of this AOI in aois.yaml: {tile} is the id of a tile, * anything within a name."


@dataclass(frozen=True)
class TileFile:
    """An RGB tile and its label file, if it has one of its own."""

    tile_id: str
    image: Path
    geojson: Path | None


@dataclass(frozen=True)
class Layout:
    """The tiles and labels of one AOI on disk.

    Attributes:
        aoi: its name.
        kind: whose layout it is; `patterns` for one that the user described.
        folder: what was looked through.
        tiles: in natural order of their ids (img2 before img10).
        summary: file of all labels, a CSV or a vector file, if there is one.
        tile_ids: every tile that the source is known to have, also where `tiles` was limited.
        complete: whether `tile_ids` is all of the source, so that a label of any other tile is an error; not so
            when an archive was read only as far as the tiles asked for.
        stray_geojson: label files of tiles that the source does not have.
        source: where it came from, as a user would write it.
        patterns: names of the files, where they are not SpaceNet's.
    """

    aoi: str
    kind: Kind
    folder: Path
    tiles: tuple[TileFile, ...]
    summary: Path | None
    tile_ids: frozenset[str]
    complete: bool = True
    stray_geojson: tuple[Path, ...] = ()
    source: str = ""
    patterns: Patterns | None = None

    def first(self, count: int | None) -> "Layout":
        """The same with at most `count` tiles (all with None); `tile_ids` stays."""
        return self if count is None else replace(self, tiles=self.tiles[:count])


def role(path: PurePath, patterns: Patterns | None = None) -> Role | None:
    """What a file is, by its name and folders; None for what the pipeline does not use (8-band, hidden, other)."""
    if path.name.startswith("."):
        return None
    if patterns is not None:
        found = patterns.match(path)
        return found[0] if found else None
    folders = [part.lower() for part in path.parts[:-1]]
    if not _IGNORED_FOLDERS.isdisjoint(folders):
        return None
    parent = folders[-1] if folders else ""
    suffix = path.suffix.lower()
    if suffix in {".tif", ".tiff"}:
        loose = _LOOSE.match(path.stem)
        return "tile" if parent in _KINDS or _BAND.match(path.name) or loose else None
    if suffix == ".geojson":
        return "geojson" if parent in _LABEL_FOLDERS else None
    if suffix == ".csv":
        stem = path.stem.lower()
        wanted = parent == "summarydata" or "polygons_solution" in stem or "building_solutions" in stem
        return "summary" if wanted and "8band" not in stem else None
    return None


def tile_id(stem: str) -> str:
    """Id of a tile, as the summary table has it, from the stem of its image or label file (or from the id itself)."""
    stem = composed(stem)
    loose = _LOOSE.match(stem)
    if loose:
        return f"{loose['aoi']}_{loose['image']}"
    return _LABEL.sub("", _BAND.sub("", stem))


def tile_of(path: PurePath, patterns: Patterns | None = None) -> str:
    """Id of the tile that an image or label file belongs to."""
    found = patterns.match(path) if patterns else None
    return tile_id(found[1] if found else path.stem)


def natural_key(text: str) -> list[str | int]:
    """Sort key that puts img2 before img10."""
    return [int(part) if part.isdecimal() else part.lower() for part in re.split(r"([0-9]+)", text)]


def aoi_name(texts: Iterable[str]) -> str | None:
    """Name of the first SpaceNet AOI named in a text, spelt as SpaceNet does; None when none is named."""
    for text in texts:
        found = _AOI.search(text)
        if found:
            _, number, *city = found[0].split("_")
            known = {name.lower(): name for name in BUILT_IN}
            spelt = "_".join(["AOI", number, *(word.capitalize() if word.isupper() else word for word in city)])
            return known.get(f"aoi_{number}_{city[0]}".lower(), spelt)
    return None


def choose(
    paths: Iterable[PurePath], *, where: str, patterns: Patterns | None = None
) -> tuple[list[PurePath], list[PurePath], PurePath | None]:
    """Pick the tiles of one AOI and their labels out of a list of files (or keys).

    Args:
        paths: all files below a folder, archive or prefix.
        where: that folder, archive or prefix, for messages.
        patterns: names of the files, where they are not SpaceNet's.

    Returns:
        Tiles in natural order, label files, and the summary table.

    Raises:
        SourceError: no tiles, no labels, several AOIs, or several label files of one tile (and no table).
    """
    paths = sorted(paths)
    by_role: dict[Role | None, list[PurePath]] = {}
    for path in paths:
        by_role.setdefault(role(path, patterns), []).append(path)
    tiles, geojson, tables = (by_role.get(name, []) for name in ("tile", "geojson", "summary"))
    if not tiles:
        raise SourceError(
            f"{where}: no {'' if patterns else 'SpaceNet '}tiles. Looked for "
            f"{patterns.images if patterns else _TILES_LOOKED_FOR}; found {_summary(paths)}.",
            fix=_FIX_PATTERNS
            if patterns
            else "Give the folder, archive or prefix that holds the RGB tiles and their "
            "labels; tiles of other names need patterns in aois.yaml.",
        )
    if patterns is None:
        tiles, geojson, tables = _one_place(tiles, geojson, tables, where=where)
    if not geojson and not tables:
        looked_for = (patterns.labels or patterns.summary) if patterns else _LABELS_LOOKED_FOR
        raise SourceError(
            f"{where}: {len(tiles):,} tiles and no labels. Looked for {looked_for}.",
            fix=_FIX_PATTERNS
            if patterns
            else "Give the folder that holds the labels too (the test tiles of SpaceNet have none).",
        )
    if len(tables) > 1:
        narrowed = [path for path in tables if "3band" in path.stem.lower()]
        if len(narrowed) != 1:
            raise SourceError(
                f"{where}: several files of all labels ({', '.join(path.name for path in tables)}).",
                fix="Leave one of them in the folder.",
            )
        tables = narrowed
    tiles.sort(key=lambda path: natural_key(tile_of(path, patterns)))
    _check_once(tiles, "images", patterns, where=where)
    if not tables:
        _check_once(sorted(geojson, key=lambda path: tile_of(path, patterns)), "labels", patterns, where=where)
    return tiles, geojson, tables[0] if tables else None


def _check_once(
    paths: list[PurePath], what: Literal["images", "labels"], patterns: Patterns | None, *, where: str
) -> None:
    """Make sure that of files in the order of their tiles no two are of one."""
    for one, other in pairwise(paths):
        if tile_of(one, patterns) == tile_of(other, patterns):
            raise SourceError(
                f"{where}: {one} and {other} are both {'labels of ' if what == 'labels' else ''}tile "
                f"{tile_of(one, patterns)!r}.",
                fix=f"Write more folders into {what!r} in aois.yaml, or leave one of the files out."
                if patterns
                else "Leave one of the files out.",
            )


def _one_place(
    tiles: list[PurePath], geojson: list[PurePath], tables: list[PurePath], *, where: str
) -> tuple[list[PurePath], list[PurePath], list[PurePath]]:
    """Of several image folders (training and test, say) the one with labels beside it, with those."""
    folders = sorted({tile.parent for tile in tiles})
    if len(folders) == 1:
        return tiles, geojson, tables
    labelled = [at for at in folders if any(label.is_relative_to(at.parent) for label in geojson + tables)]
    if not labelled:
        return tiles, geojson, tables
    if len(labelled) > 1:
        raise SourceError(
            f"{where}: holds tiles of several places ({', '.join(str(at) for at in labelled)}).",
            fix="Give one of them at a time, by the folder above it.",
        )
    geojson, tables = (
        [path for path in found if path.is_relative_to(labelled[0].parent)] for found in (geojson, tables)
    )
    return [tile for tile in tiles if tile.parent == labelled[0]], geojson, tables


def discover(
    folder: Path,
    *,
    aoi: str | None = None,
    patterns: Patterns | None = None,
    tile_ids: frozenset[str] = frozenset(),
    complete: bool = True,
    among: Container[str] | None = None,
) -> Layout:
    """Find the tiles and labels below a folder, at any depth, in any layout that SpaceNet 1 and 2 came in.

    Args:
        folder: the folder of the tiles or one above it.
        aoi: name to use; by default it is read off the folders, then the tiles.
        patterns: names of the files, where they are not SpaceNet's.
        tile_ids: tiles that the source has besides those in the folder.
        complete: whether there are no others in the source.
        among: paths below the folder, with `/`; files that are not among them are passed over.

    Raises:
        SourceError: the folder is missing or holds no tiles, no labels or several AOIs; says what it holds.
    """
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise SourceError(f"{folder}: {what}.", fix="Give a folder in SpaceNet's layout.")
    paths = list(files_below(folder))
    if among is not None:
        gone = [path for path in paths if path.as_posix() not in among and role(path, patterns)]
        if gone:
            _log.warning("%s: %d files, %s first, are no longer at the source: not used", folder, len(gone), gone[0])
        paths = [path for path in paths if path.as_posix() in among]
    images, labels, summary = choose(paths, where=str(folder), patterns=patterns)

    geojson_of = {tile_of(path, patterns): folder / path for path in labels}
    image_of: dict[str, Path] = {}
    for image in images:
        image_of.setdefault(tile_of(image, patterns), folder / image)
    tiles = tuple(TileFile(name, image, geojson_of.get(name)) for name, image in image_of.items())
    if aoi is None:
        places = [*reversed((folder.absolute() / images[0]).parts[:-1]), *image_of]
        aoi = aoi_name(places) or re.sub(r"[^A-Za-z0-9_-]+", "_", folder.absolute().name).strip("_") or "AOI"
    if not is_valid_name(aoi):
        raise SourceError(f"{aoi!r} cannot be the name of an AOI.", fix="Use letters, digits, '_' and '-' only.")
    known = tile_ids.union(image_of)
    layout = Layout(
        aoi=aoi,
        kind="patterns" if patterns else _kind(images[0]),
        folder=folder,
        tiles=tiles,
        summary=folder / summary if summary else None,
        tile_ids=known,
        complete=complete,
        stray_geojson=tuple(path for name, path in geojson_of.items() if complete and name not in known),
        source=str(folder),
        patterns=patterns,
    )
    _log.info("%s: %d tiles of %s (%s)", folder, len(tiles), aoi, layout.kind)
    return layout


def _kind(image: PurePath) -> Kind:
    if _LOOSE.match(image.stem):
        return "spacenet2-loose"
    band = _BAND.match(image.name)
    return _KINDS.get(band[0][:-1].lower() if band else image.parent.name.lower(), "spacenet1")


def files_below(folder: Path) -> Iterable[PurePath]:
    """Every file below a folder, relative to it, links to folders included, each folder once."""
    seen = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if (real := os.path.realpath(root)) in seen:  # a link leads back, or two to one place
            folders.clear()
            continue
        seen.add(real)
        at = Path(root).relative_to(folder)
        yield from (at / name for name in names if not name.startswith("."))


def _summary(paths: list[PurePath]) -> str:
    """What a list of files holds, in a few words."""
    if not paths:
        return "nothing"
    ignored = sorted({part for path in paths for part in path.parts[:-1] if part.lower() in _IGNORED_FOLDERS})
    suffixes = Counter(path.suffix.lower() or "without suffix" for path in paths).most_common(4)
    counts = ", ".join(f"{count:,} {suffix}" for suffix, count in suffixes)
    bands = f" (of which {', '.join(ignored)} has no RGB tiles)" if ignored else ""
    return f"{len(paths):,} files: {counts}{bands}"
