"""What a prepared dataset holds, in numbers: sizes of buildings, tiles, colours, labels.

Pure statistics on the lake's tables and on pixels that are handed in; reading them is `stages.exploration`'s
business, drawing and writing are `dataset.report`'s.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from footprint_pipeline.dataset.label_counts import LabelCounts
from footprint_pipeline.dataset.polygons import SQUARE_FEET_A_SQUARE_METRE
from footprint_pipeline.dataset.spec import GUARD, SPLITS
from footprint_pipeline.footprints.normalization import Normalization

SEED = 1337
"""Of every sample that a report takes."""
LEFT_OUT = "left out"
"""The split of a tile that the manifest does not have."""
SPLIT_ORDER = (*SPLITS, GUARD, LEFT_OUT)
BANDS = ("red", "green", "blue")


@dataclass(frozen=True)
class SizeClass:
    """Buildings from `low_sqft` up to, but not including, `high_sqft` square feet."""

    name: str
    low_sqft: float
    high_sqft: float

    @property
    def span(self) -> str:
        """Its bounds in square feet, for people."""
        if self.low_sqft == 0:
            return f"< {self.high_sqft:,.0f}"
        return (
            f"≥ {self.low_sqft:,.0f}" if math.isinf(self.high_sqft) else f"{self.low_sqft:,.0f}–{self.high_sqft:,.0f}"
        )

    @property
    def span_m2(self) -> str:
        """The same in square metres, rounded."""
        metres = SizeClass(
            self.name, self.low_sqft / SQUARE_FEET_A_SQUARE_METRE, self.high_sqft / SQUARE_FEET_A_SQUARE_METRE
        )
        return metres.span

    def holds(self, area_sqft: np.ndarray) -> np.ndarray:
        """Which areas belong to it: bool, of the same shape."""
        return (area_sqft >= self.low_sqft) & (area_sqft < self.high_sqft)


SIZE_CLASSES = (
    SizeClass("tiny", 0.0, 10.0),
    SizeClass("X-small", 10.0, 1_000.0),
    SizeClass("small", 1_000.0, 5_000.0),
    SizeClass("medium", 5_000.0, 30_000.0),
    SizeClass("large", 30_000.0, math.inf),
)
"""The article's size classes, and before them the labels that it leaves out as too small."""


@dataclass(frozen=True)
class TileSample:
    """A tile's pixels.

    Attributes:
        image: in its own dtype, shape (H, W, 3).
        valid: bool, shape (H, W): where there is imagery.
        mask: uint8 0/1, shape (H, W): where there is a building.
        normalization: what makes the image [0, 1].
    """

    image: np.ndarray
    valid: np.ndarray
    mask: np.ndarray
    normalization: Normalization


@dataclass(frozen=True)
class Colours:
    """Pixels of a sample of tiles, as the network sees them (normalised, 0 to 255).

    Attributes:
        counts: valid pixels by band and value, int64, shape (3, 256).
        tiles: in the sample.
        pixels: all of them, valid or not.
        highest: value in the files, before normalisation.
        building_pixels: pixels of the masks that are a building.
        blind_building_pixels: those of them where there is no imagery.
    """

    counts: np.ndarray
    tiles: int
    pixels: int
    highest: int
    building_pixels: int
    blind_building_pixels: int

    @property
    def valid_share(self) -> float:
        """Share of the pixels with imagery."""
        return float(self.counts[0].sum() / max(self.pixels, 1))

    def bands(self) -> pd.DataFrame:
        """One row a band: `band`, `mean`, `std` (0 to 255), `dark` and `bright` (shares at 0 and at 255)."""
        values = np.arange(256)
        total = self.counts.sum(axis=1)
        share = self.counts / np.where(total, total, np.nan)[:, None]
        mean = share @ values
        return pd.DataFrame(
            {
                "band": BANDS,
                "mean": mean,
                "std": np.sqrt(np.maximum(share @ values**2 - mean**2, 0)),
                "dark": share[:, 0],
                "bright": share[:, 255],
            }
        )


