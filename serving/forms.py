"""The forms that footprints are answered in, and which of them a request accepts best."""

from typing import Any

import orjson
from flask import Request, Response
from werkzeug.datastructures import MIMEAccept

from footprint_pipeline.errors import FootprintError
from footprint_pipeline.footprints.tables import SUFFIXES, as_file
from serving.openapi import BINARY, GEOJSON, TEXT, Schema

SEQUENCE, LINES = "application/geo+json-seq", "application/x-ndjson"
FORMS = (GEOJSON, SEQUENCE, LINES, *SUFFIXES)
"""The media types; the first is what those get who do not care."""
OTHERS: dict[str, Schema] = {SEQUENCE: TEXT, LINES: TEXT, **dict.fromkeys(SUFFIXES, BINARY)}
"""All but the first, as they are described."""

_JSON = "application/json"


class NotAcceptableError(FootprintError):
    """Footprints do not come in any of the forms that are asked for."""


def accepted_form(request: Request) -> str:
    """The form that a request accepts best.

    Raises:
        NotAcceptableError: it is none of them.
    """
    if not request.accept_mimetypes:
        return GEOJSON
    bare = MIMEAccept([(kind.partition(";")[0].strip(), quality) for kind, quality in request.accept_mimetypes])
    best = bare.best_match([*FORMS, _JSON])
    if best is None:
        raise NotAcceptableError(
            f"Footprints do not come as {request.headers.get('Accept', '')[:200]}.",
            fix=f"Accept one of: {', '.join(FORMS)}.",
        )
    return GEOJSON if best == _JSON else best


def written(collection: dict[str, Any], form: str) -> Response:
    """A GeoJSON FeatureCollection in one of the forms; those that are files are given a name."""
    response = Response(_body(collection, form), mimetype=form)
    response.vary.add("Accept")
    if form in SUFFIXES:
        response.headers["Content-Disposition"] = f"attachment; filename=footprints{SUFFIXES[form]}"
    return response


def _body(collection: dict[str, Any], form: str) -> bytes:
    if form == GEOJSON:
        return orjson.dumps(collection)
    if form in SUFFIXES:
        return as_file(collection, form)
    start = b"\x1e" if form == SEQUENCE else b""
    return b"".join(start + orjson.dumps(feature) + b"\n" for feature in collection["features"])
