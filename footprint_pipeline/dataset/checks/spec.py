"""What the checks of prepared data stand on: their limits, the data as it lies on disk, and what one finds.

The checks themselves are in `inputs` and `outputs`, their list in `run`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import geopandas as gpd
import pandas as pd

from footprint_pipeline.dataset.label_counts import LabelCounts, label_counts_path, read_label_counts
from footprint_pipeline.dataset.masks import mask_path, read_mask_index
from footprint_pipeline.dataset.polygons import read_polygon_table
from footprint_pipeline.dataset.splits import read_manifests
from footprint_pipeline.dataset.tiles import read_tile_index
from footprint_pipeline.errors import DatasetError
from footprint_pipeline.lake import AoiFolder
from footprint_pipeline.many import listed


@dataclass(frozen=True)
class CheckSpec:
    """What is still fine. The defaults suit SpaceNet.

    Attributes:
        min_side_px: a tile is at least so wide and so high, pixels; those below the default are not read at all.
        min_gsd_m: ground size of a pixel, metres, at least.
        max_gsd_m: ground size of a pixel, metres, at most.
        side_spread_px: widths, and heights, of an AOI's tiles differ by at most so many pixels.
        gsd_spread: ground sample distances of an AOI's tiles differ by at most this share.
        min_valid_share: share of the AOI's pixels with imagery, at least.
        max_lost_share: share of the tiles' labels that may be rejected or lie outside their tile.
        max_repaired_share: share of the labels that may have needed repair.
        max_unlabelled_share: share of the tiles that may be without any label row or file.
        sample_tiles: how many masks are compared with their polygons, drawn by `seed`.
        seed: another seed is another sample.
        tile_area_tolerance: a tile's mask differs from its polygons by at most this share of their area.
        aoi_area_tolerance: all sampled masks together differ from their polygons by at most this share of their area.
        area_tolerance_px: so many pixels more may the mask of a tile differ, for pixels are whole; those of n tiles
            together, √n times as many.
        min_coverage: share of the pixels that are building, in the AOI and in each split, at least.
        max_coverage: share of the pixels that are building, in the AOI and in each split, at most.
        min_tiles_with_buildings: tiles with a building in each split, at least.

    Raises:
        DatasetError: no mask would be compared.
    """

    min_side_px: int = 32
    min_gsd_m: float = 0.02
    max_gsd_m: float = 3.0
    side_spread_px: int = 4
    gsd_spread: float = 0.05
    min_valid_share: float = 0.5
    max_lost_share: float = 0.05
    max_repaired_share: float = 0.05
    max_unlabelled_share: float = 0.05
    sample_tiles: int = 500
    seed: int = 1337
    tile_area_tolerance: float = 0.05
    aoi_area_tolerance: float = 0.02
    area_tolerance_px: float = 25.0
    min_coverage: float = 0.01
    max_coverage: float = 0.6
    min_tiles_with_buildings: int = 5

    def __post_init__(self) -> None:
        if self.sample_tiles < 1:
            raise DatasetError(
                f"sample_tiles: {self.sample_tiles} masks cannot be compared with their polygons.",
                fix="Give at least 1.",
            )


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        problems: each with its culprits, as Markdown; none when all is well.
        fine: what to say then.
        numbers: what was measured.
        fix: the way out of the problems.
        blocking: False where training on the data would not be wrong after all.
    """

    problems: list[str]
    fine: str
    numbers: Mapping[str, int | float | str]
    fix: str
    blocking: bool = True


@dataclass(frozen=True)
class CheckResult:
    """How a check of an AOI went.

    Attributes:
        name: of the check.
        passed: nothing is wrong.
        description: what was found, or every problem with its culprits, as Markdown.
        numbers: what was measured.
        fix: the way out; empty when it passed.
        blocking: training on the data would be wrong, should this check fail.
    """

    name: str
    passed: bool
    description: str
    numbers: Mapping[str, int | float | str]
    fix: str
    blocking: bool


@dataclass(frozen=True)
class PreparedAoi:
    """What lies on disk for an AOI; each table is read once, when it is first asked for."""

    folder: AoiFolder

    @cached_property
    def tiles(self) -> gpd.GeoDataFrame:
        """The tile index."""
        return read_tile_index(self.folder.tiles)

    @cached_property
    def grids(self) -> gpd.GeoDataFrame:
        """The tile index by tile id, each once."""
        return self.tiles.drop_duplicates("tile_id").set_index("tile_id")

    @cached_property
    def polygons(self) -> gpd.GeoDataFrame:
        """The polygon table."""
        return read_polygon_table(self.folder.polygons)

    @cached_property
    def mask_index(self) -> pd.DataFrame:
        """The index of the masks, by tile id."""
        return read_mask_index(self.folder.masks).set_index("tile_id")

    @cached_property
    def manifest(self) -> pd.DataFrame:
        """The split manifest."""
        return read_manifests([self.folder.manifest])

    @cached_property
    def label_counts(self) -> LabelCounts:
        """How reading the labels went."""
        return read_label_counts(label_counts_path(self.folder))

    def mask(self, tile_id: str) -> Path:
        """Where the mask of a tile lies, there or not."""
        return mask_path(self.folder.masks, tile_id)


def named(ids: Iterable[object], *, shown: int = 3) -> str:
    """The first few of some names, as Markdown, and how many more there are."""
    return listed((f"`{name}`" for name in ids), shown=shown)


def counted(ids: Iterable[object], thing: str = "tile") -> str:
    """How many there are of a thing, and the first few of them by name."""
    names = list(ids)
    return f"{len(names)} {thing}{'s' if len(names) != 1 else ''} ({named(names)})"
