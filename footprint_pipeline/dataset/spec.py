"""How a dataset is made: frozen specs that hold the defaults once. Nothing heavy is imported here."""

import math
from dataclasses import asdict, dataclass
from typing import Literal

from footprint_pipeline.errors import DatasetError

SPLITS = ("train", "validation", "test")
GUARD = "guard"
"""The split of tiles between blocks of different splits: they neither teach, nor tune, nor judge."""


@dataclass(frozen=True)
class PolygonSpec:
    """Which labels become rows.

    Attributes:
        min_area_m2: labels whose geodesic area is not greater than this are left out, square metres.

    Raises:
        DatasetError: the area is negative or not finite.
    """

    min_area_m2: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.min_area_m2 < math.inf:
            raise DatasetError(
                f"min_area_m2: {self.min_area_m2} is no area.", fix="Give square metres, or 0 to keep every label."
            )


@dataclass(frozen=True)
class MaskSpec:
    """Which bands masks have.

    Attributes:
        border_m: width of the band `border`, a building's pixels that are near its outline, metres; 0: no such band.
        contact_m: buildings no further apart than this have the band `contact` between them, the pixels within half
            of it of both, metres; 0: no such band.

    Raises:
        DatasetError: a distance is negative or not finite.
    """

    border_m: float = 0.6
    contact_m: float = 1.5

    def __post_init__(self) -> None:
        for name, metres in asdict(self).items():
            if not (math.isfinite(metres) and metres >= 0):
                raise DatasetError(f"{name}: {metres} is no distance.", fix="Give metres, or 0 for no such band.")

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands, in the file's order."""
        return ("building", *["border"] * (self.border_m > 0), *["contact"] * (self.contact_m > 0))


@dataclass(frozen=True)
class SplitSpec:
    """How tiles are shared out. The shares and the seed are the article's, which splits by tile.

    Attributes:
        by: "block" keeps neighbours together: square blocks of ground are shared out, each with all its tiles.
            "tile" shares out tiles one by one; a tile may then be judged beside one that taught.
        block_m: side of a block, metres.
        train: share to train on.
        validation: share to stop early and to choose the tolerance on.
        test: share to judge on.
        seed: another seed is another split.
        empty_share: share of the tiles without a building that are kept; the article kept none.
    """

    by: Literal["block", "tile"] = "block"
    block_m: float = 1000.0
    train: float = 0.7
    validation: float = 0.1
    test: float = 0.2
    seed: int = 1337
    empty_share: float = 1.0

    def __post_init__(self) -> None:
        if min(self.train, self.validation, self.test) <= 0 or abs(self.train + self.validation + self.test - 1) > 1e-9:
            raise DatasetError(
                f"Shares {self.train}, {self.validation}, {self.test} are no split.",
                fix="They must be positive and add up to 1.",
            )
        if self.by not in ("block", "tile"):
            raise DatasetError(f"Tiles cannot be split by {self.by!r}.", fix="Split by 'block' or by 'tile'.")
        if not 0 < self.block_m < math.inf:
            raise DatasetError(
                f"Blocks of {self.block_m} m are no blocks.", fix="block_m is the side of a block in metres, above 0."
            )
        if not 0 <= self.empty_share <= 1:
            raise DatasetError(
                f"A share of {self.empty_share} of the tiles without a building cannot be kept.",
                fix="empty_share lies between 0 (none of them) and 1 (all).",
            )

    def interval(self, split: str) -> tuple[float, float]:
        """What a draw from [0, 1) must reach, and stay below, to fall to a split."""
        edges = (0.0, self.train, self.train + self.validation, 1.0)
        at = SPLITS.index(split)
        return edges[at], edges[at + 1]
