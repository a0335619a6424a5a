"""What a client may ask, as schemas. Unknown fields and wrong types are errors that name the field."""

from typing import Annotated, Literal, Self, TypeVar

from flask import Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from footprint_pipeline.footprints.mercator import MAX_LATITUDE

Zoom = Annotated[int, Field(ge=10, le=19, description="zoom of the 512-px slippy tile that is asked for")]
Tolerance = Annotated[float, Field(gt=0, le=1, description="a pixel is a building where probability > 1 - tolerance")]


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Coordinate(_Schema):
    """A place, degrees, WGS 84, as far as Web Mercator reaches."""

    latitude: float = Field(ge=-MAX_LATITUDE, le=MAX_LATITUDE)
    longitude: float = Field(ge=-180, le=180)


class PolygonQuery(_Schema):
    """Which footprints, and how sure."""

    coordinate: Coordinate
    zoom: Zoom = 16
    tolerance: Tolerance | None = None


class MaskQuery(_Schema):
    """Which probabilities: those of a place, or of an image somewhere else."""

    coordinate: Coordinate | None = None
    image_url: str | None = Field(None, max_length=2000)
    zoom: Zoom = 16
    tolerance: Tolerance | None = Field(None, description="accepted and ignored: a mask holds probabilities")

    @model_validator(mode="after")
    def _one_subject(self) -> Self:
        if (self.coordinate is None) == (self.image_url is None):
            raise ValueError("give either coordinate or image_url")
        return self


class AnswerForm(_Schema):
    """In which form footprints come back."""

    geometry: Literal["multipolygon"] | None = None


Query = TypeVar("Query", bound=_Schema)


def from_body(schema: type[Query], request: Request) -> Query:
    """The JSON body as `schema`; numbers must be numbers.

    Raises:
        pydantic.ValidationError: it is not JSON, or does not fit.
    """
    return schema.model_validate_json(request.get_data(), strict=True)


def polygon_query(arguments: dict[str, str]) -> PolygonQuery:
    """The same question as a query string: `latitude`, `longitude`, `zoom`, `tolerance`.

    Raises:
        pydantic.ValidationError: it does not fit.
    """
    coordinate = {name: value for name, value in arguments.items() if name in Coordinate.model_fields}
    others = {name: value for name, value in arguments.items() if name not in Coordinate.model_fields}
    return PolygonQuery.model_validate({"coordinate": coordinate, **others})
