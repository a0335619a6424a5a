"""Map tiles of what the model sees, under /v1/tiles, for maps and GIS."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import orjson
import shapely
from flask import Blueprint, Response, request
from shapely.geometry import shape

from footprint_pipeline.footprints.domain import InputProfile
from footprint_pipeline.footprints.extract import Stages, extract
from footprint_pipeline.footprints.map_tiles import (
    BLOCK_PX,
    block_of,
    centred_in,
    png,
    probability_of,
    vector_tile,
)
from footprint_pipeline.footprints.mercator import Tile
from footprint_pipeline.footprints.patch import Imagery
from footprint_pipeline.footprints.writers import feature_collection
from serving.answers import FeatureCollection
from serving.model_store import LoadedModel
from serving.openapi import ASKED, BINARY, GEOJSON, Operation, Schema, documented
from serving.prediction_cache import LIFETIME_S
from serving.predictions import Predictions
from serving.queries import TileQuery, from_arguments

PNG, VECTOR_TILE = "image/png", "application/vnd.mapbox-vector-tile"

_DAY_S = 86_400


@dataclass(frozen=True)
class _Asked:
    """A tile that is asked for, and the block that it is cut from."""

    tile: Tile
    block: Tile
    query: TileQuery
    imagery: Imagery
    model: LoadedModel
    predictions: Predictions
    stages: Stages


@dataclass(frozen=True)
class _Drawn:
    """All that reaches into a block: the collection without its features, the features, and their outlines."""

    collection: dict[str, Any]
    features: Sequence[dict[str, Any]]
    polygons_wgs84: np.ndarray
    profile: InputProfile

    @property
    def size(self) -> int:
        """Bytes that it takes, roughly: Python's tuples and numbers take most of them."""
        return 2000 * len(self.features) + 150 * int(shapely.get_num_coordinates(self.polygons_wgs84).sum())


_Answer = tuple[bytes, InputProfile]


def tile_endpoints(predictions: Predictions) -> Blueprint:
    """The endpoints under /v1/tiles."""
    endpoints = Blueprint("tiles", __name__, url_prefix="/v1/tiles/<int:z>/<int:x>")

    def described(media: str, schema: Schema) -> Operation:
        return Operation({media: schema}, ASKED, arguments=(TileQuery,), also={304: {}}, prediction=True)

    @endpoints.get("/<int:y>.png")
    @documented(described(PNG, BINARY))
    def get_png_tile(z: int, x: int, y: int) -> Response:
        """Building probabilities of a map tile, 256 × 256 RGBA: one colour, as opaque as a building is probable.

        With `tolerance` it is opaque where there is a building, and clear elsewhere. `min_area_m2` and `outline` change
        nothing.
        """
        return _tile(predictions, Tile(z, x, y), PNG, _png)

    @endpoints.get("/<int:y>.geojson")
    @documented(described(GEOJSON, FeatureCollection))
    def get_geojson_tile(z: int, x: int, y: int) -> Response:
        """Building footprints whose centroids lie in a map tile, whole."""
        return _tile(predictions, Tile(z, x, y), GEOJSON, _geojson)

    @endpoints.get("/<int:y>.mvt")
    @documented(described(VECTOR_TILE, BINARY))
    def get_vector_tile(z: int, x: int, y: int) -> Response:
        """Building footprints that reach onto a map tile, as a Mapbox vector tile.

        The layer is `footprints`, 4096 units wide, with 128 units beyond the tile's edge. What GeoJSON has as `id` is a
        property.
        """
        return _tile(predictions, Tile(z, x, y), VECTOR_TILE, _mvt)

    return endpoints


def _tile(predictions: Predictions, tile: Tile, media: str, draw: Callable[[_Asked], _Answer]) -> Response:
    tile.check()
    query = from_arguments(TileQuery, request.args)
    imagery = predictions.sources.choose(query.imagery)
    etag = _etag(predictions.store.current(), tile, query, imagery, media)
    if not request.if_none_match.star_tag and request.if_none_match.contains_weak(etag):
        return _cacheable(Response(status=304), etag)
    with predictions.model() as model:
        # Where nothing is remembered, more than the tile would be predicted in vain.
        block = block_of(tile, model.runtime.spec.gsd_m, most_px=BLOCK_PX if predictions.cache else 0)
        asked = _Asked(tile, block, query, imagery, model, predictions, Stages())
        body, profile = draw(asked)
    response = predictions.told(
        Response(body, mimetype=media),
        model,
        profile,
        asked.stages,
        attribution=imagery.attribution,
        counted="predict" in asked.stages,  # the tiles of a block are one look at its imagery
    )
    return _cacheable(response, _etag(model, tile, query, imagery, media))


def _png(asked: _Asked) -> _Answer:
    predict = asked.predictions.rasters(asked.model)
    raster = predict(asked.model.runtime, asked.imagery, asked.block.bounds_3857, stages=asked.stages)
    with asked.stages.timed("write"):
        opacity = probability_of(raster, asked.tile.bounds_3857)
        if asked.query.tolerance is not None:
            opacity = opacity > np.float32(1.0 - asked.query.tolerance)
        return png(opacity), raster.profile


def _geojson(asked: _Asked) -> _Answer:
    drawn = _drawn(asked)
    with asked.stages.timed("write"):
        features = [drawn.features[i] for i in np.flatnonzero(centred_in(drawn.polygons_wgs84, asked.tile)).tolist()]
        return orjson.dumps({**drawn.collection, "features": features}), drawn.profile


def _mvt(asked: _Asked) -> _Answer:
    drawn = _drawn(asked)
    with asked.stages.timed("write"):
        return vector_tile(drawn.features, drawn.polygons_wgs84, asked.tile), drawn.profile


def _drawn(asked: _Asked) -> _Drawn:
    """What reaches into the block, drawn once for all of its tiles."""
    model, query = asked.model, asked.query

    def draw() -> _Drawn:
        extraction = extract(
            model.runtime,
            asked.imagery,
            asked.block.bounds_3857,
            tolerance=query.tolerance,
            min_area_m2=query.min_area_m2,
            outline=query.outline,
            reaching=True,
            predict=asked.predictions.rasters(model),
            stages=asked.stages,
        )
        collection = feature_collection(
            extraction, model.runtime.spec, model_version=model.version, attribution=asked.imagery.attribution
        )
        features = collection.pop("features")
        polygons = np.array([shape(feature["geometry"]) for feature in features], object)
        return _Drawn(collection, features, polygons, extraction.raster.profile)

    how = query.tolerance, query.min_area_m2, query.outline
    key = ("drawn", model.version, model.runtime.spec.run_id, asked.imagery.name, asked.block, *how)
    return asked.predictions.cache.get(key, draw, size=lambda drawn: drawn.size, stages=asked.stages)


def _etag(model: LoadedModel, tile: Tile, query: TileQuery, imagery: Imagery, media: str) -> str:
    """Another one whenever the tile may be: with the model, the question, and every day, as imagery changes too."""
    how = query.tolerance, query.min_area_m2, query.outline
    spec, source = model.runtime.spec, (imagery.name, imagery.date, imagery.attribution, imagery.extent_wgs84)
    named = spec.model_name, model.version, spec.run_id
    told = [*named, *source, *tile, media, *how, time.time() // _DAY_S]
    return blake2b(json.dumps(told).encode(), digest_size=12).hexdigest()


def _cacheable(response: Response, etag: str) -> Response:
    """A browser may keep it as long as the service would; others may not, since it may have taken a key."""
    response.headers["Cache-Control"] = f"private, max-age={LIFETIME_S:.0f}"
    response.set_etag(etag)
    return response
