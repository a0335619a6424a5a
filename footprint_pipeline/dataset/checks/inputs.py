"""Checks of what comes in: image tiles and labels. Each answers the question in its docstring."""

from pathlib import Path

import numpy as np
import pandas as pd
import shapely
from pyproj import CRS
from pyproj.exceptions import CRSError

from footprint_pipeline.dataset.checks.spec import CheckSpec, Finding, PreparedAoi, counted, named
from footprint_pipeline.errors import DatasetError
from footprint_pipeline.footprints.area import METRES_PER_DEGREE

_HAIR_PX = 0.01


def tiles_have_grids(prepared: PreparedAoi, spec: CheckSpec) -> Finding:
    """Is every tile there, once, with a known CRS and a plausible ground sample distance, and not tiny?"""

    def known(crs: object) -> bool:
        try:
            return CRS.from_user_input(crs) is not None
        except CRSError:
            return False

    tiles = prepared.tiles
    known_crs = {crs: known(crs) for crs in tiles["crs"].unique()}
    gsd_m = tiles[["gsd_x_m", "gsd_y_m"]].to_numpy(float)
    side_px = tiles[["width", "height"]].min(axis=1)
    wrong = {
        "in the index more than once": tiles["tile_id"].duplicated(),
        "without a file": [not Path(path).exists() for path in tiles["path"]],
        "without a known CRS": [not known_crs[crs] for crs in tiles["crs"]],
        f"with pixels outside {spec.min_gsd_m:g} to {spec.max_gsd_m:g} m": ~(
            (gsd_m >= spec.min_gsd_m) & (gsd_m <= spec.max_gsd_m)
        ).all(axis=1),
        f"less than {spec.min_side_px} pixels wide or high": side_px < spec.min_side_px,
    }
    return Finding(
        [f"{counted(tiles['tile_id'][rows])} {what}." for what, rows in wrong.items() if np.any(rows)],
        f"{len(tiles)} tiles, pixels of {gsd_m.min():.2f} to {gsd_m.max():.2f} m.",
        {
            "tiles": len(tiles),
            "crs": ", ".join(sorted(map(str, known_crs))),
            "gsd_m_min": float(gsd_m.min()),
            "gsd_m_max": float(gsd_m.max()),
            "side_px_min": int(side_px.min()),
        },
        "Check these tiles at their source, their georeference above all, then materialize image_tiles again.",
    )


def tiles_are_alike(prepared: PreparedAoi, spec: CheckSpec) -> Finding:
    """Do the tiles share CRS, type, size and ground sample distance?"""
    tiles = prepared.tiles
    problems = []
    for column in ("crs", "dtype"):
        usual = tiles[column].mode(dropna=False).iloc[0]
        odd = tiles.loc[tiles[column] != usual, "tile_id"]
        if len(odd):
            problems.append(f"{counted(odd)} with another {column} than the others' {usual}.")
    for column in ("width", "height"):
        usual = tiles[column].median()
        odd = tiles.loc[(tiles[column] - usual).abs() > spec.side_spread_px, "tile_id"]
        if len(odd):
            problems.append(f"{counted(odd)} with a {column} far from the median, {usual:.0f} pixels.")
    gsd_m = np.sqrt(tiles["gsd_x_m"] * tiles["gsd_y_m"])
    deviation = (gsd_m / gsd_m.median() - 1).abs()
    odd = tiles.loc[deviation > spec.gsd_spread, "tile_id"]
    if len(odd):
        problems.append(f"{counted(odd)} with pixels far from the median, {gsd_m.median():.2f} m.")
    return Finding(
        problems,
        f"{tiles['width'].median():.0f} x {tiles['height'].median():.0f} pixels of {gsd_m.median():.2f} m.",
        {
            "width_px_median": float(tiles["width"].median()),
            "height_px_median": float(tiles["height"].median()),
            "gsd_m_median": float(gsd_m.median()),
            "gsd_deviation": float(deviation.max()),
        },
        "Training resamples tiles to one distance; where a tile's grid is wrong, leave the tile out.",
    )


def tiles_have_imagery(prepared: PreparedAoi, spec: CheckSpec) -> Finding:
    """Is enough of the tiles imagery, and not nodata?"""
    tiles = prepared.tiles
    share = float(np.average(tiles["valid_share"], weights=tiles["width"] * tiles["height"]))
    blank = tiles.loc[tiles["valid_share"] == 0, "tile_id"]
    problems = [f"{counted(blank)} without a pixel of imagery."] if len(blank) else []
    if share < spec.min_valid_share:
        emptiest = tiles.sort_values("valid_share")["tile_id"]
        problems.append(
            f"{share:.0%} of the pixels are imagery, less than {spec.min_valid_share:.0%}; fewest in {named(emptiest)}."
        )
    return Finding(
        problems,
        f"{share:.0%} of the pixels are imagery.",
        {"valid_share": share, "blank_tiles": len(blank)},
        "Leave out tiles at the edge of the imagery, or take more tiles.",
    )


