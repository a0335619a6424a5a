"""Commands that materialise assets: run, prepare, train, tune, evaluate, register."""

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from footprint_pipeline.commands.lines import command_for, next_commands, score_lines
from footprint_pipeline.dataset.spec import SPLITS
from footprint_pipeline.dataset.split_table import read_split_table
from footprint_pipeline.dataset.splits import read_manifests, split_summary
from footprint_pipeline.errors import DatasetError
from footprint_pipeline.lake import Lake
from footprint_pipeline.orchestration.local import run_job
from footprint_pipeline.settings import Settings
from footprint_pipeline.spacenet.areas import Aoi
from footprint_pipeline.spacenet.catalog import SYNTHETIC, load_catalog
from footprint_pipeline.spacenet.own_areas import added, own_areas
from footprint_pipeline.spacenet.sources import resolve_sources
from footprint_pipeline.stages.weights import find_weights

log = logging.getLogger(__name__)


def run(
    settings: Settings,
    *,
    sources: tuple[str, ...],
    aois: tuple[str, ...],
    data: Mapping[str, Any],
    training: Mapping[str, Any],
    sweep: Mapping[str, Any],
) -> dict[str, Any]:
    """Prepare every source, then train, sweep, evaluate, register and promote on all of them."""
    started = time.monotonic()
    training = _with_weights(settings, training)
    areas = _areas(settings, sources, aois, data)
    for area in areas:
        _materialize_dataset(settings, area, data)
    names = sorted(area.name for area in areas)
    check_all_splits(settings.lake, names)
    config = {"trained_unet": {"aois": names, **training}, "tolerance_sweep": sweep}
    records = run_job("model", settings, config=config)
    evaluation, registered = records["test_evaluation"], records["registered_model"]
    from footprint_pipeline.registry import without_credentials  # imports MLflow, as the job above has done

    home = settings.home
    models = without_credentials(settings.tracking_uri or str(home / "artifacts"))
    ui, serve = (command_for(settings, what) for what in ("ui", "serve"))
    return {
        "aois": names,
        "mlflow_run": evaluation.run_id,
        "tolerance": evaluation.tolerance,
        "own_tolerances": evaluation.own_tolerances,
        **evaluation.metrics,
        "model": registered.name,
        "version": registered.version,
        "promoted": registered.promoted,
        "reason": registered.reason,
        "seconds": round(time.monotonic() - started, 1),
        "home": str(home.absolute()),
        "_lines": [
            "",
            f"Trained on {', '.join(names)} in {(time.monotonic() - started) / 60:.1f} minutes, all stages together.",
            f"  test split: median tile F1 {evaluation.metrics['median_tile_f1']:.3f}, "
            f"pooled pixel F1 {evaluation.metrics['pooled_pixel_f1']:.3f}, "
            f"building F1 (IoU >= 0.5) {evaluation.metrics['building_f1']:.3f}, tolerance {evaluation.tolerance:.2f}",
            f"  {registered.name} version {registered.version} is "
            f"{'the champion' if registered.promoted else 'a challenger'}: {registered.reason}",
            f"  prepared data {home / 'lake'}, models and runs {models}",
            f"Look:  {ui:{len(serve)}}  the graph, the plots (Dagster) and the run, the model (MLflow)",
            f"Ask:   {serve}  a map to click on, and the same over HTTP, on http://127.0.0.1:{settings.port}",
        ],
    }


def check_all_splits(lake: Lake, names: Sequence[str]) -> None:
    """Make sure, before hours are spent, that there are tiles to train, to tune and to judge by."""
    splits = set(read_manifests([lake.aoi(name).manifest for name in names])["split"])
    if lacking := [split for split in SPLITS if split not in splits]:
        raise DatasetError(
            f"{', '.join(names)}: no tile is of the split {' or '.join(lacking)}.",
            fix="Take more tiles or another --split-seed, or name some in the table of --assign.",
        )


def prepare(
    settings: Settings, *, sources: tuple[str, ...], aois: tuple[str, ...], data: Mapping[str, Any]
) -> dict[str, Any]:
    """Prepare every source and say what its splits hold."""
    lake = settings.lake
    prepared, lines = {}, []
    for area in _areas(settings, sources, aois, data):
        _materialize_dataset(settings, area, data)
        splits = split_summary(read_manifests([lake.aoi(area.name).manifest])).to_dict("records")
        prepared[area.name] = splits
        lines += [f"{area.name}: {lake.aoi(area.name).folder}"] + [
            f"  {row['split']:10} {row['tiles']:7,} tiles {row['buildings']:9,} buildings  {row['area_km2']:8.2f} km²"
            for row in splits
        ]
    return {"aois": prepared, "_lines": [*lines, next_commands(settings, "explore", "train")]}


