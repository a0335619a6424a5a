"""Every error of the service in one shape: RFC 9457 `application/problem+json`."""

import json
import logging
from http import HTTPStatus

from flask import Flask, Response
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException

from footprint_pipeline.errors import FootprintError, ImageryError, NoImageryError, RequestError, field_problems
from footprint_pipeline.footprints.extract import AreaTooLargeError
from footprint_pipeline.footprints.patch import TooCoarseError
from footprint_pipeline.footprints.sources import UnknownSourceError
from serving.access import ForeignNameError, ForeignPageError, KeyNeededError, TooManyRequestsError
from serving.admission import OverloadedError
from serving.forms import NotAcceptableError
from serving.model_store import NoModelError
from serving.remote_image import ForbiddenUrlError

log = logging.getLogger(__name__)

_MOST_TOLD = 20
"""Of what does not fit a schema; each takes more than what it tells of."""

# The first that fits counts: children before their parents.
_STATUS: tuple[tuple[type[FootprintError], int, str, str], ...] = (
    (KeyNeededError, 401, "key-needed", "A key is needed"),
    (ForeignNameError, 421, "foreign-name", "Not by this name"),
    (ForeignPageError, 403, "foreign-page", "Not from that page"),
    (TooManyRequestsError, 429, "rate-limited", "Too many requests"),
    (NotAcceptableError, 406, "not-acceptable", "Not in this form"),
    (NoModelError, 503, "no-model", "No model is loaded"),
    (OverloadedError, 503, "overloaded", "Too many requests"),
    (NoImageryError, 404, "no-imagery", "No imagery there"),
    (ImageryError, 502, "imagery-failed", "The imagery cannot be had"),
    (ForbiddenUrlError, 403, "image-url-forbidden", "This image_url is not allowed"),
    (AreaTooLargeError, 422, "area-too-large", "The area is too large"),
    (TooCoarseError, 422, "imagery-too-coarse", "The imagery is too coarse"),
    (UnknownSourceError, 422, "unknown-imagery", "No imagery of that name"),
    (RequestError, 422, "unanswerable", "The request cannot be answered"),
    (FootprintError, 500, "failed", "The prediction failed"),
)


def problem(status: int, *, kind: str, title: str, detail: str, fix: str = "", **more: object) -> Response:
    """A problem+json response."""
    body = {"type": f"urn:footprint:{kind}", "title": title, "status": status, "detail": detail}
    return Response(
        json.dumps({**body, **({"fix": fix} if fix else {}), **more}), status, mimetype="application/problem+json"
    )


def internal() -> Response:
    """The problem of a defect, which is nobody's business but the log's."""
    return problem(
        500,
        kind="internal",
        title="Internal Server Error",
        detail="Something unexpected went wrong; the service's log says what.",
    )


def register_problems(app: Flask) -> None:
    """Make every error of the app answer as a problem."""

    @app.errorhandler(FootprintError)
    def known(error: FootprintError) -> Response:
        status, kind, title = next(
            (status, kind, title) for cls, status, kind, title in _STATUS if isinstance(error, cls)
        )
        if status >= 500:
            log.warning("%s", error)
        response = problem(status, kind=kind, title=title, detail=error.problem, fix=error.fix)
        if isinstance(error, NoModelError | OverloadedError | TooManyRequestsError):
            response.headers["Retry-After"] = str(error.retry_after_s)
        if isinstance(error, KeyNeededError):
            response.headers["WWW-Authenticate"] = "Bearer"
        return response

    @app.errorhandler(ValidationError)
    def malformed(error: ValidationError) -> Response:
        told = field_problems(error)
        if error.errors()[0]["type"] == "json_invalid":
            return problem(400, kind="malformed-json", title="The body is not JSON", detail=told[0][1])
        detail = "; ".join(": ".join(filter(None, one)) for one in told[:_MOST_TOLD])
        if len(told) > _MOST_TOLD:
            detail += f"; … and {len(told) - _MOST_TOLD:,} more"
        fields = [{"field": field, "problem": wrong} for field, wrong in told[:_MOST_TOLD]]
        return problem(
            422, kind="invalid-request", title="The request does not fit the schema", detail=detail, errors=fields
        )

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> Response:
        status = error.code or 500
        title = HTTPStatus(status).phrase
        response = problem(status, kind=title.lower().replace(" ", "-"), title=title, detail=error.description or title)
        for name, value in error.get_headers():
            if name.lower() not in ("content-type", "content-length"):
                response.headers[name] = value
        return response

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Response:
        log.error("Unexpected error", exc_info=error)
        return internal()
