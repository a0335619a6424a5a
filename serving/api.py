"""The original interface: footprints and probabilities of a map tile, under /predict. The newer one is `footprints`."""

import cv2
import numpy as np
import orjson
from flask import Blueprint, Response, request

from footprint_pipeline.footprints.extract import Stages, extract, predict_patch, profile_patch
from footprint_pipeline.footprints.map_tiles import probability_of
from footprint_pipeline.footprints.mercator import Bounds, tile_at
from footprint_pipeline.footprints.writers import feature_collection, multipolygon
from serving.answers import FeatureCollection, MultiPolygonGeometry
from serving.encoded_image import check_image, decode
from serving.openapi import ASKED, BINARY, GEOJSON, Operation, documented
from serving.predictions import Predictions
from serving.queries import AnswerForm, Coordinate, MaskQuery, NoArguments, PolygonQuery, from_arguments, from_body
from serving.remote_image import fetch_image

TILE_PX = 512


def prediction_endpoints(predictions: Predictions) -> Blueprint:
    """The endpoints under /predict."""
    endpoints = Blueprint("predict", __name__, url_prefix="/predict")

    @endpoints.post("/polygon")
    @documented(
        Operation(
            {GEOJSON: (MultiPolygonGeometry, FeatureCollection)},
            ASKED,
            arguments=(AnswerForm,),
            body={"application/json": PolygonQuery},
            prediction=True,
        )
    )
    def post_polygon() -> Response:
        """Building footprints of a 512-px slippy tile.

        The tile is the one that contains the coordinate; its imagery is read at the model's own resolution, whatever
        the zoom. A building belongs to the tile that holds its centroid, and is not cut by the tile's edge.

        Answers a bare GeoJSON MultiPolygon; with `?geometry=features` a GeoJSON FeatureCollection instead.
        """
        form = from_arguments(AnswerForm, request.args)
        return _polygons(predictions, from_body(PolygonQuery, request), form)

    @endpoints.get("/polygon")
    @documented(
        Operation(
            {GEOJSON: (MultiPolygonGeometry, FeatureCollection)},
            ASKED,
            arguments=(PolygonQuery, AnswerForm),
            prediction=True,
        )
    )
    def get_polygon() -> Response:
        """Building footprints of a 512-px slippy tile, for curl and browsers."""
        form, question = request.args.copy(), request.args.copy()
        for name in request.args:
            (question if name in AnswerForm.model_fields else form).poplist(name)
        return _polygons(predictions, from_arguments(PolygonQuery, question), from_arguments(AnswerForm, form))

    @endpoints.post("/mask")
    @documented(Operation({"image/png": BINARY}, (*ASKED, 403), body={"application/json": MaskQuery}, prediction=True))
    def post_mask() -> Response:
        """Building probabilities as an 8-bit grey PNG, 255 times the probability.

        Those of a coordinate come in the 512 × 512 px of its slippy tile; those of an image, on a host that
        FOOTPRINT_IMAGE_URL_HOSTS lists, in the image's own size.
        """
        from_arguments(NoArguments, request.args)
        return _mask(predictions, from_body(MaskQuery, request))

    return endpoints


def _polygons(predictions: Predictions, query: PolygonQuery, form: AnswerForm) -> Response:
    imagery = predictions.sources.default
    with predictions.model() as model:
        extraction = extract(
            model.runtime,
            imagery,
            tile_extent(query.coordinate, query.zoom),
            tolerance=query.tolerance,
            outline=query.outline,
            predict=predictions.rasters(model),
        )
        stages = extraction.raster.stages
        with stages.timed("vectorize"):
            body = (
                multipolygon(extraction, attribution=imagery.attribution)
                if form.geometry == "multipolygon"
                else feature_collection(
                    extraction, model.runtime.spec, model_version=model.version, attribution=imagery.attribution
                )
            )
            answer = orjson.dumps(body)
    response = Response(answer, mimetype=GEOJSON)
    return predictions.told(response, model, extraction.raster.profile, stages, attribution=imagery.attribution)


def _mask(predictions: Predictions, query: MaskQuery) -> Response:
    if query.image_url is not None:
        stages, credit = Stages(), ""
        with predictions.fetching.turn(), stages.timed("imagery"):
            encoded = fetch_image(query.image_url, hosts=predictions.image_url_hosts)
        with predictions.model() as model:
            with stages.timed("imagery"):
                patch = decode(check_image(encoded, name="image_url"), name="image_url", source="image_url")
            with stages.timed("predict"):
                profile = profile_patch(model.runtime.spec, patch)
                probability = predict_patch(model.runtime, patch)[..., 0]
    else:
        assert query.coordinate is not None  # noqa: S101 - the schema sees to it
        imagery = predictions.sources.default
        credit = imagery.attribution
        with predictions.model() as model:
            raster = predictions.rasters(model)(model.runtime, imagery, tile_extent(query.coordinate, query.zoom))
        stages, profile = raster.stages, raster.profile
        probability = probability_of(raster, raster.bounds_3857, TILE_PX)
    png = cv2.imencode(".png", np.rint(probability * 255.0).astype(np.uint8))[1].tobytes()
    return predictions.told(Response(png, mimetype="image/png"), model, profile, stages, attribution=credit)


def tile_extent(coordinate: Coordinate, zoom: int) -> Bounds:
    """The 512-px map tile that holds a coordinate, EPSG:3857."""
    return tile_at(coordinate.longitude, coordinate.latitude, zoom).bounds_3857