def _areas(settings: Settings, sources: tuple[str, ...], aois: tuple[str, ...], data: Mapping[str, Any]) -> list[Aoi]:
    """The areas that sources and names mean; the generated city when there are none.

    What is wrong with their names, or with the table that shares their tiles out, is said before anything is fetched.
    """
    areas = resolve_sources(sources or aois or (SYNTHETIC,), aois if sources else (), settings.home)
    _say_what_is_replaced(settings, areas, named=bool(aois))
    if assigned := data["split_manifests"]["assigned"]:
        for area in areas:
            read_split_table(Path(assigned), aoi=area.name, several=len(areas) > 1)
    return areas


def _say_what_is_replaced(settings: Settings, areas: Sequence[Aoi], *, named: bool) -> None:
    """Warn where a name means another source than before; one of the catalogue's may be given away by --aoi."""
    known = own_areas(settings.home) if named else load_catalog(settings.home)
    for area in areas:
        uris = area.sources[0].uris
        before = [source.uris for source in known[area.name].sources] if area.name in known else [uris]
        if uris not in before:
            log.warning(
                "%s was %s and is %s from now on: what is prepared of it is replaced. To keep both, give this one "
                "another name (--aoi)",
                area.name, ", ".join(before[0]), ", ".join(uris),
            )  # fmt: skip


def _materialize_dataset(settings: Settings, aoi: Aoi, data: Mapping[str, Any]) -> None:
    """Materialise the data assets of an AOI; one that the catalogue does not know so is added to it.

    Args:
        settings: where state lives.
        aoi: the area.
        data: asset name → its config; values that are None are left to the asset.
    """
    config = {
        asset: {name: value for name, value in values.items() if value is not None} for asset, values in data.items()
    }
    known = load_catalog(settings.home).get(aoi.name) == aoi
    with nullcontext() if known else added(settings.home, aoi):
        run_job("dataset", settings, partition=aoi.name, config=config)


def _with_weights(settings: Settings, training: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the file that its weights are in: an alias points elsewhere one day, and is checked at once."""
    weights = training["weights"] and str(find_weights(settings, training["weights"]))
    return {**training, "weights": weights}


def train(settings: Settings, *, aois: tuple[str, ...], training: Mapping[str, Any]) -> dict[str, Any]:
    """Materialise `trained_unet`."""
    config = {"aois": list(aois), **_with_weights(settings, training)}
    trained = run_job("model", settings, selection=["trained_unet"], config={"trained_unet": config})["trained_unet"]
    return {
        **trained.model_dump(mode="json"),
        "_lines": [
            f"{trained.network}: {trained.epochs} epochs, MLflow run {trained.run_id}.",
            next_commands(settings, "tune"),
        ],
    }


def tune(settings: Settings, *, sweep: Mapping[str, Any]) -> dict[str, Any]:
    """Materialise `tolerance_sweep`."""
    config = {"tolerance_sweep": sweep}
    swept = run_job("model", settings, selection=["tolerance_sweep"], config=config)["tolerance_sweep"]
    return {
        **swept.model_dump(mode="json"),
        "_lines": [
            f"Tuned tolerance: {swept.tolerance:.2f} with median={swept.median_tile_f1:.4f} "
            f"stdev={swept.std_tile_f1:.4f}",
            *(f"  {aoi} has its own: {own:.2f}" for aoi, own in swept.own_tolerances.items()),
            f"  rule {swept.rule}, at least {swept.min_area_m2:g} m², buildings that touch are "
            f"{'not told apart' if swept.seed_level is None else f'told apart at level {swept.seed_level:.2f}'}",
            next_commands(settings, "evaluate"),
        ],
    }


def evaluate(settings: Settings) -> dict[str, Any]:
    """Materialise `test_evaluation`."""
    evaluation = run_job("model", settings, selection=["test_evaluation"])["test_evaluation"]
    return {
        **evaluation.model_dump(mode="json"),
        **evaluation.metrics,
        "_lines": [*score_lines(evaluation.metrics, evaluation.by_aoi), next_commands(settings, "register")],
    }


def register(settings: Settings) -> dict[str, Any]:
    """Materialise `registered_model`."""
    registered = run_job("model", settings, selection=["registered_model"])["registered_model"]
    return {
        **registered.model_dump(mode="json"),
        "_lines": [
            f"{registered.name} version {registered.version}: "
            f"{'promoted' if registered.promoted else 'not promoted'}, {registered.reason}"
        ],
    }
