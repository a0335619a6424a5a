"""A model card: what a network is, what it was made of, how good it is and how one knows, on one HTML page.

What belongs here: which tables and figures, in which order, in which words. The page itself is `dataset.report.page`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from footprint_pipeline.dataset.report.page import Part, Picture, Section, Table, render_page
from footprint_pipeline.evaluation import reports
from footprint_pipeline.evaluation.bootstrap import FIGURES, Interval
from footprint_pipeline.evaluation.breakdown import average_precision, by_coverage, by_size, precision_recall
from footprint_pipeline.evaluation.calibration import reliability
from footprint_pipeline.evaluation.scoring import TestScores
from footprint_pipeline.evaluation.spec import DRAWS
from footprint_pipeline.footprints.spec import calibrated

NAMES = {
    "median_tile_f1": "median pixel F1 of the tiles with buildings",
    "pooled_pixel_f1": "pixel F1 of all tiles as one",
    "building_f1": "building F1 (SpaceNet, IoU ≥ 0.5)",
}


@dataclass(frozen=True)
class CardFacts:
    """What a card says beside the scores.

    Attributes:
        name: of the network, for people.
        facts: names and values: run, split, resolution and so on.
        recipe: the training's spec, names and values.
        data: one row an AOI: name, tiles by split, licence.
        data_head: head of that table.
        calibration: the curve of the footprints' confidences.
        box_plot: the sweep over tolerances, PNG; None when it is not at hand.
        worst: the worst tiles, PNG.
        best: the best ones, PNG.
    """

    name: str
    facts: Mapping[str, str]
    recipe: Mapping[str, object]
    data: Sequence[Sequence[str]]
    data_head: Sequence[str]
    calibration: Sequence[tuple[float, float]]
    worst: bytes
    best: bytes
    box_plot: bytes | None = None


def render_card(scores: TestScores, intervals: Mapping[str, Interval], facts: CardFacts) -> str:
    """The card as one self-contained HTML page."""
    sections = [
        Section(
            "scores", "Scores", [_by_aoi(scores), _by_size(scores), _by_coverage(scores)], _headline(scores, intervals)
        ),
        Section("certainty", "How sure it is", [_certainty(scores, facts)]),
        Section("tiles", "Tiles", [_sheet("worst", facts.worst), _sheet("best", facts.best)]),
        Section("network", "Network and training", _network(facts)),
        Section("data", "Data", [Part(table=Table(facts.data_head, facts.data))]),
        Section("limits", "Limits", [Part(text=text) for text in _limits(scores)]),
    ]  # fmt: skip
    return render_page(
        facts.name, f"Judged on {len(scores.tiles)} tiles that it was neither trained nor tuned on.", sections
    )


def _headline(scores: TestScores, intervals: Mapping[str, Interval]) -> list[tuple[str, str]]:
    figures = scores.metrics()
    return [
        (f"{figures[name]:.3f}", f"{NAMES[name]}; {intervals[name].low:.3f} to {intervals[name].high:.3f}")
        for name in FIGURES
    ]


def _by_aoi(scores: TestScores) -> Part:
    head = [
        "area", "tiles", "tolerance", "median F1", "pooled F1", "building F1", "precision", "recall", "buildings",
        "footprints", "pooled F1, all a building",
    ]  # fmt: skip
    names = [
        "aoi", "tiles", "tolerance", *FIGURES, "building_precision", "building_recall", "buildings", "proposals",
        "all_building_pixel_f1",
    ]  # fmt: skip
    return Part(
        title="By area",
        text=f"The ranges above hold 95 % of {DRAWS:,} draws of the test tiles, with putting back, area by area. "
        "The last column is the pooled pixel F1 of calling every pixel a building: what knowing nothing is worth.",
        table=Table(head, _rows(scores.by_aoi[names])),
    )


def _by_size(scores: TestScores) -> Part:
    table = by_size(scores)
    upto = [f"to {high:,.0f} m²" for high in table["to_m2"]]
    upto[-1] = f"over {table['from_m2'].iloc[-1]:,.0f} m²"
    table.insert(0, "class", upto)
    return Part(
        title="By size of building",
        table=Table(
            ["area", "buildings", "found", "false", "precision", "recall", "F1"],
            _rows(table.drop(columns=["from_m2", "to_m2"])),
        ),
    )


def _by_coverage(scores: TestScores) -> Part:
    table = by_coverage(scores)
    table.insert(
        0, "class", [f"{100 * low:.0f} to {100 * high:.0f} %" for low, high in table[["from", "to"]].to_numpy()]
    )
    return Part(
        title="By how much of a tile is built up",
        table=Table(
            ["share of the pixels", "tiles", "median F1", "pooled F1", "building F1"],
            _rows(table.drop(columns=["from", "to"])),
        ),
    )


def _certainty(scores: TestScores, facts: CardFacts) -> Part:
    curve = precision_recall(scores)
    average = average_precision(curve)
    said = scores.proposals["confidence"].to_numpy(float)
    right = scores.proposals["right"].to_numpy(bool)
    told = {
        "pixels": scores.pixels,
        "footprints, uncalibrated": reliability(said, right),
        "footprints": reliability(calibrated(said, facts.calibration), right),
    }
    return Part(
        pictures=[
            Picture(
                "reliability", reports.reliability_diagram(told), "How often what was said came true, by confidence",
                "Below the dashed line more was said than came true.", "Reliability",
            ),
            Picture(
                "precision-recall", reports.precision_recall_curve(curve, average=average),
                "Precision over recall of the footprints", "", "Precision and recall",
            ),
        ],
        table=Table(
            ["figure", "value"],
            [
                ["average precision of the footprints", f"{average:.3f}"],
                *[[f"calibration error, {name}", f"{each.expected_error:.3f}"] for name, each in told.items()],
            ],
        ),
        beside=True,
    )  # fmt: skip


def _sheet(which: str, png: bytes) -> Part:
    return Part(
        [
            Picture(
                which, png, f"The {which} tiles: image, labels, answer",
                "Image, labels, answer: green found, red wrong, blue missed, white the footprints.",
                f"The {which} of the tiles with buildings",
            )
        ]
    )  # fmt: skip


def _network(facts: CardFacts) -> list[Part]:
    recipe = [[name, str(value)] for name, value in facts.recipe.items()]
    parts = [
        Part(table=Table(["fact", "value"], [[name, value] for name, value in facts.facts.items()])),
        Part(table=Table(["field", "value"], recipe, caption="The whole recipe", folded=True)),
    ]
    if facts.box_plot is not None:
        picture = Picture(
            "tolerance", facts.box_plot, "Pixel F1 of the validation tiles at every tolerance", "", "The tolerance"
        )
        parts.append(Part([picture]))
    return parts


def _limits(scores: TestScores) -> list[str]:
    told = [
        "The scores hold for imagery like that of the areas above: their sensors, seasons, roofs and labelling. "
        "Elsewhere they fall, often far; score the model on labelled tiles of the new place before relying on it "
        "(footprint evaluate --source).",
        "Labels are somebody's work too: shifted, missing and merged labels count against the network as its own "
        "mistakes do.",
    ]
    if len(scores.tiles) < 30:
        told.append(f"{len(scores.tiles)} test tiles are few: look at the ranges, not at the figures.")
    return told


def _rows(table: pd.DataFrame) -> list[list[str]]:
    return [[_cell(value) for value in row] for row in table.itertuples(index=False)]


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
