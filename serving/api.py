"""The HTTP interface to predictions: footprints and probabilities of a place."""

import json
from dataclasses import dataclass

import cv2
import numpy as np
from flask import Blueprint, Response, request

from footprint_pipeline.footprints.domain import InputProfile
from footprint_pipeline.footprints.extract import Stages, extract, predict_patch, predict_raster, profile_patch
from footprint_pipeline.footprints.mercator import Bounds, tile_at
from footprint_pipeline.footprints.patch import Imagery
from footprint_pipeline.footprints.writers import feature_collection, multipolygon, out_of_domain
from serving.counters import Counters
from serving.model_store import LoadedModel, ModelStore
from serving.queries import AnswerForm, Coordinate, MaskQuery, PolygonQuery, from_body, polygon_query
from serving.remote_image import fetch_image

TILE_PX = 512


@dataclass(frozen=True)
class Predictions:
    """What the endpoints work with.

    Attributes:
        store: the model.
        imagery: where the pixels of a coordinate come from.
        image_url_hosts: the hosts that image_url may name.
        counters: where answers are counted.
    """

    store: ModelStore
    imagery: Imagery
    image_url_hosts: frozenset[str]
    counters: Counters

    def polygons(self, query: PolygonQuery, form: AnswerForm) -> Response:
        """Footprints as GeoJSON."""
        model = self.store.current()
        extraction = extract(
            model.runtime, self.imagery, _extent(query.coordinate, query.zoom), tolerance=query.tolerance
        )
        credit = self.imagery.attribution
        with extraction.raster.stages.timed("vectorize"):
            body = (
                multipolygon(extraction, attribution=credit)
                if form.geometry == "multipolygon"
                else feature_collection(extraction, model.runtime.spec, model_version=model.version, attribution=credit)
            )
            text = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
        response = Response(text, mimetype="application/geo+json")
        return self._told(response, model, extraction.raster.profile, extraction.raster.stages, credit)

    def mask(self, query: MaskQuery) -> Response:
        """Probabilities as PNG."""
        model = self.store.current()
        if query.image_url is not None:
            stages, credit = Stages(), ""
            with stages.timed("imagery"):
                patch = fetch_image(query.image_url, hosts=self.image_url_hosts)
            with stages.timed("predict"):
                profile = profile_patch(model.runtime.spec, patch)
                probability = predict_patch(model.runtime, patch)[..., 0]
        else:
            assert query.coordinate is not None  # noqa: S101 - the schema sees to it
            credit = self.imagery.attribution
            raster = predict_raster(model.runtime, self.imagery, _extent(query.coordinate, query.zoom))
            stages, profile, probability = raster.stages, raster.profile, _resized(raster.probability)
        png = cv2.imencode(".png", np.rint(probability * 255.0).astype(np.uint8))[1].tobytes()
        return self._told(Response(png, mimetype="image/png"), model, profile, stages, credit)

    def _told(
        self, response: Response, model: LoadedModel, profile: InputProfile, stages: Stages, attribution: str
    ) -> Response:
        """The answer, counted, and with headers that say what it was made from."""
        self.counters.count(model.runtime.spec.model_name, model.version, profile)
        response.headers["X-Model-Version"] = model.version
        for share in out_of_domain(profile).values():
            response.headers["X-Out-Of-Domain"] = f"{share:.3f}"
        response.headers["Server-Timing"] = ", ".join(
            f"{stage};dur={seconds * 1000:.1f}" for stage, seconds in stages.items()
        )
        if attribution:
            header = " ".join(attribution.split()).encode("latin-1", "replace").decode("latin-1")
            response.headers["X-Imagery-Attribution"] = header
        return response


def prediction_endpoints(predictions: Predictions) -> Blueprint:
    """The endpoints under /predict."""
    endpoints = Blueprint("predict", __name__, url_prefix="/predict")

    @endpoints.post("/polygon")
    def post_polygon() -> Response:
        """Building footprints of a 512-px slippy tile.

        Body: `{"coordinate": {"latitude": …, "longitude": …}, "zoom": 10…19 (16), "tolerance": (0, 1]}`; the
        tolerance defaults to the model's. The tile is the one that contains the coordinate; its imagery is
        read at the model's own resolution, whatever the zoom. A building belongs to the tile that holds its
        centroid, and is not cut by the tile's edge.

        Answers a GeoJSON FeatureCollection, one feature a building with `id`, `confidence`, `area_m2`,
        `model`, `model_version`, `tolerance`, `gsd_m`, `imagery` and `out_of_domain`, the share of the training
        tiles that look more like the rest of them than this imagery does; with `?geometry=multipolygon` a bare
        GeoJSON MultiPolygon instead.
        """
        form = AnswerForm.model_validate(request.args.to_dict())
        return predictions.polygons(from_body(PolygonQuery, request), form)

    @endpoints.get("/polygon")
    def get_polygon() -> Response:
        """The same for curl and browsers: `?latitude=…&longitude=…&zoom=…&tolerance=…&geometry=…`."""
        arguments = request.args.to_dict()
        form = AnswerForm.model_validate({k: arguments.pop(k) for k in AnswerForm.model_fields if k in arguments})
        return predictions.polygons(polygon_query(arguments), form)

    @endpoints.post("/mask")
    def post_mask() -> Response:
        """Building probabilities as an 8-bit grey PNG, 255 times the probability.

        Body: as for polygons, answered in the 512 × 512 px of the slippy tile; or `{"image_url": …}` on a host
        that FOOTPRINT_IMAGE_URL_HOSTS lists, answered in the image's own size.
        """
        return predictions.mask(from_body(MaskQuery, request))

    return endpoints


def _extent(coordinate: Coordinate, zoom: int) -> Bounds:
    return tile_at(coordinate.longitude, coordinate.latitude, zoom).bounds_3857


def _resized(probability: np.ndarray) -> np.ndarray:
    shrinks = min(probability.shape) > TILE_PX
    return cv2.resize(probability, (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
