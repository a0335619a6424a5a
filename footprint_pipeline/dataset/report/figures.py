"""The report's plots: numbers in, PNG bytes out. What they mean is said in `content`."""

import io
import math
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from footprint_pipeline.dataset.exploration import BANDS, SIZE_CLASSES, Colours
from footprint_pipeline.dataset.polygons import SQUARE_FEET_A_SQUARE_METRE

WIDEST = 1080
"""Pixels across: what the Dagster UI shows at full width."""
BESIDE_IN, FULL_IN = 6.6, 10.0
"""Inches across, beside a table and alone: on the page, letters are equally large on both."""
INK, QUIET, BLUE, RED = "#22303c", "#8a949e", "#3b6ea5", "#b8403a"
EMPTY = "#f3efe6"
"""Tiles without a building."""
BAND_COLOURS = dict(zip(BANDS, ("#c23b32", "#2e8b4f", "#2f62b5"), strict=True))
_STYLE = {
    "font.size": 9, "axes.edgecolor": QUIET, "axes.labelcolor": INK, "axes.spines.top": False,
    "axes.spines.right": False, "text.color": INK, "xtick.color": INK, "ytick.color": INK, "axes.titlesize": 10,
    "axes.titleweight": "bold", "legend.frameon": False, "hatch.linewidth": 0.6,
}  # fmt: skip


def drawn(plot: Callable[..., Figure]) -> Callable[..., bytes]:
    """A plot in the report's style, as PNG; for the plots of this room."""

    @wraps(plot)
    def draw(*arguments: Any, **options: Any) -> bytes:
        buffer = io.BytesIO()
        with mpl.rc_context(_STYLE):
            figure = plot(*arguments, **options)
            figure.savefig(buffer, format="png", dpi=WIDEST / figure.get_figwidth())
        return buffer.getvalue()

    return draw


def _to_m2(area_sqft: Any) -> Any:
    return area_sqft / SQUARE_FEET_A_SQUARE_METRE


def _to_sqft(area_m2: Any) -> Any:
    return area_m2 * SQUARE_FEET_A_SQUARE_METRE


def _whole(value: float, _: float) -> str:
    return f"{value:,.0f}"


@drawn
def size_distribution(area_sqft: np.ndarray) -> Figure:
    """Histogram of building areas, logarithmic from 10 square feet, over the shaded size classes.

    Args:
        area_sqft: square feet, shape (N,); smaller ones are left out.
    """
    figure = Figure(figsize=(BESIDE_IN, 3.7), layout="constrained")
    axes = figure.subplots()
    shown = area_sqft[area_sqft >= SIZE_CLASSES[1].low_sqft]
    top = max(1e5, 1.3 * float(shown.max(initial=0)))
    edges = np.geomspace(10, top, round(14 * math.log10(top / 10)) + 1)
    counts, _ = np.histogram(shown, edges)
    axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=BLUE, edgecolor="white", linewidth=0.4, zorder=2)
    tallest = max(float(counts.max()), 1.0)
    for size_class, tint in zip(SIZE_CLASSES[1:], ("#f4f1ea", "#e9eef4", "#f4f1ea", "#e9eef4"), strict=True):
        high = min(size_class.high_sqft, top)
        axes.axvspan(size_class.low_sqft, high, color=tint, zorder=0, linewidth=0)
        count = int(size_class.holds(area_sqft).sum())
        axes.text(math.sqrt(size_class.low_sqft * high), 1.3 * tallest, f"{size_class.name}\n{count:,}",
                  ha="center", va="top", linespacing=1.4)  # fmt: skip
    if len(area_sqft):
        quartiles = np.percentile(area_sqft, [25, 50, 75])
        for value, style in zip(quartiles, (":", "-", ":"), strict=True):
            axes.axvline(value, 0, 0.84, color=RED, linestyle=style, linewidth=1.3, zorder=3)
        axes.plot([], [], color=RED, label=f"median {quartiles[1]:,.0f} ft²")
        axes.plot([], [], color=RED, linestyle=":", label=f"quartiles {quartiles[0]:,.0f} and {quartiles[2]:,.0f} ft²")
        axes.legend(loc="center right", bbox_to_anchor=(1, 0.6))
    axes.set(xscale="log", xlim=(10, top), ylim=(0, 1.35 * tallest), ylabel="buildings", xlabel="area, square feet")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(_whole)
    axes.xaxis.set_major_formatter(_whole)
    metres = axes.secondary_xaxis("top", functions=(_to_m2, _to_sqft))
    metres.set_xlabel("area, square metres")
    metres.xaxis.set_major_formatter(_whole)
    return figure


@drawn
def buildings_per_tile(counts: np.ndarray) -> Figure:
    """How many tiles hold how many buildings; those without one apart.

    Args:
        counts: labels of each tile, int, shape (N,).
    """
    figure = Figure(figsize=(BESIDE_IN, 2.8), layout="constrained")
    axes = figure.subplots()
    step = max(1, math.ceil(int(counts.max(initial=0)) / 25))
    bins = max(1, math.ceil(int(counts.max(initial=0)) / step))
    tiles = np.bincount((counts[counts > 0] - 1) // step, minlength=bins)
    empty = int((counts == 0).sum())
    axes.bar(0, empty, width=0.9, color=EMPTY, edgecolor=QUIET, hatch="////")
    axes.bar(np.arange(1, bins + 1), tiles, width=0.9, color=BLUE)
    axes.text(0, empty, f"{empty:,}", ha="center", va="bottom")
    names = ["none", *(f"{1 + i * step}–{(i + 1) * step}" if step > 1 else str(i + 1) for i in range(bins))]
    axes.set_xticks(np.arange(bins + 1), names, rotation=60 if step > 1 and bins > 9 else 0)
    axes.set(xlabel="buildings in the tile", ylabel="tiles")
    axes.margins(y=0.12)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(_whole)
    return figure


@drawn
def colour_histograms(colours: Mapping[str, Colours]) -> Figure:
    """Share of the valid pixels by value, a panel an AOI, a line a band, all on the same axes.

    Args:
        colours: by AOI.
    """
    columns = min(4, len(colours))
    rows = math.ceil(len(colours) / columns)
    figure = Figure(figsize=(FULL_IN, 0.5 + 2.4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    heights = []
    for axes, (name, found) in zip(panels.flat, colours.items(), strict=False):
        bands = found.bands()
        for counts, (_, band) in zip(found.counts, bands.iterrows(), strict=True):
            density = counts.reshape(64, 4).sum(axis=1) / max(counts.sum(), 1) * 100
            heights.append(density[1:-1].max())  # what is clipped at either end does not set the scale
            colour = BAND_COLOURS[band["band"]]
            axes.stairs(density, np.arange(0, 257, 4), color=colour, linewidth=1.3, label=band["band"])
            axes.axvline(band["mean"], color=colour, linestyle=":", linewidth=1)
        axes.set_title(name)
    for axes in panels.flat[len(colours) :]:
        axes.remove()
    panels[0, 0].set(xlim=(0, 256), ylim=(0, 1.15 * max(*heights, 1e-9)), xticks=(0, 64, 128, 192, 255))
    panels[0, 0].legend(loc="upper right")
    figure.supxlabel("value, normalised (dotted: mean)", fontsize=9)
    figure.supylabel("valid pixels, per cent", fontsize=9)
    return figure
