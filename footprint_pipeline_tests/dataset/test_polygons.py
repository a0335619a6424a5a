import json
import math
from pathlib import Path

import duckdb
import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
import shapely.affinity
from pyproj import CRS

from benchmarks import full_rio
from footprint_pipeline.dataset import polygons
from footprint_pipeline.dataset.polygons import (
    ROW_GROUP,
    build_polygon_table,
    buildings_per_tile,
    pixel_shift,
    read_polygon_table,
    to_pixels,
    write_polygon_table,
)
from footprint_pipeline.dataset.spec import PolygonSpec
from footprint_pipeline.dataset.tiles import WGS84, index_tiles
from footprint_pipeline.errors import DatasetError
from footprint_pipeline.footprints.area import geodesic_area_m2
from footprint_pipeline.spacenet.labels import read_labels
from footprint_pipeline.spacenet.layout import discover
from footprint_pipeline_tests.dataset.conftest import (
    GSD_DEG,
    NORTH,
    UTM,
    WEST,
    degrees,
    labels,
    metres,
    on_ground,
    write_image,
)

A, E2 = 6378137.0, 0.0066943799901413165
WIDTH, HEIGHT = 64, 48


def tile_index(folder: Path, *names: str, crs: str = "EPSG:4326") -> gpd.GeoDataFrame:
    grid = degrees if crs == "EPSG:4326" else metres
    image = np.full((HEIGHT, WIDTH, 3), 80, np.uint8)
    pairs = [
        (name, write_image(folder / f"{name}.tif", image, crs=crs, transform=grid(i))) for i, name in enumerate(names)
    ]
    return index_tiles(pairs, aoi="Rio").table


def area_between(west: float, south: float, east: float, north: float) -> float:
    """Area of a quadrangle of the ellipsoid in closed form, square metres."""

    def zone(latitude: float) -> float:
        sine, e = math.sin(math.radians(latitude)), math.sqrt(E2)
        return sine / (1 - E2 * sine**2) + math.atanh(e * sine) / e

    return A**2 * (1 - E2) / 2 * math.radians(east - west) * (zone(north) - zone(south))


def quadrangle(left: float, top: float, right: float, bottom: float) -> tuple[float, float, float, float]:
    return WEST + left * GSD_DEG, NORTH - bottom * GSD_DEG, WEST + right * GSD_DEG, NORTH - top * GSD_DEG


def test_area_is_geodesic(tmp_path: Path) -> None:
    bounds = quadrangle(5, 6, 45, 36)
    table = build_polygon_table(labels([("a", 1, shapely.box(*bounds))]), tile_index(tmp_path, "a")).table
    assert table["area_m2"][0] == pytest.approx(area_between(*bounds), rel=1e-6)
    assert table["area_sqft"][0] == pytest.approx(area_between(*bounds) / 0.3048**2, rel=1e-6)


