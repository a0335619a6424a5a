"""What an operator watches: requests, waiting, model and answers, as text that Prometheus reads. One process's own.

What belongs here: the counting of requests and the text format (version 0.0.4). What is counted of answers is
`counters`' business, who waits `turns`'.
"""

import threading
import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flask import Flask, Response, g, request

from serving.admission import Admission
from serving.counters import Counters
from serving.model_store import ModelStore
from serving.openapi import path_of
from serving.prediction_cache import PredictionCache

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper edges of the latencies that are counted together, seconds."""

_METHODS = frozenset({"GET", "HEAD", "POST", "OPTIONS"})
_SAFE = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


@dataclass(frozen=True)
class Family:
    """Numbers of one name.

    Attributes:
        name: starts with `footprint_`.
        kind: gauge, counter or histogram.
        help: what they are.
        samples: (suffix of the name, labels, number).
    """

    name: str
    kind: str
    help: str
    samples: Iterable[tuple[str, Mapping[str, str], float]]

    def __str__(self) -> str:
        lines = [f"# HELP {self.name} {self.help}", f"# TYPE {self.name} {self.kind}"]
        for suffix, labels, number in self.samples:
            text = ",".join(f'{name}="{value.translate(_SAFE)}"' for name, value in labels.items())
            lines.append(f"{self.name}{suffix}{{{text}}} {number!r}" if text else f"{self.name}{suffix} {number!r}")
        return "\n".join(lines) + "\n"


class Requests:
    """Counts requests by endpoint, method and status, and how long they took. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answered: dict[tuple[str, str, int], int] = {}
        self._took: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}

    def watch(self, app: Flask) -> None:
        """Count every request of an app."""

        @app.before_request
        def start() -> None:
            g.started = time.perf_counter()

        @app.after_request
        def end(response: Response) -> Response:
            endpoint = path_of(request.url_rule) if request.url_rule else "none"
            method = request.method if request.method in _METHODS else "other"
            seconds = time.perf_counter() - g.started
            self.count(endpoint, method=method, status=response.status_code, seconds=seconds)
            return response

    def count(self, endpoint: str, *, method: str, status: int, seconds: float) -> None:
        """Count an answer.

        Args:
            endpoint: its path, without what varies in it.
            method: of HTTP.
            status: of HTTP.
            seconds: until it was there.
        """
        with self._lock:
            key = endpoint, method, status
            self._answered[key] = self._answered.get(key, 0) + 1
            took = self._took.setdefault(endpoint, [0] * (len(BUCKETS_S) + 1))
            took[bisect_left(BUCKETS_S, seconds)] += 1
            self._seconds[endpoint] = self._seconds.get(endpoint, 0.0) + seconds

    def families(self) -> list[Family]:
        """What was counted."""
        with self._lock:
            answered = dict(self._answered)
            took = {endpoint: list(counts) for endpoint, counts in self._took.items()}
            seconds = dict(self._seconds)
        durations: list[tuple[str, Mapping[str, str], float]] = []
        for endpoint, counts in took.items():
            total = 0
            for edge, count in zip([*(f"{edge:g}" for edge in BUCKETS_S), "+Inf"], counts, strict=True):
                total += count
                durations.append(("_bucket", {"endpoint": endpoint, "le": edge}, total))
            durations.append(("_sum", {"endpoint": endpoint}, seconds[endpoint]))
            durations.append(("_count", {"endpoint": endpoint}, total))
        return [
            Family(
                "footprint_requests_total",
                "counter",
                "Requests answered.",
                [
                    ("", {"endpoint": endpoint, "method": method, "status": str(status)}, count)
                    for (endpoint, method, status), count in answered.items()
                ],
            ),
            Family("footprint_request_seconds", "histogram", "How long answers took.", durations),
        ]


def exposition(
    requests: Requests, turns: Admission, store: ModelStore, counters: Counters, cache: PredictionCache
) -> str:
    """Everything that is known, as text."""
    status = store.status()
    model = status.model
    info = {"alias": status.alias, "version": model.version, "origin": model.origin} if model else None
    refused = {"version": status.refused.version} if status.refused else None
    answers, beyond = counters.totals()
    families = [
        *requests.families(),
        Family("footprint_predictions_waiting", "gauge", "Requests that wait for their turn.", _one(turns.waiting)),
        Family("footprint_predictions_making", "gauge", "Predictions that are made now.", _one(turns.making)),
        Family(
            "footprint_predictions_turned_away_total",
            "counter",
            "Requests that did not get a turn.",
            _one(turns.turned_away),
        ),
        Family("footprint_prediction_cache_bytes", "gauge", "What is kept of predictions.", _one(cache.bytes)),
        Family(
            "footprint_prediction_cache_hits_total", "counter", "Predictions that were there already.", _one(cache.hits)
        ),
        Family("footprint_prediction_cache_misses_total", "counter", "Those that had to be made.", _one(cache.misses)),
        Family("footprint_model_loaded", "gauge", "1 when a model serves.", _one(int(model is not None))),
        Family("footprint_model_info", "gauge", "The version that serves.", [("", info, 1)] if info else []),
        Family(
            "footprint_model_since_seconds",
            "gauge",
            "When it was loaded, Unix time.",
            _one(model.since.timestamp()) if model else [],
        ),
        Family(
            "footprint_model_refused_info", "gauge", "The last version refused.", [("", refused, 1)] if refused else []
        ),
        Family(
            "footprint_registry_answers",
            "gauge",
            "1 when the registry answered at the last look.",
            [] if status.registry_answers is None else _one(int(status.registry_answers)),
        ),
        Family("footprint_answers_total", "counter", "Predictions answered.", _by_version(answers)),
        Family(
            "footprint_out_of_domain_answers_total",
            "counter",
            "Of these, those whose imagery is unlike what the model was trained on.",
            _by_version(beyond),
        ),
    ]
    return "".join(str(family) for family in families)


def _one(number: float) -> list[tuple[str, Mapping[str, str], float]]:
    return [("", {}, number)]


def _by_version(counts: dict[tuple[str, str], int]) -> list[tuple[str, Mapping[str, str], float]]:
    return [("", {"model": model, "version": version}, count) for (model, version), count in counts.items()]
