"""What a client may ask, as schemas. Unknown fields and wrong types are errors that name the field.

`serving.openapi` documents these very schemas, so what is documented is what is checked.
"""

import re
from typing import Annotated, Any, Literal, Self, TypeVar

import shapely
from flask import Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, WithJsonSchema, model_validator
from pydantic_core import from_json
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import BadRequest, HTTPException, RequestEntityTooLarge

from footprint_pipeline.errors import RequestError
from footprint_pipeline.footprints.mercator import MAX_LATITUDE
from footprint_pipeline.footprints.regularize import Outline

MOST_FOOTPRINTS = 100_000
MOST_POSITIONS = 5_000
"""Of a polygon: whether it crosses itself takes time by the square of them."""


def _whole(number: object) -> object:
    """In JSON Schema 16.0 is an integer as well."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


_WHOLE = BeforeValidator(_whole)

Latitude = Annotated[float, Field(ge=-MAX_LATITUDE, le=MAX_LATITUDE, description="degrees north, WGS 84")]
Longitude = Annotated[float, Field(ge=-180, le=180, description="degrees east, WGS 84")]
Zoom = Annotated[int, Field(ge=10, le=19, description="zoom of the 512-px slippy tile that is asked for"), _WHOLE]
Tolerance = Annotated[
    float,
    Field(
        gt=0,
        le=1,
        description="a pixel is a building where probability > 1 - tolerance; the model's own at the place by default",
    ),
]
MinArea = Annotated[
    float, Field(ge=0, le=1e6, description="smaller footprints are left out, m²; the model's own by default")
]
Limit = Annotated[
    int,
    Field(ge=1, le=MOST_FOOTPRINTS, description="how many footprints at most; those it is surest of come first"),
    _WHOLE,
]
ImageryName = Annotated[
    str, Field(min_length=1, max_length=64, description="one of the operator's sources of imagery, by name")
]

OutlineKind = Annotated[
    Outline,
    Field(description="as the network sees it, or with straight walls and square corners where that is near it"),
]


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Coordinate(_Schema):
    """A place, degrees, WGS 84, as far as Web Mercator reaches."""

    latitude: Latitude
    longitude: Longitude


class PolygonQuery(_Schema):
    """Which footprints, and how sure."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"coordinate": {"latitude": 5.585, "longitude": -0.2}, "zoom": 16, "tolerance": 0.7}]
        }
    )

    coordinate: Coordinate
    zoom: Zoom = 16
    tolerance: Tolerance | None = None
    outline: OutlineKind = "raw"


class MaskQuery(_Schema):
    """Which probabilities: those of a place, or of an image somewhere else."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"coordinate": {"latitude": 5.585, "longitude": -0.2}, "zoom": 16},
                {"image_url": "https://images.example.org/roofs.png"},
            ]
        }
    )

    coordinate: Coordinate | None = None
    image_url: str | None = Field(None, max_length=2000, description="of a PNG, JPEG, WebP or TIFF image")
    zoom: Zoom = 16
    tolerance: Tolerance | None = Field(None, description="accepted and ignored: a mask holds probabilities")

    @model_validator(mode="after")
    def _one_subject(self) -> Self:
        if (self.coordinate is None) == (self.image_url is None):
            raise ValueError("give either coordinate or image_url")
        return self


class NoArguments(_Schema):
    """A query string beside a body that says everything."""


class AnswerForm(_Schema):
    """In which form footprints come back."""

    geometry: Literal["multipolygon", "features"] = Field(
        "multipolygon", description="all of them in one bare MultiPolygon, or features that say what they are"
    )


def _on_the_ground(position: object) -> object:
    """A position without its height, which RFC 7946 allows."""
    if isinstance(position, list):
        flat = len(position) == 3 and isinstance(position[2], int | float) and not isinstance(position[2], bool)
        return tuple(position[:2] if flat else position)
    return position


_Position = Annotated[
    tuple[Longitude, Latitude],
    BeforeValidator(_on_the_ground),
    WithJsonSchema(
        {
            "type": "array",
            "prefixItems": [TypeAdapter(axis).json_schema() for axis in (Longitude, Latitude, float)],
            "minItems": 2,
            "maxItems": 3,
            "description": "longitude, latitude, and a height that counts for nothing",
        }
    ),
]
_Box = Annotated[list[float], Field(min_length=4, max_length=6, description="counts for nothing")]
_Ring = Annotated[list[_Position], Field(min_length=4, fail_fast=True, description="closed; longitude first")]
_Rings = Annotated[list[_Ring], Field(min_length=1, fail_fast=True, description="the exterior, then holes")]


class Polygon(_Schema):
    """A GeoJSON Polygon (RFC 7946)."""

    type: Literal["Polygon"]
    bbox: _Box | None = None
    coordinates: _Rings

    @property
    def geometry(self) -> shapely.Geometry:
        """The same in shapely, degrees."""
        return _polygon(self.coordinates)


class MultiPolygon(_Schema):
    """A GeoJSON MultiPolygon (RFC 7946)."""

    type: Literal["MultiPolygon"]
    bbox: _Box | None = None
    coordinates: Annotated[list[_Rings], Field(min_length=1, fail_fast=True)]

    @property
    def geometry(self) -> shapely.Geometry:
        """The same in shapely, degrees."""
        return shapely.MultiPolygon([_polygon(rings) for rings in self.coordinates])


class FootprintsQuery(_Schema):
    """Footprints of an area: the map tile of a coordinate, a bbox or a polygon; exactly one of the three."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"coordinate": {"latitude": 5.585, "longitude": -0.2}, "zoom": 17, "tolerance": 0.7},
                {"bbox": [-0.205, 5.58, -0.2, 5.585], "min_area_m2": 20, "limit": 1000},
                {
                    "polygon": {
                        "type": "Polygon",
                        "coordinates": [[[-0.205, 5.58], [-0.2, 5.58], [-0.2, 5.585], [-0.205, 5.58]]],
                    }
                },
            ]
        }
    )

    coordinate: Coordinate | None = None
    zoom: Zoom = Field(16, description="zoom of the 512-px slippy tile of the coordinate")
    bbox: tuple[Longitude, Latitude, Longitude, Latitude] | None = Field(
        None, description="west, south, east, north; degrees"
    )
    polygon: Annotated[Polygon | MultiPolygon, Field(discriminator="type")] | None = None
    tolerance: Tolerance | None = None
    min_area_m2: MinArea | None = None
    outline: OutlineKind = "raw"
    imagery: ImageryName | None = None
    limit: Limit | None = None

    @model_validator(mode="after")
    def _one_area(self) -> Self:
        if sum(area is not None for area in (self.coordinate, self.bbox, self.polygon)) != 1:
            raise ValueError("give exactly one of coordinate (latitude and longitude), bbox and polygon")
        if "zoom" in self.model_fields_set and self.coordinate is None:
            raise ValueError("zoom goes with a coordinate")
        if self.bbox is not None:
            west, south, east, north = self.bbox
            if west >= east or south >= north:
                raise ValueError(
                    "bbox must be west, south, east, north, with west < east and south < north; "
                    "what crosses the antimeridian takes two requests"
                )
        if self.polygon is not None:
            positions = shapely.get_num_coordinates(self.polygon.geometry)
            if positions > MOST_POSITIONS:
                raise ValueError(f"polygon has {positions:,} positions; it may have {MOST_POSITIONS:,}")
            if not shapely.is_valid(self.polygon.geometry):
                raise ValueError(f"polygon is not valid: {shapely.is_valid_reason(self.polygon.geometry)}")
        return self


