"""How gunicorn runs the service: ``gunicorn -c serving/gunicorn.conf.py 'serving.app:create_app()'``.

One process with threads: the runtime uses every core already. There are threads for those whose prediction is made, for
those who wait for their turn (`serving.admission`), as many for those who fetch images besides, and some more to answer
what takes no time: `/healthz`, and that a queue is full. WEB_CONCURRENCY sets the number of processes. Each loads its
own model, after the fork (`preload_app` stays off).
"""

# ruff: noqa: N999 - gunicorn's own name for it
import logging
import os
import sys

from gunicorn.workers.gthread import ThreadWorker

from footprint_pipeline.errors import SettingsError
from footprint_pipeline.settings import load_settings
from serving.admission import AT_A_TIME
from serving.garbage import spare_what_stays

try:
    _settings = load_settings()
    _settings.check_reach()
except SettingsError as error:
    raise SystemExit(str(error)) from None
logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
logging.getLogger("serving").setLevel(logging.INFO)

_host = _settings.host.strip("[]")
bind = f"[{_host}]:{_settings.port}" if ":" in _host else f"{_host}:{_settings.port}"
worker_class = "serving.worker.ImpatientWorker"
threads = 2 * (AT_A_TIME + _settings.queue) + 4
timeout = 120
limit_request_line = 8190  # the most it takes: a polygon may be in it
graceful_timeout = 10  # for answers under way; an idle keep-alive connection holds a stop up as long
control_socket_disable = True
accesslog = "-"
access_log_format = '%(h)s "%(r)s" %(s)s %(b)s %(M)sms'

# OpenCV's and NumPy's products are small ones here; the threads of their BLAS wait for cores that others have.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("GDAL_CACHEMAX", "64")  # MB of decoded blocks; GDAL's own limit is a share of the whole machine

_MOST_WAITED_S = 10.0

_UNUSED = ("boto3", "openvino.tools.ovc")
"""What rasterio and OpenVINO import where it is installed, for longer than they take themselves. The container has no
boto3 either: GDAL signs requests for s3:// by itself. Whoever else needs them (MLflow) can import them later."""


def post_fork(server: object, worker: object) -> None:
    """Import both as if that were not installed, before the application is."""
    hidden = [name for name in _UNUSED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        import openvino  # noqa: F401
        import rasterio  # noqa: F401
    finally:
        for name in hidden:
            del sys.modules[name]


def post_worker_init(worker: ThreadWorker) -> None:
    """Answer from the first request on where there is a model in the cache; what the application is made of stays.

    After a reload, or when a worker has died, requests wait a moment for the new one instead of being turned away.
    """
    worker.wsgi.extensions["model_store"].await_cached(_MOST_WAITED_S)
    spare_what_stays()
