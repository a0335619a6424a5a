"""The interface to footprints of any area and of uploaded images, under /v1/footprints."""

from typing import Any

import shapely
from flask import Blueprint, Response, request

from footprint_pipeline.errors import ImageryError, NoImageryError, RequestError
from footprint_pipeline.footprints.extract import AreaTooLargeError, Extraction, extract
from footprint_pipeline.footprints.geotiff import GeoTiffImagery
from footprint_pipeline.footprints.mercator import Bounds, ground_scale, to_3857
from footprint_pipeline.footprints.patch import TooCoarseError, check_resolution
from footprint_pipeline.footprints.unplaced import UnplacedExtraction, extract_unplaced
from footprint_pipeline.footprints.writers import feature_collection, pixel_collection
from serving.answers import FeatureCollection, PixelCollection
from serving.api import tile_extent
from serving.encoded_image import MAX_BYTES
from serving.forms import OTHERS, accepted_form, written
from serving.model_store import LoadedModel
from serving.openapi import ASKED, BINARY, GEOJSON, Operation, documented
from serving.predictions import Predictions
from serving.queries import FootprintsQuery, ImageOptions, NoArguments, from_arguments, from_body
from serving.uploads import NAME, opened, read_upload

_JSON = "application/json"
_LEAST_M = 32.0
"""The imagery of smaller areas is read this wide, metres, so that its pixels are as wide as those of the model."""
_ANSWERS = {GEOJSON: FeatureCollection, **OTHERS}
_IMAGE_ANSWERS = {GEOJSON: (FeatureCollection, PixelCollection), **OTHERS}
_IMAGES = {
    **dict.fromkeys(("image/tiff", "image/png", "image/jpeg", "application/octet-stream"), BINARY),
    "multipart/form-data": {
        "type": "object",
        "properties": {NAME: BINARY},
        "required": [NAME],
        "additionalProperties": False,
    },
}


def footprint_endpoints(predictions: Predictions) -> Blueprint:
    """The endpoints under /v1/footprints."""
    endpoints = Blueprint("footprints", __name__, url_prefix="/v1/footprints")
    problems = (*ASKED, 406)

    @endpoints.post("")
    @documented(Operation(_ANSWERS, problems, body={_JSON: FootprintsQuery}, prediction=True))
    def post_footprints() -> Response:
        """Building footprints of an area: GeoJSON, one feature a line, GeoParquet, FlatGeobuf or GeoPackage.

        The area is the map tile of a coordinate, a bbox or a polygon. A building belongs to the area that holds its
        centroid, and is not cut by its edge. `Accept` chooses between a FeatureCollection (application/geo+json), a
        sequence of features by RFC 8142 (application/geo+json-seq), plain lines (application/x-ndjson), and the files
        GeoParquet 1.1 (application/vnd.apache.parquet), FlatGeobuf (application/vnd.flatgeobuf) and GeoPackage
        (application/geopackage+sqlite3).
        """
        from_arguments(NoArguments, request.args)
        return _footprints(predictions, from_body(FootprintsQuery, request))

    @endpoints.get("")
    @documented(Operation(_ANSWERS, problems, arguments=(FootprintsQuery,), prediction=True))
    def get_footprints() -> Response:
        """Building footprints of an area, for curl and browsers.

        A bbox is four numbers with commas between them, a polygon is GeoJSON, percent-encoded.
        """
        return _footprints(predictions, from_arguments(FootprintsQuery, request.args))

    @endpoints.post("/image")
    @documented(Operation(_IMAGE_ANSWERS, problems, arguments=(ImageOptions,), body=_IMAGES, prediction=True))
    def post_image() -> Response:
        """Building footprints of an uploaded GeoTIFF, PNG or JPEG: the body, or the part `image` of a form.

        Those of a GeoTIFF come in degrees. Those of an image that has no place come in its own pixels, x to the right
        and y down from the upper left corner, with `area_px` and, when `gsd_m` is given, `area_m2`; GeoParquet,
        FlatGeobuf and GeoPackage have no CRS then.
        """
        request.max_content_length = MAX_BYTES
        request.max_form_parts = 8
        options = from_arguments(ImageOptions, request.args)
        form = accepted_form(request)
        return _of_image(predictions, read_upload(request), options, form)

    return endpoints