@pytest.mark.parametrize("turned", [False, True], ids=["hole turned like its shell", "hole turned against it"])
@pytest.mark.parametrize("parts", [1, 2])
def test_area_does_not_depend_on_which_way_the_rings_turn(tmp_path: Path, turned: bool, parts: int) -> None:
    outer, inner = quadrangle(5, 6, 45, 36), quadrangle(15, 16, 25, 26)
    hole = shapely.box(*inner, ccw=not turned).exterior
    shape = shapely.Polygon(shapely.box(*outer).exterior, [hole])
    expected = area_between(*outer) - area_between(*inner)
    if parts == 2:
        more = quadrangle(50, 6, 62, 21)
        shape = shapely.MultiPolygon([shape, shapely.box(*more, ccw=turned)])
        expected += area_between(*more)
    assert shape.is_valid
    table = build_polygon_table(labels([("a", 1, shape)]), tile_index(tmp_path, "a")).table
    assert table["area_m2"][0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("latitude", [0, 23, 36, -60, 84])
@pytest.mark.parametrize("size_m", [20, 100, 700])
def test_area_is_that_of_pyproj_at_every_latitude(latitude: float, size_m: float) -> None:
    rng = np.random.default_rng(size_m)
    count = 60
    turn = np.sort(rng.uniform(0, 2 * np.pi, (count, 9)), axis=1)
    reach = size_m / 111_195 * rng.uniform(0.5, 1, (count, 9))
    stars = np.stack([reach * np.cos(turn) / math.cos(math.radians(latitude)), reach * np.sin(turn)], axis=-1)
    at = np.column_stack([rng.uniform(-179, 179, count), latitude + rng.uniform(-0.5, 0.5, count)])[:, None]
    shells, yards, wings = (
        at + stars,
        at + stars * 0.3,
        at + stars * 0.5 + (0.01 / math.cos(math.radians(latitude)), 0.0),
    )
    whole = shapely.polygons(shapely.linearrings(shells), shapely.linearrings(yards)[:, None])
    several = [shapely.MultiPolygon([one, shapely.Polygon(wing)]) for one, wing in zip(whole, wings, strict=True)]
    shapes = np.concatenate([shapely.polygons(shells), whole, several])
    shapes = shapes[shapely.is_valid(shapes)]
    assert len(shapes) > 1.5 * count
    expected = [WGS84.geometry_area_perimeter(shape)[0] for shape in shapely.orient_polygons(shapes)]
    assert geodesic_area_m2(shapes) == pytest.approx(np.array(expected), rel=1e-6, abs=1e-4)


def test_what_is_no_greater_than_the_smallest_area_is_left_out(tmp_path: Path) -> None:
    sizes = [2, 4, 6]
    rows = [("a", size, on_ground(shapely.box(8 * size, 9, 9 * size, 9 + size), degrees())) for size in sizes]
    rows.append(("a", 7, on_ground(shapely.box(-9, -9, -1, -1), degrees())))
    tiles = tile_index(tmp_path, "a")
    everything = build_polygon_table(labels(rows), tiles)
    assert (everything.too_small, everything.outside) == (0, 1)
    areas = everything.table.set_index("building_id")["area_m2"]
    some = build_polygon_table(labels(rows), tiles, spec=PolygonSpec(min_area_m2=float(areas[4])))
    assert (some.too_small, some.outside) == (2, 1)
    assert some.table["building_id"].tolist() == [6]


def drawn_twice(shift_px: dict[str, float]) -> pd.DataFrame:
    """Three labels a tile in degrees, and in pixels that are so many too far to the right."""
    boxes = [shapely.box(10 + i, 10, 18 + i, 20) for i in range(3)]
    return pd.DataFrame(
        [
            (name, on_ground(box, degrees(number)), shapely.affinity.translate(box, shift))
            for number, (name, shift) in enumerate(shift_px.items())
            for box in boxes
        ],
        columns=["tile_id", "geometry", "geometry_px"],
    )


@pytest.mark.parametrize("area_m2", [-1.0, float("nan"), float("inf")])
def test_the_smallest_area_is_an_area(area_m2: float) -> None:
    with pytest.raises(DatasetError, match=r"min_area_m2: .* is no area"):
        PolygonSpec(min_area_m2=area_m2)


def test_pixels_that_agree_with_degrees_are_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sample = drawn_twice({"a": 0.0, "b": 1.5})
    sample.loc[len(sample)] = ("elsewhere", sample["geometry"][0], sample["geometry_px"][5])
    # What only one of the two clips at the tile's edge is the same label.
    cut = shapely.box(-30, 10, 9, 20)
    sample.loc[len(sample)] = ("a", on_ground(cut, degrees()), shapely.box(0, 10, 9, 20))
    found = pixel_shift(sample, tile_index(tmp_path, "a", "b"))
    assert found is not None
    assert (found.sampled, found.share_off, found.worst_tile) == (7, 0, "b")
    assert (found.median_px, found.p95_px, found.worst_px) == pytest.approx((0, 1.5, 1.5), abs=1e-6)
    assert not caplog.text
    assert pixel_shift(sample.iloc[:0], tile_index(tmp_path, "a")) is None


def test_pixels_of_other_imagery_are_told_with_the_worst_tiles(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sample = drawn_twice({"a": 0.0, "b": 3.0, "c": 12.0, "d": 6.0, "e": 4.0})
    tiles = tile_index(tmp_path, "a", "b", "c", "d", "e")
    rows = [("a", 1, on_ground(shapely.box(1, 1, 9, 9), degrees()))]
    found = build_polygon_table(labels(rows), tiles, pixel_sample=sample).pixel_shift
    assert found is not None
    assert (found.sampled, found.worst_tile) == (15, "c")
    assert (found.share_off, found.median_px, found.worst_px) == pytest.approx((0.8, 4, 12), abs=1e-6)
    assert "80 % of 15 labels are more than 2 pixels apart (median 4.0)" in caplog.text
    assert "the worst tiles are c (12.0), d (6.0), e (4.0)." in caplog.text


@pytest.mark.parametrize("name", ["accra", "rio", "vegas"])
def test_real_labels_are_drawn_alike_in_pixels_and_degrees(
    real_data: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    layout = discover(real_data / name)
    read = read_labels(layout)
    tiles = index_tiles([(tile.tile_id, tile.image) for tile in layout.tiles], aoi=layout.aoi).table
    made = build_polygon_table(read.table, tiles, pixel_sample=read.pixel_sample)
    shift = made.pixel_shift
    assert shift is not None
    assert shift.sampled == min(2000, len(read.table))
    assert shift.p95_px < 0.01
    assert shift.share_off < 0.02  # in Rio two labels, parts of one building: pixels of the part, degrees of the whole
    assert "pixels apart" not in caplog.text
    assert (made.outside, made.too_small) == (0, 0)


@pytest.mark.parametrize("crs", ["EPSG:4326", UTM])
def test_polygons_land_on_the_pixels_they_were_drawn_on(tmp_path: Path, crs: str) -> None:
    grid = degrees if crs == "EPSG:4326" else metres
    drawn = [
        shapely.Polygon([(3.25, 4.5), (20.75, 8.0), (12.0, 30.125)]),
        shapely.Polygon(shapely.box(30, 10, 60, 40).exterior, [shapely.box(35, 15, 45, 25).exterior]),
        shapely.MultiPolygon([shapely.box(1, 1, 4, 4), shapely.box(6, 1, 9, 4)]),
    ]
    rows = [
        (name, i, on_ground(shape, grid(tile), crs)) for tile, name in enumerate("ab") for i, shape in enumerate(drawn)
    ]
    made = build_polygon_table(labels(rows), tile_index(tmp_path, "a", "b", crs=crs))
    assert (made.clipped, made.outside, len(made.table)) == (0, 0, 6)
    tolerance = 1e-5 if crs == "EPSG:4326" else 1e-3
    for row in made.table.itertuples():
        shape = drawn[row.building_id]
        assert shapely.hausdorff_distance(row.geometry_px, shape) < tolerance
        assert row.geometry_px.geom_type == shape.geom_type
    assert shapely.area(made.table["geometry_px"].to_numpy()).sum() * (0.25 if crs == UTM else 0) == pytest.approx(
        made.table["area_m2"].sum() if crs == UTM else 0, rel=1e-3
    )


def test_to_pixels_undoes_a_rotated_grid() -> None:
    grid = [3e-6, 1e-6, WEST, 1.5e-6, -4e-6, NORTH]
    x, y = 12.5, 7.25
    point = shapely.Point(grid[0] * x + grid[1] * y + grid[2], grid[3] * x + grid[4] * y + grid[5])
    (placed,) = to_pixels(np.array([point]), pd.DataFrame({"crs": "EPSG:4326", "transform": [grid]}), np.array([0]))
    assert (placed.x, placed.y) == pytest.approx((x, y), abs=1e-6)


def test_what_reaches_out_of_the_tile_is_clipped_on_the_grid_but_not_on_the_ground(tmp_path: Path) -> None:
    reaching = on_ground(shapely.box(-10, 10, 10, 30), degrees())
    made = build_polygon_table(labels([("a", 1, reaching)]), tile_index(tmp_path, "a"))
    assert (made.clipped, made.outside) == (1, 0)
    assert made.table["geometry_px"].iloc[0].bounds == pytest.approx((0, 10, 10, 30), abs=1e-5)
    assert made.table.geometry.iloc[0].equals(reaching)


def test_a_hair_outside_is_not_worth_a_clip(tmp_path: Path) -> None:
    shape = on_ground(shapely.box(-5e-4, 0, 10, 10), degrees())
    assert build_polygon_table(labels([("a", 1, shape)]), tile_index(tmp_path, "a")).clipped == 0


def test_a_clip_that_leaves_lines_and_points_keeps_only_polygons(tmp_path: Path) -> None:
    comb = shapely.Polygon([(-5, 5), (0, 5), (0, 10), (-3, 10), (-3, 15), (4, 15), (4, 20), (-5, 20)])
    made = build_polygon_table(labels([("a", 1, on_ground(comb, degrees()))]), tile_index(tmp_path, "a"))
    (left,) = made.table["geometry_px"]
    assert left.geom_type in ("Polygon", "MultiPolygon")
    assert left.area == pytest.approx(4 * 5, abs=1e-3)


@pytest.mark.parametrize(
    "box", [(-20, 5, -10, 15), (-20, 5, 0, 15), (70, 50, 80, 60)], ids=["left", "touching", "corner"]
)
def test_labels_wholly_outside_their_tile_are_counted_and_left_out(
    tmp_path: Path, box: tuple[float, float, float, float]
) -> None:
    rows = [("a", 1, on_ground(shapely.box(*box), degrees())), ("a", 2, on_ground(shapely.box(1, 1, 9, 9), degrees()))]
    made = build_polygon_table(labels(rows), tile_index(tmp_path, "a"))
    assert made.table["building_id"].tolist() == [2]
    assert (made.clipped, made.outside) == (0, 1)


def test_labels_of_other_tiles_are_left_out(tmp_path: Path) -> None:
    square, across = shapely.box(1, 1, 9, 9), shapely.box(0, 2, 10, 8)  # about one centre
    rows = [("b", 2, on_ground(square, degrees(1))), ("elsewhere", 1, on_ground(square, degrees()))]
    rows += [("a", 7, on_ground(square, degrees())), ("a", 3, on_ground(across, degrees()))]
    rows += [("b", 1, on_ground(across, degrees(1)))]
    table = build_polygon_table(labels(rows), tile_index(tmp_path, "a", "b")).table
    assert list(zip(table["tile_id"], table["building_id"], strict=True)) == [("a", 3), ("a", 7), ("b", 1), ("b", 2)]
    backwards = build_polygon_table(labels(rows[::-1]), tile_index(tmp_path, "a", "b")).table
    assert backwards.equals(table)
    assert table.index.tolist() == [0, 1, 2, 3]
    assert buildings_per_tile(table).to_dict() == {"a": 2, "b": 2}


@pytest.mark.parametrize("rows", [[], [("elsewhere", 1, shapely.box(0, 0, 1, 1))]], ids=["none", "of other tiles"])
def test_no_label_is_an_empty_table_that_comes_back(tmp_path: Path, rows: list) -> None:
    made = build_polygon_table(labels(rows), tile_index(tmp_path, "a"))
    assert (len(made.table), made.clipped, made.outside) == (0, 0, 0)
    write_polygon_table(made.table, tmp_path / "p.parquet")
    again = read_polygon_table(tmp_path / "p.parquet")
    assert len(again) == 0
    assert list(again.columns) == list(made.table.columns)
    assert buildings_per_tile(again).empty


def test_geoparquet_says_what_its_specification_demands(tmp_path: Path) -> None:
    square = shapely.box(1, 1, 9, 9)
    rows = [("a", i, on_ground(shapely.affinity.translate(square, i * 12), degrees())) for i in range(3)]
    rows.append(("a", 3, on_ground(shapely.MultiPolygon([square, shapely.box(1, 20, 9, 30)]), degrees())))
    table = build_polygon_table(labels(rows), tile_index(tmp_path, "a")).table
    write_polygon_table(table, tmp_path / "p.parquet")
    stored = pq.read_table(tmp_path / "p.parquet")
    described = json.loads(stored.schema.metadata[b"geo"])
    assert described["version"] == "1.1.0"
    assert described["primary_column"] == "geometry"
    assert list(described["columns"]) == ["geometry", "geometry_px"]
    ground, pixels = described["columns"].values()
    sides = ["xmin", "ymin", "xmax", "ymax"]
    assert ground["covering"] == {"bbox": {side: ["bbox", side] for side in sides}}
    assert "covering" not in pixels  # the boxes are in degrees
    assert CRS.from_json_dict(ground["crs"]) == CRS.from_epsg(4326)
    assert pixels["crs"] is None  # left out it would mean longitude and latitude
    for name, column in described["columns"].items():
        shapes = shapely.from_wkb(stored[name].to_numpy(zero_copy_only=False))
        assert column["encoding"] == "WKB"
        assert column["geometry_types"] == ["Polygon", "MultiPolygon"]
        assert column["bbox"] == shapely.total_bounds(shapes).tolist()
    boxes = np.array([[box[side] for side in sides] for box in stored["bbox"].to_pylist()])
    assert boxes.tolist() == shapely.bounds(table["geometry"].to_numpy()).tolist()

    again = read_polygon_table(tmp_path / "p.parquet")
    assert again.crs.to_epsg() == 4326
    assert gpd.GeoSeries(again["geometry_px"]).crs is None
    assert again.equals(table)


@pytest.fixture(scope="module")
def town() -> tuple[gpd.GeoDataFrame, gpd.GeoDataFrame]:
    """A table of several row groups, and its tiles."""
    rio = full_rio.build(500)
    return build_polygon_table(rio.labels, rio.tiles).table, rio.tiles


def test_a_window_can_be_read_without_the_rest(tmp_path: Path, town: tuple[gpd.GeoDataFrame, gpd.GeoDataFrame]) -> None:
    table, tiles = town
    path = tmp_path / "p.parquet"
    write_polygon_table(table, path)
    window = tiles.geometry.iloc[[250, 251]].total_bounds
    west, south, east, north = window
    expected = table[table.intersects(shapely.box(*window))].sort_values(["tile_id", "building_id"], ignore_index=True)
    assert 50 < len(expected) < 1000

    overlaps = f"bbox.xmin <= {east} AND bbox.xmax >= {west} AND bbox.ymin <= {north} AND bbox.ymax >= {south}"
    query = f"SELECT tile_id, building_id, geometry FROM read_parquet('{path}') WHERE {overlaps} ORDER BY ALL"  # noqa: S608
    found = duckdb.sql(query).fetchall()
    inside = [row for row in found if shapely.from_wkb(row[2]).intersects(shapely.box(*window))]
    assert [row[:2] for row in inside] == list(zip(expected["tile_id"], expected["building_id"], strict=True))
    assert shapely.equals(shapely.from_wkb([row[2] for row in inside]), expected.geometry.to_numpy()).all()

    read = gpd.read_parquet(path, bbox=tuple(window)).sort_values(["tile_id", "building_id"], ignore_index=True)
    assert read["building_id"].tolist() == [row[1] for row in found]
    assert list(read.columns) == list(table.columns)

    stored = pq.ParquetFile(path).metadata
    needed = 0
    for group in range(stored.num_row_groups):
        columns = [stored.row_group(group).column(i) for i in range(stored.num_columns)]
        seen = {column.path_in_schema: column.statistics for column in columns if column.statistics}
        needed += (
            seen["bbox.xmin"].min <= east
            and seen["bbox.xmax"].max >= west
            and seen["bbox.ymin"].min <= north
            and seen["bbox.ymax"].max >= south
        )
    assert stored.num_row_groups == math.ceil(len(table) / ROW_GROUP) >= 4
    assert 1 <= needed <= stored.num_row_groups / 2


def test_no_polygon_table_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="Materialize building_polygons"):
        read_polygon_table(tmp_path / "none.parquet")


def test_a_label_that_crosses_itself_only_in_pixels_is_repaired(tmp_path: Path) -> None:
    touching = shapely.from_wkb(
        "010300000001000000060000008063CF9ECBCC45C0E674594C6CE636C02718CE35CCCC45C0C6BFCFB870E636C050C58D5BCCCC45C0"
        "46B1DCD26AE636C053AF5B04C6CC45C03FDD408177E636C047CD57C9C7CC45C059A148F773E636C08063CF9ECBCC45C0E674594C6CE6"
        "36C0"
    )
    path = write_image(tmp_path / "a.tif", np.full((330, 1300, 3), 80, np.uint8), crs=UTM, transform=metres())
    tiles = index_tiles([("a", path)], aoi="Rio").table
    assert touching.is_valid
    assert not to_pixels(np.array([touching]), tiles, np.array([0]))[0].is_valid
    (placed,) = build_polygon_table(labels([("a", 1, touching)]), tiles).table["geometry_px"]
    assert placed.is_valid
    assert placed.area == pytest.approx(
        touching.area / shapely.box(*touching.bounds).area * shapely.box(*placed.bounds).area, rel=0.01
    )


def test_a_label_is_clipped_at_each_side_of_a_tile_that_is_wider_than_high(tmp_path: Path) -> None:
    around = on_ground(shapely.box(-5, -5, WIDTH + 5, HEIGHT + 5), degrees())
    made = build_polygon_table(labels([("a", 1, around)]), tile_index(tmp_path, "a"))
    assert made.table["geometry_px"].iloc[0].bounds == pytest.approx((0, 0, WIDTH, HEIGHT), abs=1e-5)


def test_pixels_are_held_against_degrees_within_a_tile_that_is_wider_than_high(tmp_path: Path) -> None:
    beyond = shapely.box(52, 10, 60, 20)  # farther right than the tile is high
    sample = pd.DataFrame(
        [("a", on_ground(beyond, degrees()), shapely.box(55, 10, 63, 20))],
        columns=["tile_id", "geometry", "geometry_px"],
    )
    found = pixel_shift(sample, tile_index(tmp_path, "a"))
    assert found is not None
    assert found.worst_px == pytest.approx(3, abs=1e-6)


def test_all_parts_that_a_clip_leaves_are_kept(tmp_path: Path) -> None:
    # Two teeth reach into the tile, and between them the comb runs along its edge.
    comb = shapely.Polygon([(-5, 5), (6, 5), (6, 10), (0, 10), (0, 20), (4, 20), (4, 25), (-5, 25)])
    made = build_polygon_table(labels([("a", 1, on_ground(comb, degrees()))]), tile_index(tmp_path, "a"))
    (left,) = made.table["geometry_px"]
    assert left.area == pytest.approx(6 * 5 + 4 * 5, abs=1e-2)


def test_a_table_that_cannot_be_written_whole_leaves_the_former(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = build_polygon_table(
        labels([("a", 1, on_ground(shapely.box(1, 1, 9, 9), degrees()))]), tile_index(tmp_path, "a")
    ).table
    path = tmp_path / "polygons.parquet"
    write_polygon_table(table, path)

    def half(stored: object, target: Path, **_: object) -> None:
        Path(target).write_bytes(b"PAR1")
        raise OSError("No space left on device")

    monkeypatch.setattr(polygons.pq, "write_table", half)
    with pytest.raises(OSError, match="No space left"):
        write_polygon_table(table, path)
    assert len(read_polygon_table(path)) == 1


def test_tiles_of_several_systems_each_have_their_own(tmp_path: Path) -> None:
    square = shapely.box(10, 12, 30, 40)
    systems = {UTM: metres(), "EPSG:4326": degrees(), "EPSG:3857": rasterio.Affine(0.5, 0, -4.85e6, 0, -0.5, -2.62e6)}
    tiles = pd.DataFrame({"crs": list(systems), "transform": [tuple(grid)[:6] for grid in systems.values()]})
    placed = np.array([on_ground(square, grid, crs) for crs, grid in systems.items()], object)
    for order in ([0, 1, 2], [2, 0, 1]):
        for found in to_pixels(placed, tiles.iloc[order].reset_index(drop=True), np.argsort(order)):
            assert found.bounds == pytest.approx(square.bounds, abs=1e-3)
