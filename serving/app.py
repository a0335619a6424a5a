"""The service as a Flask application: `create_app()` reads the environment and answers over HTTP."""

import atexit

from flask import Flask, Response, jsonify

from footprint_pipeline import __version__
from footprint_pipeline.footprints.imagery import Imagery, open_imagery
from footprint_pipeline.settings import Settings, load_settings
from serving.admission import Admission, limit
from serving.api import Predictions, prediction_endpoints
from serving.champion import champion_store
from serving.counters import Counters
from serving.model_store import ModelStore, NoModelError
from serving.problems import register_problems

MAX_BODY_BYTES = 2**20


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
        admission: the line in front of the predictions; as long as the settings say when None.

    Raises:
        SettingsError: a setting makes no sense, or the imagery's token or file is missing.
    """
    settings = settings or load_settings()
    imagery = imagery or open_imagery(settings)
    if store is None:
        store = champion_store(settings)
        store.load_in_background()

    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.json.sort_keys = False  # type: ignore[attr-defined]
    register_problems(app)
    limit(app, admission or Admission(settings.queue))
    hosts = frozenset(host.strip().lower() for host in settings.image_url_hosts.split(",") if host.strip())
    counters = Counters(settings.counters_folder)
    atexit.register(counters.write)
    app.register_blueprint(prediction_endpoints(Predictions(store, imagery, hosts, counters)))

    @app.get("/")
    def index() -> Response:
        """What there is to ask."""
        return jsonify(
            name="footprint-pipeline",
            version=__version__,
            endpoints={
                "GET /healthz": "whether a model is loaded, and which",
                "GET /predict/polygon?latitude=&longitude=&zoom=&tolerance=": "building footprints as GeoJSON",
                "POST /predict/polygon": "the same, asked in JSON",
                "POST /predict/mask": "building probabilities as PNG",
            },
        )

    @app.get("/healthz")
    def healthz() -> tuple[Response, int]:
        """200 and the model when one is loaded; 503 and the reason when not."""
        try:
            model = store.current()
        except NoModelError as error:
            return jsonify(
                status="no model", reason=error.problem, fix=error.fix, model=None, imagery=imagery.name
            ), 503
        spec = model.runtime.spec
        return jsonify(
            status="ok",
            model={
                "name": spec.model_name,
                "version": model.version,
                "gsd_m": spec.gsd_m,
                "tolerance": spec.tolerance,
            },
            imagery=imagery.name,
        ), 200

    return app
