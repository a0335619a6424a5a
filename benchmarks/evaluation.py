"""A whole evaluation beside prediction alone: the sweep of pixels and buildings, the scores, and the report.

431 tiles of 512 × 512 of a synthetic city, a few of them again and again, half of them to choose on and half to be
judged by. The network is the default one and costs what it costs; being untrained, its answer is put aside for the
blurred labels, so that there are buildings to outline, to tell apart and to match.
"""

import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from benchmarks.form import Figure, main
from footprint_pipeline.dataset.masks import read_mask
from footprint_pipeline.dataset.polygons import read_polygon_table
from footprint_pipeline.dataset.spec import SplitSpec
from footprint_pipeline.dataset.splits import read_manifests
from footprint_pipeline.evaluation import reports
from footprint_pipeline.evaluation.bootstrap import intervals
from footprint_pipeline.evaluation.breakdown import by_coverage, by_size, precision_recall
from footprint_pipeline.evaluation.building_sweep import Labelled
from footprint_pipeline.evaluation.card import CardFacts, render_card
from footprint_pipeline.evaluation.choice import settle
from footprint_pipeline.evaluation.scoring import TilePrediction, predict_tiles, score_tiles, tile_buildings
from footprint_pipeline.evaluation.spec import SweepSpec
from footprint_pipeline.evaluation.tolerance import sweep_stream
from footprint_pipeline.footprints.predict import Infer
from footprint_pipeline.lake import AoiFolder, Lake
from footprint_pipeline.many import spread
from footprint_pipeline.model.spec import DEFAULT
from footprint_pipeline.settings import Settings
from footprint_pipeline.spacenet.sources import resolve_source
from footprint_pipeline.spacenet.synthetic.city import CitySpec, write_city
from footprint_pipeline.stages.data import collect_polygons, draw_masks, fetch_tiles, split_tiles

TILES, SIDE, GOAL = 431, 512, 3


def measure(quick: bool) -> list[Figure]:
    """Predict alone, then evaluate whole; see the module."""
    tiles = 4 if quick else TILES
    with tempfile.TemporaryDirectory() as scratch:
        folder = prepare(Path(scratch), rows=1 if quick else 3, columns=4)
        manifest = read_manifests([folder.manifest]).sort_values("tile_id")
        manifest = manifest.iloc[np.arange(tiles) % len(manifest)].reset_index(drop=True)
        polygons = read_polygon_table(folder.polygons)
        network = build_network()
        network(np.zeros((1, SIDE, SIDE, 3), np.float32))
        masks = itertools.cycle([read_mask(Path(path)) for path in manifest["mask_path"]])

        def infer(images: np.ndarray) -> np.ndarray:
            network(images)
            return planted(images.shape[1:3], next(masks))

        started = time.perf_counter()
        for _ in predictions(manifest, infer):
            pass
        alone = time.perf_counter() - started
        half = len(manifest) // 2
        started = time.perf_counter()
        sample, buildings_of = [], tile_buildings(polygons)
        measured = set(spread(half, SweepSpec().tiles).tolist())

        def pixels() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for number, prediction in enumerate(predictions(manifest[:half], infer)):
                if number in measured:
                    sample.append(Labelled(prediction.aoi, prediction.answer, buildings_of(prediction)))
                yield prediction.probability, prediction.truth

        swept = sweep_stream(pixels())
        settled = settle(swept, sample, SweepSpec())
        reports.heat_map(settled)
        chosen = time.perf_counter()
        shown: list[TilePrediction] = []
        scores = score_tiles(
            predictions(manifest[half:], infer),
            polygons,
            tolerance=settled.choice.tolerance,
            seed_level=settled.seed_level,
            min_area_m2=settled.min_area_m2,
            on_tile=lambda prediction, _: shown.append(prediction) if len(shown) < 20 else None,
        )
        judged = time.perf_counter()
        sheet = reports.contact_sheet(shown, tolerance=settled.choice.tolerance, seed_level=settled.seed_level)
        by_size(scores), by_coverage(scores), precision_recall(scores)
        render_card(
            scores,
            intervals(scores.tiles),
            CardFacts(
                name="untrained", facts={}, recipe={}, data=[], data_head=[], calibration=settled.calibration,
                worst=sheet, best=sheet, box_plot=reports.box_plot(swept, settled.choice),
            ),
        )  # fmt: skip
        ended = time.perf_counter()
    whole = ended - started
    return [
        Figure(
            f"evaluation of {tiles} tiles; peer: predicting them", whole, "s", alone, alone / whole,
            f"≥ {1 / GOAL:.2f}", whole <= GOAL * alone,
        ),
        Figure(f"predicting {half} tiles, both sweeps and the choice", chosen - started, "s"),
        Figure(f"predicting and scoring {tiles - half} tiles", judged - chosen, "s"),
        Figure("ranges, tables, pictures, card", ended - judged, "s"),
        Figure("building F1 of blurred labels", scores.building_f1, ""),
    ]  # fmt: skip


def prepare(home: Path, *, rows: int, columns: int) -> AoiFolder:
    """A synthetic city, prepared as the pipeline does it."""
    city = CitySpec(rows=rows, columns=columns, tile_height=SIDE, tile_width=SIDE)
    source = write_city(home / "source", city).folder
    folder = Lake(home).aoi("AOI_0_Synthetic")
    fetch_tiles(Settings(home=home), resolve_source(str(source), home), folder, tiles=None, on_bad_tile="fail")
    collect_polygons(folder, skip_bad_labels=False)
    draw_masks(folder)
    split_tiles(folder, SplitSpec())
    return folder


def predictions(manifest: pd.DataFrame, infer: Infer) -> Iterator[TilePrediction]:
    """At the tiles' own resolution."""
    return predict_tiles(
        manifest, infer, gsd_m=float(manifest["gsd_y_m"].iloc[0]), stride=DEFAULT.stride, heads=DEFAULT.heads
    )


def build_network() -> Infer:
    """The default network, untrained, as the evaluation runs it."""
    from footprint_pipeline.model.training import keras_infer
    from footprint_pipeline.model.unet import build_unet

    return keras_infer(build_unet(DEFAULT))


def planted(size: tuple[int, int], mask: np.ndarray) -> np.ndarray:
    """Blurred labels in the place of an answer, float32, shape (1, height, width, heads)."""
    building = (cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST) > 0).astype(np.float32)
    soft = cv2.GaussianBlur(building, (0, 0), 1.5)
    border = cv2.GaussianBlur(building - cv2.erode(building, np.ones((3, 3))), (0, 0), 1.0)
    noise = np.random.default_rng(0).normal(0, 0.03, size).astype(np.float32)
    return np.clip(np.stack([soft + noise, border, np.zeros_like(soft)], axis=-1), 0, 1)[None]


if __name__ == "__main__":
    main(measure, description=__doc__ or "")
