"""Ground that several AOIs have in common: a network is then judged on what it has learned, under another name.

Tiles of one AOI are the checks' business.
"""

import logging

import numpy as np
import pandas as pd
import shapely

from footprint_pipeline.dataset.spec import GUARD
from footprint_pipeline.dataset.tiles import read_tile_index
from footprint_pipeline.lake import Lake

log = logging.getLogger(__name__)

_SLIVER = 0.01
"""Share of the smaller tile by which tiles of neighbouring AOIs may overlap."""


def warn_of_shared_ground(lake: Lake, manifest: pd.DataFrame) -> None:
    """Warn where a tile of one AOI teaches the ground on which a tile of another one tunes or judges.

    Args:
        lake: where the AOIs' tile indexes lie.
        manifest: rows of the split manifests of all AOIs that are trained on.
    """
    names = manifest["aoi"].unique()
    if len(names) < 2:
        return
    index = pd.concat([read_tile_index(lake.aoi(name).tiles)[["aoi", "tile_id", "geometry"]] for name in names])
    tiles = manifest.loc[manifest["split"] != GUARD, ["aoi", "tile_id", "split"]].merge(index)
    outlines, aoi, teaches = tiles["geometry"].to_numpy(), tiles["aoi"].to_numpy(), tiles["split"].to_numpy() == "train"
    left, right = shapely.STRtree(outlines).query(outlines, predicate="intersects")
    leaks = (aoi[left] != aoi[right]) & teaches[left] & ~teaches[right]
    left, right = left[leaks], right[leaks]
    smaller = np.minimum(shapely.area(outlines[left]), shapely.area(outlines[right]))
    same = shapely.area(shapely.intersection(outlines[left], outlines[right])) > _SLIVER * smaller
    left, right = left[same], right[same]
    if not len(left):
        return
    told = (tiles["aoi"] + "/" + tiles["tile_id"] + " (" + tiles["split"] + ")").to_numpy()
    log.warning(
        "%s share ground: %d tiles that teach lie on tiles of another AOI that tune or judge, such as %s on %s. The "
        "scores flatter. Train on one of these (--aoi), or share them all out by one table (--assign)",
        " and ".join(sorted({*aoi[left], *aoi[right]})), len(np.unique(left)), told[left[0]], told[right[0]],
    )  # fmt: skip
