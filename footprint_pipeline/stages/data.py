"""The data stages, one AOI at a time: tiles, polygons, masks, split. Each reads and writes its AOI's folder."""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import geopandas as gpd
import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from footprint_pipeline.dataset.checks.spec import CheckSpec
from footprint_pipeline.dataset.label_counts import (
    LabelCounts,
    label_counts_path,
    read_label_counts,
    write_label_counts,
)
from footprint_pipeline.dataset.masks import MaskSummary, disown_masks, read_mask_index, write_masks
from footprint_pipeline.dataset.polygons import (
    PolygonTable,
    build_polygon_table,
    buildings_per_tile,
    read_polygon_table,
    write_polygon_table,
)
from footprint_pipeline.dataset.spec import MaskSpec, PolygonSpec, SplitSpec
from footprint_pipeline.dataset.split_table import read_split_table
from footprint_pipeline.dataset.splits import build_manifest, write_manifest
from footprint_pipeline.dataset.tiles import FILE_STAMP, TileIndex, index_tiles, read_tile_index, write_tile_index
from footprint_pipeline.errors import DatasetError
from footprint_pipeline.files import atomic_path
from footprint_pipeline.lake import AoiFolder, Lake
from footprint_pipeline.settings import Settings
from footprint_pipeline.spacenet.areas import Aoi
from footprint_pipeline.spacenet.labels import read_labels
from footprint_pipeline.spacenet.layout import Layout
from footprint_pipeline.spacenet.sources import fetch

log = logging.getLogger(__name__)

_LAYOUT = TypeAdapter(Layout)
_GSD_SPREAD = 0.2


@dataclass(frozen=True)
class CollectedPolygons:
    """The polygon table and what reading the labels met."""

    polygons: PolygonTable
    counts: LabelCounts


def fetch_tiles(
    settings: Settings, aoi: Aoi, folder: AoiFolder, *, tiles: int | None, on_bad_tile: Literal["skip", "fail"]
) -> tuple[Layout, TileIndex]:
    """Bring an AOI's tiles onto the disk and index them.

    Args:
        settings: how S3 is read.
        aoi: from the catalogue.
        folder: where its data lies.
        tiles: the first so many only.
        on_bad_tile: what to do about a tile that cannot be read or is too small.
    """
    layout = fetch(aoi, folder.raw, tiles=tiles, settings=settings)
    index = index_tiles(
        [(tile.tile_id, tile.image) for tile in layout.tiles],
        aoi=aoi.name,
        on_bad_tile=on_bad_tile,
        least_side_px=CheckSpec.min_side_px,
    )
    measured_m = float((index.table["gsd_x_m"] * index.table["gsd_y_m"]).pow(0.5).median())
    if aoi.gsd_m and abs(measured_m / aoi.gsd_m - 1) > _GSD_SPREAD:
        log.warning(
            "%s: a pixel of its tiles has %.2f m, the catalogue says %.2f m; the tiles are believed",
            *(aoi.name, measured_m, aoi.gsd_m),
        )
    disown_masks(folder.masks)  # they are of the tiles that are replaced now
    with atomic_path(folder.layout) as temporary:
        temporary.write_bytes(_LAYOUT.dump_json(layout, indent=1))
    write_tile_index(index, folder.tiles)
    log.info("%s: %d tiles, %d skipped", aoi.name, len(index.table), len(index.skipped))
    return layout, index


def fetched(folder: AoiFolder) -> Layout | None:
    """Where an AOI's tiles are and came from; None before they were fetched."""
    if not folder.layout.exists():
        return None
    stored = folder.layout.read_bytes().replace(b'"summary_csv":', b'"summary":')  # its former name
    return _LAYOUT.validate_json(stored)


