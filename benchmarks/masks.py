"""Mask tiles of a full-size Rio: time, memory, and against the usual ways.

The sizes are of masks with all three bands, all else of the band `building` alone. Peers: writing the same masks with
rasterio and nothing else, on as many threads; solaris' way, which takes a tile at a time: read its GeoJSON with
GeoPandas, open its image for the grid, rasterize, write; and `rasterio.features.rasterize`.
"""

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
from rasterio.features import rasterize

from benchmarks import full_rio
from benchmarks.form import Figure, alone, in_turn, main
from footprint_pipeline.dataset.geotiff import encode
from footprint_pipeline.dataset.masks import mask_path, read_mask, read_mask_index, write_masks
from footprint_pipeline.dataset.polygons import build_polygon_table, write_polygon_table
from footprint_pipeline.dataset.rasterize import rasterize_polygons
from footprint_pipeline.dataset.spec import MaskSpec
from footprint_pipeline.dataset.tiles import read_tile_index

_BUILDING_ALONE = MaskSpec(border_m=0, contact_m=0)

_WRITE = """
import json, sys, time
from pathlib import Path
from footprint_pipeline.dataset.geotiff import encode
from footprint_pipeline.dataset.masks import write_masks
from footprint_pipeline.dataset.spec import MaskSpec
from footprint_pipeline.dataset.polygons import read_polygon_table
from footprint_pipeline.dataset.tiles import read_tile_index

home, count = Path(sys.argv[1]), int(sys.argv[2])
polygons = read_polygon_table(home / "polygons.parquet")
tiles = read_tile_index(home / "tiles.parquet")

def seconds(name, tiles, spec=MaskSpec()):
    started = time.perf_counter()
    write_masks(polygons, tiles, home / name, spec=spec)
    return time.perf_counter() - started

parts = {"sixteenth": tiles[: count // 16], "quarter": tiles[: count // 4], "whole": tiles}
answer = {name: seconds(name, part) for name, part in parts.items()}
answer["alone"] = seconds("alone", parts["quarter"], MaskSpec(border_m=0, contact_m=0))
print(json.dumps(answer))
"""


def measure(quick: bool) -> list[Figure]:
    """All sizes in a process of their own; peers on a sample of tiles, in turn with ours."""
    count, sample, rounds = (160, 64, 1) if quick else (full_rio.TILES, 300, 5)
    with tempfile.TemporaryDirectory(prefix="benchmark-masks-") as name:
        home = Path(name)
        labels = full_rio.build(tiles=count)
        labels.tiles.to_parquet(home / "tiles.parquet", index=False)
        polygons = build_polygon_table(labels.labels, labels.tiles).table
        write_polygon_table(polygons, home / "polygons.parquet")
        labels.write_geojson(home / "geojson", sample)
        del labels
        tiles = read_tile_index(home / "tiles.parquet").iloc[:sample]
        polygons = polygons[polygons["tile_id"].isin(tiles["tile_id"])]
        return [
            *_sizes(home, count),
            *_against_peers(home, polygons, tiles, rounds=rounds),
            _rasterizing(polygons, tiles, rounds=rounds),
        ]


