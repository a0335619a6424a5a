"""Who serves: candidates held against the champion on the same tiles, promotion, the way back. No Keras.

What belongs here: scores, the registry and the lock together. The rule is `evaluation.promotion`'s.
"""

import logging
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import geopandas as gpd
import pandas as pd

from footprint_pipeline.errors import DatasetError, ModelError, RegistryError
from footprint_pipeline.evaluation.bootstrap import Interval, differences
from footprint_pipeline.evaluation.promotion import Verdict, decide
from footprint_pipeline.evaluation.reports import comparison_sheet
from footprint_pipeline.evaluation.scoring import TestScores, summarize
from footprint_pipeline.evaluation.spec import PromotionSpec
from footprint_pipeline.files import locked
from footprint_pipeline.footprints.runtime import Runtime
from footprint_pipeline.registry import CHALLENGER, CHAMPION, LEARNED, Registered, Registry
from footprint_pipeline.settings import Settings
from footprint_pipeline.stages.scoring import load_manifest, load_polygons, predict_exported, score_exported
from footprint_pipeline.stages.weights import NOTHING_LEARNED, are_in, read_learned

log = logging.getLogger(__name__)

FORMER = "former_champion"
"""Tag of a version that was promoted: the version it took the place of, or `none`."""

ANSWERING = ("model_id", "tolerance", "own_tolerances", "seed_level", "flips", "min_area_m2")
"""Tags of a version that say what it answers; two with the same differ in arithmetic alone."""

_VERDICT = re.compile(r" ?(?:Promoted|Not promoted): .*", re.DOTALL)


@dataclass(frozen=True)
class Judged:
    """A verdict, and the scores behind it."""

    verdict: Verdict
    champion: Registered | None
    champion_scores: TestScores | None


@dataclass(frozen=True)
class Tiles:
    """Labelled tiles to judge on: rows of split manifests, and the polygon table of their AOIs."""

    manifest: pd.DataFrame
    polygons: gpd.GeoDataFrame

    def unknown_to(self, learned: pd.DataFrame) -> "Tiles":
        """Those that a model which learned from these (`aoi`, `tile_id`) has not seen."""
        return Tiles(self.manifest[~are_in(self.manifest, learned)], self.polygons)


def held_out(settings: Settings, *versions: str, aois: Sequence[str] = ()) -> Tiles:
    """The test splits of some AOIs, without the tiles that one of these versions has learned from.

    Args:
        settings: where the registry and state are.
        versions: which.
        aois: names; of every prepared one when there is none.

    Raises:
        DatasetError: no AOI is prepared, or nothing is left.
    """
    lake = settings.lake
    manifest = load_manifest(lake, list(aois))
    manifest = manifest[manifest["split"] == "test"]
    tiles = Tiles(manifest, load_polygons(lake, manifest))
    for version in versions:
        fair = tiles.unknown_to(learned_by(settings, version))
        if seen := len(tiles.manifest) - len(fair.manifest):
            log.warning("Version %s has learned from %d of the test tiles; they are left out", version, seen)
        tiles = fair
    if tiles.manifest.empty:
        raise DatasetError(
            f"There is no test tile that {' and '.join(f'version {version}' for version in versions) or 'a model'} "
            "has not learned from.",
            fix="Prepare tiles that were not trained on, or promote by hand: footprint promote N --force.",
        )
    return tiles


def score_version(settings: Settings, version: str, tiles: Tiles) -> TestScores:
    """The scores of a version as the service runs it."""
    return score_exported(Runtime(_pulled(settings, version)), tiles.manifest, tiles.polygons)


def learned_by(settings: Settings, version: str) -> pd.DataFrame:
    """`aoi` and `tile_id` of the tiles that a version has learned from; none of a version that does not tell."""
    path = _pulled(settings, version) / LEARNED
    return read_learned(path) if path.exists() else NOTHING_LEARNED


def promote_if_better(
    settings: Settings, version: str, scores: TestScores, tiles: Tiles, spec: PromotionSpec
) -> Judged:
    """Hold a version against the champion, write down the verdict with it, and point the alias that it has earned.

    Either may have learned from some of the tiles, by another split. They are judged on the others.

    One promotion at a time: a second one waits, and is then held against the champion that the first one made.

    Args:
        settings: where the registry and state are.
        version: the candidate.
        scores: the candidate's on the tiles, none of which it has learned from; see `unknown_to`.
        tiles: to score the champion on.
        spec: the rule.
    """
    registry = Registry.of(settings)
    with _alone(settings):
        while True:
            champion = registry.champion()
            if champion is None or champion.version == version:
                verdict, theirs = decide(scores, None, spec), None
            else:
                verdict, theirs = _against(settings, champion.version, scores, tiles, spec)
                if _answer_alike(registry.resolve(version=version), champion):
                    verdict = replace(verdict, promote=False, reason=f"version {champion.version} is the same network")
            if _same(registry.champion(), champion):
                break
            log.info("There is another champion meanwhile; once more")
        _write_down(registry, version, verdict)
        if verdict.promote:
            _enthrone(registry, version, champion)
        else:
            registry.point(CHALLENGER, version)
    log.info("Version %s is the %s: %s", version, CHAMPION if verdict.promote else CHALLENGER, verdict.reason)
    return Judged(verdict, champion, theirs)


def promote_by_hand(settings: Settings, version: str) -> Registered | None:
    """Make a version the champion, whatever it scores, and return the former one."""
    registry = Registry.of(settings)
    with _alone(settings):
        champion = registry.champion()
        _write_down(registry, version, Verdict(True, "by hand"))
        _enthrone(registry, version, champion)
    return champion


