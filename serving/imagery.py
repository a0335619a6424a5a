"""The interface to the imagery itself, under /v1/imagery: which there is, and map tiles of it to look at."""

from flask import Blueprint, Response, request

from footprint_pipeline.footprints.imagery_tiles import ImageryTiles
from footprint_pipeline.footprints.mercator import Tile
from footprint_pipeline.footprints.patch import Imagery
from footprint_pipeline.footprints.sources import ImagerySources
from serving.admission import Admission
from serving.answers import ImageryAnswer, ImagerySource
from serving.openapi import BINARY, Operation, documented
from serving.queries import ImageryChoice, from_arguments

_KEPT = "private, max-age=3600"
"""By the browser that asked: providers seldom let anyone else keep their tiles."""


def imagery_endpoints(sources: ImagerySources, fetching: Admission) -> Blueprint:
    """The endpoints under /v1/imagery.

    Args:
        sources: of imagery.
        fetching: how many tiles are read at a time.
    """
    endpoints = Blueprint("imagery", __name__, url_prefix="/v1/imagery")
    tiles = {name: ImageryTiles(imagery) for name, imagery in sources.items()}

    @endpoints.get("")
    @documented(Operation({"application/json": ImageryAnswer}))
    def get_imagery() -> Response:
        """The sources of imagery that a request may name, the default first."""
        told = [_told(name, sources[name], default=name == sources.default_name) for name in sources.names]
        return Response(ImageryAnswer(sources=told).model_dump_json(), mimetype="application/json")

    @endpoints.get("/<int:z>/<int:x>/<int:y>")
    @documented(
        Operation({"image/jpeg": BINARY, "image/png": BINARY}, (404, 422, 500, 502, 503), arguments=(ImageryChoice,))
    )
    def get_imagery_tile(z: int, x: int, y: int) -> Response:
        """Imagery to look at: a 256-px map tile of Web Mercator, its row counted from the north.

        A JPEG; a PNG, transparent where there is no imagery, where the tile has some of both. What has more than eight
        bits is stretched from its 1st to its 99th percentile. 404 where there is no imagery at all.
        """
        name = from_arguments(ImageryChoice, request.args).imagery or sources.default_name
        sources.choose(name)
        with fetching.turn():
            tile = tiles[name].read(Tile(z, x, y))
        return Response(tile.content, mimetype=tile.media_type, headers={"Cache-Control": _KEPT})

    return endpoints


def _told(name: str, imagery: Imagery, *, default: bool) -> ImagerySource:
    coarsest, finest = imagery.zooms
    return ImagerySource(
        name=name,
        title=imagery.name,
        default=default,
        attribution=imagery.attribution,
        date=imagery.date,
        bounds=imagery.extent_wgs84,
        min_zoom=coarsest,
        max_zoom=finest,
    )
