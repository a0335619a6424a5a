"""What an operator asks: health, the model and a look for a newer one, metrics; and what there is to ask at all."""

import json

from flask import Blueprint, Flask, Response, g, request

from footprint_pipeline import __version__
from footprint_pipeline.footprints.sources import ImagerySources
from serving.admission import Admission
from serving.answers import Health, Index, ModelAnswer, RefreshAnswer, Refused, ServingModel
from serving.counters import Counters
from serving.docs_page import STYLE_SOURCE, docs_page
from serving.map.page import map_page
from serving.metrics import MEDIA_TYPE, Requests, exposition
from serving.model_store import MEND, ModelStore, NoModelError
from serving.openapi import TEXT, Operation, document, documented, operations
from serving.prediction_cache import PredictionCache
from serving.problems import problem

_JSON, _HTML = "application/json", "text/html"
_COME_AGAIN_S = 10


def model_endpoints(store: ModelStore, sources: ImagerySources) -> Blueprint:
    """The endpoints about the model: /healthz, /readyz, /v1/model."""
    endpoints = Blueprint("model", __name__)

    @endpoints.get("/healthz")
    @documented(Operation({_JSON: Health}))
    def healthz() -> Response:
        """Whether the service is alive: 200 as long as it answers, with a model or without."""
        return _json(_health(store, sources))

    @endpoints.get("/readyz")
    @documented(Operation({_JSON: Health}, also={503: {_JSON: Health}}))
    def readyz() -> Response:
        """Whether it can predict: 200 when a model is loaded, else 503 and the reason."""
        health = _health(store, sources)
        return _json(health, 200 if health.model else 503)

    @endpoints.get("/v1/model")
    @documented(Operation({_JSON: ModelAnswer}, (500,)))
    def model() -> Response:
        """The version that serves: its scores, its spec, since when; and the last one that was refused."""
        status = store.status()
        loaded, refused = status.model, status.refused
        spec = loaded.runtime.spec if loaded else None
        return _json(
            ModelAnswer(
                alias=status.alias,
                version=loaded.version if loaded else None,
                origin=loaded.origin if loaded else None,
                since=loaded.since if loaded else None,
                scores=spec.metrics if spec else {},
                spec=spec,
                registry_answers=status.registry_answers,
                checked=status.checked,
                problem=status.problem or None,
                fix=status.fix or None,
                refused=Refused(version=refused.version, reason=refused.reason, when=refused.when) if refused else None,
            ),
            whole=True,
        )

    @endpoints.post("/v1/model/refresh")
    @documented(Operation({_JSON: RefreshAnswer}, (409, 500, 502, 503)))
    def refresh() -> Response:
        """Look where the alias points and serve that, now; a version that was refused is tried again.

        409 when that version cannot serve, 502 when the registry does not tell, 503 when another look takes its time.
        What served goes on serving then.
        """
        looked = store.refresh()
        match looked.outcome:
            case "refused":
                return problem(409, kind="version-refused", title="It cannot serve", detail=looked.reason, fix=MEND)
            case "unreachable":
                return problem(
                    502, kind="registry-unreachable", title="The registry does not tell", detail=looked.reason
                )
            case "busy":
                busy = problem(503, kind="refresh-under-way", title="Not now", detail=looked.reason)
                busy.headers["Retry-After"] = str(_COME_AGAIN_S)
                return busy
            case outcome:
                return _json(RefreshAnswer(outcome=outcome, version=looked.version or ""))

    return endpoints


def metrics_endpoint(
    requests: Requests, turns: Admission, store: ModelStore, counters: Counters, cache: PredictionCache
) -> Blueprint:
    """The endpoint /metrics."""
    endpoints = Blueprint("metrics", __name__)

    @endpoints.get("/metrics")
    @documented(Operation({"text/plain": TEXT}))
    def metrics() -> Response:
        """Figures for Prometheus, of the process that answers."""
        return Response(exposition(requests, turns, store, counters, cache), content_type=MEDIA_TYPE)

    return endpoints


def describe(app: Flask, sources: ImagerySources, *, keys: bool) -> None:
    """Add what describes all the others: /, /openapi.json and /docs. They come last.

    Raises:
        LookupError: a route says nothing of itself.
    """
    endpoints = Blueprint("described", __name__)

    @endpoints.get("/")
    @documented(Operation({_JSON: Index, _HTML: TEXT}))
    def index() -> Response:
        """What there is to ask; for browsers, a map to ask from."""
        if request.accept_mimetypes.best_match([_JSON, _HTML]) == _HTML:
            return map_page()
        told = {
            f"{method} {path}": text.partition("\n")[0]
            for (path, method), (_, _, text) in sorted(operations(app).items())
        }
        index = Index(
            name="footprint-pipeline", version=__version__, docs="/docs", endpoints=told, imagery=sources.names
        )
        response = _json(index)
        response.vary.add("Accept")
        return response

    @endpoints.get("/openapi.json")
    @documented(Operation({_JSON: {"type": "object"}}))
    def openapi() -> Response:
        """This interface in OpenAPI 3.1."""
        return Response(text, mimetype=_JSON)

    @endpoints.get("/docs")
    @documented(Operation({_HTML: TEXT}))
    def docs() -> Response:
        """This interface as a page."""
        g.allowed = {"style-src": STYLE_SOURCE}
        return Response(page, mimetype=_HTML)

    app.register_blueprint(endpoints)
    described = document(app, keys=keys)
    text, page = json.dumps(described, ensure_ascii=False), docs_page(described)


def _health(store: ModelStore, sources: ImagerySources) -> Health:
    imagery = sources.default.name
    try:
        model = store.current()
    except NoModelError as error:
        return Health(status="no model", reason=error.problem, fix=error.fix or None, model=None, imagery=imagery)
    spec = model.runtime.spec
    serving = ServingModel(name=spec.model_name, version=model.version, gsd_m=spec.gsd_m, tolerance=spec.tolerance)
    return Health(status="ok", model=serving, imagery=imagery)


def _json(answer: Health | Index | ModelAnswer | RefreshAnswer, status: int = 200, *, whole: bool = False) -> Response:
    """An answer without what it does not say; `whole`: with null for it."""
    text = answer.model_dump_json(exclude_unset=not whole)
    return Response(text, status, mimetype=_JSON)
