"""The service as a Flask application: `create_app()` reads the environment and answers over HTTP."""

import atexit

from flask import Flask

from footprint_pipeline.footprints.imagery import open_sources
from footprint_pipeline.footprints.patch import Imagery
from footprint_pipeline.footprints.sources import ImagerySources
from footprint_pipeline.settings import Settings, comma_separated, load_settings
from serving.access import Keys, RateLimit, allow_origins, guard, harden, keep_to_this_machine
from serving.admission import Admission
from serving.api import prediction_endpoints
from serving.champion import champion_store
from serving.counters import Counters
from serving.footprints import footprint_endpoints
from serving.imagery import imagery_endpoints
from serving.map.page import map_files
from serving.metrics import Requests
from serving.model_store import ModelStore
from serving.operations import describe, metrics_endpoint, model_endpoints
from serving.prediction_cache import PredictionCache
from serving.predictions import Predictions
from serving.problems import register_problems
from serving.tiles import tile_endpoints

MAX_BODY_BYTES = 2**20
"""Of a request in JSON; an image may have more."""


def create_app(
    settings: Settings | None = None,
    *,
    store: ModelStore | None = None,
    imagery: Imagery | None = None,
    admission: Admission | None = None,
) -> Flask:
    """The application. Call it in the process that answers: the model must be loaded after a fork.

    Args:
        settings: from the environment when None.
        store: the model; when None, the champion of the registry that the settings name, which starts loading
            in the background.
        imagery: where pixels come from; what the settings name when None.
        admission: who may wait for a prediction; as many as the settings say when None.

    Raises:
        SettingsError: a setting makes no sense, or the imagery's token or file is missing.
    """
    settings = settings or load_settings()
    sources = (
        open_sources(settings) if imagery is None else ImagerySources({imagery.name: imagery}, default=imagery.name)
    )
    if store is None:
        store = champion_store(settings)
        store.load_in_background()
    hosts = frozenset(host.lower() for host in comma_separated(settings.image_url_hosts))
    counters, keys, requests = Counters(settings.counters_folder), Keys(settings.keys), Requests()
    turns, fetching = admission or Admission(settings.queue), Admission(settings.queue)
    cache = PredictionCache(settings.prediction_cache_mb * 10**6)
    predictions = Predictions(store, sources, hosts, counters, turns, fetching, cache)
    atexit.register(counters.write)

    app = Flask(__name__, static_folder=None)
    app.extensions.update(counters=counters, model_store=store)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.json.sort_keys = False  # type: ignore[attr-defined]
    register_problems(app)
    requests.watch(app)
    harden(app)
    allow_origins(app, settings.cors_origins)
    if not (keys or settings.open):
        keep_to_this_machine(app, settings.cors_origins)
    guard(app, keys, RateLimit(settings.rate_limit))
    app.register_blueprint(prediction_endpoints(predictions))
    app.register_blueprint(footprint_endpoints(predictions))
    app.register_blueprint(tile_endpoints(predictions))
    app.register_blueprint(imagery_endpoints(sources, fetching))
    app.register_blueprint(map_files())
    app.register_blueprint(model_endpoints(store, sources))
    app.register_blueprint(metrics_endpoint(requests, turns, store, counters, cache))
    describe(app, sources, keys=bool(keys))
    return app
