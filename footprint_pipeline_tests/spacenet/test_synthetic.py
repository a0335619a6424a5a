import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from pyproj import Geod
from rasterio.features import rasterize

from footprint_pipeline.errors import SettingsError, SourceError
from footprint_pipeline.spacenet.synthetic.city import CitySpec, CitySummary, make_city, write_city

SPEC = CitySpec(rows=2, columns=3, tile_height=128, tile_width=144)
LABELS = "processedBuildingLabels"
TABLE = f"{LABELS}/vectordata/summarydata/AOI_0_SYNTHETIC_polygons_solution_3band.csv"


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> CitySummary:
    return write_city(tmp_path_factory.mktemp("synthetic") / "city", SPEC)


def image_path(city: CitySummary, number: int) -> Path:
    return city.folder / LABELS / "3band" / f"3band_AOI_0_SYNTHETIC_img{number}.tif"


def rows_of(city: CitySummary) -> list[dict[str, str]]:
    with (city.folder / TABLE).open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as image:
        return np.moveaxis(image.read(), 0, 2)


def polygons_px(city: CitySummary, number: int) -> list[shapely.Polygon]:
    image_id = f"AOI_0_SYNTHETIC_img{number}"
    rows = [row for row in rows_of(city) if row["ImageId"] == image_id and row["BuildingId"] != "-1"]
    return [shapely.force_2d(shapely.from_wkt(row["PolygonWKT_Pix"])) for row in rows]


def test_files_are_where_spacenet_has_them(city: CitySummary) -> None:
    files = {path.relative_to(city.folder).as_posix() for path in city.folder.rglob("*") if path.is_file()}
    numbers = range(1, SPEC.tiles + 1)
    assert files == {
        "mosaic.tif",
        "buildings.geojson",
        "city.json",
        TABLE,
        *(f"{LABELS}/3band/3band_AOI_0_SYNTHETIC_img{number}.tif" for number in numbers),
        *(f"{LABELS}/vectordata/geojson/Geo_AOI_0_SYNTHETIC_img{number}.geojson" for number in numbers),
    }
    assert sorted(path.name for path in city.folder.parent.iterdir()) == ["city"]


def test_tiles_are_compressed_rgb_in_degrees(city: CitySummary) -> None:
    with rasterio.open(image_path(city, 1)) as image:
        assert (image.count, image.height, image.width) == (3, SPEC.tile_height, SPEC.tile_width)
        assert set(image.dtypes) == {"uint8"}
        assert image.crs.to_epsg() == 4326
        assert image.interleaving.value == "PIXEL"
        assert image.compression is not None


@pytest.mark.parametrize("latitude", [-55.0, 0.5, 38.0, 64.0])
def test_a_pixel_has_the_ground_size_both_ways(latitude: float) -> None:
    spec = replace(SPEC, gsd_m=0.3, origin_wgs84=(-20.0, latitude))
    transform = spec.transform_at(50, 50)
    east = Geod(ellps="WGS84").inv(transform.c, transform.f, transform.c + 100 * transform.a, transform.f)[2]
    south = Geod(ellps="WGS84").inv(transform.c, transform.f, transform.c, transform.f + 100 * transform.e)[2]
    assert (east / 100, south / 100) == pytest.approx((0.3, 0.3), rel=0.01)


def test_tiles_and_mosaic_are_the_same_pixels_on_one_grid(city: CitySummary) -> None:
    with rasterio.open(city.mosaic) as mosaic:
        whole, grid = np.moveaxis(mosaic.read(), 0, 2), mosaic.transform
        assert mosaic.nodata == 0
        assert mosaic.profile["tiled"]
        assert mosaic.overviews(1)
    assert whole.shape == (SPEC.height, SPEC.width, 3)
    for number in range(1, SPEC.tiles + 1):
        row, column = divmod(number - 1, SPEC.columns)
        top, left = row * SPEC.tile_height, column * SPEC.tile_width
        np.testing.assert_array_equal(
            pixels(image_path(city, number)), whole[top : top + SPEC.tile_height, left : left + SPEC.tile_width]
        )
        with rasterio.open(image_path(city, number)) as image:
            expected = grid.c + left * grid.a, grid.f + top * grid.e
            assert (image.transform.c, image.transform.f) == pytest.approx(expected, abs=1e-12)
            assert (image.transform.a, image.transform.e) == pytest.approx((grid.a, grid.e), rel=1e-9)


