"""How a trained network's tolerance is chosen: a frozen spec that holds the defaults once. No data, no network."""

from dataclasses import dataclass

from footprint_pipeline.errors import SettingsError
from footprint_pipeline.footprints.predict import FLIPS

IOU_THRESHOLD = 0.5
"""Least intersection over union of a proposal and the building that it finds."""
MIN_AREA_PX = 20.0
"""Smaller polygons are no buildings, square pixels; as in CosmiQ's solaris."""
DRAWS = 2000
"""Of the tiles, for the range of a score."""
RULES = ("building_f1", "median_then_std", "pooled_pixel_f1")


@dataclass(frozen=True)
class SweepSpec:
    """How the tolerance and the seed level are chosen.

    Attributes:
        rule: `building_f1`: the highest building F1 of the tolerances that cost pixels at most the slack.
            `median_then_std`: the article's, of the five highest median pixel F1s the one with the lowest deviation.
            `pooled_pixel_f1`: the highest pixel F1 of all tiles taken as one.
        slack: how far the median and the pooled pixel F1 of a choice for building F1 may be below the highest there is,
            both means over AOIs weighted by the root of their building pixels; 1 gives pixels no say.
        tolerances: the choice is among so many tolerances at most.
        seed_levels: levels tried for telling apart buildings that touch, where the network tells interiors; not
            separating is tried as well.
        min_areas_m2: areas tried, square metres; smaller footprints are no buildings, and the service leaves them out
            as well.
        tiles: building F1 is measured on so many tiles at most, evenly spread over the validation split.
        flips: orientations that the network's answer is the mean of, in the sweep and ever after: 1, 2, 4 or 8.
        half_say: of several AOIs each gets a tolerance of its own, by the figures of all and its own; its own count
            half with so many buildings, more with more. 0: one tolerance for all, as by the other rules.

    Raises:
        SettingsError: there is no such rule, or nothing could be chosen.
    """

    rule: str = "building_f1"
    slack: float = 0.003
    tolerances: int = 8
    seed_levels: tuple[float, ...] = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    min_areas_m2: tuple[float, ...] = (0.0, 2.0, 4.0, 8.0, 16.0, 32.0)
    tiles: int = 48
    flips: int = 1
    half_say: int = 20

    def __post_init__(self) -> None:
        for name in ("seed_levels", "min_areas_m2"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.rule not in RULES:
            raise SettingsError(f"No rule is called {self.rule!r}.", fix=f"Choose one of {', '.join(RULES)}.")
        if self.flips not in FLIPS:
            raise SettingsError(f"flips is {self.flips}.", fix=f"Choose one of {', '.join(map(str, FLIPS))}.")
        if (
            min((self.slack, self.half_say, *self.min_areas_m2)) < 0
            or min(self.tolerances, self.tiles, len(self.min_areas_m2)) < 1
            or not all(0 < x < 1 for x in self.seed_levels)
        ):
            raise SettingsError(
                f"Nothing can be chosen with slack {self.slack}, {self.tolerances} tolerances, {self.tiles} tiles, "
                f"areas {_listed(self.min_areas_m2)}, seed levels {_listed(self.seed_levels)}, "
                f"half_say {self.half_say}.",
                fix="Slack, half_say and areas are at least 0, numbers at least 1, levels lie between 0 and 1; name an "
                "area.",
            )


@dataclass(frozen=True)
class PromotionSpec:
    """When a candidate takes the champion's place.

    Attributes:
        margin: the lower end of the 95 % interval of the difference in building F1 may be so far below zero at most.
        min_building_f1: building F1 on the test tiles, at least.
        min_pooled_pixel_f1: pixel F1 of all test tiles taken as one, at least.
        min_tiles: fewer test tiles than this cannot tell who is better.
        draws: draws of the test tiles, for the interval.

    Raises:
        SettingsError: nothing could be decided by it.
    """

    margin: float = 0.002
    min_building_f1: float = 0.0
    min_pooled_pixel_f1: float = 0.0
    min_tiles: int = 3
    draws: int = DRAWS

    def __post_init__(self) -> None:
        floors = (self.min_building_f1, self.min_pooled_pixel_f1)
        if self.margin < 0 or self.draws < 1 or not all(0 <= floor <= 1 for floor in floors):
            raise SettingsError(
                f"Nothing can be decided with margin {self.margin}, floors {floors[0]} and {floors[1]}, "
                f"{self.draws} draws.",
                fix="The margin is at least 0, floors lie between 0 and 1, draws are at least 1.",
            )


def _listed(numbers: tuple[float, ...]) -> str:
    return ", ".join(f"{number:g}" for number in numbers) or "none"
