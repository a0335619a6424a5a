"""A procedural city in SpaceNet 1's own layout, for those who have no real data: demo, tests, CI.

Here belong the spec, the georeference and the layout on disk. The whole scene is laid out (`blocks`)
and drawn (`render`) once and then cut into tiles, so that nothing shows where the seams are.

The satellite's track ends within the easternmost column: beyond a slanted line everything is black, as in
SpaceNet's Rio. Labels end there too: a footprint is cut at that line and at the edges of the scene.
"""

import csv
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import rasterio
import rasterio.enums
import rasterio.features
import shapely
from pyproj import Geod
from rasterio import Affine

from footprint_pipeline.errors import SettingsError, SourceError
from footprint_pipeline.files import atomic_folder
from footprint_pipeline.spacenet.catalog import SYNTHETIC
from footprint_pipeline.spacenet.synthetic.blocks import lay_out
from footprint_pipeline.spacenet.synthetic.files import spacenet_wkt, to_wgs84, write_geojson, write_image
from footprint_pipeline.spacenet.synthetic.render import render

_FORMAT = 1  # raise it when the same spec gives another city
_PREFIX = SYNTHETIC.upper()
_WGS84 = Geod(ellps="WGS84")
_SMALLEST_PART_PX = 1.0
_NEAR_PX = 150.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CitySpec:
    """What city to draw; the same spec gives the same pixels.

    Attributes:
        seed: of everything that is left to chance.
        rows: tiles from north to south.
        columns: tiles from west to east.
        tile_height: rows of pixels in a tile.
        tile_width: columns of pixels in a tile.
        gsd_m: size of a pixel on the ground, metres, both ways; SpaceNet 1's by default.
        origin_wgs84: longitude and latitude of the upper left corner; by default in the open Atlantic, where blocks
            of a kilometre give every split a part of its 48 tiles.
    """

    seed: int = 1337
    rows: int = 6
    columns: int = 8
    tile_height: int = 406
    tile_width: int = 438
    gsd_m: float = 0.5
    origin_wgs84: tuple[float, float] = (-39.55, 38.14)

    def __post_init__(self) -> None:
        if min(self.rows, self.columns) < 1 or min(self.tile_height, self.tile_width) < 64 or self.gsd_m <= 0:
            raise SettingsError(
                f"No city can be drawn from {self}: at least one tile of 64 × 64 pixels, and a ground size above 0.",
                fix="Raise rows, columns, tile_height, tile_width or gsd_m.",
            )

    @property
    def height(self) -> int:
        """Rows of pixels of the whole city."""
        return self.rows * self.tile_height

    @property
    def width(self) -> int:
        """Columns of pixels of the whole city."""
        return self.columns * self.tile_width

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return self.rows * self.columns

    def transform_at(self, left: int, top: int) -> Affine:
        """From pixels right of `left` and below `top` of the whole city to degrees of longitude and latitude."""
        lon, lat = self.origin_wgs84
        middle = lat - self.height * self.gsd_m / 2 / 111_000.0
        metres_east = _WGS84.inv(lon - 0.005, middle, lon + 0.005, middle)[2]
        metres_north = _WGS84.inv(lon, middle - 0.005, lon, middle + 0.005)[2]
        east, south = 0.01 * self.gsd_m / metres_east, -0.01 * self.gsd_m / metres_north
        return Affine(east, 0.0, lon + left * east, 0.0, south, lat + top * south)

    @property
    def transform(self) -> Affine:
        """From pixels of the whole city (x right, y down) to degrees of longitude and latitude."""
        return self.transform_at(0, 0)


@dataclass(frozen=True)
class City:
    """A city in memory, in pixels of the whole scene (x right, y down, upper left corner (0, 0)).

    Attributes:
        rgb: uint8, shape (height, width, 3); 0 in all bands where there is no imagery, at least 1 elsewhere.
        roofs: where a roof was drawn, also under a crown; bool, shape (height, width).
        footprints_px: outlines on the ground within the imagery, shapely Polygons, shape (N,), dtype object.
    """

    rgb: np.ndarray
    roofs: np.ndarray
    footprints_px: np.ndarray


@dataclass(frozen=True)
class CitySummary:
    """What `write_city` wrote.

    Attributes:
        folder: holds `processedBuildingLabels/`, `mosaic.tif`, `buildings.geojson` and `city.json`.
        mosaic: the whole city as one GeoTIFF.
        tiles: number of tiles.
        empty_tiles: those without a building.
        buildings: whole footprints.
        label_rows: footprints cut at tile edges, the rows of the CSV with a building.
        centre: latitude and longitude of a place with many buildings around it.
    """

    folder: Path
    mosaic: Path
    tiles: int
    empty_tiles: int
    buildings: int
    label_rows: int
    centre: tuple[float, float]


