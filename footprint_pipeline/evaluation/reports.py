"""Pictures and tables for people: overlays, box plots, Markdown. PNG bytes and text out, nothing written."""

import io
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import cv2
import matplotlib
import numpy as np
import pandas as pd
import shapely

from footprint_pipeline.evaluation.building_sweep import mean_f1
from footprint_pipeline.evaluation.calibration import Reliability
from footprint_pipeline.evaluation.choice import Settled
from footprint_pipeline.evaluation.scoring import TilePrediction
from footprint_pipeline.evaluation.tolerance import Choice, SweepTable
from footprint_pipeline.footprints.picture import encode_png
from footprint_pipeline.footprints.spec import ModelSpec

matplotlib.use("Agg")
from matplotlib import pyplot as plt

FOUND, WRONG, MISSED = (60, 220, 80), (235, 45, 45), (50, 110, 255)
"""The article's colours, RGB: correctly found, wrongly claimed, missed."""


WIDEST = 1080
"""Pixels across that fit the Dagster UI."""


def overlay(image: np.ndarray, truth: np.ndarray, claimed: np.ndarray) -> np.ndarray:
    """The image with found pixels green, wrong ones red and missed ones blue.

    Args:
        image: uint8, shape (H, W, 3).
        truth: 0/1, shape (H, W).
        claimed: 0/1, shape (H, W).

    Returns:
        uint8, shape (H, W, 3).
    """
    truth, claimed = truth.astype(bool), claimed.astype(bool)
    result = image.astype(np.float32)
    for where, colour in ((truth & claimed, FOUND), (claimed & ~truth, WRONG), (truth & ~claimed, MISSED)):
        result[where] = 0.55 * result[where] + 0.45 * np.array(colour, np.float32)
    return result.astype(np.uint8)


def contact_sheet(
    predictions: Sequence[TilePrediction],
    *,
    tolerance: float,
    own_tolerances: Mapping[str, float] = MappingProxyType({}),
    seed_level: float | None = None,
    height: int = 280,
) -> bytes:
    """Tiles in rows: image, outlines of the labels, overlay with outlines found; an empty strip for no tiles. PNG."""
    rows = []
    for tile in predictions:
        here = own_tolerances.get(tile.aoi, tolerance)
        rows.append([tile.image, _labelled(tile), _painted(tile, tolerance=here, seed_level=seed_level)])
    return _sheet(rows, height)


def comparison_sheet(
    pairs: Sequence[tuple[TilePrediction, TilePrediction]], specs: tuple[ModelSpec, ModelSpec]
) -> bytes:
    """What two models say of the same tiles, in rows: outlines of the labels, the one's overlay, the other's. PNG."""
    return _sheet(
        [
            [
                _labelled(pair[0]),
                *(
                    _painted(tile, tolerance=spec.tolerance_of(tile.aoi), seed_level=spec.seed_level)
                    for tile, spec in zip(pair, specs, strict=True)
                ),
            ]
            for pair in pairs
        ]
    )


