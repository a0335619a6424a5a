"""Which split a tile goes to: drawn from a hash, never counted out, so that tiles which come later move none.

What belongs here: the decision, tile by tile. What is written of it is `splits`' business,
the geometry of blocks is `blocks`'.
"""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import geopandas as gpd
import numpy as np

from footprint_pipeline.dataset.blocks import Blocks
from footprint_pipeline.dataset.spec import GUARD, SPLITS, SplitSpec
from footprint_pipeline.errors import DatasetError

log = logging.getLogger(__name__)

TILES_A_BLOCK = 2
"""Sides of a tile that a block is long at least."""
MANY_BLOCKS = 24
"""So many blocks share tiles out well; of fewer it is asked whether they do."""
MOST_GUARD = 1 / 3
"""Share of the tiles that few blocks may leave to the guard."""
LEAST_OF_SHARE = {"train": 0.7, "validation": 0.5, "test": 0.5}
"""Part of its own share that each split gets from few blocks at least, of the tiles with buildings."""


@dataclass(frozen=True)
class Assignment:
    """What `assign_splits` decided.

    Attributes:
        split: "train", "validation", "test" or "guard", shape (N,).
        block: the block that decided: `r12540c14836@1000`, or `<tile id>@tile`; shape (N,).
        block_m: side of the blocks in force, metres; None when each tile was its own block.
    """

    split: np.ndarray
    block: np.ndarray
    block_m: float | None


def assign_splits(tiles: gpd.GeoDataFrame, has_building: np.ndarray, spec: SplitSpec) -> Assignment:
    """The split of every tile of an AOI: the same on every machine, whatever the order of the tiles.

    By tile, a hash of seed, AOI and tile id decides. By block, a hash of seed and block decides for all tiles
    whose centre lies in the block, in every AOI that covers it. A tile that reaches within a hair of a block of
    another split is put into "guard", so that tiles of two splits never touch. That depends on the tile's own
    outline and the grid alone; the guard takes more of the small splits than of the large one.

    Tiles added later move no tile, with two exceptions for small sets, each logged as a warning:

    - Where tiles lie in fewer than 24 blocks, and more than a third of them would be guard, or training would get
      less than 0.7 of its share, or another split less than half of its own, blocks half as large are taken, again
      and again, as long as a block is two tiles long; after that each tile is its own block, as by tile. (A
      `block_m` shorter than two tiles is doubled until it is not.)
    - A split without a tile with buildings takes the block (or tile) whose hash lies nearest to its interval,
      from a split that can spare it. Where no block can be spared, blocks half as large are taken.

    Args:
        tiles: the tile index of one AOI; geometry in EPSG:4326.
        has_building: bool, shape (N,).
        spec: how to share them out.

    Raises:
        DatasetError: fewer than three tiles have a building.
    """
    if int(has_building.sum()) < len(SPLITS):
        fix = "Take more tiles (a larger --tiles), or check that the labels belong to these tiles."
        if len(tiles) < len(SPLITS):
            fix = (
                "Take more tiles (a larger --tiles). Where there are no more, cut the image into some: "
                "gdal_retile.py -ps 512 512 -targetDir FOLDER IMAGE, or as docs/data.md says."
            )
        raise DatasetError(
            f"{int(has_building.sum())} of {len(tiles)} tiles have a building; at least three are needed, "
            "one to train on, one to tune on, one to judge on.",
            fix=fix,
        )
    aoi = str(tiles["aoi"].iloc[0])
    for block_m in _block_sizes(tiles, spec):
        blocks = _Drawn(tiles, block_m, spec)
        moved = blocks.give_each_split_a_building(has_building)
        if moved is not None and (block_m is None or blocks.share_out_well(has_building)):
            break
        log.warning(
            "%s: blocks of %g m do not suit its %d tiles: they lie in %d of them, %d tiles would be guard, and of %d "
            "with buildings %s. Smaller blocks are tried, then single tiles. More tiles avoid it; other blocks "
            "(--block, block_m) or single tiles (--split tile, by: tile) decide it beforehand.",
            aoi, block_m, len(tiles), len(set(blocks.own)), (blocks.splits() == GUARD).sum(), has_building.sum(),
            ", ".join(f"{(blocks.splits()[has_building] == split).sum()} would go to {split}" for split in SPLITS),
        )  # fmt: skip
    if block_m is None and spec.by == "block":
        log.warning("%s: each tile is shared out by itself, so a tile may be judged beside one that taught.", aoi)
    for split, block in moved or ():
        log.warning(
            "%s: no tile with buildings fell to %s, so the nearest draw, %s (%d tiles), was moved there. "
            "More tiles, smaller blocks (--block, block_m) or another seed avoid it.",
            aoi, split, block, blocks.own.count(block),
        )  # fmt: skip
    return Assignment(blocks.splits(), np.array(blocks.own, object), block_m)


