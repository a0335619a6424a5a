"""The areas of interest that a user adds: `<home>/aois.yaml`, read and written. An entry is there by being written.

```yaml
AOI_9_Mine:
  source: /data/mine          # a folder, a .tar.gz, s3://bucket/prefix/, s3://bucket/key.tar.gz, or a list of archives
  title: My town              # this and what follows may be left out
  gsd_m: 0.3                  # size of a pixel, metres; the tiles' own georeference wins
  licence: CC BY 4.0

AOI_10_Stored:
  bucket: my-bucket           # instead of source: a bucket and a prefix, or a key (or a list of keys) of archives
  prefix: town/2024/
  endpoint_url: https://storage.example.org
  images: "imagery/{tile}.tif"        # where tiles are not named as SpaceNet's: {tile} is the id of the tile,
  labels: "labels/{tile}.geojson"     # * anything within a name; the folders above need not be written

AOI_11_Packed:
  bucket: my-bucket
  key: town.tar.gz
  size: 123456789             # of that archive, bytes
  md5: 0123456789abcdef0123456789abcdef
  images: "imagery/{tile}.tif"
  summary: labels.csv         # instead of labels: one table of all tiles, with SpaceNet's columns, or one vector
                              # file (.geojson, .json, .gpkg, .fgb, .parquet), in any CRS

AOI_12_Mirrored:
  bucket: my-bucket
  key: [tiles.tar.gz, labels.tar.gz]
  size: [123456789, 1234567]  # of several archives: one each
  unpacked: 234567890         # what its tiles take on the disk, bytes, about
  otherwise:                  # where the source does not exist, in this order
    - source: s3://my-bucket/loose/
```
"""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from footprint_pipeline.errors import MissingKeyError, SettingsError
from footprint_pipeline.files import atomic_path, locked
from footprint_pipeline.spacenet.areas import MAPS, Aoi, Part, Patterns, Source, is_archive, is_valid_name, normal_uri
from footprint_pipeline.yaml_files import Loader, read_mapping

USER_FILE = "aois.yaml"
_SOURCE = {"source", "bucket", "key", "prefix", "size", "md5", "unpacked"}
_PATTERNS = ("images", "labels", "summary")
_TEXTS = ("title", "licence", "endpoint_url", "bucket", "prefix", *_PATTERNS)
_SUFFIXES = {"images": (".tif", ".tiff"), "labels": (".geojson", ".json"), "summary": (".csv", *MAPS)}
_FIELDS = {*_SOURCE, *_TEXTS, "gsd_m", "otherwise"}
_OF_PARTS = {"source": "uri", "size": "size", "md5": "md5"}


def own_areas(home: Path) -> dict[str, Aoi]:
    """The AOIs of `<home>/aois.yaml` by name, in the order of the file; none where there is no file.

    Raises:
        SettingsError: the file is not as it should be; names the file, the entry and the field.
    """
    path = home / USER_FILE
    return {name: _Entry(path, name, entry).aoi() for name, entry in _read(path).items()}


def write_aoi(home: Path, aoi: Aoi) -> Aoi:
    """Write all that is known of an AOI but its notes to `<home>/aois.yaml`, and return it as it will be read.

    One of that name is replaced.

    Raises:
        SettingsError: the name cannot be used.
    """
    first, *others = map(_told, aoi.sources)
    fields = {
        "title": aoi.title if aoi.title != aoi.name else None,
        "gsd_m": aoi.gsd_m,
        "licence": aoi.licence or None,
        "endpoint_url": aoi.endpoint_url,
        **(asdict(aoi.patterns) if aoi.patterns else {}),
        "otherwise": others or None,
    }
    entry = first | {key: value for key, value in fields.items() if value is not None}
    path = home / USER_FILE
    written = _Entry(path, aoi.name, entry).aoi()
    with _one_writer(home):
        entries = _read(path)
        if entries.get(aoi.name) != entry:
            _write(path, entries, aoi.name, entry)
    return written


@contextmanager
def added(home: Path, aoi: Aoi) -> Iterator[None]:
    """`write_aoi`, unless there turns out to be nothing: after a MissingKeyError the file is what it was."""
    path = home / USER_FILE
    before = _text(path)
    write_aoi(home, aoi)
    entered = _text(path)
    try:
        yield
    except MissingKeyError:
        with _one_writer(home):
            if _text(path) == entered != before:  # nobody has added another since
                if before:
                    with atomic_path(path) as temporary:
                        temporary.write_text(before, encoding="utf-8")
                else:
                    path.unlink()
        raise