def test_the_table_has_spacenets_columns_and_quirks(city: CitySummary) -> None:
    rows = rows_of(city)
    assert list(rows[0]) == ["ImageId", "BuildingId", "PolygonWKT_Pix", "PolygonWKT_Geo"]
    assert {row["ImageId"] for row in rows} == {f"AOI_0_SYNTHETIC_img{number}" for number in range(1, SPEC.tiles + 1)}
    empty = [row for row in rows if row["BuildingId"] == "-1"]
    assert {row["PolygonWKT_Pix"] for row in empty} == {row["PolygonWKT_Geo"] for row in empty} == {"POLYGON EMPTY"}
    assert len(empty) == city.empty_tiles
    assert len(rows) - len(empty) == city.label_rows
    labels = [row for row in rows if row["BuildingId"] != "-1"]
    assert all(row["PolygonWKT_Pix"].startswith("POLYGON ((") for row in labels)
    assert all(row["PolygonWKT_Geo"].endswith(" 0))") for row in labels)


def test_pixel_and_geographic_outlines_agree(city: CitySummary) -> None:
    checked = 0
    for row in rows_of(city):
        if row["BuildingId"] == "-1":
            continue
        with rasterio.open(image_path(city, int(row["ImageId"].rpartition("img")[2]))) as image:
            grid = image.transform
        in_pixels = shapely.get_coordinates(shapely.from_wkt(row["PolygonWKT_Pix"]))
        in_degrees = shapely.get_coordinates(shapely.from_wkt(row["PolygonWKT_Geo"]))
        back = (in_degrees - (grid.c, grid.f)) / (grid.a, grid.e)
        np.testing.assert_allclose(back, in_pixels, atol=0.01)
        assert in_pixels.min() >= -1e-6
        assert (in_pixels.max(axis=0) <= (SPEC.tile_width + 1e-6, SPEC.tile_height + 1e-6)).all()
        checked += 1
    assert checked == city.label_rows


def test_geojson_holds_the_same_outlines_as_the_table(city: CitySummary) -> None:
    for number in range(1, SPEC.tiles + 1):
        path = city.folder / LABELS / "vectordata" / "geojson" / f"Geo_AOI_0_SYNTHETIC_img{number}.geojson"
        features = json.loads(path.read_text(encoding="utf-8"))["features"]
        outlines = [shapely.from_geojson(json.dumps(feature["geometry"])) for feature in features]
        image_id = f"AOI_0_SYNTHETIC_img{number}"
        rows = [row for row in rows_of(city) if row["ImageId"] == image_id and row["BuildingId"] != "-1"]
        assert len(outlines) == len(rows)
        for outline, row in zip(outlines, rows, strict=True):
            assert outline.has_z
            np.testing.assert_allclose(
                shapely.get_coordinates(outline),
                shapely.get_coordinates(shapely.from_wkt(row["PolygonWKT_Geo"])),
                atol=1e-11,
            )


def test_labels_lie_where_the_roofs_are_drawn(city: CitySummary) -> None:
    roofs = make_city(SPEC).roofs
    for number in range(1, SPEC.tiles + 1):
        row, column = divmod(number - 1, SPEC.columns)
        top, left = row * SPEC.tile_height, column * SPEC.tile_width
        drawn = roofs[top : top + SPEC.tile_height, left : left + SPEC.tile_width]
        outlines = polygons_px(city, number)
        labelled = rasterize(outlines, drawn.shape).astype(bool) if outlines else np.zeros_like(drawn)
        assert (labelled ^ drawn).sum() <= 0.002 * drawn.size
    assert 0.05 < roofs.mean() < 0.6


def test_roofs_and_ground_cannot_be_told_apart_by_brightness() -> None:
    city = make_city(replace(SPEC, rows=3))
    imaged = city.rgb.max(axis=2) > 0
    grey = city.rgb.mean(axis=2)
    roof, ground = grey[city.roofs], grey[imaged & ~city.roofs]
    best = max(np.mean([(roof > level).mean(), (ground <= level).mean()]) for level in range(20, 240, 5))
    assert best < 0.85


def test_some_tile_is_empty_and_some_tile_has_a_black_edge(city: CitySummary) -> None:
    black = [(pixels(image_path(city, number)) == 0).all(axis=2).mean() for number in range(1, SPEC.tiles + 1)]
    assert city.empty_tiles >= 1
    assert any(0.02 < share < 0.9 for share in black)
    assert max(black[0], black[1]) == 0
    with_buildings = sum(bool(polygons_px(city, number)) for number in range(1, SPEC.tiles + 1))
    assert with_buildings == SPEC.tiles - city.empty_tiles >= SPEC.tiles / 2


