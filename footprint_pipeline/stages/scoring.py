"""Scoring what the service would run: an exported model on labelled tiles. No Keras."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import geopandas as gpd
import pandas as pd

from footprint_pipeline.dataset.masks import mask_path, read_mask_index
from footprint_pipeline.dataset.polygons import read_polygon_table
from footprint_pipeline.dataset.splits import read_manifests
from footprint_pipeline.dataset.tiles import read_tile_index
from footprint_pipeline.errors import DatasetError
from footprint_pipeline.evaluation.scoring import TestScores, TilePrediction, predict_tiles, score_tiles
from footprint_pipeline.footprints.runtime import Runtime
from footprint_pipeline.lake import AoiFolder, Lake
from footprint_pipeline.settings import Settings
from footprint_pipeline.spacenet.areas import Aoi
from footprint_pipeline.stages.data import collect_polygons, draw_masks, fetch_tiles

log = logging.getLogger(__name__)


def score_on_source(
    settings: Settings,
    model: Path,
    aoi: Aoi,
    *,
    tolerance: float | None = None,
    flips: int | None = None,
    skip_bad_labels: bool = False,
) -> TestScores:
    """Score an exported model on every tile of a source, apart from all data prepared for training.

    Args:
        settings: where state lives.
        model: folder of the exported model.
        aoi: where the tiles and labels come from.
        tolerance: another than the model's own.
        flips: another number of orientations to average than the model's own.
        skip_bad_labels: leave out labels that cannot be read.
    """
    folder = AoiFolder(settings.home.absolute() / "evaluation" / aoi.name)
    fetch_tiles(settings, aoi, folder, tiles=None, on_bad_tile="skip")
    collect_polygons(folder, skip_bad_labels=skip_bad_labels)
    draw_masks(folder)
    tiles = pd.DataFrame(read_tile_index(folder.tiles).drop(columns="geometry"))
    tiles["mask_path"] = [str(mask_path(folder.masks, tile_id)) for tile_id in tiles["tile_id"]]
    polygons = read_polygon_table(folder.polygons)
    return score_exported(Runtime(model), tiles, polygons, tolerance=tolerance, flips=flips)


def score_exported(
    runtime: Runtime,
    manifest: pd.DataFrame,
    polygons: gpd.GeoDataFrame,
    *,
    tolerance: float | None = None,
    flips: int | None = None,
) -> TestScores:
    """Score an exported model on labelled tiles, as the service would run it unless told otherwise.

    Args:
        runtime: the model.
        manifest: rows of split manifests, or of a tile index with `mask_path`.
        polygons: the polygon table of these tiles.
        tolerance: another than the model's own.
        flips: another number of orientations to average than the model's own.
    """
    spec = runtime.spec
    predictions = predict_exported(runtime, manifest, flips=flips, progress=said("evaluate"))
    return score_tiles(
        predictions,
        polygons,
        tolerance=spec.tolerance if tolerance is None else tolerance,
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
        manifest,
        runtime,
        gsd_m=spec.gsd_m,
        stride=spec.stride,
        heads=spec.heads,
        flips=spec.flips if flips is None else flips,
        progress=progress,
    )


def load_manifest(lake: Lake, aois: list[str]) -> pd.DataFrame:
    """The split manifests of these AOIs as one table; of every prepared AOI when the list is empty.

    Raises:
        DatasetError: an AOI is not prepared, or none is; or its masks are not those of its labels, for preparing it
            again was interrupted.
    """
    areas = [lake.aoi(name) for name in dict.fromkeys(aois or lake.prepared())]
    manifest = read_manifests([area.manifest for area in areas])
    for area in areas:
        read_mask_index(area.masks)
    return manifest


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