def _one_writer(home: Path) -> AbstractContextManager[bool]:
    return locked(home / f".{USER_FILE}.lock", waiting=f"Another command writes {USER_FILE}: waiting for it.")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _write(path: Path, entries: dict[str, object], name: str, entry: dict[str, Any]) -> None:
    """Put an entry at the end of the file, whose comments stay.

    Where one of that name is replaced they do not, and what the file was lies beside it as `aois.yaml.bak`.
    """
    former = _text(path)
    wanted = {**entries, name: entry}
    text = former.rstrip("\n") + "\n" * bool(former.strip()) + _dumped({name: entry})
    if name in entries or _parsed(text) != wanted:
        text = _dumped(wanted)
        with atomic_path(path.with_name(f"{path.name}.bak")) as temporary:
            temporary.write_text(former, encoding="utf-8")
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _dumped(entries: dict[str, Any]) -> str:
    return yaml.safe_dump(entries, sort_keys=False, allow_unicode=True)


def _parsed(text: str) -> object:
    try:
        return yaml.load(text, Loader)  # noqa: S506 - a safe one
    except yaml.YAMLError:
        return None


def _told(source: Source) -> dict[str, Any]:
    """The fields of an entry that say what a source is."""
    of_parts = {key: [getattr(part, name) for part in source.parts] for key, name in _OF_PARTS.items()}
    told = {key: values[0] if len(values) == 1 else values for key, values in of_parts.items() if any(values)}
    return told | ({"unpacked": source.unpacked} if source.unpacked else {})


def _read(path: Path) -> dict[str, object]:
    fix = f"Correct {path}: each entry is NAME: {{source: FOLDER, ARCHIVE or s3:// URI}}."
    return {str(name): entry for name, entry in read_mapping(path, fix=fix, missing_ok=True).items()}


