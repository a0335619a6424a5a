"""How the map and its files are handed out. What the page does is in `static/`, as plain modules of JavaScript."""

from pathlib import Path

from flask import Blueprint, Response, abort, g, render_template, request
from xstatic.pkg import leaflet

from footprint_pipeline.footprints.tables import FLATGEOBUF, GEOPACKAGE, GEOPARQUET
from serving.openapi import GEOJSON, TEXT, Operation, documented

ALLOWED = {"script-src": "'self'", "style-src": "'self'", "img-src": "'self' data:", "connect-src": "'self'"}
"""What a Content-Security-Policy must allow: nothing inline, nothing from elsewhere."""
DOWNLOADS = {
    GEOJSON: ("GeoJSON", "geojson"),
    GEOPARQUET: ("GeoParquet", "parquet"),
    GEOPACKAGE: ("GeoPackage", "gpkg"),
    FLATGEOBUF: ("FlatGeobuf", "fgb"),
}
"""Media type → name and ending of the files that the page offers."""

_TYPES = {".js": "text/javascript", ".css": "text/css"}
_OWN = Path(__file__).parent / "static"


def map_files() -> Blueprint:
    """The endpoint of what the page is made of."""
    endpoints = Blueprint("map", __name__, template_folder="templates")
    folders = {path.name: _OWN for path in _OWN.iterdir()}
    folders |= dict.fromkeys(("leaflet.js", "leaflet.css"), Path(leaflet.BASE_DIR))
    files = {name: (folder / name).read_bytes() for name, folder in folders.items()}

    @endpoints.get("/map/<name>")
    @documented(
        Operation(
            dict.fromkeys(_TYPES.values(), TEXT),
            (404, 500),
            variables={"name": {"type": "string", "enum": sorted(files)}},
        )
    )
    def get_map_file(name: str) -> Response:
        """A file that the map at / is made of."""
        if name not in files:
            abort(404, "The map has no such file.")
        response = Response(files[name], mimetype=_TYPES[Path(name).suffix])
        response.headers["Cache-Control"] = "no-cache"
        response.add_etag()
        return response.make_conditional(request)  # type: ignore[return-value]

    return endpoints


def map_page() -> Response:
    """The map."""
    g.allowed = ALLOWED
    downloads = [(media, *told) for media, told in DOWNLOADS.items()]
    response = Response(render_template("map.html", downloads=downloads), mimetype="text/html")
    response.headers["Cache-Control"] = "no-cache"
    response.vary.add("Accept")
    return response
