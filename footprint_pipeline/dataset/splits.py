"""Split manifests: which tile teaches, which one tunes, which one judges.

A manifest is Parquet, one row a tile: everything that training needs to know about it. Columns: `tile_id`,
`aoi`, `split`, `path`, `mask_path`, `width`, `height`, `gsd_x_m`, `gsd_y_m`, `valid_share`, `low`, `high`,
`buildings` (labels) and `building_share` (of pixels). Its schema's metadata holds the split's spec.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from footprint_pipeline.errors import DatasetError
from footprint_pipeline.files import atomic_path

SPLITS = ("train", "validation", "test")
COLUMNS = (
    "tile_id", "aoi", "split", "path", "mask_path", "width", "height", "gsd_x_m", "gsd_y_m",
    "valid_share", "low", "high", "buildings", "building_share",
)  # fmt: skip


@dataclass(frozen=True)
class SplitSpec:
    """How tiles are shared out. The defaults are the article's.

    Attributes:
        train: share of the tiles to train on.
        validation: share to stop early and to choose the tolerance on.
        test: share to judge on.
        seed: another seed is another split.
        drop_empty: leave out tiles without a building, as the article does.
    """

    train: float = 0.7
    validation: float = 0.1
    test: float = 0.2
    seed: int = 1337
    drop_empty: bool = False

    def __post_init__(self) -> None:
        if min(self.train, self.validation, self.test) <= 0 or abs(self.train + self.validation + self.test - 1) > 1e-9:
            raise DatasetError(
                f"Shares {self.train}, {self.validation}, {self.test} are no split.",
                fix="They must be positive and add up to 1.",
            )


def assign_splits(tile_ids: list[str], has_building: np.ndarray, spec: SplitSpec) -> np.ndarray:
    """The split of every tile: the same on every machine, whatever the order of the tiles.

    Tiles are ranked by a hash of seed and id, those with buildings and those without apart, so that each
    split gets its share of both. Every split gets at least one tile with buildings.

    Args:
        tile_ids: unique ids.
        has_building: bool, shape (N,).
        spec: shares and seed.

    Returns:
        "train", "validation" or "test", shape (N,).

    Raises:
        DatasetError: fewer than three tiles have a building.
    """
    if int(has_building.sum()) < len(SPLITS):
        raise DatasetError(
            f"{int(has_building.sum())} of {len(tile_ids)} tiles have a building; at least three are needed, "
            "one to train on, one to tune on, one to judge on.",
            fix="Take more tiles (a larger --tiles), or check that the labels belong to these tiles.",
        )
    rank = np.array([hashlib.sha256(f"{spec.seed}/{tile_id}".encode()).digest() for tile_id in tile_ids], "S32")
    split = np.full(len(tile_ids), "train", object)
    for stratum, least in ((has_building, 1), (~has_building, 0)):
        members = np.flatnonzero(stratum)
        members = members[np.argsort(rank[members], kind="stable")]
        tests = min(max(least, round(spec.test * len(members))), len(members) - 2 * least)
        validations = min(max(least, round(spec.validation * len(members))), len(members) - tests - least)
        split[members[:tests]] = "test"
        split[members[tests : tests + validations]] = "validation"
    return split


def build_manifest(
    tiles: pd.DataFrame, buildings: pd.Series, building_share: pd.Series, mask_folder: Path, spec: SplitSpec
) -> pd.DataFrame:
    """The manifest of one AOI.

    Args:
        tiles: the tile index.
        buildings: labels by tile id (tiles without are absent).
        building_share: share of building pixels by tile id.
        mask_folder: where the masks lie.
        spec: how to split.
    """
    manifest = pd.DataFrame(tiles.drop(columns="geometry"))
    manifest["buildings"] = manifest["tile_id"].map(buildings).fillna(0).astype(int)
    manifest["building_share"] = manifest["tile_id"].map(building_share).astype(float)
    manifest["mask_path"] = [str(mask_folder / f"{tile_id}.tif") for tile_id in manifest["tile_id"]]
    if spec.drop_empty:
        manifest = manifest[manifest["buildings"] > 0]
    manifest["split"] = assign_splits(manifest["tile_id"].tolist(), (manifest["buildings"] > 0).to_numpy(), spec)
    return manifest[list(COLUMNS)].sort_values("tile_id", ignore_index=True)


def digest(manifest: pd.DataFrame) -> str:
    """Twelve hexadecimal digits that tell this split from any other: AOI, tile and split of every row."""
    rows = sorted(zip(manifest["aoi"], manifest["tile_id"], manifest["split"], strict=True))
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:12]


def write_manifest(manifest: pd.DataFrame, path: Path, spec: SplitSpec) -> str:
    """Write the manifest as Parquet, atomically, and return its digest."""
    table = pa.Table.from_pandas(manifest, preserve_index=False)
    stamp = {"footprint_split": json.dumps({**asdict(spec), "digest": digest(manifest)})}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **stamp})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)
    return digest(manifest)


def read_manifests(paths: list[Path]) -> pd.DataFrame:
    """The rows of several manifests as one.

    Raises:
        DatasetError: one is missing, or there are none.
    """
    missing = [path for path in paths if not path.exists()]
    if missing or not paths:
        raise DatasetError(
            f"There is no split manifest {'for ' + missing[0].parent.name if missing else 'at all'}.",
            fix="Prepare an AOI first: footprint run, or materialize split_manifests.",
        )
    return pd.concat([pq.read_table(path).to_pandas() for path in paths], ignore_index=True)
