"""The imagery that a service may be asked for, by name: a TOML file, and what each of its tables opens.

What belongs here: reading and checking the file. What a source does is `xyz`'s and `geotiff`'s business.

`${VARIABLE}` in a URL, header, path or token is taken from the environment, so that the file holds no secrets.
"""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import date as Date  # noqa: N812 - a source has a field of that name
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from footprint_pipeline.errors import RequestError, SettingsError, field_problems
from footprint_pipeline.files import without_tilde
from footprint_pipeline.footprints.geotiff import GeoTiffImagery
from footprint_pipeline.footprints.patch import Imagery
from footprint_pipeline.footprints.tile_cache import TileCache
from footprint_pipeline.footprints.tile_urls import names_a_secret
from footprint_pipeline.footprints.xyz import MAPBOX, MAPBOX_ATTRIBUTION, XyzImagery

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)
_Zoom = Annotated[int, Field(ge=0, le=24)]


class UnknownSourceError(RequestError):
    """A request names imagery that is not configured."""


class SourceSpec(BaseModel):
    """One source of imagery: exactly one of `url`, `path` and `mapbox`.

    Attributes:
        url: template of map tiles.
        path: a GeoTIFF or COG, on disk (from the file's own folder on, or from the home folder with ~) or behind a URL.
        mapbox: access token of Mapbox satellite.
        headers: sent with every request for a tile.
        attribution: whom to credit.
        min_zoom: coarsest zoom of the tiles.
        max_zoom: finest zoom of the tiles.
        tile_px: side of the tiles; seen from the first one when None.
        subdomains: what `{s}` in the template stands for.
        date: when the imagery was taken, in any words.
        default: whether it answers those who name none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str | None = None
    path: str | None = None
    mapbox: str | None = None
    headers: dict[str, str] = {}
    attribution: str = ""
    min_zoom: _Zoom = 0
    max_zoom: _Zoom = 19
    tile_px: int | None = Field(None, ge=64, le=4096)
    subdomains: tuple[str, ...] = ("a", "b", "c")
    date: Annotated[str | None, BeforeValidator(lambda said: said.isoformat() if isinstance(said, Date) else said)] = (
        None
    )
    default: bool = False

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum(place is not None for place in (self.url, self.path, self.mapbox)) != 1:
            raise ValueError("give exactly one of url, path and mapbox")
        meant_for = {"headers": "url", "tile_px": "url", "subdomains": "url", "min_zoom": "tiles", "max_zoom": "tiles"}
        for name in self.model_fields_set & meant_for.keys():
            if self.path is not None or (self.mapbox is not None and meant_for[name] == "url"):
                raise ValueError(f"{name} belongs to a source with a url")
        return self

    def open(self, name: str | None = None, *, folder: Path = Path(), cache: TileCache | None = None) -> Imagery:
        """The imagery.

        Args:
            name: what to call it in answers; a name of its own when None.
            folder: where a relative path starts.
            cache: where tiles are kept.

        Raises:
            SettingsError: a variable is not set, the file is missing, or the template makes no sense.
        """
        if self.mapbox is not None:
            return XyzImagery(
                MAPBOX + _expanded(self.mapbox),
                min_zoom=self.min_zoom,
                max_zoom=self.max_zoom,
                attribution=self.attribution or MAPBOX_ATTRIBUTION,
                name=name or "Mapbox satellite",
                tile_px=512,
                date=self.date,
                cache=cache,
            )
        if self.path is not None:
            path = _expanded(self.path)
            where = path if "://" in path else folder / without_tilde(path)
            return GeoTiffImagery(where, attribution=self.attribution, name=name, date=self.date)
        assert self.url is not None  # noqa: S101 - the schema sees to it
        return XyzImagery(
            _expanded(self.url),
            headers={header: _expanded(value) for header, value in self.headers.items()},
            min_zoom=self.min_zoom,
            max_zoom=self.max_zoom,
            attribution=self.attribution,
            name=name,
            tile_px=self.tile_px,
            subdomains=self.subdomains,
            date=self.date,
            cache=cache,
            identity=_expanded(self.url, secrets=False),
        )


class ImagerySources(Mapping[str, Imagery]):
    """Imagery by name, in the file's order.

    Args:
        sources: at least one.
        default: the name of the one that answers those who name none.
    """

    def __init__(self, sources: dict[str, Imagery], *, default: str) -> None:
        self._sources, self.default_name = sources, default

    def __getitem__(self, name: str) -> Imagery:
        return self._sources[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)

    @property
    def names(self) -> list[str]:
        """The default one's first, the others' in the file's order."""
        return sorted(self, key=lambda name: name != self.default_name)

    @property
    def default(self) -> Imagery:
        """The one that answers those who name none."""
        return self._sources[self.default_name]

    def choose(self, name: str | None) -> Imagery:
        """The imagery of a name; the default when None.

        Raises:
            UnknownSourceError: there is none of that name; says which there are.
        """
        if name is None:
            return self.default
        if name not in self._sources:
            raise UnknownSourceError(
                f"There is no imagery called {name!r}.", fix=f"Ask for one of: {', '.join(self._sources)}."
            )
        return self._sources[name]


def read_sources(file: Path, *, cache: TileCache | None = None) -> ImagerySources:
    """Every source of a TOML file, opened.

    Raises:
        SettingsError: the file cannot be read, or a source cannot be opened; names both, and never a secret.
    """
    try:
        tables = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(
            f"{file}: cannot be read ({error.strerror}).", fix="Set FOOTPRINT_IMAGERY_SOURCES to a TOML file."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: not TOML ({error}).", fix="See the example in docs/serving.md.") from None
    opened: dict[str, Imagery] = {}
    defaults = []
    for name, table in tables.items():
        try:
            if not _NAME.fullmatch(name):
                raise SettingsError(
                    "not a name.", fix="Take letters, digits, dots, dashes and underscores, 64 at most."
                )
            spec = SourceSpec.model_validate(table)
            opened[name] = spec.open(name, folder=file.parent, cache=cache)
        except ValidationError as error:
            said = ": ".join(filter(None, field_problems(error)[0]))
            raise SettingsError(
                f"{file}, source {name!r}: {said}.",
                fix="docs/serving.md says what a source may have.",
            ) from None
        except SettingsError as error:
            raise SettingsError(f"{file}, source {name!r}: {error.problem}", fix=error.fix) from None
        if spec.default:
            defaults.append(name)
    if not opened:
        raise SettingsError(f"{file}: names no source.", fix='Add a table, as in [streets] with url = "…" in it.')
    if len(defaults) > 1:
        raise SettingsError(f"{file}: {' and '.join(defaults)} are each the default.", fix="Leave it to one of them.")
    return ImagerySources(opened, default=(defaults or list(opened))[0])


def is_template(text: str) -> bool:
    """Whether an imagery setting is a template of tiles rather than a file."""
    return re.search(r"\{[^{}]+\}", _VARIABLE.sub("", text)) is not None


def _expanded(text: str, *, secrets: bool = True) -> str:
    """Text with every `${VARIABLE}` in place; those named like a secret only with `secrets`."""

    def value(found: re.Match[str]) -> str:
        if not secrets and names_a_secret(found[1]):
            return found[0]
        said = os.environ.get(found[1])
        if not said:
            raise SettingsError(f"{found[1]} is not set in the environment.", fix=f"Set {found[1]}.")
        return said

    return _VARIABLE.sub(value, text)