@dataclass(frozen=True)
class AoiDataset:
    """What there is to know of one prepared AOI.

    Attributes:
        name: of the AOI.
        tiles: from `describe_tiles`.
        buildings: the polygon table, at least `tile_id`, `building_id`, `area_m2`, `area_sqft`, `geometry_px`.
        rejected: labels that were left out, with `reason`.
        label_counts: how reading the labels went; None where that was not recorded.
        split_digest: of the split manifest.
        colours: of a sample of the tiles.
    """

    name: str
    tiles: gpd.GeoDataFrame
    buildings: pd.DataFrame
    rejected: pd.DataFrame
    label_counts: LabelCounts | None
    split_digest: str
    colours: Colours


@dataclass(frozen=True)
class Summary:
    """The key numbers of an AOI; NaN where there is no building to tell from."""

    tiles: int
    empty_tiles: int
    area_km2: float
    valid_share: float
    gsd_m: float
    buildings: int
    buildings_per_km2: float
    area_m2_quartile_1: float
    area_m2_median: float
    area_m2_quartile_3: float
    area_m2_largest: float
    area_m2_sum: float
    coverage: float


def describe_tiles(tiles: gpd.GeoDataFrame, manifest: pd.DataFrame, buildings: pd.DataFrame) -> gpd.GeoDataFrame:
    """The tile index with what the other tables say of each tile.

    Args:
        tiles: the tile index.
        manifest: the split manifest of the same AOI; tiles may be missing in it.
        buildings: the polygon table.

    Returns:
        The index and: `buildings` (labels), `coverage` (share of building pixels; 0 where the manifest does
        not have the tile, for it leaves out empty ones only), `split`, and `block` where the manifest has it.
    """
    described = tiles.copy()
    by_tile, ids = manifest.set_index("tile_id"), described["tile_id"]
    described["buildings"] = ids.map(buildings.groupby("tile_id").size()).fillna(0).astype(int)
    described["coverage"] = ids.map(by_tile["coverage"]).astype(float).fillna(0.0)
    described["split"] = ids.map(by_tile["split"]).fillna(LEFT_OUT)
    if "block" in by_tile:
        described["block"] = ids.map(by_tile["block"])
    return described


def summarize(aoi: AoiDataset) -> Summary:
    """The key numbers of an AOI."""
    tiles, area = aoi.tiles, aoi.buildings["area_m2"].to_numpy()
    ground_m2 = tiles["width"] * tiles["height"] * tiles["gsd_x_m"] * tiles["gsd_y_m"]
    seen_m2 = float((ground_m2 * tiles["valid_share"]).sum())
    built_m2 = float((ground_m2 * tiles["coverage"]).sum())
    quartiles = np.percentile(area, [25, 50, 75]) if len(area) else np.full(3, np.nan)
    return Summary(
        tiles=len(tiles),
        empty_tiles=int((tiles["buildings"] == 0).sum()),
        area_km2=seen_m2 / 1e6,
        valid_share=seen_m2 / float(ground_m2.sum()),
        gsd_m=float(np.sqrt(tiles["gsd_x_m"] * tiles["gsd_y_m"]).median()),
        buildings=len(area),
        buildings_per_km2=len(area) / (seen_m2 / 1e6) if seen_m2 else math.nan,
        area_m2_quartile_1=float(quartiles[0]),
        area_m2_median=float(quartiles[1]),
        area_m2_quartile_3=float(quartiles[2]),
        area_m2_largest=float(area.max()) if len(area) else math.nan,
        area_m2_sum=float(area.sum()),
        coverage=built_m2 / float(ground_m2.sum()),
    )


def size_table(area_sqft: np.ndarray) -> pd.DataFrame:
    """One row a size class: `class`, `sqft`, `m2` (bounds), `buildings`, `share` and `area_share` of all."""
    held = [size_class.holds(area_sqft) for size_class in SIZE_CLASSES]
    counts = np.array([held_here.sum() for held_here in held])
    areas = np.array([area_sqft[held_here].sum() for held_here in held])
    return pd.DataFrame(
        {
            "class": [size_class.name for size_class in SIZE_CLASSES],
            "sqft": [size_class.span for size_class in SIZE_CLASSES],
            "m2": [size_class.span_m2 for size_class in SIZE_CLASSES],
            "buildings": counts,
            "share": counts / max(counts.sum(), 1),
            "area_share": areas / (areas.sum() or 1.0),
        }
    )


