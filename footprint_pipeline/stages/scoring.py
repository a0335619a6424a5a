"""Scoring what the service would run: an exported model on labelled tiles. No Keras."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd

from footprint_pipeline.dataset.masks import mask_path, read_mask_index
from footprint_pipeline.dataset.polygons import read_polygon_table
from footprint_pipeline.dataset.splits import read_manifests
from footprint_pipeline.dataset.tiles import changed_images, normalization, read_tile_index
from footprint_pipeline.errors import DatasetError
from footprint_pipeline.evaluation.scoring import TestScores, TilePrediction, predict_tiles, score_tiles
from footprint_pipeline.files import locked
from footprint_pipeline.footprints.domain import brightness_counts
from footprint_pipeline.footprints.normalization import UINT8, Normalization
from footprint_pipeline.footprints.runtime import Runtime
from footprint_pipeline.footprints.spec import ModelSpec
from footprint_pipeline.footprints.unlike import unlike
from footprint_pipeline.lake import AoiFolder, Lake
from footprint_pipeline.settings import Settings
from footprint_pipeline.spacenet.areas import Aoi
from footprint_pipeline.stages.data import collect_polygons, draw_masks, fetch_tiles

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Taken:
    """What of a source's tiles and labels is scored.

    Attributes:
        tiles: scored.
        tiles_skipped: that cannot be read.
        tiles_unlabelled: scored as tiles without a building, for nothing is said of them.
        labels: on the tiles that are scored.
        labels_lost: that cannot be read, or lie outside their tile.
    """

    tiles: int
    tiles_skipped: int
    tiles_unlabelled: int
    labels: int
    labels_lost: int


def score_on_sources(
    settings: Settings,
    model: Path,
    aois: Sequence[Aoi],
    *,
    tolerance: float | None = None,
    flips: int | None = None,
    skip_bad_labels: bool = False,
) -> tuple[TestScores, dict[str, Taken]]:
    """Score an exported model on every tile of some sources, apart from all data prepared for training.

    Whoever scores a source of the same name meanwhile waits.

    Args:
        settings: where state lives.
        model: folder of the exported model.
        aois: where the tiles and labels come from, each of another name.
        tolerance: another than the model's own.
        flips: another number of orientations to average than the model's own.
        skip_bad_labels: leave out labels that cannot be read.

    Returns:
        The scores, and by AOI what they are of.

    Raises:
        SourceError: a source cannot be had.
        DatasetError: a source's labels all lie elsewhere, or none of its tiles has imagery.
    """
    lake = settings.home.absolute() / "evaluation"
    manifests, tables, taken = [], [], {}
    with ExitStack() as held:
        for name in sorted(aoi.name for aoi in aois):  # in this order, so that no two wait for each other
            waiting = f"{name}: waiting for another process that scores it"
            held.enter_context(locked(AoiFolder(lake / name).lock, waiting=waiting))
        for aoi in aois:
            manifest, polygons, taken[aoi.name] = _prepared(settings, aoi, lake, skip_bad_labels=skip_bad_labels)
            manifests.append(manifest)
            tables.append(polygons)
        runtime, tiles = Runtime(model), pd.concat(manifests, ignore_index=True)
        scores = score_exported(
            runtime,
            tiles,
            pd.concat(tables, ignore_index=True),
            tolerance=tolerance,
            own_tolerances={str(aoi): _tolerance_on(runtime.spec, str(aoi), of) for aoi, of in tiles.groupby("aoi")},
            flips=flips,
        )
        return scores, taken


def _tolerance_on(spec: ModelSpec, aoi: str, there: gpd.GeoDataFrame) -> float:
    """The tolerance of an AOI that the model knows by name, or else by where it (or what is there) lies."""
    if aoi in spec.aois:
        return spec.tolerance_of(aoi)
    west, south, east, north = there.total_bounds
    return spec.tolerance_at((west + east) / 2, (south + north) / 2)


def _prepared(
    settings: Settings, aoi: Aoi, lake: Path, *, skip_bad_labels: bool
) -> tuple[gpd.GeoDataFrame, gpd.GeoDataFrame, Taken]:
    """The tiles of a source with their masks, its buildings, and what was taken of it."""
    folder = AoiFolder(lake / aoi.name)
    _, index = fetch_tiles(settings, aoi, folder, tiles=None, on_bad_tile="skip")
    collected = collect_polygons(folder, skip_bad_labels=skip_bad_labels)
    counts, polygons = collected.counts, read_polygon_table(folder.polygons)
    lost = counts.rejected + counts.outside
    if lost and polygons.empty:
        raise DatasetError(
            f"{aoi.name}: none of its {lost} labels can be scored: {counts.rejected} are rejected, "
            f"{counts.outside} lie outside their tile.",
            fix="Check their CRS and the order of their coordinates."
            + (f" {folder.rejected_labels} lists the rejected." if counts.rejected else ""),
        )
    draw_masks(folder)
    tiles = read_tile_index(folder.tiles)
    if not tiles["valid_share"].any():
        raise DatasetError(
            f"{aoi.name}: none of its {len(tiles)} tiles has imagery.",
            fix="Check them: all their pixels are nodata or black.",
        )
    tiles["mask_path"] = [str(mask_path(folder.masks, tile_id)) for tile_id in tiles["tile_id"]]
    return tiles, polygons, Taken(len(tiles), len(index.skipped), len(counts.unlabelled), len(polygons), lost)


def score_exported(
    runtime: Runtime,
    manifest: pd.DataFrame,
    polygons: gpd.GeoDataFrame,
    *,
    tolerance: float | None = None,
    own_tolerances: Mapping[str, float] | None = None,
    flips: int | None = None,
) -> TestScores:
    """Score an exported model on labelled tiles, as the service would run it unless told otherwise.

    A warning names the AOIs whose imagery is far from all that the model was trained on.

    Args:
        runtime: the model.
        manifest: rows of split manifests, or of a tile index with `mask_path`.
        polygons: the polygon table of these tiles.
        tolerance: another than the model's own, on all tiles.
        own_tolerances: by AOI; those that the model has by name, or where its buildings lie, when None.
        flips: another number of orientations to average than the model's own.
    """
    spec = runtime.spec
    if tolerance is not None:
        own_tolerances = {}
    elif own_tolerances is None:
        by_place = {str(aoi): _tolerance_on(spec, str(aoi), of) for aoi, of in polygons.groupby("aoi")}
        own_tolerances = {**spec.own_tolerances, **by_place}
    predictions = predict_exported(runtime, manifest, flips=flips, progress=said("evaluate"))
    return score_tiles(
        predictions if spec.domain is None else _held_against_domain(predictions, manifest, spec),
        polygons,
        tolerance=spec.tolerance if tolerance is None else tolerance,
        own_tolerances=own_tolerances,
        seed_level=spec.seed_level,
        min_area_m2=spec.min_area_m2,
    )


def predict_exported(
    runtime: Runtime,
    manifest: pd.DataFrame,
    *,
    flips: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[TilePrediction]:
    """What an exported model says of labelled tiles; arguments as of `score_exported`."""
    spec = runtime.spec
    return predict_tiles(
        _stretched_as_learned(manifest, spec),
        runtime,
        gsd_m=spec.gsd_m,
        stride=spec.stride,
        heads=spec.heads,
        flips=spec.flips if flips is None else flips,
        progress=progress,
    )


def _stretched_as_learned(manifest: pd.DataFrame, spec: ModelSpec) -> pd.DataFrame:
    """The rows with the stretch of training for imagery of more than 8 bits: of their AOI, or the only one there is.

    Where it is neither, their own stretch stays, though the service does not take such imagery.
    """
    stretches, unknown = [], set()
    for row in manifest.itertuples():
        own = normalization(row)
        stretch = _learned_stretch(own, row.aoi, spec)
        if stretch is None:
            unknown.add(row.aoi)
        stretches.append(stretch or own)
    if unknown:
        told = ", ".join(sorted(unknown))
        log.warning("%s: imagery of more than 8 bits, which the service refuses with this model; stretched as is", told)
    return manifest.assign(
        low=[list(each.low) for each in stretches],
        high=[list(each.high) for each in stretches],
        gamma=[each.gamma for each in stretches],
    )


def _learned_stretch(own: Normalization, aoi: str, spec: ModelSpec) -> Normalization | None:
    """The stretch of training for tiles of an AOI that have one of their own; None where nobody knows which."""
    if own == UINT8:
        return own
    of_aoi = {known for name, known in spec.normalization.items() if name.partition(" (")[0] == aoi}
    return next((each.pop() for each in (of_aoi - {UINT8}, spec.deep_stretches) if len(each) == 1), None)


def _held_against_domain(
    predictions: Iterator[TilePrediction], manifest: pd.DataFrame, spec: ModelSpec
) -> Iterator[TilePrediction]:
    """The same, and after the last one a warning of each AOI whose imagery is far out of the model's domain."""
    seen: dict[tuple[str, Normalization], np.ndarray] = {}
    for prediction, row in zip(predictions, manifest.itertuples(), strict=True):
        kind = row.aoi, normalization(row)
        seen[kind] = seen.get(kind, 0) + brightness_counts(prediction.image, prediction.valid)
        yield prediction
    for (aoi, own), counts in seen.items():
        stretch = _learned_stretch(own, aoi, spec) or own
        if told := unlike(spec, aoi, counts, values=(min(own.low), max(own.high)), stretch=stretch):
            log.warning("%s", told)


