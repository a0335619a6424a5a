import json
import math
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely

from footprint_pipeline.dataset.polygons import (
    build_polygon_table,
    buildings_per_tile,
    read_polygon_table,
    to_pixels,
    write_polygon_table,
)
from footprint_pipeline.dataset.tiles import index_tiles
from footprint_pipeline.errors import DatasetError
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
    for row, shape in zip(made.table.itertuples(), drawn * 2, strict=True):
        assert shapely.hausdorff_distance(row.geometry_px, shape) < tolerance
        assert row.geometry_px.geom_type == shape.geom_type
    assert shapely.area(made.table["geometry_px"].to_numpy()).sum() * (0.25 if crs == UTM else 0) == pytest.approx(
        made.table["area_m2"].sum() if crs == UTM else 0, rel=1e-3
    )


def test_to_pixels_undoes_a_rotated_grid() -> None:
    grid = [3e-6, 1e-6, WEST, 1.5e-6, -4e-6, NORTH]
    x, y = 12.5, 7.25
    point = shapely.Point(grid[0] * x + grid[1] * y + grid[2], grid[3] * x + grid[4] * y + grid[5])
    (placed,) = to_pixels(np.array([point]), crs="EPSG:4326", transform=grid)
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


def test_labels_of_other_tiles_are_left_out_and_the_rest_is_sorted(tmp_path: Path) -> None:
    square = on_ground(shapely.box(1, 1, 9, 9), degrees())
    rows = [("b", 2, on_ground(shapely.box(1, 1, 9, 9), degrees(1))), ("elsewhere", 1, square), ("a", 7, square)]
    rows += [("a", 3, square), ("b", 1, rows[0][2])]
    table = build_polygon_table(labels(rows), tile_index(tmp_path, "a", "b")).table
    assert list(zip(table["tile_id"], table["building_id"], strict=True)) == [("a", 3), ("a", 7), ("b", 1), ("b", 2)]
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


def test_geoparquet_names_version_covering_and_both_reference_systems(tmp_path: Path) -> None:
    rows = [("a", i, on_ground(shapely.box(i * 9, 1, i * 9 + 7, 9), degrees())) for i in range(3)]
    table = build_polygon_table(labels(rows), tile_index(tmp_path, "a")).table
    write_polygon_table(table, tmp_path / "p.parquet")
    stored = pq.read_table(tmp_path / "p.parquet")
    described = json.loads(stored.schema.metadata[b"geo"])
    assert described["version"] == "1.1.0"
    assert described["primary_column"] == "geometry"
    assert described["columns"]["geometry"]["crs"]["id"]["code"] == 4326
    assert described["columns"]["geometry"]["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    assert described["columns"]["geometry_px"]["crs"] is None  # left out it would mean longitude and latitude
    box = stored["bbox"][1].as_py()
    assert tuple(box.values()) == pytest.approx(rows[1][2].bounds)

    again = read_polygon_table(tmp_path / "p.parquet")
    assert again.crs.to_epsg() == 4326
    assert gpd.GeoSeries(again["geometry_px"]).crs is None
    assert again.geometry.geom_equals(table.geometry).all()
    assert shapely.equals(again["geometry_px"].to_numpy(), table["geometry_px"].to_numpy()).all()


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
    assert not to_pixels(np.array([touching]), crs=UTM, transform=list(metres()))[0].is_valid
    (placed,) = build_polygon_table(labels([("a", 1, touching)]), tiles).table["geometry_px"]
    assert placed.is_valid
    assert placed.area == pytest.approx(
        touching.area / shapely.box(*touching.bounds).area * shapely.box(*placed.bounds).area, rel=0.01
    )
