"""What the endpoints of predictions share: model, imagery, turns, and how an answer says what it was made from."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from flask import Response

from footprint_pipeline.footprints.domain import InputProfile
from footprint_pipeline.footprints.extract import HALOS_PX, Raster, Stages, predict_raster
from footprint_pipeline.footprints.mercator import Bounds
from footprint_pipeline.footprints.patch import Imagery
from footprint_pipeline.footprints.runtime import Runtime
from footprint_pipeline.footprints.sources import ImagerySources
from footprint_pipeline.footprints.writers import out_of_domain
from serving.admission import Admission
from serving.counters import Counters
from serving.model_store import LoadedModel, ModelStore
from serving.prediction_cache import PredictionCache


@dataclass(frozen=True)
class Predictions:
    """What the endpoints work with.

    Attributes:
        store: the model.
        sources: where the pixels of a place come from.
        image_url_hosts: the hosts that image_url may name.
        counters: where answers are counted.
        turns: how many are made at a time.
        fetching: how many fetch images besides, to look at or by image_url.
        cache: what was predicted lately.
    """

    store: ModelStore
    sources: ImagerySources
    image_url_hosts: frozenset[str]
    counters: Counters
    turns: Admission
    fetching: Admission
    cache: PredictionCache

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

    def rasters(self, model: LoadedModel) -> Callable[..., Raster]:
        """`predict_raster` of a model, for the operator's imagery, that remembers."""

        def predict(
            runtime: Runtime,
            imagery: Imagery,
            bounds_3857: Bounds,
            *,
            halo_px: int = HALOS_PX[0],
            stages: Stages | None = None,
        ) -> Raster:
            timed = Stages() if stages is None else stages
            raster = self.cache.get(
                ("raster", model.version, runtime.spec.run_id, imagery.name, bounds_3857, halo_px),
                lambda: predict_raster(runtime, imagery, bounds_3857, halo_px=halo_px, stages=timed),
                size=lambda raster: raster.padded.nbytes,
                stages=timed,
            )
            return replace(raster, stages=timed)

        return predict

    def told(
        self,
        response: Response,
        model: LoadedModel,
        profile: InputProfile,
        stages: Stages,
        *,
        attribution: str = "",
        counted: bool = True,
    ) -> Response:
        """The answer, counted, and with headers that say what it was made from."""
        if counted:
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
