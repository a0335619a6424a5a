"""Labels → the polygon table: how long, how large, and against the same work done row by row.

The peer reads the table with pandas and makes the same rows one at a time: WKT, validity, geodesic area by pyproj,
pixels by the tile's grid, clip, what lies within another, Hilbert curve, GeoParquet 1.1. A bare peer, told beside,
makes much less: polygons and their areas, nothing checked, repaired, placed, clipped or ordered.
"""

import json
import tempfile
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
import shapely
import shapely.affinity
import shapely.wkt
from pyproj import Geod

from benchmarks import full_rio
from benchmarks.form import Figure, alone, in_turn, main
from footprint_pipeline.dataset.polygons import build_polygon_table, write_polygon_table
from footprint_pipeline.spacenet.labels import read_labels

_GEOD = Geod(ellps="WGS84")
_ALONE = """
import json, sys, time
from pathlib import Path
import geopandas as gpd
from benchmarks.labels import ours
folder = Path(sys.argv[1])
started = time.perf_counter()
labels = ours(folder, gpd.read_parquet(folder / "tiles.parquet"))
print(json.dumps({"seconds": time.perf_counter() - started, "labels": labels}))
"""


def ours(folder: Path, tiles: gpd.GeoDataFrame) -> int:
    """Summary table → GeoParquet, with every check and count; returns the number of labels."""
    labels = read_labels(full_rio.layout(tiles, folder, csv=folder / "labels.csv"))
    made = build_polygon_table(labels.table, tiles, pixel_sample=labels.pixel_sample)
    write_polygon_table(made.table, folder / "ours.parquet")
    return len(made.table)


def row_by_row(folder: Path, tiles: gpd.GeoDataFrame) -> None:
    """The same table as people write it."""
    grids = {tile.tile_id: (~rasterio.Affine(*tile.transform), tile.width, tile.height) for tile in tiles.itertuples()}
    rows = []
    table = pd.read_csv(folder / "labels.csv", usecols=["ImageId", "BuildingId", "PolygonWKT_Geo"])
    for name, building, text in zip(table["ImageId"], table["BuildingId"], table["PolygonWKT_Geo"], strict=True):
        if building == -1:
            continue
        shape = shapely.force_2d(shapely.wkt.loads(text))
        if not shape.is_valid:
            shape = shapely.make_valid(shape)
        area_m2 = abs(_GEOD.geometry_area_perimeter(shapely.orient_polygons(shape))[0])
        grid, width, height = grids[name]
        on_grid = shapely.affinity.affine_transform(shape, [grid.a, grid.b, grid.d, grid.e, grid.c, grid.f])
        frame = shapely.box(0, 0, width, height)
        if not frame.covers(on_grid):
            on_grid = on_grid.intersection(frame)
        rows.append((name, building, area_m2, area_m2 * 10.7639, on_grid, shape))
    columns = ["tile_id", "building_id", "area_m2", "area_sqft", "geometry_px", "geometry"]
    made = gpd.GeoDataFrame(rows, columns=columns, geometry="geometry", crs="EPSG:4326")
    made["geometry_px"] = gpd.GeoSeries(made["geometry_px"])
    made = made.drop([row for _, of_tile in made.groupby("tile_id") for row in _within_another(of_tile["geometry_px"])])
    made = made.iloc[made.hilbert_distance().argsort()]
    made.to_parquet(folder / "peer.parquet", index=False, schema_version="1.1.0", write_covering_bbox=True)


def _within_another(of_tile: gpd.GeoSeries) -> list[int]:
    """Rows of the labels of a tile that lie within a larger one."""
    shapes = list(of_tile)
    tree = shapely.STRtree(shapes)
    return [
        row
        for row, shape in of_tile.items()
        if any(
            shapes[i].area > shape.area and shape.intersection(shapes[i]).area > 0.95 * shape.area
            for i in tree.query(shape)
        )
    ]


def bare(folder: Path) -> None:
    """The least that people write: polygons and their areas."""
    table = pd.read_csv(folder / "labels.csv")
    shapes = [shapely.wkt.loads(text) for text in table["PolygonWKT_Geo"]]
    table["area_m2"] = [abs(_GEOD.geometry_area_perimeter(shape)[0]) for shape in shapes]
    made = gpd.GeoDataFrame(table[["ImageId", "BuildingId", "area_m2"]], geometry=shapes, crs="EPSG:4326")
    made.to_parquet(folder / "bare.parquet")


