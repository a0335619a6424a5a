"""A synthetic Rio of full size, labels and tile index without imagery: what benchmarks of the data stages run on.

6,940 tiles of 406 × 438 or 439 pixels at 4.5e-6° (0.5 m), four in ten of them empty, and about 380,000 buildings:
rectangles, L-shapes and courtyards of Rio's sizes, cut at tile edges as SpaceNet's are. Everything is drawn at
once with numpy, so the whole of it takes seconds.

    rio = full_rio.build(tiles=6940)
    rio.labels                        # GeoDataFrame: tile_id, building_id, geometry (EPSG:4326)
    rio.tiles                         # the tile index, columns as in `dataset.tiles`; its image files do not exist
    rio.write_csv(path)               # SpaceNet's summary table, pixels and degrees, third ordinate, empty rows
    rio.write_geojson(folder, 100)    # Geo_<tile id>.geojson of the first 100 tiles
    full_rio.layout(rio.tiles, folder, csv=path)     # what `spacenet.labels.read_labels` takes
"""

from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import shapely
from pyproj import Geod

from footprint_pipeline.spacenet.layout import Layout, TileFile

TILES = 6940
AOI = "AOI_1_Rio"
_GSD_DEG = 4.5e-6
_WEST, _NORTH = -43.70, -22.85
_HEIGHT, _WIDTHS = 406, (438, 439)
_CELL = 28.0
_CELLS = (16, 17)
"""Rows and columns of the grid of plots, of 28 pixels a side, that is laid over a tile with a random shift."""
_EMPTY_SHARE = 0.38
_BUILT_SHARE = 0.36
"""Mean share of the plots of a tile with buildings that hold one: 55 labels a tile over all tiles."""
_EMPTY_WKT = ("POLYGON EMPTY", "POLYGON ((0 0,0 0,0 0,0 0))")

# Rings of the shapes in a unit square; the L lacks its upper right quarter.
_RECTANGLE = np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)], float)
_ELL = np.array([(0, 0), (1, 0), (1, 0.5), (0.5, 0.5), (0.5, 1), (0, 1), (0, 0)], float)
_YARD = 0.3 + 0.4 * _RECTANGLE[::-1]


@dataclass(frozen=True)
class FullRio:
    """Labels and tiles.

    Attributes:
        labels: tile_id, building_id (from 1 in every tile), geometry in EPSG:4326, by tile.
        labels_px: the same polygons in pixels of their tile, shape (N,).
        tiles: the tile index.
    """

    labels: gpd.GeoDataFrame
    labels_px: np.ndarray
    tiles: gpd.GeoDataFrame

    def write_csv(self, path: Path) -> None:
        """Write SpaceNet's summary table; tiles without a building have their row too."""
        filled = pd.DataFrame(
            {
                "ImageId": self.labels["tile_id"].to_numpy(),
                "BuildingId": self.labels["building_id"].to_numpy(),
                "PolygonWKT_Pix": _wkt(self.labels_px),
                "PolygonWKT_Geo": _wkt(self.labels.geometry.to_numpy()),
            }
        )
        names = self.tiles["tile_id"][~self.tiles["tile_id"].isin(filled["ImageId"])].to_numpy()
        said = np.resize(np.array(_EMPTY_WKT, object), len(names))
        empty = pd.DataFrame({"ImageId": names, "BuildingId": -1, "PolygonWKT_Pix": said, "PolygonWKT_Geo": said})
        table = pa.Table.from_pandas(pd.concat([filled, empty], ignore_index=True), preserve_index=False)
        options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed")
        with path.open("wb") as file:
            file.write((",".join(table.column_names) + "\n").encode())
            pyarrow.csv.write_csv(table, file, options)

    def write_geojson(self, folder: Path, count: int) -> None:
        """Write a label file for each of the first `count` tiles; those without a building are 0 bytes long."""
        folder.mkdir(parents=True, exist_ok=True)
        rows_of = self.labels.groupby("tile_id").indices
        geometry = self.labels.geometry.to_numpy()
        for name in self.tiles["tile_id"][:count]:
            shapes = shapely.to_geojson(shapely.force_3d(geometry[rows_of[name]])) if name in rows_of else []
            features = [
                f'{{"type":"Feature","properties":{{"BuildingId":{number}}},"geometry":{shape}}}'
                for number, shape in enumerate(shapes, 1)
            ]
            listed = ",\n".join(features)
            text = f'{{"type":"FeatureCollection","features":[\n{listed}\n]}}\n' if features else ""
            (folder / f"Geo_{name}.geojson").write_text(text)


def layout(tiles: gpd.GeoDataFrame, folder: Path, *, csv: Path | None = None, geojson: Path | None = None) -> Layout:
    """The layout of a folder with the labels of these tiles, in a table or one file a tile."""
    files = [
        TileFile(name, Path(image), geojson / f"Geo_{name}.geojson" if geojson else None)
        for name, image in zip(tiles["tile_id"], tiles["path"], strict=True)
    ]
    return Layout(
        AOI, "spacenet1", folder, tuple(files), summary=csv, tile_ids=frozenset(file.tile_id for file in files)
    )


