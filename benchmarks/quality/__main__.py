"""Work out the rows of a table of recipes, and print it.

python -m benchmarks.quality --area NAME=SOURCE [--area …] --split SPLIT.csv --work DIR [--row NAME …] [--latency]

Rows are in `recipes.yaml` beside this file. What a former call worked out is not done again; without `--row` the
table of what there is is printed.
"""

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.form import in_turn, machine
from benchmarks.quality.rows import Row, read_rows
from benchmarks.quality.work import CONFIGS, Bench
from footprint_pipeline.model.spec import UNetSpec

ROWS = Path(__file__).with_name("recipes.yaml")
TILE = 512
ROUNDS = 7


def main() -> None:
    """Parse the options, work out rows, print the table."""
    parser = argparse.ArgumentParser(description="Train, tune and judge recipes; print a table of them.")
    parser.add_argument("--area", action="append", required=True, metavar="NAME=SOURCE", help="labelled tiles")
    parser.add_argument("--split", type=Path, required=True, help="CSV of the columns aoi, tile_id, split")
    parser.add_argument("--work", type=Path, required=True, help="folder for homes and answers")
    parser.add_argument("--rows", type=Path, default=ROWS, help="YAML file of the rows")
    parser.add_argument("--row", action="append", default=[], help="row to work out, or all; repeat for several")
    parser.add_argument("--latency", action="store_true", help="measure what a tile costs the service as well")
    options = parser.parse_args()
    sources = dict(area.split("=", 1) for area in options.area)
    bench = Bench(sources, pd.read_csv(options.split, dtype=str), options.work.absolute())
    rows = read_rows(options.rows)
    for row in rows:
        if (row.name in options.row or "all" in options.row) and bench.answers(row) is None:
            bench.work_out(row)
    answered = [(row, answers) for row in rows if (answers := bench.answers(row)) is not None]
    cost = latencies([row.recipe(CONFIGS).network for row, _ in answered]) if options.latency else {}
    print(machine(), *table(answered, list(sources), cost), sep="\n")


def table(
    answered: Sequence[tuple[Row, dict[str, Any]]], aois: Sequence[str], cost: dict[UNetSpec, float]
) -> Iterator[str]:
    """Lines of Markdown: figures of an area are median tile F1 / pooled pixel F1 / building F1, and its own tolerance.

    The loss is the lowest on the validation tiles: of a row with the same tiles and the same loss it can be compared.
    """
    from footprint_pipeline.model.unet import gflop

    yield ""
    heads = ["row", "what", "parameters", "GFLOP", "chips", "minutes", "loss", "tolerance", "level", "m²", *aois]
    heads += ["ms a tile"] if cost else []
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for row, answers in answered:
        spec, trained, tuned = row.recipe(CONFIGS), answers["train"], answers["tune"]
        scores = {each["aoi"]: each for each in answers["evaluate"]["by_aoi"]}
        cells = [
            row.name,
            row.about,
            f"{trained['parameters']:,}",
            f"{gflop(spec.network, TILE):.1f}",
            "–" if row.untrained else f"{trained['epochs'] * (spec.chips_per_epoch or 0):,}",
            "–" if row.untrained else f"{trained['seconds'] / 60:.1f}",
            "–" if row.untrained else f"{trained['validation_loss']:.3f}",
            f"{tuned['tolerance']:.2f}",
            "–" if tuned["seed_level"] is None else f"{tuned['seed_level']:.1f}",
            f"{tuned['min_area_m2']:g}",
            *(
                _figures(scores[aoi], tuned.get("own_tolerances", {}).get(aoi)) if aoi in scores else "–"
                for aoi in aois
            ),
        ]
        cells += [f"{1000 * cost[spec.network]:.0f}"] if cost else []
        yield f"| {' | '.join(cells)} |"
    floor = "all_building_pixel_f1"
    told = [each for _, answers in answered[:1] for each in answers["evaluate"]["by_aoi"] if floor in each]
    if told:  # answers of before do not tell
        floors = ", ".join(f"{each['aoi']} {each[floor]:.3f}" for each in told)
        yield f"\nPooled pixel F1 of the first row's tiles, all of them called buildings: {floors}."


def _figures(scores: Mapping[str, float], own_tolerance: float | None) -> str:
    told = " / ".join(f"{scores[name]:.3f}" for name in ("median_tile_f1", "pooled_pixel_f1", "building_f1"))
    return told if own_tolerance is None else f"{told} at {own_tolerance:.2f}"


def latencies(networks: Sequence[UNetSpec]) -> dict[UNetSpec, float]:
    """Seconds that each network takes for a tile of 512 × 512 as the service runs it, in turn, median."""
    import keras

    from footprint_pipeline.footprints.runtime import Runtime
    from footprint_pipeline.footprints.spec import ModelSpec
    from footprint_pipeline.model.export import export_openvino
    from footprint_pipeline.model.unet import build_unet

    with tempfile.TemporaryDirectory() as scratch:
        runtimes = {}
        for number, network in enumerate(dict.fromkeys(networks)):
            untrained = build_unet(replace(network, encoder_weights="random"))
            folder = export_openvino(untrained, Path(scratch) / str(number)).parent
            keras.backend.clear_session()
            ModelSpec(
                model_name="untrained", network="", tolerance=0.5, gsd_m=0.3, chip_size=TILE, stride=network.stride,
                heads=network.heads, aois=(), normalization={},
            ).write(folder)  # fmt: skip
            runtimes[network] = Runtime(folder)
        tile = np.random.default_rng(0).random((1, TILE, TILE, 3), np.float32)
        taken = in_turn(*(partial(runtime, tile) for runtime in runtimes.values()), rounds=ROUNDS)
    return dict(zip(runtimes, taken, strict=True))


if __name__ == "__main__":
    main()
