"""In which arithmetic is an exported model served? In the fastest that scores on test tiles as it does in f32.

Measures what the service would run, on the CPU of the machine that registers; no Keras.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd

from footprint_pipeline.dataset.caching import grid_size, resample
from footprint_pipeline.dataset.tiles import as_learned, read_tile
from footprint_pipeline.errors import ModelError
from footprint_pipeline.evaluation.scoring import TestScores
from footprint_pipeline.footprints.runtime import Runtime, has_bfloat16
from footprint_pipeline.footprints.spec import ModelSpec, Precision
from footprint_pipeline.many import spread
from footprint_pipeline.model.quantization import quantize
from footprint_pipeline.stages.scoring import score_exported

log = logging.getLogger(__name__)

DECIDING = "pooled_pixel_f1"
FALL, LATENCY = "f1_drop", "latency_ms"
LARGEST_FALL = 0.002
"""By how much the deciding figure may be below that of f32."""
TEST_TILES = 64
CHIPS = 100
"""To calibrate int8 on, at most."""
_TIMED_PX = 512
_TIMES = 5


@dataclass(frozen=True)
class PrecisionReport:
    """How an exported model does in each arithmetic, and which one is served.

    Attributes:
        chosen: what is served.
        reason: why, for people.
        figures: by precision, the scores on the test tiles, `f1_drop` (by how much the deciding one is below that of
            f32) and `latency_ms` (the shortest time of a tile of 512 × 512).
        skipped: by precision, why it was not measured.
        scores: of what is served.
    """

    chosen: Precision
    reason: str
    figures: dict[Precision, dict[str, float]]
    skipped: dict[Precision, str]
    scores: TestScores

    def tags(self) -> dict[str, str]:
        """All of it, for the registry: `precision`, `f1_drop_int8`, `latency_ms_bf16` and so on."""
        return {
            "precision": self.chosen,
            "precision_reason": self.reason,
            "precision_test_tiles": str(len(self.scores.tiles)),
            **{
                f"{name}_{precision}": f"{value:.4g}"
                for precision, figures in self.figures.items()
                for name, value in figures.items()
            },
            **{f"skipped_{precision}": why for precision, why in self.skipped.items()},
        }


def compare_precisions(
    folder: Path, *, test: pd.DataFrame, polygons: gpd.GeoDataFrame, validation: pd.DataFrame
) -> PrecisionReport:
    """Make the int8 model beside the exported one, and score and time all that this CPU can run.

    Args:
        folder: holds the exported model and its spec; `model_int8.xml` is added where it can be made.
        test: tiles to score on, rows of split manifests; some of them, evenly spread, when there are many.
        polygons: the polygon table of these tiles.
        validation: tiles to calibrate int8 on.
    """
    spec = ModelSpec.read(folder)
    runtimes: dict[Precision, Runtime] = {"f32": Runtime(folder, precision="f32")}
    skipped: dict[Precision, str] = {}
    if has_bfloat16():
        runtimes["bf16"] = Runtime(folder, precision="bf16")
    else:
        skipped["bf16"] = "The CPU that registered the model has no bfloat16."
    try:
        log.info("Quantising to int8")
        quantize(folder, calibration_chips(validation, spec))
        runtimes["int8"] = Runtime(folder, precision="int8")
    except ModelError as error:
        skipped["int8"] = error.problem
        log.warning("No int8: %s", error.problem)
    tiles = test.iloc[spread(len(test), TEST_TILES)]
    scores: dict[Precision, TestScores] = {}
    for precision, runtime in runtimes.items():
        log.info("Scoring %d test tiles in %s", len(tiles), precision)
        scores[precision] = score_exported(runtime, tiles, polygons)
    figures = {precision: of.metrics() for precision, of in scores.items()}
    for precision, milliseconds in _latencies(runtimes).items():
        figures[precision][FALL] = figures["f32"][DECIDING] - figures[precision][DECIDING]
        figures[precision][LATENCY] = milliseconds
    chosen, reason = choose(figures)
    log.info("Served in %s: %s", chosen, reason)
    return PrecisionReport(chosen, reason, figures, skipped, scores[chosen])


def choose(figures: dict[Precision, dict[str, float]]) -> tuple[Precision, str]:
    """The fastest precision whose deciding figure is not below that of f32 by more than is allowed, and why.

    Args:
        figures: by precision, f32 among them: `f1_drop` and `latency_ms`.
    """
    passing = [precision for precision in figures if figures[precision][FALL] <= LARGEST_FALL]
    chosen = min(passing, key=lambda precision: figures[precision][LATENCY])
    told = ", ".join(
        f"{precision} takes {of[LATENCY]:.1f} ms a tile" + ("" if precision == "f32" else f" and loses {of[FALL]:.4f}")
        for precision, of in figures.items()
    )
    return chosen, f"the fastest that loses at most {LARGEST_FALL} of {DECIDING}: {told}"


def calibration_chips(tiles: pd.DataFrame, spec: ModelSpec) -> list[np.ndarray]:
    """A chip each of some of these tiles, as the network sees them: float32 in [0, 1], shape (1, H, W, 3)."""
    rng = np.random.default_rng(0)
    chips = []
    for row in tiles.iloc[spread(len(tiles), CHIPS)].itertuples():
        image = resample(as_learned(row, *read_tile(Path(row.path))), grid_size(row, spec.gsd_m))
        top, left = (int(rng.integers(max(0, side - spec.chip_size) + 1)) for side in image.shape[:2])
        chip = image[top : top + spec.chip_size, left : left + spec.chip_size].astype(np.float32) / np.float32(255)
        missing = [(0, -side % spec.stride) for side in chip.shape[:2]]
        chips.append(np.pad(chip, [*missing, (0, 0)], mode="symmetric")[None])
    return chips


def _latencies(runtimes: dict[Precision, Runtime]) -> dict[Precision, float]:
    """Milliseconds of one tile, the shortest of several in turn, so that whatever else the machine does hits all."""
    tile = np.random.default_rng(0).random((1, _TIMED_PX, _TIMED_PX, 3), np.float32)
    shortest = dict.fromkeys(runtimes, np.inf)
    for _ in range(1 + _TIMES):  # the first is slower, so it is never the shortest
        for precision, runtime in runtimes.items():
            started = time.perf_counter()
            runtime(tile)
            shortest[precision] = min(shortest[precision], 1000 * (time.perf_counter() - started))
    return shortest