def split_table(tiles: pd.DataFrame) -> pd.DataFrame:
    """One row a split: `split`, `tiles`, `empty`, `buildings`, `coverage` (mean of its tiles)."""
    table = tiles.assign(empty=tiles["buildings"] == 0).groupby("split")
    found = table.agg(
        tiles=("tile_id", "size"), empty=("empty", "sum"), buildings=("buildings", "sum"), coverage=("coverage", "mean")
    )
    return found.reindex([name for name in SPLIT_ORDER if name in found.index]).reset_index()


def label_table(buildings: pd.DataFrame, tiles: pd.DataFrame) -> pd.DataFrame:
    """What the labels are like as geometry: one row a kind, `kind` and `labels`.

    A label touches its tile's edge when it comes within half a pixel of it.
    """
    shapes = buildings["geometry_px"].to_numpy()
    width, height = tiles.set_index("tile_id").loc[buildings["tile_id"], ["width", "height"]].to_numpy(float).T
    left, top, right, bottom = shapely.bounds(shapes).reshape(-1, 4).T
    at_edge = (left < 0.5) | (top < 0.5) | (right > width - 0.5) | (bottom > height - 0.5)
    parts, part_of = shapely.get_parts(shapes, return_index=True)
    holed = np.zeros(len(shapes), bool)
    holed[part_of[shapely.get_num_interior_rings(parts) > 0]] = True
    twins = pd.DataFrame({"tile": buildings["tile_id"].to_numpy(), "wkb": shapely.to_wkb(shapes)}).duplicated()
    kinds = {
        "touch the edge of their tile": at_edge,
        "are in several parts": shapely.get_num_geometries(shapes) > 1,
        "have a courtyard": holed,
        "repeat another label exactly": twins,
    }
    return pd.DataFrame({"kind": list(kinds), "labels": [int(np.sum(found)) for found in kinds.values()]})


def measure_colours(samples: Iterable[TileSample]) -> Colours:
    """Count the colours of tiles."""
    counts = np.zeros((3, 256), np.int64)
    tiles = pixels = highest = building = blind = 0
    for sample in samples:
        seen = sample.image[sample.valid]
        shown = sample.normalization.to_uint8(seen[None])[0]
        counts += np.stack([np.bincount(shown[:, band], minlength=256) for band in range(3)])
        tiles += 1
        pixels += sample.valid.size
        highest = max(highest, int(seen.max(initial=0)))
        building += int(np.count_nonzero(sample.mask))
        blind += int(np.count_nonzero(sample.mask.astype(bool) & ~sample.valid))
    return Colours(counts, tiles, pixels, highest, building, blind)


def sample_rows(count: int, wanted: int, *, seed: int = SEED) -> np.ndarray:
    """Positions of at most `wanted` of `count` rows, ascending; the same every time."""
    return np.sort(np.random.default_rng(seed).permutation(count)[:wanted])


def sample_of_class(buildings: pd.DataFrame, size_class: SizeClass, wanted: int, *, seed: int = SEED) -> pd.DataFrame:
    """At most `wanted` buildings of a size class, smallest first; the same every time."""
    held = buildings[size_class.holds(buildings["area_sqft"].to_numpy())]
    return held.iloc[sample_rows(len(held), wanted, seed=seed)].sort_values("area_sqft", kind="stable")


def typical(buildings: pd.DataFrame) -> dict[str, pd.Series]:
    """As the article shows them: a small and a medium building (the median of its class), and the largest of all.

    A class without a building is left out.
    """
    found = {}
    ordered = buildings.sort_values("area_sqft", kind="stable")
    for size_class in SIZE_CLASSES:
        held = ordered[size_class.holds(ordered["area_sqft"].to_numpy())]
        if size_class.name in ("small", "medium") and len(held):
            found[size_class.name] = held.iloc[len(held) // 2]
    if len(ordered):
        found["largest"] = ordered.iloc[-1]
    return found
