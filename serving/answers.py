"""What the service answers, as schemas. Small answers are made from them; those with many footprints are only
described by them, and the tests hold the two together.
"""  # noqa: D205 - one sentence

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from footprint_pipeline.footprints.regularize import Outline
from footprint_pipeline.footprints.spec import ModelSpec


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Problem(_Answer):
    """What went wrong, and what to do about it (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:footprint:no-imagery",
                    "title": "No imagery there",
                    "status": 404,
                    "detail": "city.tif: no imagery around latitude 48.80000, longitude 2.30000.",
                    "fix": "It covers latitude -22.90200 to -22.89800, longitude -43.20200 to -43.19800.",
                }
            ]
        }
    )

    type: str = Field(description="which problem it is; stays the same", examples=["urn:footprint:area-too-large"])
    title: str
    status: int
    detail: str = Field(description="what is wrong this time")
    fix: str | None = Field(None, description="what to do about it")
    errors: list["FieldProblem"] | None = Field(None, description="field by field, where the schema is not met")


class FieldProblem(_Answer):
    """What is wrong with a field."""

    field: str
    problem: str


class FootprintProperties(_Answer):
    """What is known of a building."""

    confidence: float = Field(ge=0, le=1, description="how many of those it says this of are buildings")
    area_m2: float = Field(gt=0, description="geodesic, m²")
    outline: Outline = Field(description="whether this one has been given straight walls and square corners")
    model: str
    model_version: str
    tolerance: float
    gsd_m: float = Field(description="resolution that the model sees, metres a pixel")
    imagery: str = Field(description="where the pixels come from")
    imagery_date: str | None = Field(None, description="when they were taken, as the provider says it")
    imagery_gsd_m: float | None = Field(None, description="resolution they came in, metres a pixel")
    out_of_domain: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of the training tiles that are more like the rest of them than this imagery",
    )


class PixelProperties(FootprintProperties):
    """What is known of a building in an image that has no place."""

    area_m2: float | None = Field(None, gt=0, description="m², where it is known what a pixel measures")  # type: ignore[assignment]
    area_px: float = Field(gt=0, description="square pixels")


_Position = tuple[float, float]


class PolygonGeometry(_Answer):
    """A GeoJSON Polygon: exterior counter-clockwise, then holes."""

    type: Literal["Polygon"]
    coordinates: list[list[_Position]]


class MultiPolygonGeometry(_Answer):
    """Every footprint in one GeoJSON MultiPolygon."""

    type: Literal["MultiPolygon"]
    attribution: str | None = Field(None, description="whom to credit")
    coordinates: list[list[list[_Position]]]


class Feature(_Answer):
    """A building."""

    type: Literal["Feature"]
    id: str = Field(pattern="^[0-9a-f]{16}$", description="stays while the centroid, to two metres, and the model do")
    geometry: PolygonGeometry
    properties: FootprintProperties


class PixelFeature(Feature):
    """A building in an image that has no place."""

    properties: PixelProperties


class FeatureCollection(_Answer):
    """Buildings, the surest first."""

    type: Literal["FeatureCollection"]
    attribution: str | None = Field(None, description="whom to credit")
    tolerance: float = Field(description="a pixel is a building where probability > 1 - tolerance")
    out_of_domain: float | None = Field(None, ge=0, le=1)
    numberMatched: int | None = Field(None, description="how many there are")  # noqa: N815 - OGC's name
    numberReturned: int | None = Field(None, description="how many are told, by `limit`")  # noqa: N815
    features: list[Feature]


class PixelCollection(FeatureCollection):
    """Buildings in the pixels of an image."""

    coordinate_system: str = Field(description="that it is pixels, and from where")
    features: list[PixelFeature]  # type: ignore[assignment]


class ServingModel(_Answer):
    """The model in short."""

    name: str
    version: str
    gsd_m: float
    tolerance: float


class Health(_Answer):
    """Whether there is a model."""

    status: Literal["ok", "no model"]
    reason: str | None = Field(None, description="why there is none")
    fix: str | None = None
    model: ServingModel | None
    imagery: str = Field(description="the source that answers those who name none")


class Refused(_Answer):
    """A version that cannot serve."""

    version: str
    reason: str
    when: datetime


class ModelAnswer(_Answer):
    """What serves, and what is known of it."""

    alias: str = Field(description="that is followed")
    version: str | None = Field(description="that serves; null when none does")
    origin: Literal["registry", "cache"] | None = Field(description="who named it last")
    since: datetime | None = Field(description="when it was loaded")
    scores: dict[str, float] = Field(description="on the test split")
    spec: ModelSpec | None = Field(description="what the model says about itself")
    registry_answers: bool | None = Field(description="at the last look")
    checked: datetime | None = Field(description="when that was")
    problem: str | None = Field(description="why the alias is not followed, where it is not")
    fix: str | None
    refused: Refused | None = Field(description="the last version that was refused")


class RefreshAnswer(_Answer):
    """What a look at the registry came to."""

    outcome: Literal["same", "swapped"]
    version: str = Field(description="that serves now")


class ImagerySource(_Answer):
    """Imagery that a request may name."""

    name: str = Field(description="to ask for it by")
    title: str = Field(description="what answers call it")
    default: bool = Field(description="whether it answers those who name none")
    attribution: str = Field(description="whom to credit; may be empty")
    date: str | None = Field(description="when it was taken, where the source says so")
    bounds: tuple[float, float, float, float] | None = Field(
        description="what it covers: west, south, east, north, degrees; null where that is not known"
    )
    min_zoom: int = Field(description="coarsest zoom of its 256-px map tiles")
    max_zoom: int = Field(description="finest zoom that shows more than the one before")


class ImageryAnswer(_Answer):
    """Which imagery there is."""

    sources: list[ImagerySource] = Field(description="the default first")


class Index(_Answer):
    """What there is to ask."""

    name: str
    version: str
    docs: str
    endpoints: dict[str, str]
    imagery: list[str] = Field(description="sources that a request may name, the default first")
