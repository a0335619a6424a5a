"""Checks of what training gets: masks and splits. Each answers the question in its docstring."""

import numpy as np
import pandas as pd
import shapely

from footprint_pipeline.dataset.checks.spec import CheckSpec, Finding, PreparedAoi, counted, named
from footprint_pipeline.dataset.masks import read_mask
from footprint_pipeline.dataset.spec import GUARD, SPLITS
from footprint_pipeline.dataset.splits import block_size, is_assigned
from footprint_pipeline.errors import DatasetError
from footprint_pipeline.footprints.area import METRES_PER_DEGREE


def every_tile_has_a_mask(prepared: PreparedAoi, spec: CheckSpec) -> Finding:
    """Is there a mask for every tile, and the index that is written when all are done?"""
    missing = [tile_id for tile_id in prepared.grids.index if not prepared.mask(tile_id).exists()]
    problems = [f"{counted(missing)} without a mask."] if missing else []
    try:
        prepared.mask_index  # noqa: B018  (reading it is the check)
    except DatasetError as error:
        problems.append(error.problem)
    return Finding(
        problems,
        f"{len(prepared.grids)} masks.",
        {"tiles": len(prepared.grids), "missing": len(missing)},
        "Materialize mask_tiles again.",
    )


def masks_agree_with_polygons(prepared: PreparedAoi, spec: CheckSpec) -> Finding:
    """Are masks as they were drawn, and do they cover what the polygons cover, tile by tile and together?"""
    there = [tile_id for tile_id in prepared.grids.index if prepared.mask(tile_id).exists()]
    size = min(spec.sample_tiles, len(there))
    sample = np.sort(np.random.default_rng(spec.seed).choice(len(there), size, replace=False))
    table, unusable = _areas(prepared, [there[i] for i in sample])
    altered = [
        f"`{row.tile_id}`: its mask was altered: {row.indexed_px:.0f} building pixels then, {row.mask_px} now."
        for row in table[table["indexed_px"] != table["mask_px"]].itertuples()
    ]
    difference_px = table["mask_px"] - table["polygons_px"]
    excess = difference_px.abs() / (spec.tile_area_tolerance * table["polygons_px"] + spec.area_tolerance_px)
    table = table.assign(difference_px=difference_px, excess=excess).sort_values("excess", ascending=False)
    far = [
        f"`{row.tile_id}`: {row.mask_px} building pixels in its mask, {row.polygons_px:.0f} under its polygons "
        f"({row.difference_px * row.pixel_m2:+.0f} m²)."
        for row in table[table["excess"] > 1].itertuples()
    ]
    masks_m2, polygons_m2 = (float((table[of] * table["pixel_m2"]).sum()) for of in ("mask_px", "polygons_px"))
    whole_pixels_m2 = spec.area_tolerance_px * float(np.sqrt((table["pixel_m2"] ** 2).sum()))
    problems = [*_first(unusable), *_first(altered), *_first(far)]
    if abs(masks_m2 - polygons_m2) > spec.aoi_area_tolerance * polygons_m2 + whole_pixels_m2:
        problems.append(
            f"All together: {masks_m2:,.0f} m² of building in the masks, {polygons_m2:,.0f} m² in polygons."
        )
    return Finding(
        problems,
        f"{masks_m2:,.0f} m² of building in {len(table)} masks, {polygons_m2:,.0f} m² under the polygons.",
        {
            "tiles_compared": len(table),
            "masks_m2": masks_m2,
            "polygons_m2": polygons_m2,
            "difference_share": (masks_m2 - polygons_m2) / polygons_m2 if polygons_m2 else 0.0,
            "worst_tile": str(table["tile_id"].iloc[0]) if len(table) else "",
            "worst_difference_px": float(table["difference_px"].iloc[0]) if len(table) else 0.0,
        },
        "Materialize mask_tiles again.",
    )


