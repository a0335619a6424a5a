"""The report's maps: the tiles on the ground, by their building share and by their split."""

import math

import geopandas as gpd
import matplotlib as mpl
import numpy as np
import shapely
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from footprint_pipeline.dataset.exploration import SPLIT_ORDER
from footprint_pipeline.dataset.report.figures import EMPTY, FULL_IN, INK, WIDEST, drawn
from footprint_pipeline.footprints.area import WGS84

SPLIT_COLOURS = dict(zip(SPLIT_ORDER, ("#9ec9e2", "#f2a93b", "#7b4ea3", "#d5d8db", "#ffffff"), strict=True))
TILE_EDGE = "#b9b3a5"
_BELOW_IN, _ABOVE_IN, _BESIDE_IN, _TALLEST_IN = 1.05, 0.3, 0.7, 5.6


class _Sheet:
    """Two panels that show the same ground, laid out in inches: as large as fits, with room for a key below each."""

    def __init__(self, tiles: gpd.GeoDataFrame) -> None:
        west, south, east, north = tiles.total_bounds
        middle = (south + north) / 2
        # Metres in a thousandth of a degree are kilometres in a degree.
        self.scale = np.array(
            [WGS84.inv(west, middle, west + 1e-3, middle)[2], WGS84.inv(west, middle, west, middle + 1e-3)[2]]
        )
        self.corner = np.array([west, south])
        self.width, self.height = self.to_km(np.array([east, north]))
        self.columns, self.rows = (2, 1) if self.width < 2 * self.height else (1, 2)
        self.room_in = (FULL_IN - 0.2) / self.columns - _BESIDE_IN
        self.inches = min(self.room_in / self.width, _TALLEST_IN / self.height)
        self.wide_in, self.high_in = self.inches * self.width, max(self.inches * self.height, 0.3)
        self.total_in = self.rows * (self.high_in + _BELOW_IN + _ABOVE_IN)
        self.figure = Figure(figsize=(FULL_IN, self.total_in))

        self.rings = [self.to_km(shapely.get_coordinates(outline.exterior)) for outline in tiles.geometry]
        px = WIDEST / FULL_IN
        tile_px = self.inches * px * math.sqrt(_median_area(tiles) * self.scale.prod())
        # Tiles far apart would be too small to see; small ones side by side would be all outline.
        self.scattered = tile_px < 12 and len(tiles) * tile_px**2 < 0.05 * self.wide_in * self.high_in * px**2
        self.stroke = 2.5 if self.scattered else 0.5 if tile_px > 12 else 0.15

    def to_km(self, lon_lat: np.ndarray) -> np.ndarray:
        """Degrees → kilometres east and north of the lower left corner, shape (N, 2)."""
        return (lon_lat - self.corner) * self.scale

    def panel(self, number: int, title: str, fills: np.ndarray, edges: np.ndarray) -> tuple[Axes, float, float]:
        """Draw the tiles; the panel, its middle from the left and its lower edge from below, inches."""
        column, row = number % self.columns, number // self.columns
        left_in = 0.6 + column * (self.room_in + _BESIDE_IN) + (self.room_in - self.wide_in) / 2
        bottom_in = (self.rows - 1 - row) * self.total_in / self.rows + _BELOW_IN
        axes = self.axes(left_in, bottom_in, self.wide_in, self.high_in)
        axes.set(title=title, aspect="equal", xlabel="km east", ylabel="km north")
        axes.set(xlim=(-0.02 * self.width, 1.02 * self.width), ylim=(-0.02 * self.height, 1.02 * self.height))
        axes.add_collection(
            PolyCollection(
                self.rings,
                facecolors=fills,
                edgecolors=edges if self.scattered else TILE_EDGE,
                linewidths=self.stroke,
            )
        )
        return axes, left_in + self.wide_in / 2, bottom_in

    def axes(self, left_in: float, bottom_in: float, wide_in: float, high_in: float) -> Axes:
        """New axes at a place in inches."""
        return self.figure.add_axes(
            (left_in / FULL_IN, bottom_in / self.total_in, wide_in / FULL_IN, high_in / self.total_in)
        )


@drawn
def maps(tiles: gpd.GeoDataFrame) -> Figure:
    """The tiles on the ground twice: coloured by their building share, and by their split.

    Args:
        tiles: from `describe_tiles`; with a column `block`, the outlines of the blocks are drawn as well.
    """
    tiles = side_by_side(tiles)
    sheet = _Sheet(tiles)
    share, empty = tiles["coverage"].to_numpy(), (tiles["buildings"] == 0).to_numpy()
    top = max(float(share.max(initial=0)), 1e-4)
    ramp = LinearSegmentedColormap.from_list("ramp", mpl.colormaps["YlGnBu"](np.linspace(0.12, 1, 64)))
    fills = np.where(empty[:, None], to_rgba(EMPTY), ramp(share / top))
    edges = np.where(empty[:, None], to_rgba(TILE_EDGE), fills)
    _, middle_in, bottom_in = sheet.panel(0, "building share", fills, edges)
    bar = sheet.axes(middle_in - 1.4, bottom_in - 0.62, 2.8, 0.1)
    sheet.figure.colorbar(ScalarMappable(Normalize(0, 100 * top), ramp), cax=bar, orientation="horizontal")
    bar.set_xlabel("building pixels, per cent")

    fills = np.array([to_rgba(SPLIT_COLOURS[kind]) for kind in tiles["split"]])
    axes, middle_in, bottom_in = sheet.panel(1, "split", fills, fills)
    lines = shapely.get_parts([shapely.boundary(block) for block in blocks(tiles)])
    outlines = [sheet.to_km(shapely.get_coordinates(line)) for line in lines]
    axes.add_collection(LineCollection(outlines, colors=INK, linewidths=0.9))
    counts = tiles["split"].value_counts()
    handles = [Patch(facecolor=colour, edgecolor=TILE_EDGE, label=f"{kind} ({counts[kind]:,})")
               for kind, colour in SPLIT_COLOURS.items() if kind in counts]  # fmt: skip
    sheet.figure.legend(
        handles=handles,
        ncols=3,
        loc="upper center",
        columnspacing=1.2,
        bbox_to_anchor=(middle_in / FULL_IN, (bottom_in - 0.45) / sheet.total_in),
    )
    return sheet.figure


def blocks(tiles: gpd.GeoDataFrame) -> list[shapely.Geometry]:
    """Outlines, in degrees, of the blocks of ground that a split kept together; none where each tile was its own."""
    if "block" not in tiles:
        return []
    groups = [group.geometry.to_numpy() for _, group in tiles.groupby("block")]
    if len(groups) == len(tiles):
        return []
    gap = 0.1 * math.sqrt(_median_area(tiles))  # tiles need not touch
    grown = [shapely.union_all(shapely.buffer(group, gap, join_style="mitre")) for group in groups]
    return list(shapely.buffer(grown, -gap, join_style="mitre"))


def side_by_side(tiles: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """The same tiles, in longitudes from 0 to 360 where they lie closer together so, as across the antimeridian."""
    turned = tiles.set_geometry(
        tiles.geometry.transform(lambda lon_lat: np.column_stack([lon_lat[:, 0] % 360.0, lon_lat[:, 1]]))
    )
    narrower = np.ptp(turned.total_bounds[::2]) < np.ptp(tiles.total_bounds[::2])
    return turned if narrower else tiles


def _median_area(tiles: gpd.GeoDataFrame) -> float:
    return float(np.median(shapely.area(tiles.geometry.to_numpy())))