def _footprints(predictions: Predictions, query: FootprintsQuery) -> Response:
    form, imagery = accepted_form(request), predictions.sources.choose(query.imagery)
    extent, within = _area(query)
    with predictions.model() as model:
        extraction = extract(
            model.runtime,
            imagery,
            extent,
            tolerance=query.tolerance,
            min_area_m2=query.min_area_m2,
            outline=query.outline,
            within_wgs84=within,
            predict=predictions.rasters(model),
        )
        return _answer(predictions, extraction, model, form, limit=query.limit, attribution=imagery.attribution)


def _of_image(predictions: Predictions, encoded: bytes, options: ImageOptions, form: str) -> Response:
    with predictions.model() as model, opened(encoded) as image:
        chosen: dict[str, Any] = {
            "tolerance": options.tolerance,
            "min_area_m2": options.min_area_m2,
            "outline": options.outline,
        }
        extraction: Extraction | UnplacedExtraction
        try:
            if isinstance(image, GeoTiffImagery):
                if options.gsd_m is not None:
                    raise RequestError("gsd_m: the image has a place, which says it.", fix="Leave gsd_m out.")
                check_resolution(image.name, image.gsd_m, model.runtime.spec.gsd_m)
                extraction = extract(model.runtime, image, to_3857(image.extent_wgs84), **chosen)
            else:
                extraction = extract_unplaced(model.runtime, image, gsd_m=options.gsd_m, **chosen)
        # Here the provider is whoever asks.
        except AreaTooLargeError as error:
            raise AreaTooLargeError(error.problem, fix="Send a smaller part of it.") from None
        except TooCoarseError as error:
            raise TooCoarseError(error.problem, fix="Send an image whose pixels show less ground.") from None
        except NoImageryError:
            raise RequestError(
                "uploaded image: nothing in it is to be seen.", fix="Send it with pixels that are not transparent."
            ) from None
        except ImageryError as error:
            raise RequestError(error.problem, fix=error.fix) from None
        return _answer(predictions, extraction, model, form, limit=options.limit)


def _answer(
    predictions: Predictions,
    extraction: Extraction | UnplacedExtraction,
    model: LoadedModel,
    form: str,
    *,
    limit: int | None,
    attribution: str = "",
) -> Response:
    """The footprints in a form, at most `limit` of them."""
    spec, version = model.runtime.spec, model.version
    if isinstance(extraction, Extraction):
        stages, profile = extraction.raster.stages, extraction.raster.profile
        with stages.timed("write"):
            body = feature_collection(extraction, spec, model_version=version, attribution=attribution)
    else:
        stages, profile = extraction.stages, extraction.profile
        with stages.timed("write"):
            body = pixel_collection(extraction, spec, model_version=version)
    with stages.timed("write"):
        features = body.pop("features")
        told = features[:limit]
        body |= {"numberMatched": len(features), "numberReturned": len(told), "features": told}
        response = written(body, form)
    return predictions.told(response, model, profile, stages, attribution=attribution)


def _area(query: FootprintsQuery) -> tuple[Bounds, shapely.Geometry | None]:
    """The rectangle to read (EPSG:3857), and what centroids must lie in besides (degrees)."""
    if query.coordinate is not None:
        return tile_extent(query.coordinate, query.zoom), None
    if query.polygon is not None:
        area = query.polygon.geometry
    else:
        assert query.bbox is not None  # noqa: S101 - the schema sees to it
        area = shapely.box(*query.bbox)
    asked = to_3857(Bounds(*area.bounds))
    read = _at_least(asked, _LEAST_M / ground_scale(asked))
    return read, area if query.polygon is not None or read != asked else None


def _at_least(bounds: Bounds, side: float) -> Bounds:
    """Bounds that are no narrower than `side`, around the same middle."""
    (x, y), half = bounds.centre, side / 2
    return Bounds(
        min(bounds.left, x - half), min(bounds.bottom, y - half), max(bounds.right, x + half), max(bounds.top, y + half)
    )
