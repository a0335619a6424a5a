"""Candidate against champion: who serves?"""

from dataclasses import dataclass

DECIDING = ("building_f1", "pooled_pixel_f1")
"""The figure that decides, then the one that breaks a tie."""


@dataclass(frozen=True)
class Verdict:
    """Whether the candidate is promoted, and why, as a sentence for people."""

    promote: bool
    reason: str


def decide(candidate: dict[str, float], champion: dict[str, float] | None) -> Verdict:
    """Promote a candidate that beats the champion on the same test split.

    Args:
        candidate: figures by name, at least those of `DECIDING`.
        champion: the champion's on the same tiles; None when there is no champion.
    """
    if champion is None:
        return Verdict(True, "there was no champion")
    for name in DECIDING:
        ours, theirs = candidate[name], champion[name]
        if ours > theirs:
            return Verdict(True, f"{name} {ours:.4f} beats the champion's {theirs:.4f}")
        if ours < theirs:
            return Verdict(False, f"{name} {ours:.4f} is below the champion's {theirs:.4f}")
    return Verdict(False, f"{' and '.join(DECIDING)} equal the champion's")