class ImageryChoice(_Schema):
    """Which imagery."""

    imagery: ImageryName | None = None


class TileQuery(ImageryChoice):
    """How a map tile is to be drawn."""

    tolerance: Tolerance | None = None
    min_area_m2: MinArea | None = None
    outline: OutlineKind = "raw"


class ImageOptions(_Schema):
    """How an uploaded image is to be seen."""

    tolerance: Tolerance | None = None
    min_area_m2: MinArea | None = None
    outline: OutlineKind = "raw"
    limit: Limit | None = None
    gsd_m: float | None = Field(
        None,
        gt=0,
        le=10,
        description="what a pixel measures on the ground, metres, for an image that has no place; "
        "by default as much as those of the model",
    )


Query = TypeVar("Query", bound=_Schema)
_TEXTS = ("imagery", "polygon")


def from_body(schema: type[Query], request: Request) -> Query:
    """The JSON body as `schema`; numbers must be numbers.

    Raises:
        pydantic.ValidationError: it is not JSON, or does not fit.
    """
    return schema.model_validate_json(read_body(request), strict=True)


def read_body(request: Request) -> bytes:
    """The body.

    Raises:
        BadRequest: it does not come whole.
        RequestEntityTooLarge: it is larger than `request.max_content_length`; one that comes in chunks does not say so.
    """
    try:
        body = request.get_data(cache=False)
        at_most = request.content_length is None and len(body) == request.max_content_length
        more = at_most and request.environ["wsgi.input"].read(1)
    except HTTPException:
        raise
    except Exception:  # whatever the server's own reader says of what comes over the wire
        raise BadRequest("The body did not come whole.") from None
    if more:
        raise RequestEntityTooLarge
    return body


def from_arguments(schema: type[Query], arguments: MultiDict[str, str]) -> Query:
    """The same question as a query string: a coordinate as `latitude` and `longitude`, a list with commas, a polygon
    as GeoJSON.

    Raises:
        RequestError: an argument is there twice.
        pydantic.ValidationError: it does not fit.
    """  # noqa: D205 - one sentence
    given: dict[str, Any] = {}
    for name, values in arguments.lists():
        if len(values) > 1:
            raise RequestError(f"{name}: given {len(values)} times.", fix="Give it once.")
        if re.search(r"\d_", values[0]) and name not in _TEXTS:  # Python reads 1_7 as a number
            raise RequestError(f"{name}: {values[0][:100]!r} holds a '_'.", fix="Write numbers with digits alone.")
        given[name] = values[0]
    if "coordinate" in schema.model_fields:
        coordinate = {name: given.pop(name) for name in Coordinate.model_fields if name in given}
        if coordinate or schema.model_fields["coordinate"].is_required():
            given["coordinate"] = coordinate
    if "bbox" in given:
        given["bbox"] = given["bbox"].split(",")
    if "polygon" in given:
        try:
            given["polygon"] = from_json(given["polygon"])
        except ValueError:
            raise RequestError("polygon: not JSON.", fix="Give a GeoJSON Polygon, percent-encoded.") from None
    return schema.model_validate(given)


def _polygon(rings: list[list[tuple[float, float]]]) -> shapely.Polygon:
    for number, ring in enumerate(rings):
        if ring[0] != ring[-1]:
            raise ValueError(f"polygon: ring {number} is not closed; its last position must be its first")
    return shapely.Polygon(rings[0], rings[1:])