def roll_back(settings: Settings) -> tuple[Registered, Registered]:
    """Make the former champion the champion again.

    Returns:
        The champion from now on, and the one that it was.

    Raises:
        RegistryError: there is no champion, it took nobody's place, or that version is gone.
    """
    registry = Registry.of(settings)
    with _alone(settings):
        champion = registry.resolve(alias=CHAMPION)
        former = champion.tags.get(FORMER, "none")
        if former == "none":
            raise RegistryError(
                f"{champion.name} version {champion.version} took no other version's place.",
                fix="Name the version to serve: footprint promote N --force.",
            )
        again = registry.resolve(version=former)
        registry.point(CHAMPION, former)
    log.info("Version %s is the champion again, after version %s", former, champion.version)
    return again, champion


@dataclass(frozen=True)
class Comparison:
    """Two versions on the same tiles.

    Attributes:
        scores: of both.
        differences: by how much each figure of the first lies above the second's, on the same draws.
        tiles: one row a tile: `aoi`, `tile_id`, pixel and building F1 of both (`…_1`, `…_2`), and `apart`, by how much
            they differ; those that differ most come first.
        sheet: what both say of those tiles, PNG.
    """

    scores: tuple[TestScores, TestScores]
    differences: dict[str, Interval]
    tiles: pd.DataFrame
    sheet: bytes


def compare(settings: Settings, first: str, second: str, tiles: Tiles, *, shown: int = 8) -> Comparison:
    """Score two versions on the same tiles.

    Args:
        settings: where the registry and state are.
        first: a version.
        second: another.
        tiles: to score them on.
        shown: of so many tiles the sheet tells.
    """
    runtimes = [Runtime(_pulled(settings, version)) for version in (first, second)]
    one, other = (score_exported(runtime, tiles.manifest, tiles.polygons) for runtime in runtimes)
    keys, figures = ["aoi", "tile_id"], ["pixel_f1", "building_f1"]
    table = one.tiles[[*keys, *figures]].merge(other.tiles[[*keys, *figures]], on=keys, suffixes=("_1", "_2"))
    table["apart"] = sum((table[f"{name}_1"] - table[f"{name}_2"]).abs() for name in figures)
    table = table.sort_values("apart", ascending=False, ignore_index=True)
    told = tiles.manifest.set_index(keys, drop=False).loc[list(table[keys].head(shown).itertuples(index=False))]
    answers = [predict_exported(runtime, told) for runtime in runtimes]
    sheet = comparison_sheet(list(zip(*answers, strict=True)), (runtimes[0].spec, runtimes[1].spec))
    return Comparison((one, other), differences(one.tiles, other.tiles), table, sheet)


def verdict_tags(verdict: Verdict) -> dict[str, str]:
    """A verdict for the registry: `promoted`, `verdict` and, of each figure, `difference_…`."""
    return {
        "promoted": str(verdict.promote).lower(),
        "verdict": verdict.reason,
        **{f"difference_{name}": f"{value:.4f}" for name, value in verdict.figures().items()},
    }


def _against(
    settings: Settings, champion: str, scores: TestScores, tiles: Tiles, spec: PromotionSpec
) -> tuple[Verdict, TestScores | None]:
    """The verdict on scores beside the champion's on the tiles that it has not seen, and these."""
    try:
        fair = tiles.unknown_to(learned_by(settings, champion))
        if fair.manifest.empty:
            return Verdict(False, f"the champion, version {champion}, has learned from every test tile"), None
        ours = _on(scores, fair, champion)
        log.info("Scoring the champion, version %s, on the same %d tiles", champion, len(ours.tiles))
        theirs = score_version(settings, champion, fair)
    except (RegistryError, ModelError) as error:
        log.warning("%s footprint promote N --force puts another version in its place.", error.problem)
        return Verdict(False, f"the champion, version {champion}, cannot be scored"), None
    return decide(ours, theirs, spec), theirs


def _on(scores: TestScores, tiles: Tiles, champion: str) -> TestScores:
    """The scores on these tiles alone."""
    kept = are_in(scores.tiles, tiles.manifest)
    if kept.all():
        return scores
    log.warning(
        "The champion, version %s, has learned from %d of the %d test tiles; they are left out",
        champion, len(kept) - sum(kept), len(kept),
    )  # fmt: skip
    return summarize(scores.tiles[kept])


def _write_down(registry: Registry, version: str, verdict: Verdict) -> None:
    """The verdict as tags, and at the end of the version's description."""
    about = _VERDICT.sub("", registry.resolve(version=version).description)
    told = f"{'Promoted' if verdict.promote else 'Not promoted'}: {verdict.reason}."
    registry.tag(version, verdict_tags(verdict))
    registry.describe(version, f"{about} {told}".strip())


def _enthrone(registry: Registry, version: str, former: Registered | None) -> None:
    """Point the alias; what it took the place of is written down first, so that there is always a way back."""
    if former is not None and former.version == version:
        return
    registry.tag(version, {FORMER: "none" if former is None else former.version})
    registry.point(CHAMPION, version)


def _same(one: Registered | None, other: Registered | None) -> bool:
    return (one and one.version) == (other and other.version)


def _answer_alike(one: Registered, other: Registered) -> bool:
    """Whether they are one network at the same choices; not so where they do not tell."""
    ours, theirs = ({"own_tolerances": "{}"} | each.tags for each in (one, other))  # before, none had any
    return all(name in ours and ours[name] == theirs.get(name) for name in ANSWERING)


def _alone(settings: Settings) -> AbstractContextManager[bool]:
    return locked(settings.home.absolute() / ".promotion.lock", waiting="Another promotion is under way; waiting")


def _pulled(settings: Settings, version: str) -> Path:
    registry = Registry.of(settings)
    return registry.pull(version=version, into=settings.lake.pulled)