def _sizes(home: Path, count: int) -> list[Figure]:
    took = alone(_WRITE, str(home), str(count))
    folder = home / "whole"
    shares = {}

    def from_index() -> None:
        shares["index"] = read_mask_index(folder)["building_share"].tolist()

    def from_masks() -> None:
        names = read_tile_index(home / "tiles.parquet")["tile_id"]
        shares["masks"] = [float(read_mask(mask_path(folder, name)).mean()) for name in names]

    index_s, masks_s = in_turn(from_index, from_masks, rounds=1)
    assert shares["index"] == shares["masks"]
    return [
        Figure(f"masks of {count:,} tiles", took["whole"], "s", goal="≤ 60", met=took["whole"] <= 60),
        Figure("peak memory", took["peak_mb"], "MB", goal="≤ 2000", met=took["peak_mb"] <= 2000),
        Figure("masks of a quarter of them", took["quarter"], "s"),
        Figure("masks of a sixteenth", took["sixteenth"], "s"),
        _linear(took["whole"] / count, took["sixteenth"] / (count // 16)),
        Figure("a quarter of the building band alone; peer: all bands", took["alone"], "s", took["quarter"]),
        Figure("building shares; peer: from the masks", index_s, "s", masks_s, masks_s / index_s),
    ]


def _linear(whole_s: float, part_s: float) -> Figure:
    ratio = part_s / whole_s
    return Figure(
        "a tile of all; peer: of a sixteenth", whole_s * 1e3, "ms", part_s * 1e3, ratio, "≥ 0.8", ratio >= 0.8
    )


def _against_peers(home: Path, polygons: gpd.GeoDataFrame, tiles: gpd.GeoDataFrame, *, rounds: int) -> list[Figure]:
    rows = list(tiles.itertuples(index=False))
    ours, theirs, plain = (home / name for name in ("ours", "theirs", "plain"))
    for folder in (theirs, plain):
        folder.mkdir()
    for row in rows:
        blank = np.zeros((3, row.height, row.width), np.uint8)
        image = encode(blank, crs=row.crs, transform=row.transform, names=["red", "green", "blue"], tags={})
        (home / f"{row.tile_id}.tif").write_bytes(image)
    write_masks(polygons, tiles, ours, spec=_BUILDING_ALONE)
    masks = {row.tile_id: read_mask(mask_path(ours, row.tile_id)) for row in rows}

    def solaris() -> None:
        for row in rows:
            with rasterio.open(home / f"{row.tile_id}.tif") as image:
                mask = _solaris_mask(home / "geojson" / f"Geo_{row.tile_id}.geojson", image)
            _write(mask, row, theirs, "lzw")

    def only_write() -> None:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            list(pool.map(lambda row: _write(masks[row.tile_id], row, plain, "deflate"), rows))

    def anew() -> None:
        with tempfile.TemporaryDirectory(dir=home) as folder:  # what is there and does not change is not written
            write_masks(polygons, tiles, Path(folder), spec=_BUILDING_ALONE)

    ours_s, solaris_s, plain_s = in_turn(anew, solaris, only_write, rounds=rounds)
    differing = sum(int((read_mask(mask_path(theirs, name)) != mask).sum()) for name, mask in masks.items())
    assert differing <= 1e-6 * sum(mask.size for mask in masks.values()), differing  # of rounding in degrees
    each = 1e3 / len(rows)
    to_solaris, to_writing = solaris_s / ours_s, plain_s / ours_s
    return [
        Figure("a tile; peer: solaris' way", ours_s * each, "ms", solaris_s * each, to_solaris, "≥ 5", to_solaris >= 5),
        Figure(
            "a tile; peer: only writing", ours_s * each, "ms", plain_s * each, to_writing, "≥ 0.5", to_writing >= 0.5
        ),
    ]


def _solaris_mask(geojson: Path, image: rasterio.DatasetReader) -> np.ndarray:
    shapes = gpd.read_file(geojson).geometry if geojson.stat().st_size else []
    if len(shapes) == 0:
        return np.zeros(image.shape, np.uint8)
    return rasterize(shapes, out_shape=image.shape, transform=image.transform, dtype="uint8")


def _write(mask: np.ndarray, row: object, folder: Path, compress: str) -> None:
    with rasterio.open(
        mask_path(folder, row.tile_id),
        "w",
        driver="GTiff",
        count=1,
        dtype="uint8",
        height=row.height,
        width=row.width,
        crs=row.crs,
        transform=rasterio.Affine(*row.transform),
        compress=compress,
    ) as target:
        target.write(mask, 1)


def _rasterizing(polygons: gpd.GeoDataFrame, tiles: gpd.GeoDataFrame, *, rounds: int) -> Figure:
    sizes = tiles.set_index("tile_id")[["height", "width"]]
    shapes = polygons["geometry_px"].to_numpy()
    work = [
        (shapes[rows], *(int(side) for side in sizes.loc[name]))
        for name, rows in polygons.groupby("tile_id").indices.items()
    ]
    ours_s, peer_s = in_turn(
        lambda: [rasterize_polygons(of_tile, height=height, width=width) for of_tile, height, width in work],
        lambda: [rasterize(of_tile, out_shape=(height, width), dtype="uint8") for of_tile, height, width in work],
        rounds=rounds,
    )
    for of_tile, height, width in work:
        assert np.array_equal(
            rasterize_polygons(of_tile, height=height, width=width),
            rasterize(of_tile, out_shape=(height, width), dtype="uint8"),
        )
    each = 1e3 / len(work)
    name = f"rasterizing a tile of {len(shapes) / len(work):.0f} buildings, one core; peer: rasterio.features"
    return Figure(name, ours_s * each, "ms", peer_s * each, peer_s / ours_s)


if __name__ == "__main__":
    main(measure, description=__doc__.splitlines()[0])