class _Entry:
    """One entry of the file, checked field by field."""

    def __init__(self, path: Path, name: str, entry: object, fields: set[str] = _FIELDS) -> None:
        self._path, self._name = path, name
        if not is_valid_name(name):
            raise self._error("the name may hold letters, digits, '_' and '-' only.", "Choose another name.")
        if not isinstance(entry, dict):
            raise self._error("must be a mapping with a 'source'.", "Write it as NAME: {source: FOLDER}.")
        unknown = sorted(str(key) for key in entry.keys() - fields)
        if unknown:
            raise self._error(f"unknown {', '.join(unknown)}.", f"An entry may hold {', '.join(sorted(fields))}.")
        for key in _TEXTS:
            if key in entry and not (isinstance(entry[key], str) and entry[key].strip()):
                raise self._error(f"{key} is not text.", "Put it in quotes.")
        self._entry: dict[str, Any] = entry

    def aoi(self) -> Aoi:
        """What it describes."""
        entry = self._entry
        return Aoi(
            self._name,
            entry.get("title", self._name),
            (self._source(), *self._others()),
            self._number("gsd_m", entry.get("gsd_m"), "Give the size of a pixel in metres, for example 0.5."),
            entry.get("licence", ""),
            endpoint_url=entry.get("endpoint_url"),
            patterns=self._patterns(),
        )

    def _source(self) -> Source:
        uris = self._uris()
        sizes, md5s = (self._of_each(key, len(uris)) for key in ("size", "md5"))
        for size, md5 in zip(sizes, md5s, strict=True):
            self._number("size", size, "Give the bytes of the archive, for example 2571888708.", whole=True)
            if md5 is not None and not (isinstance(md5, str) and re.fullmatch(r"[0-9a-fA-F]{32}", md5)):
                raise self._error(f"md5 is {md5!r}.", "Give 32 hexadecimal digits in quotes.")
        in_bucket = all(uri.startswith("s3://") and is_archive(uri) for uri in uris)
        if any([*sizes, *md5s]) and not in_bucket:
            raise self._error("size and md5 are of archives in a bucket.", "Leave them out.")
        unpacked = self._entry.get("unpacked")
        self._number("unpacked", unpacked, "Give the bytes that its tiles take, for example 3711000000.", whole=True)
        return Source(tuple(map(Part, uris, sizes, md5s)), unpacked)

    def _others(self) -> list[Source]:
        """What to try where the source does not exist."""
        others = self._entry.get("otherwise", [])
        if not isinstance(others, list):
            raise self._error("otherwise is not a list.", "Write each source as '- source: FOLDER'.")
        return [_Entry(self._path, self._name, other, _SOURCE)._source() for other in others]

    def _of_each(self, key: str, count: int) -> list[Any]:
        """The values of a field for each of so many archives."""
        given = self._entry.get(key)
        if given is None:
            return [None] * count
        values = given if isinstance(given, list) else [given]
        if len(values) != count:
            raise self._error(
                f"{key} holds {len(values)}, not one for each of {count} archives.", "Give a list of all."
            )
        return values

    def _uris(self) -> list[str]:
        """Where its parts are: from `source`, or from `bucket` with `key` or `prefix`."""
        entry = self._entry
        if "bucket" not in entry:
            stray = [key for key in ("key", "prefix") if key in entry]
            if stray:
                raise self._error(f"{stray[0]} without a bucket.", "Add 'bucket', or give one s3:// URI as 'source'.")
            fix = "Give a folder, a .tar.gz or an s3:// URI."
            return [normal_uri(text, self._path.parent) for text in self._texts("source", fix)]
        if "source" in entry or ("key" in entry) == ("prefix" in entry):
            raise self._error(
                "a bucket needs either a key or a prefix, and no 'source'.",
                "Give 'key' for an archive, 'prefix' for loose files.",
            )
        bucket = entry["bucket"].removeprefix("s3://").strip("/")
        if "/" in bucket:
            raise self._error(f"bucket is {bucket!r}, which holds a '/'.", "Put what follows it into key or prefix.")
        if "prefix" in entry:
            return [f"s3://{bucket}/{entry['prefix'].strip('/')}".rstrip("/") + "/"]
        keys = self._texts("key", "Give the key of a .tar.gz, or a list of them.")
        wrong = [key for key in keys if not is_archive(key)]
        if wrong:
            raise self._error(f"key is {wrong[0]!r}, no .tar.gz.", "Give 'prefix' for loose files.")
        return [f"s3://{bucket}/{key.lstrip('/')}" for key in keys]

    def _texts(self, key: str, fix: str) -> list[str]:
        given = self._entry.get(key)
        texts = given if isinstance(given, list) else [given]
        kept = [text for text in texts if isinstance(text, str) and text.strip()]
        if not kept or len(kept) < len(texts):
            raise self._error(f"{key!r} is missing or not text.", fix)
        return kept

    def _number(self, key: str, value: Any, fix: str, *, whole: bool = False) -> float | None:
        kinds = int if whole else int | float
        if value is not None and (isinstance(value, bool) or not isinstance(value, kinds) or not value > 0):
            raise self._error(f"{key} is {value!r}.", fix)
        return value

    def _patterns(self) -> Patterns | None:
        given = {key: self._entry[key] for key in _PATTERNS if key in self._entry}
        if not given:
            return None
        if "images" not in given or len(given) != 2:
            raise self._error(
                f"has {' and '.join(given)}.", "Files of other names need 'images' and either 'labels' or 'summary'."
            )
        for key, pattern in given.items():
            suffixes = _SUFFIXES[key]
            if ("{tile}" in pattern) == (key == "summary") or re.search(r"[{}\\]", pattern.replace("{tile}", "")):
                what = "a name without {tile}" if key == "summary" else "a name with {tile} for the id of the tile"
                what += " (one file of all tiles is 'summary')" * (key == "labels")
                raise self._error(f"{key} is {pattern!r}.", f"Give {what}, and no other braces or backslashes.")
            if pattern.startswith("/") or ".." in pattern.split("/") or not pattern.lower().endswith(suffixes):
                fix = f"Give a path within the source that ends in {' or '.join(suffixes)}."
                if key == "summary":
                    fix += f" Other vector files are converted so: ogr2ogr {PurePosixPath(pattern).stem}.gpkg {pattern}"
                raise self._error(f"{key} is {pattern!r}.", fix)
        return Patterns(**{key: PurePosixPath(pattern).as_posix() for key, pattern in given.items()})

    def _error(self, text: str, fix: str) -> SettingsError:
        return SettingsError(f"{self._path}, AOI {self._name!r}: {text}", fix=fix)