def _labelled(tile: TilePrediction) -> np.ndarray:
    outlined = tile.image.copy()
    contours, _ = cv2.findContours(tile.truth, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(outlined, contours, -1, (255, 230, 0), 1)
    return outlined


def _painted(tile: TilePrediction, *, tolerance: float, seed_level: float | None) -> np.ndarray:
    painted = overlay(tile.image, tile.truth, tile.probability > np.float32(1 - tolerance))
    found = tile.answer.footprints(tolerance=tolerance, seed_level=seed_level).polygons
    rings = [shapely.get_coordinates(ring) - 0.5 for ring in shapely.get_rings(found)]
    cv2.polylines(painted, [np.rint(ring).astype(np.int32) for ring in rings], True, (255, 255, 255), 1)
    return painted


def _sheet(rows: Sequence[Sequence[np.ndarray]], height: int = 280) -> bytes:
    """Rows of panels, each panel scaled to the height; an empty strip for no rows. PNG."""
    strips = [] if rows else [np.zeros((height, 3 * height, 3), np.uint8)]
    for panels in rows:
        width = round(height * panels[0].shape[1] / panels[0].shape[0])
        resized = [cv2.resize(panel, (width, height), interpolation=cv2.INTER_AREA) for panel in panels]
        strips.append(np.concatenate(resized, axis=1))
    widest = max(strip.shape[1] for strip in strips)
    return encode_png(
        np.concatenate([np.pad(strip, ((0, 4), (0, widest - strip.shape[1]), (0, 0))) for strip in strips])
    )


def box_plot(table: SweepTable, choice: Choice) -> bytes:
    """The article's figure: pixel F1 of the tiles with buildings at every tolerance. PNG."""
    figure, axes = plt.subplots(figsize=(12, 4.8), layout="constrained")
    f1 = table.f1[table.with_buildings]
    axes.boxplot(
        list(f1.T), positions=table.tolerances, widths=0.012, manage_ticks=False, patch_artist=True,
        boxprops={"facecolor": "#cfe3f5", "edgecolor": "#3b6ea5"}, medianprops={"color": "#c0392b"},
        flierprops={"markersize": 2, "alpha": 0.5},
    )  # fmt: skip
    axes.plot(table.tolerances, table.pooled_f1, color="#2c7a4b", linewidth=1.5, label="all tiles as one")
    axes.axvline(choice.tolerance, color="#c0392b", linestyle="--", linewidth=1)
    axes.set(
        xlabel="tolerance (a pixel is a building where probability > 1 - tolerance)", ylabel="pixel F1",
        ylim=(-0.02, 1.02), xlim=(0, 1.02), xticks=np.arange(0, 1.01, 0.1),
        title=f"Tolerance {choice.tolerance:.2f}: median F1 {choice.median_f1:.4f}, "
        f"standard deviation {choice.std_f1:.4f} over {len(f1)} tiles with buildings",
    )  # fmt: skip
    axes.legend(loc="lower center")
    return _png(figure)


def heat_map(settled: Settled) -> bytes:
    """Building F1 by tolerance and minimum area at the chosen seed level, of every AOI and their mean. PNG."""
    measured, level = settled.measured, settled.seed_level
    measured = measured[measured["seed_level"].isna() if level is None else measured["seed_level"] == level]
    panels = {
        f"{aoi} ({int(of['tp'].iloc[0] + of['fn'].iloc[0]):,} buildings)"
        + (f", its own: {settled.own[aoi]:.2f}" if aoi in settled.own else ""): of
        for aoi, of in measured.groupby("aoi")
    }
    if len(panels) > 1:
        panels = {"mean over AOIs, by √buildings": mean_f1(measured), **panels}
    across = min(len(panels), 3)
    down = -(-len(panels) // across)
    figure, axes = plt.subplots(down, across, figsize=(12, 3.6 * down), layout="constrained", squeeze=False)
    for panel in axes.flat[len(panels) :]:
        panel.set_axis_off()
    for panel, (title, of) in zip(axes.flat, panels.items(), strict=False):
        grid = of.pivot_table(index="min_area_m2", columns="tolerance", values="f1")
        best = grid.to_numpy().max()
        panel.imshow(grid, origin="lower", aspect="auto", cmap="viridis", vmin=0, vmax=max(best, 0.01))
        for (row, column), f1 in np.ndenumerate(grid.to_numpy()):
            panel.text(
                column, row, f"{100 * f1:.0f}", ha="center", va="center", fontsize=7,
                color="black" if f1 > 0.6 * best else "white",
            )  # fmt: skip
        chosen = (grid.columns.get_loc(settled.choice.tolerance), grid.index.get_loc(settled.min_area_m2))
        panel.add_patch(
            plt.Rectangle(
                (chosen[0] - 0.5, chosen[1] - 0.5), 1, 1, fill=False, edgecolor="#e74c3c", linewidth=2, clip_on=False
            )
        )
        panel.set(
            xticks=range(grid.shape[1]), yticks=range(grid.shape[0]), xlabel="tolerance", ylabel="minimum area, m²",
            yticklabels=[f"{area:g}" for area in grid.index],
        )  # fmt: skip
        panel.set_title(title, fontsize=10)
        panel.set_xticklabels([f"{tolerance:.2f}" for tolerance in grid.columns], rotation=60)
    figure.suptitle(
        f"Building F1, per cent; chosen: tolerance {settled.choice.tolerance:.2f}, {settled.min_area_m2:g} m²"
    )
    return _png(figure)


def reliability_diagram(told: Mapping[str, Reliability]) -> bytes:
    """How often what was said came true: a line each, and below it how much was said of what. PNG."""
    figure, (upper, lower) = plt.subplots(
        2, 1, figsize=(5.4, 5.4), layout="constrained", sharex=True, height_ratios=(3, 1)
    )
    upper.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle="--")
    for name, each in told.items():
        table = each.table()
        upper.plot(
            table["said"], table["true"], marker="o", markersize=3, label=f"{name}: error {each.expected_error:.3f}"
        )
        lower.step(table["from"], table["count"] / max(table["count"].sum(), 1), where="post")
    upper.set(ylabel="share that came true", ylim=(-0.02, 1.02))
    lower.set(xlabel="confidence", ylabel="share of all", xlim=(0, 1), yscale="log")
    upper.legend(loc="upper left")
    return _png(figure)


def precision_recall_curve(curve: pd.DataFrame, *, average: float) -> bytes:
    """A curve of `breakdown.precision_recall`. PNG."""
    figure, axes = plt.subplots(figsize=(5.4, 4.2), layout="constrained")
    axes.plot(curve["recall"], curve["precision"], color="#3b6ea5")
    axes.set(
        xlabel="recall: share of the buildings that are found",
        ylabel="precision: share of the footprints that are right",
        xlim=(0, 1), ylim=(0, 1.02), title=f"average precision {average:.3f}",
    )  # fmt: skip
    return _png(figure)


def learning_curves(history: Sequence[dict[str, float]]) -> bytes:
    """Loss and F1 by epoch, training and validation. PNG."""
    figure, panels = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
    epochs = np.arange(1, len(history) + 1)
    for axes, name, title in zip(panels, ("loss", "f1"), ("loss", "pixel F1 at 0.5"), strict=True):
        for key, label in ((name, "training"), (f"val_{name}", "validation")):
            axes.plot(epochs, [entry.get(key, np.nan) for entry in history], label=label, marker=".")
        axes.set(xlabel="epoch", title=title)
        axes.legend()
    return _png(figure)


def markdown_table(frame: pd.DataFrame) -> str:
    """A DataFrame as a Markdown table; floats with three digits."""
    rows = frame.itertuples(index=False)  # unlike to_numpy(), whole numbers stay whole
    cells = [[f"{value:.3f}" if isinstance(value, float) else str(value) for value in row] for row in rows]
    lines = [list(map(str, frame.columns)), ["---"] * frame.shape[1], *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def preview(images: Sequence[np.ndarray], *, height: int = 200) -> bytes:
    """Images side by side at one height, no wider than the Dagster UI shows. PNG.

    Args:
        images: uint8, shapes (H, W, 3) or (H, W); a 0/1 mask is shown black and white.
        height: of the strip, pixels.
    """
    shown = []
    height = min(height, int(WIDEST / sum(image.shape[1] / image.shape[0] for image in images)))
    for image in images:
        if image.ndim == 2:
            image = np.repeat((image * (255 if image.max() <= 1 else 1))[..., None], 3, axis=2)
        width = max(1, round(height * image.shape[1] / image.shape[0]))
        shown.append(cv2.resize(image.astype(np.uint8), (width, height), interpolation=cv2.INTER_AREA))
    return encode_png(np.concatenate(shown, axis=1))


def _png(figure: plt.Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    plt.close(figure)
    return buffer.getvalue()
