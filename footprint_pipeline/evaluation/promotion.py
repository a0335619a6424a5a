"""Candidate against champion: who serves? What belongs here: the rule. Scores are `scoring`'s, draws `bootstrap`'s."""

from dataclasses import asdict, dataclass

from footprint_pipeline.evaluation.bootstrap import Interval, differences
from footprint_pipeline.evaluation.scoring import TestScores
from footprint_pipeline.evaluation.spec import PromotionSpec

DECIDING = "building_f1"


@dataclass(frozen=True)
class Verdict:
    """Whether the candidate is promoted, and why.

    Attributes:
        promote: whether it takes the champion's place.
        reason: a sentence for people, without its full stop.
        differences: by how much each figure lies above the champion's, on the same draws; None without a champion.
    """

    promote: bool
    reason: str
    differences: dict[str, Interval] | None = None

    def figures(self) -> dict[str, float]:
        """The differences by name: `building_f1_median`, `building_f1_low` and so on; nothing without a champion."""
        return {
            f"{name}_{end}": value
            for name, difference in (self.differences or {}).items()
            for end, value in asdict(difference).items()
        }


def decide(candidate: TestScores, champion: TestScores | None, spec: PromotionSpec) -> Verdict:
    """Promote a candidate that passes the floors and is better than the champion as far as the test tiles can tell.

    Args:
        candidate: its scores.
        champion: the champion's on the same tiles; None when there is no champion.
        spec: floors, and how sure one must be.

    Raises:
        ShapeMismatchError: the scores are not of the same tiles.
    """
    apart = None if champion is None else differences(candidate.tiles, champion.tiles, draws=spec.draws)
    figures = candidate.metrics()
    for name, floor in (("building_f1", spec.min_building_f1), ("pooled_pixel_f1", spec.min_pooled_pixel_f1)):
        if figures[name] < floor:
            return Verdict(False, f"{name} {figures[name]:.4f} is below the floor of {floor:.4f}", apart)
    if apart is None:
        return Verdict(True, "there was no champion")
    if len(candidate.tiles) < spec.min_tiles:
        return Verdict(False, f"{len(candidate.tiles)} test tiles cannot tell who is better", apart)
    difference = apart[DECIDING]
    told = f"{DECIDING} differs from the champion's by {difference} on {len(candidate.tiles)} tiles"
    if difference.median <= 0:
        return Verdict(False, f"{told}, which is not better", apart)
    if difference.low < -spec.margin:
        return Verdict(False, f"{told}, whose lower end may be -{spec.margin:.4f} at least", apart)
    return Verdict(True, told, apart)