def _areas(prepared: PreparedAoi, tile_ids: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """Building pixels of tiles in their masks, in the masks' index and under their polygons; and masks that are none.

    Returns:
        Columns `tile_id`, `mask_px`, `indexed_px`, `polygons_px` (overlaps counted once), `pixel_m2`; and sentences.
    """
    try:
        indexed_px = prepared.mask_index["building_pixels"]
    except DatasetError:  # every_tile_has_a_mask tells it
        indexed_px = pd.Series(dtype=int)
    on_grid = prepared.polygons["geometry_px"].to_numpy()
    rows_of, nothing = prepared.polygons.groupby("tile_id").indices, np.empty(0, int)
    records, unusable = [], []
    for tile_id in tile_ids:
        tile = prepared.grids.loc[tile_id]
        size = (tile["height"], tile["width"])
        try:
            mask = read_mask(prepared.mask(tile_id))
        except DatasetError as error:
            unusable.append(f"`{tile_id}`: {error.problem}")
            continue
        if mask.shape != size:
            unusable.append(
                f"`{tile_id}`: its mask is {mask.shape[1]} x {mask.shape[0]} pixels, the tile {size[1]} x {size[0]}."
            )
        elif mask.max() > 1:
            unusable.append(f"`{tile_id}`: its mask holds other values than 0 and 1, up to {mask.max()}.")
        else:
            mask_px = int(np.count_nonzero(mask))
            polygons_px = shapely.disjoint_subset_union_all(on_grid[rows_of.get(tile_id, nothing)]).area
            pixel_m2 = tile["gsd_x_m"] * tile["gsd_y_m"]
            records.append((tile_id, mask_px, indexed_px.get(tile_id, mask_px), polygons_px, pixel_m2))
    columns = ["tile_id", "mask_px", "indexed_px", "polygons_px", "pixel_m2"]
    return pd.DataFrame.from_records(records, columns=columns), unusable


def _first(problems: list[str], *, shown: int = 3) -> list[str]:
    more = len(problems) - shown
    return problems if more <= 0 else [*problems[:shown], f"And {more} more like it."]


def splits_are_apart(prepared: PreparedAoi, spec: CheckSpec) -> Finding:
    """Is every tile of the manifest known and in one split only, and every block as well?"""
    manifest = prepared.manifest
    in_use = manifest[manifest["split"] != GUARD]
    wrong = {
        "listed more than once": manifest["tile_id"][manifest["tile_id"].duplicated()].unique(),
        "not in the tile index": manifest["tile_id"][~manifest["tile_id"].isin(prepared.grids.index)],
        "in a split that is none": manifest["tile_id"][~manifest["split"].isin((*SPLITS, GUARD))],
    }
    problems = [f"{counted(ids)} {what}." for what, ids in wrong.items() if len(ids)]
    numbers = {"tiles": len(manifest), "guard_tiles": len(manifest) - len(in_use)}
    for thing in ("tile_id", "block"):
        splits = in_use.groupby(thing)["split"].nunique()
        torn = splits.index[splits > 1]
        numbers[f"{thing.removesuffix('_id')}s_in_two_splits"] = len(torn)
        if len(torn):
            problems.append(f"{counted(torn, thing.removesuffix('_id'))} in more than one split.")
    return Finding(
        problems,
        f"{len(in_use)} tiles, each in one split; {len(manifest) - len(in_use)} kept out between them.",
        numbers,
        "Materialize image_tiles and split_manifests again.",
    )


def neighbours_share_a_split(prepared: PreparedAoi, spec: CheckSpec) -> Finding:
    """Are tiles of different splits apart on the ground, so that no split has seen another's surroundings?"""
    manifest = prepared.manifest
    by_block = block_size(manifest) is not None
    in_use = manifest[(manifest["split"] != GUARD) & manifest["tile_id"].isin(prepared.grids.index)]
    outlines = prepared.grids.loc[in_use["tile_id"]].geometry.to_numpy()
    # Outlines of neighbours need not meet to the last digit: a tenth of a pixel is still touching.
    near_deg = 0.1 * float(prepared.tiles[["gsd_x_m", "gsd_y_m"]].min(axis=None)) / METRES_PER_DEGREE
    left, right = shapely.STRtree(outlines).query(outlines, predicate="dwithin", distance=near_deg)
    split = in_use["split"].to_numpy()
    crossing = (left < right) & (split[left] != split[right])
    left, right = left[crossing], right[crossing]
    smaller = np.minimum(shapely.area(outlines[left]), shapely.area(outlines[right]))
    overlap = shapely.area(shapely.intersection(outlines[left], outlines[right])) / smaller
    worst = np.argsort(-overlap, kind="stable")
    ids = in_use["tile_id"].to_numpy()
    pairs = [f"{ids[a]} ({split[a]}) | {ids[b]} ({split[b]})" for a, b in zip(left[worst], right[worst], strict=True)]
    return Finding(
        [f"{len(pairs)} pairs of neighbouring tiles lie in different splits: {named(pairs)}."] if pairs else [],
        "No tile touches one of another split.",
        {
            "by": "block" if by_block else "tile",
            "touching_pairs": len(pairs),
            "largest_overlap": round(float(overlap.max()), 6) if pairs else 0.0,
        },
        "Scores may flatter: they are of ground beside what was learnt. Split by block, or take more tiles.",
        blocking=by_block,
    )


def every_split_has_buildings(prepared: PreparedAoi, spec: CheckSpec) -> Finding:
    """Does every split have tiles, and tiles with buildings?"""
    manifest = prepared.manifest
    with_buildings = {name: _with_buildings(manifest, name) for name in SPLITS}
    return Finding(
        [f"{name} has no tile with a building." for name, count in with_buildings.items() if count == 0],
        f"Tiles with buildings: {', '.join(f'{count} {name}' for name, count in with_buildings.items())}.",
        {f"{name}_with_buildings": count for name, count in with_buildings.items()},
        "Take more tiles, or check that the labels belong to these tiles; then materialize split_manifests again.",
        blocking=not is_assigned(manifest),  # who assigned the tiles may mean it so
    )


def classes_are_in_balance(prepared: PreparedAoi, spec: CheckSpec) -> Finding:
    """Are there neither too few nor too many buildings, in the AOI and in each split?"""
    manifest = prepared.manifest
    coverage = {"all": _coverage(manifest)}
    problems = []
    for name in SPLITS:
        coverage[name] = _coverage(manifest[manifest["split"] == name])
        count = _with_buildings(manifest, name)
        if 0 < count < spec.min_tiles_with_buildings:
            problems.append(
                f"{name} has {count} tile{'s' if count > 1 else ''} with buildings, fewer than "
                f"{spec.min_tiles_with_buildings}: its figures depend on chance."
            )
    for name, share in coverage.items():
        if not spec.min_coverage <= share <= spec.max_coverage:
            tiles = manifest if name == "all" else manifest[manifest["split"] == name]
            extreme = tiles.sort_values("coverage", ascending=share < spec.min_coverage)["tile_id"]
            problems.append(
                f"{share:.1%} of {name}'s pixels are building, outside {spec.min_coverage:.1%} to "
                f"{spec.max_coverage:.1%}; look at {named(extreme)}."
            )
    return Finding(
        problems,
        f"Building pixels: {', '.join(f'{share:.1%} {name}' for name, share in coverage.items())}.",
        {f"coverage_{name}": share for name, share in coverage.items()},
        "Take more tiles, or leave out tiles that nobody has labelled.",
    )


def _with_buildings(manifest: pd.DataFrame, split: str) -> int:
    return int(((manifest["split"] == split) & (manifest["coverage"] > 0)).sum())


def _coverage(manifest: pd.DataFrame) -> float:
    """Share of building pixels of some tiles; 0 when there are none."""
    pixels = manifest["width"] * manifest["height"]
    return float((manifest["coverage"] * pixels).sum() / max(pixels.sum(), 1))