class _Drawn:
    """Blocks of one size, the draw of each, and the split that it falls to."""

    def __init__(self, tiles: gpd.GeoDataFrame, block_m: float | None, spec: SplitSpec) -> None:
        self.spec = spec
        if block_m is None:
            self.own = [f"{tile_id}@tile" for tile_id in tiles["tile_id"]]
            self.reached = [frozenset([block]) for block in self.own]
            text = {
                f"{tile_id}@tile": f"{aoi}/{tile_id}"
                for aoi, tile_id in zip(tiles["aoi"], tiles["tile_id"], strict=True)
            }
        else:
            grid, bounds = Blocks(block_m), tiles.geometry.bounds.to_numpy()
            self.own = [grid.at((west + east) / 2, (south + north) / 2) for west, south, east, north in bounds]
            self.reached = [grid.reached(tile) for tile in bounds]
            text = {block: block for reached in self.reached for block in reached}
        self.draw = {block: draw(f"{spec.seed}/{name}") for block, name in text.items()}
        self.split_of = {block: self._fall(draw) for block, draw in self.draw.items()}

    def splits(self, split_of: dict[str, str] | None = None) -> np.ndarray:
        """The split of every tile, shape (N,), where blocks fall as given."""
        split_of = split_of or self.split_of
        found = [{split_of[block] for block in reached} for reached in self.reached]
        return np.array([split.pop() if len(split) == 1 else GUARD for split in found], object)

    def give_each_split_a_building(self, has_building: np.ndarray) -> list[tuple[str, str]] | None:
        """Move blocks until every split has a tile with buildings; (split, block) of each, None if it cannot be."""
        moved: list[tuple[str, str]] = []
        candidates = sorted({block for block, building in zip(self.own, has_building, strict=True) if building})
        while wanting := self._without_building(self.split_of, has_building):
            low, high = self.spec.interval(wanting[0])
            candidates.sort(key=lambda block: max(low - self.draw[block], self.draw[block] - high))
            for block in candidates:
                trial = {**self.split_of, block: wanting[0]}
                if set(self._without_building(trial, has_building)) < set(wanting):
                    self.split_of = trial
                    moved.append((wanting[0], block))
                    break
            else:
                return None
        return moved

    def share_out_well(self, has_building: np.ndarray) -> bool:
        """Whether few blocks leave each split enough tiles with buildings; of many blocks, chance sees to it."""
        if len(set(self.own)) >= MANY_BLOCKS:
            return True
        split = self.splits()
        built = split[has_building]
        shares = {name: self.spec.interval(name)[1] - self.spec.interval(name)[0] for name in SPLITS}
        return bool((split == GUARD).mean() <= MOST_GUARD) and all(
            (built == name).sum() >= min(part * shares[name] * len(built), len(built) - 2)
            for name, part in LEAST_OF_SHARE.items()
        )

    def _without_building(self, split_of: dict[str, str], has_building: np.ndarray) -> list[str]:
        present = set(self.splits(split_of)[has_building])
        return [split for split in SPLITS if split not in present]

    def _fall(self, draw: float) -> str:
        return next(split for split in SPLITS if draw < self.spec.interval(split)[1])


def draw(text: str) -> float:
    """A number in [0, 1) that the text alone decides."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48


def _block_sizes(tiles: gpd.GeoDataFrame, spec: SplitSpec) -> Iterator[float | None]:
    """The block sizes to try, metres, largest first; None, each tile by itself, comes last."""
    if spec.by == "block":
        sides = np.maximum(tiles["width"] * tiles["gsd_x_m"], tiles["height"] * tiles["gsd_y_m"])
        least = TILES_A_BLOCK * float(sides.median())
        block_m = spec.block_m
        while block_m < least:
            block_m *= 2
        if block_m > spec.block_m:
            log.warning(
                "%s: blocks of %g m are shorter than %d tiles, so most tiles would be guard; blocks of %g m are taken. "
                "Ask for them (--block, block_m), or for single tiles (--split tile, by: tile).",
                tiles["aoi"].iloc[0], spec.block_m, TILES_A_BLOCK, block_m,
            )  # fmt: skip
        while block_m >= least:
            yield block_m
            block_m /= 2
    yield None