def labels_lie_on_their_tiles(prepared: PreparedAoi, spec: CheckSpec) -> Finding:
    """Does every label have a tile, and lie on it, on the ground and in pixels?"""
    polygons, grids = prepared.polygons, prepared.grids
    has_tile = polygons["tile_id"].isin(grids.index).to_numpy()
    grid = grids.loc[polygons["tile_id"][has_tile]]
    pixel_deg = grid[["gsd_x_m", "gsd_y_m"]].max(axis=1).to_numpy() / METRES_PER_DEGREE
    frame_px = grid[["width", "height"]].to_numpy(float)
    bounds_px = shapely.bounds(polygons["geometry_px"].to_numpy()[has_tile]).reshape(-1, 4)
    on_tile, in_frame = has_tile.copy(), has_tile.copy()
    on_tile[has_tile] = shapely.dwithin(polygons.geometry.to_numpy()[has_tile], grid.geometry.to_numpy(), pixel_deg)
    in_frame[has_tile] = ((bounds_px[:, :2] >= -_HAIR_PX) & (bounds_px[:, 2:] <= frame_px + _HAIR_PX)).all(axis=1)
    labels = (polygons["tile_id"] + "/" + polygons["building_id"].astype(str)).to_numpy()
    wrong = {
        "without a tile in the index": ~has_tile,
        "that do not lie on their tile on the ground": has_tile & ~on_tile,
        "that leave their tile's frame of pixels": has_tile & ~in_frame,
    }
    problems = [f"{counted(labels[rows], 'label')} {what}." for what, rows in wrong.items() if rows.any()]
    if polygons.crs is None or polygons.crs.to_epsg() != 4326:
        problems.append(f"The polygons' CRS is {polygons.crs}, not EPSG:4326.")
    labelled_tiles = int(polygons["tile_id"][has_tile].nunique())
    return Finding(
        problems,
        f"{len(polygons)} labels on {labelled_tiles} of {len(grids)} tiles.",
        {"labels": len(polygons), "labelled_tiles": labelled_tiles}
        | dict(zip(("no_tile", "off_tile", "out_of_frame"), (int(rows.sum()) for rows in wrong.values()), strict=True)),
        "Materialize image_tiles, then building_polygons again; if it stays, labels and imagery do not fit together.",
    )


def few_labels_are_lost(prepared: PreparedAoi, spec: CheckSpec) -> Finding:
    """Were nearly all labels of the tiles used, not rejected, not outside their tile, and no slivers?"""
    try:
        counts = prepared.label_counts
        rejected = pd.read_csv(prepared.folder.rejected_labels, dtype=str)
    except (DatasetError, FileNotFoundError) as error:
        return _unrecorded(error)
    # Labels of tiles that the AOI does not have are no loss to it.
    here = rejected[rejected["tile_id"].isin(prepared.grids.index)]
    lost = len(here) + counts.outside
    labels = len(prepared.polygons) + counts.too_small + counts.covered + lost
    problems = []
    if lost > spec.max_lost_share * labels:
        why = ", ".join(f"{reason} ({n})" for reason, n in here["reason"].value_counts().head(3).items())
        tiles = f" on {named(here['tile_id'].unique())}: {why}" if why else ""
        problems.append(
            f"{lost} of {labels} labels are lost, more than {spec.max_lost_share:.0%}: "
            f"{len(here)} rejected{tiles}; {counts.outside} outside their tile."
        )
    if counts.slivers > spec.max_lost_share * (labels + counts.slivers):
        problems.append(
            f"{counts.slivers} of {labels + counts.slivers} labels have no area to speak of, more than "
            f"{spec.max_lost_share:.0%}."
        )
    return Finding(
        problems,
        f"{lost} of {labels} labels are lost.",
        {
            "labels": labels,
            "rejected": len(here),
            "outside": counts.outside,
            "lost_share": lost / max(labels, 1),
            "rejected_of_other_tiles": len(rejected) - len(here),
            "slivers": counts.slivers,
        },
        "Mend the labels at their source: their CRS and the order of their coordinates where they lie outside, and "
        "those that labels_rejected.csv lists; then materialize building_polygons again.",
    )


def few_labels_were_repaired(prepared: PreparedAoi, spec: CheckSpec) -> Finding:
    """Were nearly all labels valid polygons as they came?"""
    try:
        counts = prepared.label_counts
    except DatasetError as error:
        return _unrecorded(error)
    repaired, labels = counts.repaired, len(prepared.polygons) + counts.too_small + counts.covered
    too_many = repaired > spec.max_repaired_share * labels
    said = f"{repaired} of {labels} labels crossed themselves and were repaired"
    return Finding(
        [f"{said}, more than {spec.max_repaired_share:.0%}."] if too_many else [],
        f"{said}.",
        {"repaired": repaired, "repaired_share": repaired / max(labels, 1)},
        "Look at some of them over their tiles: a repair can lose a part of a building.",
    )


def tiles_are_labelled(prepared: PreparedAoi, spec: CheckSpec) -> Finding:
    """Does nearly every tile have a label, or a word that it has no building?"""
    try:
        unlabelled = prepared.grids.index.intersection(list(prepared.label_counts.unlabelled))
    except DatasetError as error:
        return _unrecorded(error)
    tiles = len(prepared.grids)
    too_many = len(unlabelled) > spec.max_unlabelled_share * tiles
    return Finding(
        [f"{counted(unlabelled)} of {tiles} have no label, nor a word that they are empty."] if too_many else [],
        f"{len(unlabelled)} of {tiles} tiles have no label, nor a word that they are empty.",
        {"unlabelled": len(unlabelled), "unlabelled_share": len(unlabelled) / max(tiles, 1)},
        "They are left out of the splits. Of one that has no building say so: by a row with building -1 and "
        "POLYGON EMPTY, or a label file without features.",
    )


def _unrecorded(error: Exception) -> Finding:
    problem = error.problem if isinstance(error, DatasetError) else f"{error}."
    return Finding([problem], "", {}, "Materialize building_polygons again.")