@dataclass(frozen=True)
class _Tile:
    number: int
    row: int
    column: int
    transform: Affine
    parts_px: np.ndarray

    @property
    def image_id(self) -> str:
        return f"{_PREFIX}_img{self.number}"


def write_city(folder: Path, spec: CitySpec | None = None) -> CitySummary:
    """Draw the city and write it below `folder`, unless it is there already.

    Tiles are uint8 RGB GeoTIFFs in EPSG:4326 on one grid; `mosaic.tif` is the same pixels in one file with
    overviews and nodata 0. `buildings.geojson` holds whole footprints (cut only where the imagery ends) with
    `area_m2`, geodesic. A city of another spec in the folder is replaced as a whole.

    Args:
        folder: made if missing; either empty or an earlier city.
        spec: the default city if None.

    Raises:
        SourceError: the folder holds something that is not a synthetic city.
    """
    spec = spec or CitySpec()
    identity = {"format": _FORMAT, "spec": json.loads(json.dumps(asdict(spec)))}
    known = _read_record(folder)
    if known is not None and known["identity"] == identity:
        log.info("Synthetic city: %s is up to date", folder)
        return _summary(folder, known["summary"])
    if known is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SourceError(
            f"{folder} holds something else than a synthetic city.", fix="Name a folder that is new or empty."
        )

    log.info("Synthetic city: drawing %d tiles, %d × %d pixels", spec.tiles, spec.height, spec.width)
    city = make_city(spec)
    tiles = list(_cut(city, spec))
    counts = {
        "tiles": len(tiles),
        "empty_tiles": sum(len(tile.parts_px) == 0 for tile in tiles),
        "buildings": len(city.footprints_px),
        "label_rows": sum(len(tile.parts_px) for tile in tiles),
        "centre": _centre(city, spec),
    }
    log.info("Synthetic city: writing %d buildings below %s", len(city.footprints_px), folder)
    with atomic_folder(folder) as building:
        _write_tiles(building / "processedBuildingLabels", city, spec, tiles)
        _write_mosaic(building / "mosaic.tif", city, spec)
        _write_buildings(building / "buildings.geojson", city, spec)
        (building / "city.json").write_text(json.dumps({"identity": identity, "summary": counts}, indent=1), "utf-8")
    return _summary(folder, counts)


def make_city(spec: CitySpec) -> City:
    """Lay out and draw the city of a spec, without writing anything."""
    rng = np.random.default_rng(spec.seed)
    scene = lay_out(spec.width * spec.gsd_m, spec.height * spec.gsd_m, _open_land(spec, rng), rng)
    picture = render(scene, height=spec.height, width=spec.width, gsd_m=spec.gsd_m, rng=rng)

    imagery = _imagery(spec)
    inside = rasterio.features.geometry_mask([imagery], (spec.height, spec.width), Affine.identity(), invert=True)
    picture.rgb[~inside] = 0
    whole = shapely.transform(np.array([b.footprint for b in scene.buildings], object), lambda xy: xy / spec.gsd_m)
    return City(picture.rgb, picture.roofs & inside, _clipped(whole, imagery))


def _open_land(spec: CitySpec, rng: np.random.Generator) -> list[np.ndarray]:
    """Tiles to be kept free of buildings, as rings in metres: one in sixteen, at least one where there are six."""
    wanted = 0 if spec.tiles < 6 else max(1, spec.tiles // 16)
    chosen: list[tuple[int, int]] = []
    for place in rng.permutation(spec.rows * max(1, spec.columns - 1)):
        row, column = divmod(int(place), max(1, spec.columns - 1))
        apart = all(max(abs(row - r), abs(column - c)) > 1 for r, c in chosen)
        if len(chosen) < wanted and apart:
            chosen.append((row, column))
    high, wide = spec.tile_height * spec.gsd_m, spec.tile_width * spec.gsd_m
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])
    return [(corners + np.array([column, row])) * (wide, high) for row, column in chosen]


def _imagery(spec: CitySpec) -> shapely.Polygon:
    """The scene without what lies beyond the satellite's track, pixels."""
    if spec.tiles < 6:
        return shapely.box(0, 0, spec.width, spec.height)
    last = spec.width - 0.6 * spec.tile_width
    return shapely.Polygon(
        [(0, 0), (spec.width, 0), (spec.width, 0.3 * spec.height), (last, spec.height), (0, spec.height)]
    )


