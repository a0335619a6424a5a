"""Checks of what training gets: masks and splits. Each answers the question in its docstring."""

import numpy as np
import pandas as pd

from footprint_pipeline.dataset.check_spec import CheckSpec, Finding, PreparedAoi, counted, named
from footprint_pipeline.errors import DatasetError

SPLITS = ("train", "validation", "test")
GUARD = "guard"
"""The split of tiles that are kept out between blocks."""
_DEGREES_PER_METRE = 1 / 111_195


def every_tile_has_a_mask(prepared: PreparedAoi, spec: CheckSpec) -> Finding:
    """Is there a mask for every tile?"""
    missing = [tile_id for tile_id in prepared.grids.index if not prepared.mask(tile_id).exists()]
    return Finding(
        [f"{counted(missing)} without a mask."] if missing else [],
        f"{len(prepared.grids)} masks.",
        {"tiles": len(prepared.grids), "missing": len(missing)},
        "Materialize mask_tiles again.",
    )


def masks_agree_with_polygons(prepared: PreparedAoi, spec: CheckSpec) -> Finding:
    """Do masks cover what the polygons cover, tile by tile and together?"""
    import shapely

    from footprint_pipeline.dataset.masks import read_mask

    there = [tile_id for tile_id in prepared.grids.index if prepared.mask(tile_id).exists()]
    size = min(spec.sample_tiles, len(there))
    sample = np.random.default_rng(spec.seed).choice(len(there), size, replace=False)
    on_grid = prepared.polygons["geometry_px"].to_numpy()
    rows_of, nothing = prepared.polygons.groupby("tile_id").indices, np.empty(0, int)
    problems: list[str] = []
    records = []
    for tile_id in (there[i] for i in np.sort(sample)):
        tile = prepared.grids.loc[tile_id]
        try:
            mask = read_mask(prepared.mask(tile_id))
        except (OSError, DatasetError) as error:
            problems.append(f"`{tile_id}`: its mask cannot be read ({str(error).splitlines()[0]}).")
            continue
        if mask.shape != (tile["height"], tile["width"]):
            problems.append(
                f"`{tile_id}`: its mask is {mask.shape[1]} x {mask.shape[0]} pixels, "
                f"the tile {tile['width']} x {tile['height']}."
            )
            continue
        if mask.max() > 1:
            problems.append(f"`{tile_id}`: its mask holds other values than 0 and 1, up to {mask.max()}.")
            continue
        drawn_px = int(np.count_nonzero(mask))
        covered_px = float(shapely.disjoint_subset_union_all(on_grid[rows_of.get(tile_id, nothing)]).area)
        records.append((tile_id, drawn_px, covered_px, tile["gsd_x_m"] * tile["gsd_y_m"]))
    table = pd.DataFrame(records, columns=["tile_id", "drawn_px", "covered_px", "pixel_m2"])
    table["difference_px"] = table["drawn_px"] - table["covered_px"]
    allowed_px = spec.tile_area_tolerance * table["covered_px"] + spec.area_tolerance_px
    table["excess"] = table["difference_px"].abs() / allowed_px
    table = table.sort_values("excess", ascending=False)
    for row in table[table["excess"] > 1].head(3).itertuples():
        problems.append(
            f"`{row.tile_id}`: {row.drawn_px} building pixels in its mask, {row.covered_px:.0f} under its polygons "
            f"({row.difference_px * row.pixel_m2:+.0f} m²)."
        )
    if (wrong := int((table["excess"] > 1).sum())) > 3:
        problems.append(f"And {wrong - 3} tiles more of {len(table)} compared.")
    drawn_m2 = float((table["drawn_px"] * table["pixel_m2"]).sum())
    covered_m2 = float((table["covered_px"] * table["pixel_m2"]).sum())
    pixels_m2 = spec.area_tolerance_px * float(np.sqrt((table["pixel_m2"] ** 2).sum()))
    if abs(drawn_m2 - covered_m2) > spec.aoi_area_tolerance * covered_m2 + pixels_m2:
        problems.append(f"All together: {drawn_m2:,.0f} m² of building in the masks, {covered_m2:,.0f} m² in polygons.")
    return Finding(
        problems,
        f"{drawn_m2:,.0f} m² of building in {len(table)} masks, {covered_m2:,.0f} m² under the polygons.",
        {
            "tiles_compared": len(table),
            "masks_m2": drawn_m2,
            "polygons_m2": covered_m2,
            "difference_share": (drawn_m2 - covered_m2) / covered_m2 if covered_m2 else 0.0,
            "worst_tile": str(table["tile_id"].iloc[0]) if len(table) else "",
            "worst_difference_px": float(table["difference_px"].iloc[0]) if len(table) else 0.0,
        },
        "Materialize mask_tiles again.",
    )


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
        if thing in in_use:
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
    import shapely

    manifest = prepared.manifest
    by_block = "block" in manifest and (manifest["block"].duplicated().any() or (manifest["split"] == GUARD).any())
    in_use = manifest[(manifest["split"] != GUARD) & manifest["tile_id"].isin(prepared.grids.index)]
    outlines = prepared.grids.loc[in_use["tile_id"]].geometry.to_numpy()
    # Outlines of neighbours need not meet to the last digit: a tenth of a pixel is still touching.
    near_deg = 0.1 * float(prepared.tiles[["gsd_x_m", "gsd_y_m"]].min(axis=None)) * _DEGREES_PER_METRE
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
        "Scores may flatter: they are of ground beside what was learnt. Split by block, in larger blocks or with more "
        "tiles.",
        blocking=bool(by_block),
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
            extreme = tiles.sort_values(_share_column(manifest), ascending=share < spec.min_coverage)["tile_id"]
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


def _share_column(manifest: pd.DataFrame) -> str:
    return "coverage" if "coverage" in manifest else "building_share"


def _with_buildings(manifest: pd.DataFrame, split: str) -> int:
    return int(((manifest["split"] == split) & (manifest[_share_column(manifest)] > 0)).sum())


def _coverage(manifest: pd.DataFrame) -> float:
    """Share of building pixels of some tiles; 0 when there are none."""
    pixels = manifest["width"] * manifest["height"]
    return float((manifest[_share_column(manifest)] * pixels).sum() / max(pixels.sum(), 1))
