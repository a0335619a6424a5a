"""Split manifests: which tile teaches, which one tunes, which one judges.

A manifest is Parquet, one row a tile: everything that training needs to know about it. Columns: `tile_id`,
`aoi`, `split`, `block` (of ground, that decided), `path`, `mask_path`, `width`, `height`, `gsd_x_m`, `gsd_y_m`,
`valid_share`, `low`, `high`, `gamma`, `buildings` (labels) and `coverage` (share of building pixels). Its schema's
metadata holds the split's spec, the block size in force and the digest. How a split is decided is `assignment`'s
business, or the user's own (`split_table`).
"""

import hashlib
import json
import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike

from footprint_pipeline.dataset.assignment import assign_splits, draw
from footprint_pipeline.dataset.masks import mask_path
from footprint_pipeline.dataset.spec import GUARD, SPLITS, SplitSpec
from footprint_pipeline.dataset.split_table import splits_of
from footprint_pipeline.errors import DatasetError
from footprint_pipeline.files import atomic_path
from footprint_pipeline.many import listed

log = logging.getLogger(__name__)

COLUMNS = (
    "tile_id", "aoi", "split", "block", "path", "mask_path", "width", "height", "gsd_x_m", "gsd_y_m",
    "valid_share", "low", "high", "gamma", "buildings", "coverage",
)  # fmt: skip
_ASSIGNED = "@assigned"


def build_manifest(
    tiles: gpd.GeoDataFrame,
    buildings: pd.Series,
    coverage: pd.Series,
    mask_folder: Path,
    spec: SplitSpec,
    *,
    unlabelled: Collection[str] = (),
    assigned: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """The manifest of one AOI.

    Tiles without imagery teach nothing, and of those that nobody has labelled it is not known what they would; unless
    they are assigned, they are left out.

    Args:
        tiles: the tile index, geometry in EPSG:4326.
        buildings: labels by tile id (tiles without are absent).
        coverage: share of building pixels by tile id.
        mask_folder: where the masks lie.
        spec: how to split.
        unlabelled: ids of the tiles that have no label, nor a word that they are empty.
        assigned: split by tile id, from `split_table.read_split_table`, in place of the spec; tiles that are not in
            it are guard.

    Raises:
        DatasetError: fewer than three tiles have a building, or a tile is assigned that the index does not have.
    """
    tiles = tiles.assign(
        buildings=tiles["tile_id"].map(buildings).fillna(0).astype(int),
        coverage=tiles["tile_id"].map(coverage).astype(float),
        mask_path=[str(mask_path(mask_folder, tile_id)) for tile_id in tiles["tile_id"]],
    )
    if assigned is not None:
        return _rows(tiles, splits_of(tiles["tile_id"], assigned), tiles["tile_id"] + _ASSIGNED)
    tiles = _told(tiles, unlabelled)
    draws = [
        draw(f"{spec.seed}/{aoi}/{tile_id}/empty") for aoi, tile_id in zip(tiles["aoi"], tiles["tile_id"], strict=True)
    ]
    tiles = tiles[(tiles["buildings"] > 0) | (np.array(draws) < spec.empty_share)]
    drawn = assign_splits(tiles, (tiles["buildings"] > 0).to_numpy(), spec)
    return _rows(tiles, drawn.split, drawn.block)


def _told(tiles: gpd.GeoDataFrame, unlabelled: Collection[str]) -> gpd.GeoDataFrame:
    """The tiles that have imagery and of which it is known what is on them."""
    dark, silent = tiles["valid_share"] == 0, tiles["tile_id"].isin(list(unlabelled))
    for rows, what in ((dark, "without imagery"), (silent & ~dark, "without a label or a word that they are empty")):
        if rows.any():
            log.warning(
                "%s: left out of the splits are %d tiles %s: %s",
                *(tiles["aoi"].iloc[0], rows.sum(), what, listed(tiles["tile_id"][rows])),
            )
    return tiles[~(dark | silent)]


def _rows(tiles: gpd.GeoDataFrame, split: ArrayLike, block: ArrayLike) -> pd.DataFrame:
    manifest = pd.DataFrame(tiles.drop(columns="geometry")).assign(split=split, block=block)
    return manifest[list(COLUMNS)].sort_values("tile_id", ignore_index=True)


def split_summary(manifest: pd.DataFrame) -> pd.DataFrame:
    """What each split holds, one row each, the guard last.

    Returns:
        Columns `split`, `tiles`, `tiles_with_buildings`, `buildings`, `coverage` (share of building pixels),
        `area_km2` (of ground with imagery), `blocks`.
    """
    rows = []
    for split in (*SPLITS, GUARD):
        tiles = manifest[manifest["split"] == split]
        pixels = tiles["width"] * tiles["height"]
        ground = pixels * tiles["valid_share"] * tiles["gsd_x_m"] * tiles["gsd_y_m"]
        rows.append(
            {
                "split": split,
                "tiles": len(tiles),
                "tiles_with_buildings": int((tiles["buildings"] > 0).sum()),
                "buildings": int(tiles["buildings"].sum()),
                "coverage": float((tiles["coverage"] * pixels).sum() / max(pixels.sum(), 1)),
                "area_km2": float(ground.sum() / 1e6),
                "blocks": len(tiles[["aoi", "block"]].drop_duplicates()),
            }
        )
    return pd.DataFrame(rows)


def block_size(manifest: pd.DataFrame) -> float | None:
    """Side of the blocks in force, metres, of the manifest of one AOI; None when each tile was its own block."""
    size = re.search(r"@([\d.e+]+)$", str(manifest["block"].iloc[0]))
    return float(size[1]) if size else None


def is_assigned(manifest: pd.DataFrame) -> bool:
    """Whether the user assigned the tiles of the manifest of one AOI."""
    return str(manifest["block"].iloc[0]).endswith(_ASSIGNED)


def digest(manifest: pd.DataFrame) -> str:
    """Twelve hexadecimal digits that tell this split from any other: AOI, tile and split of every row."""
    rows = sorted(zip(manifest["aoi"], manifest["tile_id"], manifest["split"], strict=True))
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:12]


def write_manifest(manifest: pd.DataFrame, path: Path, spec: SplitSpec) -> str:
    """Write the manifest as Parquet, atomically, and return its digest.

    The schema's metadata holds, as JSON under `footprint_split`, the spec, the digest and `block_m_in_force`
    (null when each tile was its own block); `by` is "table" where the user assigned the tiles.
    """
    stamp = digest(manifest)
    described = {**asdict(spec), "block_m_in_force": block_size(manifest), "digest": stamp}
    if is_assigned(manifest):
        described["by"] = "table"
    table = pa.Table.from_pandas(manifest, preserve_index=False)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), "footprint_split": json.dumps(described)})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)
    return stamp


def read_manifests(paths: list[Path]) -> pd.DataFrame:
    """The rows of several manifests as one.

    Raises:
        DatasetError: one is missing, or of an older form, or there are none.
    """
    missing = [path for path in paths if not path.exists()]
    if missing or not paths:
        raise DatasetError(
            f"There is no split manifest {'for ' + missing[0].parent.name if missing else 'at all'}.",
            fix="Prepare an AOI first: footprint run, or materialize split_manifests.",
        )
    tables = []
    for path in paths:
        table = pq.read_table(path)
        if lacking := [name for name in COLUMNS if name not in table.column_names]:
            raise DatasetError(
                f"{path.parent.name}: its split manifest is of an older form; it lacks {', '.join(lacking)}.",
                fix="Materialize split_manifests again.",
            )
        tables.append(table.to_pandas())
    return pd.concat(tables, ignore_index=True)
