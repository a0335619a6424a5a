"""Who serves: promote, roll back, compare."""

from pathlib import Path
from typing import Any

from footprint_pipeline.errors import SettingsError
from footprint_pipeline.evaluation.bootstrap import FIGURES
from footprint_pipeline.evaluation.spec import PromotionSpec
from footprint_pipeline.files import atomic_path
from footprint_pipeline.registry import Registry
from footprint_pipeline.settings import Settings
from footprint_pipeline.stages import promotion


def promote(settings: Settings, *, version: str, force: bool) -> dict[str, Any]:
    """Make a version the champion when it beats the present one on the test splits, or whatever it scores."""
    registry = Registry.of(settings)
    found, former = registry.resolve(version=version), registry.champion()
    if former is not None and former.version == found.version:
        promoted, reason = True, "it is so already"
    elif force:
        former = promotion.promote_by_hand(settings, found.version)
        promoted, reason = True, "by hand"
    else:
        tiles = promotion.held_out(settings, found.version)
        scores = promotion.score_version(settings, found.version, tiles)
        judged = promotion.promote_if_better(settings, found.version, scores, tiles, PromotionSpec())
        former, promoted, reason = judged.champion, judged.verdict.promote, judged.verdict.reason
    return {
        "version": found.version,
        "promoted": promoted,
        "reason": reason,
        "former_champion": former and former.version,
        "_lines": [
            f"{found.name} version {found.version} is {'the champion' if promoted else 'a challenger'}: {reason}"
        ],
    }


def rollback(settings: Settings) -> dict[str, Any]:
    """Make the former champion the champion again."""
    champion, former = promotion.roll_back(settings)
    return {
        "version": champion.version,
        "rolled_back": former.version,
        "_lines": [f"{champion.name} version {champion.version} is the champion again, after {former.version}."],
    }


def compare(settings: Settings, *, first: str, second: str, out: Path | None) -> dict[str, Any]:
    """Score two versions on the test splits, and draw the tiles on which they differ most."""
    registry = Registry.of(settings)
    one, other = registry.named(first), registry.named(second)
    if one.version == other.version:
        raise SettingsError(f"{first} and {second} are the same version, {one.version}.", fix="Name two versions.")
    tiles = promotion.held_out(settings, one.version, other.version)
    found = promotion.compare(settings, one.version, other.version, tiles)
    sheet = out or settings.home / "compared" / f"{one.version}-{other.version}.png"
    with atomic_path(sheet) as temporary:
        temporary.write_bytes(found.sheet)
    figures = [scores.metrics() for scores in found.scores]
    lines = [f"{'':18}{one.version:>8}{other.version:>8}  difference (95 % of the draws)"]
    lines += [f"{name:18}{figures[0][name]:8.4f}{figures[1][name]:8.4f}  {found.differences[name]}" for name in FIGURES]
    return {
        "versions": [one.version, other.version],
        "scores": figures,
        "by_aoi": [scores.by_aoi.to_dict("records") for scores in found.scores],
        "differences": {name: vars(each) for name, each in found.differences.items()},
        "tiles": found.tiles.to_dict("records"),
        "sheet": str(sheet),
        "_lines": [*lines, f"The tiles on which they differ most: {sheet}"],
    }