def collect_polygons(
    folder: AoiFolder, *, skip_bad_labels: bool, spec: PolygonSpec = PolygonSpec()
) -> CollectedPolygons:
    """Read an AOI's labels, place them on its tiles and write the polygon table.

    Labels that cannot be used are listed in `labels_rejected.csv`; they, and those outside their tile, are counted in
    `labels.json`.
    """
    layout = fetched(folder)
    if layout is None:
        raise DatasetError(f"{folder.folder.name}: its tiles are not there.", fix="Materialize image_tiles first.")
    tiles = read_tile_index(folder.tiles)
    labels = read_labels(layout, skip_bad=skip_bad_labels, outlines=tiles.set_index("tile_id").geometry)
    polygons = build_polygon_table(labels.table, tiles, spec=spec, pixel_sample=labels.pixel_sample)
    counts = LabelCounts(
        rows=labels.rows,
        empty=labels.empty,
        repaired=labels.repaired,
        rejected=len(labels.rejected),
        slivers=labels.slivers,
        outside=polygons.outside,
        clipped=polygons.clipped,
        too_small=polygons.too_small,
        covered=polygons.covered,
        unlabelled=labels.unlabelled,
    )
    with atomic_path(folder.rejected_labels) as temporary:
        labels.rejected.to_csv(temporary, index=False)
    disown_masks(folder.masks)  # and they are of other labels
    write_polygon_table(polygons.table, folder.polygons)
    write_label_counts(counts, label_counts_path(folder))
    log.info("%s: %d buildings", folder.folder.name, len(polygons.table))
    return CollectedPolygons(polygons, counts)


def draw_masks(folder: AoiFolder, spec: MaskSpec = MaskSpec()) -> MaskSummary:
    """Write a mask for every tile of an AOI."""
    return write_masks(read_polygon_table(folder.polygons), read_tile_index(folder.tiles), folder.masks, spec=spec)


def split_tiles(folder: AoiFolder, spec: SplitSpec, *, assigned: Path | None = None) -> tuple[pd.DataFrame, str]:
    """Write the split manifest of an AOI; returns it with its digest.

    Args:
        folder: where its data lies.
        spec: how to share its tiles out.
        assigned: a CSV that says so instead, see `dataset.split_table`; tiles that it does not name are guard.
    """
    coverage = read_mask_index(folder.masks).set_index("tile_id")["building_share"]
    buildings = buildings_per_tile(read_polygon_table(folder.polygons))
    counts = label_counts_path(folder)
    unlabelled = read_label_counts(counts).unlabelled if counts.exists() else ()
    given = read_split_table(assigned, aoi=folder.folder.name) if assigned is not None else None
    manifest = build_manifest(
        read_tile_index(folder.tiles), buildings, coverage, folder.masks, spec, unlabelled=unlabelled, assigned=given
    )
    return manifest, write_manifest(manifest, folder.manifest, spec)


def data_digest(lake: Lake, manifest: pd.DataFrame) -> str:
    """Twelve hexadecimal digits that change with what is prepared: images, splits, labels, masks or normalisations.

    Raises:
        DatasetError: the masks are not complete.
    """
    told = manifest[["aoi", "tile_id", "split", "buildings", "coverage", "low", "high", "gamma", "valid_share"]]
    tables = [told.sort_values(["aoi", "tile_id"])]
    for aoi in sorted(manifest["aoi"].unique()):
        images = pd.DataFrame(read_tile_index(lake.aoi(aoi).tiles)).reindex(columns=["tile_id", *FILE_STAMP])
        tables += (table.sort_values("tile_id") for table in (read_mask_index(lake.aoi(aoi).masks), images))
    return hashlib.sha256("".join(table.to_json(orient="values") for table in tables).encode()).hexdigest()[:12]


def area_km2(tiles: gpd.GeoDataFrame) -> float:
    """Ground covered by the valid pixels of tiles, square kilometres."""
    pixels = tiles["width"] * tiles["height"] * tiles["valid_share"]
    return float(np.sum(pixels * tiles["gsd_x_m"] * tiles["gsd_y_m"]) / 1e6)
