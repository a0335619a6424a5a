"""Commands on registered models: export them, score them."""

import logging
from dataclasses import asdict
from filecmp import cmp
from pathlib import Path
from typing import Any

from footprint_pipeline.commands.lines import score_lines
from footprint_pipeline.dataset.checks.record import require_passed
from footprint_pipeline.errors import DatasetError, SettingsError
from footprint_pipeline.evaluation.bootstrap import intervals
from footprint_pipeline.files import copy_file
from footprint_pipeline.footprints.runtime import Runtime
from footprint_pipeline.footprints.spec import SPEC_FILE
from footprint_pipeline.registry import CHAMPION, Registered, Registry, learned_beside
from footprint_pipeline.settings import Settings
from footprint_pipeline.spacenet.sources import resolve_sources
from footprint_pipeline.stages.promotion import Tiles, held_out, learned_by
from footprint_pipeline.stages.scoring import Taken, score_exported, score_on_sources

log = logging.getLogger(__name__)


def export(settings: Settings, *, kind: str, alias: str | None, version: str | None, out: Path) -> dict[str, Any]:
    """Write a registered model to a folder, as `openvino`, `onnx` or `keras`."""
    registry = Registry.of(settings)
    found = _resolved(registry, alias, version)
    out.mkdir(parents=True, exist_ok=True)
    if kind == "keras":
        written = [path := registry.pull_keras(version=found.version, into=out)]
        written += [learned for learned in [learned_beside(path)] if learned.exists()]
    else:
        pulled = registry.pull(version=found.version, into=settings.lake.pulled)
        if (out / SPEC_FILE).exists() and not cmp(out / SPEC_FILE, pulled / SPEC_FILE, shallow=False):
            raise SettingsError(f"{out} holds another model.", fix="Give another folder (--out), or empty this one.")
        if kind == "openvino":
            written = [copy_file(path, out / path.name) for path in sorted(pulled.iterdir())]
        else:
            written = registry.pull_onnx(version=found.version, into=out)
    return {
        "version": found.version,
        "files": [str(path) for path in written],
        "_lines": [f"{found.name} version {found.version}:", *(f"  {path}" for path in written)],
    }


def score(
    settings: Settings,
    *,
    sources: tuple[str, ...],
    aois: tuple[str, ...],
    alias: str | None,
    version: str | None,
    tolerance: float | None,
    flips: str | None,
    skip_bad_labels: bool,
) -> dict[str, Any]:
    """Score a registered model on sources, or on the test tiles of what is prepared that it has not learned from."""
    if skip_bad_labels and not sources:
        raise SettingsError(
            "--skip-bad-labels is of a --source; what is prepared has its labels.",
            fix="Give the --source, or prepare it so: footprint prepare --skip-bad-labels.",
        )
    registry = Registry.of(settings)
    found = _resolved(registry, alias, version)
    model = registry.pull(version=found.version, into=settings.lake.pulled)
    as_told: dict[str, Any] = {"tolerance": tolerance, "flips": int(flips) if flips else None}
    taken: dict[str, Taken] = {}
    if sources:
        areas = resolve_sources(sources, aois, settings.home)
        scores, taken = score_on_sources(settings, model, areas, **as_told, skip_bad_labels=skip_bad_labels)
        known = learned_by(settings, found.version).merge(scores.tiles[["aoi", "tile_id"]])
        if len(known):
            log.warning(
                "Version %s has learned from %d of these %d tiles: the scores flatter it",
                found.version, len(known), len(scores.tiles),
            )  # fmt: skip
    else:
        tiles = _held_out(settings, found.version, aois)
        scores = score_exported(Runtime(model), tiles.manifest, tiles.polygons, **as_told)
    names, by_aoi = sorted(scores.by_aoi["aoi"]), scores.by_aoi.to_dict("records")
    return {
        "version": found.version,
        "aois": names,
        "tiles": len(scores.tiles),
        **scores.metrics(),
        "intervals": {name: [each.low, each.high] for name, each in intervals(scores.tiles).items()},
        "by_aoi": by_aoi,
        **({"taken": {name: asdict(of) for name, of in taken.items()}} if taken else {}),
        "_lines": [f"{found.name} version {found.version} on {len(scores.tiles)} tiles of {', '.join(names)}:",
                   *score_lines(scores.metrics(), by_aoi),
                   *(f"  {name}: {of.labels_lost} of {of.labels + of.labels_lost} labels are lost"
                     for name, of in taken.items() if of.labels_lost)],
    }  # fmt: skip


def _resolved(registry: Registry, alias: str | None, version: str | None) -> Registered:
    """The version that an alias or a number means; the champion where there is neither."""
    if alias and version:
        raise SettingsError(f"--alias {alias} and --version {version} both name a model.", fix="Give one of them.")
    return registry.resolve(alias=None if version else alias or CHAMPION, version=version)


def _held_out(settings: Settings, version: str, aois: tuple[str, ...]) -> Tiles:
    """The test tiles that a version has not learned from, of some AOIs where these are named."""
    lake = settings.lake
    prepared = lake.prepared()
    for aoi in aois:
        require_passed(lake.aoi(aoi))
        if aoi not in prepared:
            raise DatasetError(
                f"{aoi} is not prepared; prepared: {', '.join(prepared) or 'none'}.",
                fix=f"Prepare {aoi} first, or score all its tiles by its source (--source).",
            )
    tiles = held_out(settings, version, aois=aois)
    for aoi in aois:
        if aoi not in set(tiles.manifest["aoi"]):
            raise DatasetError(
                f"{aoi} has no test tile that version {version} has not learned from.",
                fix="Name other areas, or score all its tiles by its source (--source).",
            )
    return tiles