def test_every_band_is_dark_where_there_is_no_imagery_and_nowhere_else() -> None:
    rgb = make_city(SPEC).rgb
    assert ((rgb == 0).any(axis=2) == (rgb == 0).all(axis=2)).all()


def test_no_label_reaches_into_the_black(city: CitySummary) -> None:
    for number in range(1, SPEC.tiles + 1):
        black = (pixels(image_path(city, number)) == 0).all(axis=2)
        outlines = polygons_px(city, number)
        if outlines:
            assert not (rasterize(outlines, black.shape).astype(bool) & black).any()


def test_buildings_are_whole_valid_and_measured(city: CitySummary) -> None:
    features = json.loads((city.folder / "buildings.geojson").read_text(encoding="utf-8"))["features"]
    assert len(features) == city.buildings <= city.label_rows
    outlines = np.array([shapely.from_geojson(json.dumps(feature["geometry"])) for feature in features])
    assert shapely.is_valid(outlines).all()
    degrees = shapely.area(outlines) / (SPEC.transform.a * -SPEC.transform.e)
    areas = [feature["properties"]["area_m2"] for feature in features]
    np.testing.assert_allclose(areas, degrees * SPEC.gsd_m**2, rtol=0.01)


def test_buildings_do_not_overlap() -> None:
    for seed in (2, 19):
        outlines = make_city(CitySpec(seed=seed, rows=3, columns=3, tile_height=192, tile_width=192)).footprints_px
        one, other = shapely.STRtree(outlines).query(outlines, predicate="intersects")
        pairs = one < other
        assert shapely.area(shapely.intersection(outlines[one[pairs]], outlines[other[pairs]])).sum() < 0.01


def test_the_centre_is_among_buildings(city: CitySummary) -> None:
    features = json.loads((city.folder / "buildings.geojson").read_text(encoding="utf-8"))["features"]
    latitude, longitude = city.centre
    distances = [
        Geod(ellps="WGS84").inv(longitude, latitude, *feature["geometry"]["coordinates"][0][0][:2])[2]
        for feature in features
    ]
    assert sum(distance < 75 for distance in distances) >= 3


def test_the_same_spec_gives_the_same_bytes(city: CitySummary, tmp_path: Path) -> None:
    again = write_city(tmp_path / "again", SPEC)
    assert replace(again, folder=city.folder, mosaic=city.mosaic) == city
    for path in city.folder.rglob("*"):
        if path.is_file():
            assert (again.folder / path.relative_to(city.folder)).read_bytes() == path.read_bytes()


def test_another_seed_gives_another_city() -> None:
    one, other = make_city(SPEC), make_city(replace(SPEC, seed=7))
    assert (one.roofs != other.roofs).mean() > 0.05
    assert (one.rgb != other.rgb).mean() > 0.5


def test_what_is_there_is_not_written_again(tmp_path: Path) -> None:
    spec = CitySpec(rows=1, columns=1, tile_height=96, tile_width=96)
    first = write_city(tmp_path / "city", spec)
    before = first.mosaic.stat().st_mtime_ns
    assert write_city(tmp_path / "city", spec) == first
    assert first.mosaic.stat().st_mtime_ns == before


def test_a_city_of_another_spec_is_replaced(tmp_path: Path) -> None:
    spec = CitySpec(rows=1, columns=2, tile_height=96, tile_width=96)
    write_city(tmp_path / "city", spec)
    second = write_city(tmp_path / "city", replace(spec, columns=1))
    assert second.tiles == 1
    assert not image_path(second, 2).exists()


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(SourceError, match="something else"):
        write_city(tmp_path, SPEC)
    assert (tmp_path / "precious.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "spec",
    [
        CitySpec(rows=1, columns=1, tile_height=64, tile_width=64),
        CitySpec(rows=7, columns=1, tile_height=80, tile_width=100),
        CitySpec(rows=1, columns=6, tile_height=100, tile_width=80, gsd_m=0.3),
    ],
)
def test_small_and_narrow_cities_can_be_drawn(spec: CitySpec) -> None:
    assert make_city(spec).rgb.shape == (spec.height, spec.width, 3)


@pytest.mark.parametrize("wrong", [{"rows": 0}, {"tile_width": 10}, {"gsd_m": 0.0}])
def test_an_impossible_spec_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(SettingsError, match="No city"):
        replace(SPEC, **wrong)
