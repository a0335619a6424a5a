"""What the report says: which figures and tables, in which order, in which words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from footprint_pipeline.dataset.exploration import (
    SIZE_CLASSES,
    AoiDataset,
    Summary,
    label_table,
    size_table,
    split_table,
    summarize,
)
from footprint_pipeline.dataset.polygons import SQUARE_FEET_A_SQUARE_METRE
from footprint_pipeline.dataset.report import figures, maps
from footprint_pipeline.dataset.report.crops import Crop, crop_row
from footprint_pipeline.dataset.report.page import Part, Picture, Section, Table
from footprint_pipeline.dataset.spec import GUARD
from footprint_pipeline.dataset.tiles import normalization

SAMPLES = 6
"""Crops of each size class in a row."""
TYPICAL = 3
"""Crops of typical buildings in a row."""


@dataclass(frozen=True)
class Examples:
    """Crops of one AOI's buildings.

    Attributes:
        typical: a small, a medium and the largest building, as far as there are.
        by_class: a sample of each size class that has buildings: its name, the crops, and (building, tile) of each.
    """

    typical: Sequence[Crop]
    by_class: Sequence[tuple[str, Sequence[Crop], Sequence[tuple[str, str]]]]


def report_sections(aois: Sequence[AoiDataset], examples: Sequence[Examples]) -> list[Section]:
    """The whole report: all AOIs beside each other, then each by itself.

    Args:
        aois: at least one.
        examples: of each.
    """
    summaries = [summarize(aoi) for aoi in aois]
    return [
        Section("summary", "Summary", [_summary(aois, summaries)]),
        Section("colours", "Colours", [_colours(aois)]),
        *(_aoi(*each) for each in zip(aois, summaries, examples, strict=True)),
    ]


def _summary(aois: Sequence[AoiDataset], summaries: Sequence[Summary]) -> Part:
    rows = [
        ("tiles", [f"{each.tiles:,}" for each in summaries]),
        ("tiles without a building", [f"{each.empty_tiles:,}" for each in summaries]),
        ("ground with imagery", [f"{each.area_km2:,.2f} km²" for each in summaries]),
        ("pixels with imagery", [_percent(each.valid_share) for each in summaries]),
        ("ground sample distance", [f"{each.gsd_m:.2f} m" for each in summaries]),
        ("bits", [_bits(aoi) for aoi in aois]),
        ("normalisation (red, green, blue)", [_stretch(aoi) for aoi in aois]),
        ("coordinate system", [", ".join(sorted(set(aoi.tiles["crs"]))) for aoi in aois]),
        ("labels", [f"{each.buildings:,}" for each in summaries]),
        ("labels a km²", [_number(each.buildings_per_km2) for each in summaries]),
        ("median building", [_area(each.area_m2_median) for each in summaries]),
        ("largest building", [_area(each.area_m2_largest) for each in summaries]),
        ("all buildings", [f"{each.area_m2_sum:,.0f} m²" for each in summaries]),
        ("pixels of a building", [_percent(each.coverage) for each in summaries]),
        ("split", [_split_counts(aoi) for aoi in aois]),
        ("digest of the split", [aoi.split_digest for aoi in aois]),
    ]
    return Part(table=Table(["", *(aoi.name for aoi in aois)], [[name, *cells] for name, cells in rows]))


def _colours(aois: Sequence[AoiDataset]) -> Part:
    rows = []
    for aoi in aois:
        found, bands = aoi.colours, aoi.colours.bands()
        rows.append(
            [
                aoi.name,
                *(f"{band.mean:.0f} ± {band.std:.0f}" for band in bands.itertuples()),
                _percent(float(bands["dark"].mean())),
                _percent(float(bands["bright"].mean())),
                _percent(found.valid_share),
                f"{found.tiles:,} of {len(aoi.tiles):,}",
            ]
        )
    alt = "Histograms of the normalised colours. " + " ".join(
        f"{row[0]}: red {row[1]}, green {row[2]}, blue {row[3]}." for row in rows
    )
    picture = Picture("colours", figures.colour_histograms({aoi.name: aoi.colours for aoi in aois}), alt)
    head = ["mean ± st. dev.", "red", "green", "blue", "at 0", "at 255", "pixels with imagery", "tiles read"]
    return Part(
        [picture],
        Table(head, rows),
        text="What the network sees: pixels with imagery, normalised as in training, 0 to 255. Where the curves of "
        "two areas lie apart, a network trained on one meets strange colours in the other.",
    )


def _aoi(aoi: AoiDataset, summary: Summary, examples: Examples) -> Section:
    facts = [
        (f"{summary.tiles:,}", "tiles"),
        (f"{summary.area_km2:,.2f} km²", "with imagery"),
        (f"{summary.buildings:,}", "labels"),
        (f"{_number(summary.area_m2_median)} m²", "median building"),
        (_percent(summary.coverage), "of the pixels are a building"),
    ]
    parts = [_sizes(aoi, summary), *_ground(aoi), *_examples(aoi, examples), _labels(aoi)]
    return Section(f"aoi-{aoi.name}", aoi.name, parts, facts)


def _sizes(aoi: AoiDataset, summary: Summary) -> Part:
    table = size_table(aoi.buildings["area_sqft"].to_numpy())
    rows = [
        [row["class"], row["sqft"], row["m2"], f"{row['buildings']:,}", _percent(row["share"])]
        for _, row in table.iterrows()
    ]
    tiny = int(table["buildings"].iloc[0])
    quartiles = f"quartiles {_area(summary.area_m2_quartile_1)} and {_area(summary.area_m2_quartile_3)}"
    return Part(
        [
            Picture(
                "building_sizes",
                figures.size_distribution(aoi.buildings["area_sqft"].to_numpy()),
                f"Histogram of building areas on a logarithmic axis from 10 square feet, the size classes shaded. "
                f"Median {_area(summary.area_m2_median)}, {quartiles}.",
                f"Median {_area(summary.area_m2_median)}, {quartiles}. "
                + f"Labels under 10 ft², left of the axis: {tiny:,}.",
            )
        ],
        Table(["class", "ft²", "m²", "labels", "share"], rows),
        beside=True,
        title="Sizes of buildings",
        text="Geodesic areas. A building on the edge of two tiles has a label in each, cut there.",
    )


def _ground(aoi: AoiDataset) -> list[Part]:
    splits = split_table(aoi.tiles)
    west, south, east, north = maps.side_by_side(aoi.tiles).total_bounds
    rows = [
        [row.split, f"{row.tiles:,}", _percent(row.tiles / len(aoi.tiles)), f"{row.empty:,}", f"{row.buildings:,}",
         _percent(row.coverage)]
        for row in splits.itertuples()
    ]  # fmt: skip
    counts = aoi.tiles["buildings"]
    spread = [
        ["without a building", f"{int((counts == 0).sum()):,}"],
        ["mean", f"{counts.mean():.1f}"],
        *([name, f"{counts.quantile(share):,.0f}"] for name, share in (("first quartile", 0.25), ("median", 0.5),
                                                                       ("third quartile", 0.75), ("most", 1.0))),
    ]  # fmt: skip
    blocks = "Black lines bound the blocks that the split keeps together. " if maps.blocks(aoi.tiles) else ""
    if GUARD in set(splits["split"]):
        blocks += "Guard tiles lie between blocks of different splits and are not used. "
    return [
        Part(
            [
                Picture(
                    "map",
                    maps.maps(aoi.tiles),
                    "Two maps of the tiles: their building share, and their split. "
                    + " ".join(f"{row.split}: {row.tiles} tiles." for row in splits.itertuples()),
                    f"North is up; the lower left corner is {_place(south, west)}, the upper right "
                    f"{_place(north, east)}. {blocks}Tiles without a building are sand-coloured on the left.",
                )
            ],
            Table(["split", "tiles", "share", "without a building", "labels", "mean building share"], rows),
            title="Tiles on the ground",
        ),
        Part(
            [
                Picture(
                    "buildings_per_tile",
                    figures.buildings_per_tile(counts.to_numpy()),
                    f"Histogram of buildings a tile: {spread[0][1]} tiles have none, the median is {spread[3][1]}, "
                    f"the most {spread[5][1]}.",
                )
            ],
            Table(["buildings a tile", ""], spread),
            beside=True,
            title="Buildings a tile",
        ),
    ]


def _examples(aoi: AoiDataset, examples: Examples) -> list[Part]:
    if not examples.typical:
        return [Part(title="Labels on the imagery", text="There is no building to show.")]
    named = ", ".join(crop.title for crop in examples.typical)
    alt = f"Outlined on the imagery of {aoi.name}: {named}."
    first = Part(
        [Picture("examples", crop_row(examples.typical, columns=TYPICAL), alt)],
        title="Labels on the imagery",
        text="The median building of the small and of the medium class, and the largest of all. "
        "Yellow: the label; white: its neighbours; light grey: no imagery.",
    )
    by_name = {size_class.name: size_class for size_class in SIZE_CLASSES}
    pictures, rows = [], []
    for name, crops, origins in examples.by_class:
        total = int(by_name[name].holds(aoi.buildings["area_sqft"].to_numpy()).sum())
        shown = ", ".join(crop.title for crop in crops)
        pictures.append(
            Picture(
                f"labels_{name.lower().replace('-', '_')}",
                crop_row(crops, columns=SAMPLES),
                f"{len(crops)} buildings of the class {name}, outlined on the imagery: {shown}.",
                heading=f"{name[0].upper()}{name[1:]}, {by_name[name].span} ft²: {len(crops)} of {total:,}",
            )
        )
        rows += [[tile, building, name, crop.title] for crop, (building, tile) in zip(crops, origins, strict=True)]
    return [
        first,
        Part(
            pictures,
            Table(["tile", "building", "class", "area"], rows, "Which buildings these are", folded=True),
            title="A sample of each size class",
        ),
    ]


def _labels(aoi: AoiDataset) -> Part:
    total = len(aoi.buildings)
    rows = [
        [row.kind, f"{row.labels:,}", _percent(row.labels / max(total, 1))]
        for row in label_table(aoi.buildings, aoi.tiles).itertuples()
    ]
    counts = aoi.label_counts
    if counts:
        cases = {
            "were cut at the edge of their tile": counts.clipped,
            "crossed themselves and were repaired": counts.repaired,
            "were dropped: no area to speak of": counts.slivers,
            "were dropped: outside their tile": counts.outside,
            "were dropped: within another one, or listed twice": counts.covered,
        }
        rows += [[case, f"{count:,}", _percent(count / max(counts.rows, 1))] for case, count in cases.items()]
    reasons = aoi.rejected["reason"].value_counts()
    rows += [[f"were left out: {reason}", f"{count:,}", ""] for reason, count in reasons.items()]
    colours = aoi.colours
    blind = colours.blind_building_pixels / max(colours.building_pixels, 1)
    return Part(
        table=Table(["labels that …", "labels", "share"], rows),
        title="Quality of the labels",
        text=f"Of {total:,} labels in the polygon table. {_percent(blind)} of the building pixels in "
        f"{colours.tiles:,} sampled tiles lie where there is no imagery."
        + (f" {len(counts.unlabelled):,} tiles have neither a label nor a row that says so." if counts else ""),
    )


def _bits(aoi: AoiDataset) -> str:
    """Of a pixel, and how many of them are used where they are whole numbers of more than a byte."""
    kinds = [np.dtype(name) for name in set(aoi.tiles["dtype"])]
    bits = ", ".join(map(str, sorted({8 * kind.itemsize for kind in kinds})))
    if bits == "8" or any(kind.kind == "f" for kind in kinds):
        return bits
    return f"{bits} ({aoi.colours.highest.bit_length()} used)"


def _stretch(aoi: AoiDataset) -> str:
    return "\n".join(dict.fromkeys(normalization(row).describe() for row in aoi.tiles.itertuples()))


def _split_counts(aoi: AoiDataset) -> str:
    return "\n".join(f"{row.tiles:,} {row.split}" for row in split_table(aoi.tiles).itertuples())


def _area(area_m2: float) -> str:
    if math.isnan(area_m2):
        return "–"
    return f"{_number(area_m2)} m² ({_number(area_m2 * SQUARE_FEET_A_SQUARE_METRE)} ft²)"


def _number(value: float) -> str:
    """Three digits below a hundred, whole numbers above."""
    if math.isnan(value):
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.1f}\u00a0%"


def _place(lat: float, lon: float) -> str:
    lon -= 360.0 * (lon > 180.0)
    return f"{abs(lat):.4f}° {'N' if lat >= 0 else 'S'} {abs(lon):.4f}° {'E' if lon >= 0 else 'W'}"
