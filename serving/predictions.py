"""What the endpoints of predictions share: model, imagery, turns, and how an answer says what it was made from."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flask import Response

from footprint_pipeline.footprints.domain import InputProfile
from footprint_pipeline.footprints.extract import Stages
from footprint_pipeline.footprints.sources import ImagerySources
from footprint_pipeline.footprints.writers import out_of_domain
from serving.counters import Counters
from serving.model_store import LoadedModel, ModelStore
from serving.turns import Turns


@dataclass(frozen=True)
class Predictions:
    """What the endpoints work with.

    Attributes:
        store: the model.
        sources: where the pixels of a place come from.
        image_url_hosts: the hosts that image_url may name.
        counters: where answers are counted.
        turns: how many are made at a time.
    """

    store: ModelStore
    sources: ImagerySources
    image_url_hosts: frozenset[str]
    counters: Counters
    turns: Turns

    @contextmanager
    def model(self) -> Iterator[LoadedModel]:
        """The model, when it is one's turn to use it; for as long as the block lasts.

        Raises:
            NoModelError: there is none.
            OverloadedError: too many wait already.
        """
        self.store.current()  # who cannot be answered need not wait to hear so
        with self.turns.turn():
            yield self.store.current()

    def told(
        self, response: Response, model: LoadedModel, profile: InputProfile, stages: Stages, *, attribution: str = ""
    ) -> Response:
        """The answer, counted, and with headers that say what it was made from."""
        self.counters.count(model.runtime.spec.model_name, model.version, profile)
        response.headers["X-Model-Version"] = model.version
        for share in out_of_domain(profile).values():
            response.headers["X-Out-Of-Domain"] = f"{share:.3f}"
        response.headers["Server-Timing"] = ", ".join(
            f"{stage};dur={seconds * 1000:.1f}" for stage, seconds in stages.items()
        )
        if attribution:
            header = " ".join(attribution.split()).encode("latin-1", "replace").decode("latin-1")
            response.headers["X-Imagery-Attribution"] = header
        return response