def read_files(folder: Path, tiles: gpd.GeoDataFrame) -> None:
    """One GeoJSON a tile → labels."""
    read_labels(full_rio.layout(tiles, folder, geojson=folder / "geojson"))


def files_row_by_row(folder: Path) -> None:
    """The same as people write it."""
    for path in sorted((folder / "geojson").iterdir()):
        text = path.read_text()
        for feature in json.loads(text)["features"] if text else []:
            shape = shapely.force_2d(shapely.geometry.shape(feature["geometry"]))
            assert shape.is_valid


def same(folder: Path) -> bool:
    """Whether both tables say the same of every label."""
    columns = ["tile_id", "building_id", "area_m2", "geometry_px", "geometry"]
    first, second = (
        gpd.read_parquet(folder / f"{name}.parquet")[columns].sort_values(columns[:2], ignore_index=True)
        for name in ("ours", "peer")
    )
    apart = shapely.hausdorff_distance(first["geometry_px"].to_numpy(), second["geometry_px"].to_numpy())
    return (
        first[columns[:2]].equals(second[columns[:2]])
        and np.allclose(first["area_m2"], second["area_m2"], rtol=1e-4, atol=1e-3)
        and float(np.max(apart)) < 0.01
    )


def measure(quick: bool) -> list[Figure]:
    """All figures."""
    whole = 200 if quick else full_rio.TILES
    sizes = [whole // 16, whole // 4, whole][quick:]
    middle = sizes[-2]
    with tempfile.TemporaryDirectory() as temporary:
        tiles = {}
        for size in sizes:
            folder = Path(temporary) / str(size)
            folder.mkdir()
            city = full_rio.build(size)
            city.write_csv(folder / "labels.csv")
            city.tiles.to_parquet(folder / "tiles.parquet")
            if size == middle:
                city.write_geojson(folder / "geojson", size)
            tiles[size] = city.tiles
        del city
        made = [alone(_ALONE, str(Path(temporary) / str(size))) for size in sizes]
        at = Path(temporary) / str(middle)
        rounds = 1 if quick else 3
        table, table_peer, bare_peer = in_turn(
            lambda: ours(at, tiles[middle]), lambda: row_by_row(at, tiles[middle]), lambda: bare(at), rounds=rounds
        )
        assert same(at), "ours and the peer do not make the same table"
        files, files_peer = in_turn(lambda: read_files(at, tiles[middle]), lambda: files_row_by_row(at), rounds=rounds)

    seconds = [run["seconds"] for run in made]
    labels = int(made[-1]["labels"])
    per_tile_ms = [1000 * taken / size for taken, size in zip(seconds, sizes, strict=True)]
    peak_mb = made[-1]["peak_mb"]
    return [
        Figure(
            f"summary CSV → GeoParquet, {whole:,} tiles, {labels:,} labels", seconds[-1], "s",
            goal="at most 30 s", met=seconds[-1] <= 30,
        ),
        Figure(
            f"summary CSV → GeoParquet, {middle:,} tiles, against the same table row by row", table, "s",
            peer=table_peer, ratio=table_peer / table, goal="5 times faster", met=table_peer / table >= 5,
        ),
        Figure(
            f"the same, {middle:,} tiles, against less: WKT and area row by row, no check, repair, pixels, clip, order",
            table, "s", peer=bare_peer, ratio=bare_peer / table, goal="told beside",
        ),
        Figure(
            f"GeoJSON files → labels, {middle:,} tiles, against json and shapely feature by feature", files, "s",
            peer=files_peer, ratio=files_peer / files,
        ),
        Figure(
            f"largest memory of the process, {whole:,} tiles", peak_mb, "MB", goal="at most 2,000 MB",
            met=peak_mb <= 2000,
        ),
        *(
            Figure(f"time per tile, {size:,} tiles", taken, "ms")
            for size, taken in zip(sizes[:-1], per_tile_ms[:-1], strict=True)
        ),
        Figure(
            f"time per tile, {whole:,} tiles", per_tile_ms[-1], "ms",
            goal=f"within 1.5 times that of {middle:,} tiles", met=per_tile_ms[-1] <= 1.5 * per_tile_ms[-2],
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    main(measure, description=__doc__.splitlines()[0])