def build(tiles: int = TILES, *, seed: int = 1337) -> FullRio:
    """Draw a city of so many tiles.

    Args:
        tiles: side by side, in rows as long as there are rows.
        seed: another seed is another city.
    """
    rng = np.random.default_rng(seed)
    index = _tile_index(tiles, rng)
    at_tile, on_grid = _buildings(index["width"].to_numpy(), rng)
    west, north = np.array(index["transform"].tolist())[:, [2, 5]].T
    points, owner = shapely.get_coordinates(on_grid, return_index=True)
    tile_of_point = at_tile[owner]
    degrees = np.column_stack(
        [west[tile_of_point] + points[:, 0] * _GSD_DEG, north[tile_of_point] - points[:, 1] * _GSD_DEG]
    )
    labels = gpd.GeoDataFrame(
        {
            "tile_id": index["tile_id"].to_numpy()[at_tile],
            "building_id": np.arange(len(at_tile)) - np.searchsorted(at_tile, at_tile) + 1,
        },
        geometry=shapely.set_coordinates(on_grid.copy(), degrees),
        crs="EPSG:4326",
    )
    return FullRio(labels, on_grid, index)


def _tile_index(tiles: int, rng: np.random.Generator) -> gpd.GeoDataFrame:
    across = int(np.ceil(np.sqrt(tiles)))
    row, column = np.divmod(np.arange(tiles), across)
    width = rng.choice(_WIDTHS, tiles)
    west, north = _WEST + column * max(_WIDTHS) * _GSD_DEG, _NORTH - row * _HEIGHT * _GSD_DEG
    x, y = west + width / 2 * _GSD_DEG, north - _HEIGHT / 2 * _GSD_DEG
    geod = Geod(ellps="WGS84")
    names = [f"AOI_1_RIO_img{number}" for number in range(1, tiles + 1)]
    return gpd.GeoDataFrame(
        {
            "tile_id": names,
            "aoi": AOI,
            "path": [f"3band/3band_{name}.tif" for name in names],
            "width": width,
            "height": _HEIGHT,
            "dtype": "uint8",
            "crs": "EPSG:4326",
            "transform": [[_GSD_DEG, 0.0, w, 0.0, -_GSD_DEG, n] for w, n in zip(west, north, strict=True)],
            "gsd_x_m": geod.inv(x, y, x + _GSD_DEG, y)[2],
            "gsd_y_m": geod.inv(x, y, x, y - _GSD_DEG)[2],
            "valid_share": 1.0,
            "low": [[0.0, 0.0, 0.0]] * tiles,
            "high": [[255.0, 255.0, 255.0]] * tiles,
            "gamma": 1.0,
        },
        geometry=shapely.box(west, north - _HEIGHT * _GSD_DEG, west + width * _GSD_DEG, north),
        crs="EPSG:4326",
    )


def _buildings(width: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Tile of each building (ascending) and its polygon in pixels, both of shape (N,)."""
    tiles = len(width)
    built = rng.beta(1.2, 1.2 / _BUILT_SHARE - 1.2, tiles) * (rng.random(tiles) >= _EMPTY_SHARE)
    at_tile, row, column = np.nonzero(rng.random((tiles, *_CELLS)) < built[:, None, None])
    count = len(at_tile)
    shift, street = rng.uniform(-_CELL, 0, (tiles, 2)), rng.uniform(0, np.pi / 2, tiles)
    centres = (np.column_stack([column, row]) + 0.5) * _CELL + shift[at_tile]
    long_px = np.clip(rng.lognormal(np.log(18), 0.4, count), 4, 26)
    sides = np.column_stack([long_px, long_px * rng.uniform(0.6, 1, count)])
    angle = street[at_tile] + rng.normal(0, 0.05, count)
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], axis=-1).reshape(-1, 2, 2)

    def rings(unit: np.ndarray, which: np.ndarray) -> np.ndarray:
        local = (unit - 0.5) * sides[which, None, :]
        return shapely.linearrings(local @ turn[which] + centres[which, None, :])

    kind = rng.choice(3, count, p=(0.68, 0.3, 0.02))
    on_grid = np.empty(count, object)
    for number, unit in enumerate((_RECTANGLE, _ELL)):
        on_grid[kind == number] = shapely.polygons(rings(unit, kind == number))
    yards = kind == 2
    on_grid[yards] = shapely.polygons(rings(_RECTANGLE, yards), rings(_YARD, yards)[:, None])

    frames = shapely.box(0, 0, width, _HEIGHT)[at_tile]
    cut = ~shapely.covers(frames, on_grid)
    on_grid[cut] = shapely.intersection(on_grid[cut], frames[cut])
    kept = shapely.area(on_grid) > 1
    return at_tile[kept], on_grid[kept]


def _wkt(polygons: np.ndarray) -> np.ndarray:
    """WKT with a third ordinate of zero, as SpaceNet writes it."""
    flat = shapely.force_2d(shapely.normalize(polygons))
    text = shapely.to_wkt(shapely.force_3d(flat), rounding_precision=15, output_dimension=3, old_3d=True)
    return pyarrow.compute.replace_substring(pa.array(text), ", ", ",").to_numpy(zero_copy_only=False)
