"""A split that a user wrote down: a CSV of the columns `tile_id` and `split`, and `aoi` where it is of several AOIs.

What belongs here: reading such a table and holding it against the tiles. What decides where there is none is
`assignment`'s business. Tiles that the table does not name go to the guard: they neither teach, tune nor judge.
"""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from footprint_pipeline.dataset.spec import GUARD, SPLITS
from footprint_pipeline.errors import DatasetError, first_line
from footprint_pipeline.many import listed

_FIX = "Give a CSV, with commas, of the columns tile_id and split, and aoi where it is of several AOIs."


def read_split_table(path: Path, *, aoi: str, several: bool = False) -> dict[str, str]:
    """The split of each tile of an AOI that the table names.

    Args:
        path: the CSV; columns of other names are passed over.
        aoi: where the table has a column `aoi`, only the rows of this one count.
        several: whether it must have one.

    Raises:
        DatasetError: it cannot be read, lacks a column, names no tile, a split that is none, or a tile twice.
    """
    try:
        with warnings.catch_warnings():  # of a comma too many at the end of rows, which does no harm
            warnings.simplefilter("ignore", pd.errors.ParserWarning)
            table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False)
    except (OSError, ValueError) as error:  # ValueError: empty, not a table, or not UTF-8
        raise DatasetError(f"{path}: cannot be read as CSV ({first_line(error)}).", fix=_FIX) from None
    table = table.rename(columns=str.strip)
    if twice := [name for name in ("tile_id", "split", "aoi") if (table.columns == name).sum() > 1]:
        raise DatasetError(f"{path}: has the column {twice[0]} twice.", fix="Leave one of them.")
    table = table.apply(lambda column: column.str.strip())
    if lacking := [name for name in ("tile_id", "split") if name not in table]:
        raise DatasetError(f"{path}: has no column {' and no '.join(lacking)}.", fix=_FIX)
    table = table[(table != "").any(axis=1)]
    if several and "aoi" not in table:
        raise DatasetError(f"{path}: has no column aoi, but is of several AOIs.", fix=_FIX)
    if "aoi" in table:
        others = listed(table["aoi"].unique())
        table = table[table["aoi"] == aoi]
        if table.empty and others:
            raise DatasetError(
                f"{path}: names no tile of {aoi}; its column aoi holds {others}.",
                fix="Write the AOI's name there, or give the area that name (--aoi).",
            )
    if table.empty:
        raise DatasetError(f"{path}: names no tile.", fix=_FIX)
    known = (*SPLITS, GUARD)
    wrong = table[~table["split"].isin(known)]
    if len(wrong):
        raise DatasetError(
            f"{path}: {wrong['tile_id'].iloc[0]} cannot go to {wrong['split'].iloc[0]!r}.",
            fix=f"Write one of {', '.join(known)}.",
        )
    twice = table["tile_id"][table["tile_id"].duplicated()]
    if len(twice):
        raise DatasetError(f"{path}: names {listed(twice)} more than once.", fix="Write each tile once.")
    return dict(zip(table["tile_id"], table["split"], strict=True))


def splits_of(tile_ids: Iterable[str], assigned: Mapping[str, str]) -> np.ndarray:
    """The split of every tile, str, shape (N,): the one assigned, else the guard.

    Raises:
        DatasetError: a tile is assigned that is none of these.
    """
    ids = list(tile_ids)
    unknown = assigned.keys() - set(ids)
    if unknown:
        raise DatasetError(
            f"{len(unknown)} of the {len(assigned)} tiles that are assigned to a split are not there: "
            f"{listed(sorted(unknown))}.",
            fix=f"Name tiles as the tile index does, such as {listed(sorted(ids))}.",
        )
    return np.array([assigned.get(tile_id, GUARD) for tile_id in ids], object)