def load_manifest(lake: Lake, aois: list[str]) -> pd.DataFrame:
    """The split manifests of these AOIs as one table; of every prepared AOI when the list is empty.

    Raises:
        DatasetError: an AOI is not prepared, or none is; or what was prepared last is not all of it: images are others
            than those prepared, masks are not those of the labels, or the split is not of the masks.
    """
    names = list(dict.fromkeys(aois or lake.prepared()))
    manifest = read_manifests([lake.aoi(name).manifest for name in names])
    for name in names:
        try:
            _check_of_one_preparation(lake.aoi(name), manifest[manifest["aoi"] == name].set_index("tile_id"))
        except DatasetError as error:
            wait = "If a run prepares it now, wait for its end, then re-execute from failure or give the command again."
            raise DatasetError(error.problem, fix=f"{error.fix} {wait}") from None
    return manifest


def _check_of_one_preparation(area: AoiFolder, split: pd.DataFrame) -> None:
    """Make sure that images, masks and split (by tile id) of an AOI belong together."""
    name, masks = area.folder.name, read_mask_index(area.masks).set_index("tile_id")["building_share"]
    left_out = masks.drop(split.index, errors="ignore")  # a split may leave out tiles without a building
    if (
        not split.index.isin(masks.index).all()
        or left_out.any()
        or not np.allclose(split["coverage"], masks[split.index])
    ):
        raise DatasetError(
            f"{name}: its split is not of the masks that are there now.",
            fix="Materialize split_manifests for this AOI again, or footprint prepare it.",
        )
    if changed := changed_images(read_tile_index(area.tiles)):
        raise DatasetError(
            f"{name}: {len(changed)} of its images are no longer those that were prepared ({changed[0]} for one).",
            fix="Materialize image_tiles and what follows for this AOI again, or footprint prepare it.",
        )


def load_polygons(lake: Lake, manifest: pd.DataFrame) -> gpd.GeoDataFrame:
    """The polygon tables of the manifest's AOIs as one table.

    Raises:
        DatasetError: there is no tile, so that there is nothing to judge.
    """
    if manifest.empty:
        raise DatasetError(
            "There is no tile to judge by.", fix="Prepare an AOI with tiles of the splits validation and test."
        )
    tables = [read_polygon_table(lake.aoi(aoi).polygons) for aoi in sorted(manifest["aoi"].unique())]
    return pd.concat(tables, ignore_index=True)


def said(what: str) -> Callable[[int, int], None]:
    """A progress callback that logs a line now and then."""

    def progress(done: int, total: int) -> None:
        if done == total or done % 25 == 0:
            log.info("%s: %d of %d tiles", what, done, total)

    return progress