def _clipped(polygons: np.ndarray, frame: shapely.Polygon) -> np.ndarray:
    """The parts of polygons within a frame, single polygons of at least a pixel."""
    parts = shapely.get_parts(shapely.intersection(polygons, frame))
    return parts[(shapely.get_type_id(parts) == 3) & (shapely.area(parts) >= _SMALLEST_PART_PX)]


def _cut(city: City, spec: CitySpec) -> Iterator[_Tile]:
    tree = shapely.STRtree(city.footprints_px)
    for row in range(spec.rows):
        for column in range(spec.columns):
            left, top = column * spec.tile_width, row * spec.tile_height
            frame = shapely.box(left, top, left + spec.tile_width, top + spec.tile_height)
            near = city.footprints_px[np.sort(tree.query(frame, predicate="intersects"))]
            parts = shapely.transform(_clipped(near, frame), lambda xy, corner=(left, top): xy - corner)
            yield _Tile(row * spec.columns + column + 1, row, column, spec.transform_at(left, top), parts)


def _centre(city: City, spec: CitySpec) -> tuple[float, float]:
    """Latitude and longitude of the building in the middle half of the city that has most others near it."""
    points = shapely.centroid(city.footprints_px)
    if len(points) == 0:
        return _lat_lon(spec.transform, spec.width / 2, spec.height / 2)
    neighbours = np.bincount(shapely.STRtree(points).query(points, predicate="dwithin", distance=_NEAR_PX)[0])
    x, y = shapely.get_x(points) / spec.width, shapely.get_y(points) / spec.height
    best = points[np.argmax(neighbours * ((np.abs(x - 0.5) < 0.25) & (np.abs(y - 0.5) < 0.25)))]
    return _lat_lon(spec.transform, best.x, best.y)


def _lat_lon(transform: Affine, x: float, y: float) -> tuple[float, float]:
    return transform.f + y * transform.e, transform.c + x * transform.a


def _write_tiles(folder: Path, city: City, spec: CitySpec, tiles: list[_Tile]) -> None:
    images, labels, tables = folder / "3band", folder / "vectordata" / "geojson", folder / "vectordata" / "summarydata"
    for part in (images, labels, tables):
        part.mkdir(parents=True)
    with (tables / f"{_PREFIX}_polygons_solution_3band.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["ImageId", "BuildingId", "PolygonWKT_Pix", "PolygonWKT_Geo"])
        for tile in tiles:
            top, left = tile.row * spec.tile_height, tile.column * spec.tile_width
            pixels = city.rgb[top : top + spec.tile_height, left : left + spec.tile_width]
            write_image(images / f"3band_{tile.image_id}.tif", pixels, tile.transform)
            parts_wgs84 = to_wgs84(tile.parts_px, tile.transform)
            write_geojson(
                labels / f"Geo_{tile.image_id}.geojson",
                parts_wgs84,
                [{"BuildingId": number} for number in range(1, len(parts_wgs84) + 1)],
            )
            for number, (part_px, part_wgs84) in enumerate(zip(tile.parts_px, parts_wgs84, strict=True), 1):
                table.writerow([tile.image_id, number, spacenet_wkt(part_px, 9), spacenet_wkt(part_wgs84, 15)])
            if len(tile.parts_px) == 0:
                table.writerow([tile.image_id, -1, "POLYGON EMPTY", "POLYGON EMPTY"])


def _write_mosaic(path: Path, city: City, spec: CitySpec) -> None:
    write_image(path, city.rgb, spec.transform, nodata=0, tiled=True, blockxsize=256, blockysize=256)
    with rasterio.open(path, "r+") as mosaic:
        factors = [factor for factor in (2, 4, 8, 16) if factor * 128 < max(spec.height, spec.width)]
        mosaic.build_overviews(factors, rasterio.enums.Resampling.average)


def _write_buildings(path: Path, city: City, spec: CitySpec) -> None:
    footprints = to_wgs84(city.footprints_px, spec.transform)
    areas = [abs(_WGS84.geometry_area_perimeter(footprint)[0]) for footprint in footprints]
    write_geojson(path, footprints, [{"id": i, "area_m2": round(m2, 2)} for i, m2 in enumerate(areas, 1)])


def _read_record(folder: Path) -> dict | None:
    try:
        record = json.loads((folder / "city.json").read_text(encoding="utf-8"))
        return record if {"identity", "summary"} <= record.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _summary(folder: Path, counts: dict) -> CitySummary:
    latitude, longitude = counts["centre"]
    return CitySummary(folder, folder / "mosaic.tif", **{**counts, "centre": (latitude, longitude)})
