import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely

from footprint_pipeline.errors import LabelError, TileError
from footprint_pipeline.spacenet.areas import Patterns
from footprint_pipeline.spacenet.labels import read_labels
from footprint_pipeline.spacenet.layout import Layout, discover
from footprint_pipeline_tests.spacenet.conftest import (
    GSD_DEG,
    NORTH,
    WEST,
    polygon,
    row,
    square_px,
    square_wgs84,
    wkt,
    write_csv,
    write_geojson,
    write_spacenet1,
    write_tile,
)

CSV = "AOI_1_RIO_polygons_solution_3band.csv"
FIX = "Fix the row, or pass --skip-bad-labels to drop it and list it in labels_rejected.csv."


def named(number: int) -> str:
    return f"AOI_1_RIO_img{number}"


def geo(name: str, building: object, text: str) -> str:
    return f'{name},{building},"POLYGON EMPTY","{text}"'


def layout_of(folder: Path, rows: list[str], *, tiles: int = 3, header: str | None = None) -> Layout:
    """A folder of tiles img1 … whose summary table holds just these rows."""
    root = write_spacenet1(folder, tiles)
    path = root / "vectordata" / "summarydata" / CSV
    write_csv(path, rows) if header is None else write_csv(path, rows, header=header)
    return discover(root)


def without_table(layout: Layout) -> Layout:
    return replace(layout, summary=None)


def label_file(layout: Layout, number: int) -> Path:
    path = layout.tiles[number - 1].geojson
    assert path is not None
    return path


def at(*offsets_px: tuple[float, float]) -> list[tuple[float, float]]:
    """A closed ring of pixels of tile 1, in degrees."""
    ring = [(WEST + (8 + x) * GSD_DEG, NORTH - y * GSD_DEG) for x, y in offsets_px]
    return [*ring, ring[0]]


def test_the_summary_table_becomes_flat_valid_polygons(tmp_path: Path) -> None:
    labels = read_labels(discover(write_spacenet1(tmp_path)))
    table = labels.table
    assert list(table.columns) == ["tile_id", "building_id", "geometry"]
    assert table.crs.to_epsg() == 4326
    assert table["building_id"].dtype == np.int64
    assert table["tile_id"].tolist() == [named(1), named(3)]
    assert table.index.tolist() == [0, 1]
    assert not table.geometry.has_z.any()
    for number, found in zip((1, 3), table.geometry, strict=True):
        assert found.equals_exact(shapely.Polygon(square_wgs84(number)), 1e-12)
    assert (labels.rows, labels.empty, labels.repaired, labels.slivers, labels.unlabelled) == (3, 1, 0, 0, ())
    assert list(labels.rejected.columns) == ["file", "row", "tile_id", "reason", "text"]
    assert labels.rejected.empty


def test_every_way_to_say_that_there_is_no_building(tmp_path: Path) -> None:
    layout = layout_of(
        tmp_path,
        [
            f"{named(1)},-1,POLYGON EMPTY,POLYGON EMPTY",
            geo(named(2), -1, "POLYGON ((0 0, 0 0, 0 0, 0 0))"),
            geo(named(3), 1, "MULTIPOLYGON EMPTY"),
            geo(named(3), 2, "POLYGON ((0 0 0, 0 0 0, 0 0 0, 0 0 0))"),
        ],
    )
    labels = read_labels(layout)
    assert (labels.rows, labels.empty, len(labels.table), labels.slivers) == (4, 4, 0, 0)
    assert labels.table.crs.to_epsg() == 4326
    assert labels.unlabelled == ()


def test_what_can_be_repaired_is_and_slivers_go(tmp_path: Path) -> None:
    bow_tie = wkt(at((0, 0), (4, 4), (4, 0), (0, 4)))
    spike = wkt(at((0, 0), (4, 0), (4, 4), (4, 7), (4, 4), (0, 4)))
    line = wkt(at((0, 0), (4, 4), (2, 2)))
    hair = wkt(at((0, 0), (4, 0), (4, 0.001)))
    two = "MULTI" + wkt(square_wgs84(1)).replace("((", "(((").replace("))", ")))")
    outside = wkt(at((-0.5, 0), (4, 0), (4, 4), (-0.5, 4)))
    texts = [bow_tie, spike, line, hair, two, outside]
    labels = read_labels(layout_of(tmp_path, [geo(named(1), number, text) for number, text in enumerate(texts)]))
    assert labels.table["building_id"].tolist() == [0, 1, 4, 5]
    assert (labels.repaired, labels.slivers, labels.empty) == (2, 2, 0)
    assert labels.table.geometry.is_valid.all()
    assert set(labels.table.geometry.geom_type) <= {"Polygon", "MultiPolygon"}
    area_px = shapely.area(labels.table.geometry.to_numpy()) / GSD_DEG**2
    assert area_px == pytest.approx([8, 16, 16, 18], rel=1e-4)


@pytest.mark.parametrize("quotes", ['""{}""', '"""{}"""', '"""""{}"""""', "\"'{}'\"", '"  {} "'])
def test_wkt_quoted_twice(tmp_path: Path, quotes: str) -> None:
    text = quotes.format(wkt(square_wgs84(1)))
    labels = read_labels(layout_of(tmp_path, [f"{named(1)},1,{text},{text}", row(named(3), 1, 3)]))
    assert labels.table["tile_id"].tolist() == [named(1), named(3)]
    assert labels.table.geometry[0].equals_exact(shapely.Polygon(square_wgs84(1)), 1e-12)


def test_a_row_that_is_not_wkt_is_named_as_an_editor_counts(tmp_path: Path) -> None:
    rows = [row(named(1), 1, 1), "", geo(named(3), 2, "POLYGN ((0 1, 2 3))"), geo(named(3), 3, "")]
    layout = layout_of(tmp_path, rows)
    with pytest.raises(LabelError) as caught:
        read_labels(layout)
    assert caught.value.problem == f'{CSV}, row 4: PolygonWKT_Geo is not WKT ("POLYGN ((0 1…"). So are 1 more.'
    assert caught.value.fix == FIX
    labels = read_labels(layout, skip_bad=True)
    assert len(labels.table) == 1
    assert labels.rejected.to_dict("records") == [
        {
            "file": CSV,
            "row": 4,
            "tile_id": named(3),
            "reason": "PolygonWKT_Geo is not WKT",
            "text": "POLYGN ((0 1, 2 3))",
        },
        {"file": CSV, "row": 5, "tile_id": named(3), "reason": "PolygonWKT_Geo is not WKT", "text": ""},
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (geo(named(1), 1, "POINT (1 2)"), 'PolygonWKT_Geo is a Point, not a polygon ("POINT (1 2)")'),
        (geo(named(1), 1, "POLYGON ((0 0, 1 0, 1 1))"), "PolygonWKT_Geo is not WKT"),
        (geo(named(1), 1, "POLYGON ((200 95, 201 95, 201 96, 200 95))"), "is not in degrees of longitude"),
        (geo(named(1), 1, "POLYGON ((0 0, nan 0, 1 1, 0 0))"), "has a coordinate that is no number"),
        (f"{named(1)},1,POLYGON EMPTY,{wkt(square_wgs84(1)).replace(', ', ',')}", "has 8 fields, not 4"),  # bare
        (f'{named(1)},1,"POLYGON EMPTY', "has 3 fields, not 4"),  # a file cut short
        (geo(named(1), "first", wkt(square_wgs84(1))), 'BuildingId is not a whole number ("first")'),
        (geo(named(1), 1.5, wkt(square_wgs84(1))), 'BuildingId is not a whole number ("1.5")'),
    ],
)
def test_other_rows_that_cannot_be_used(tmp_path: Path, line: str, message: str) -> None:
    layout = layout_of(tmp_path, [row(named(3), 1, 3), line])
    with pytest.raises(LabelError) as caught:
        read_labels(layout)
    assert f"{CSV}, row 3: " in caught.value.problem
    assert message in caught.value.problem
    assert len(read_labels(layout, skip_bad=True).rejected) == 1


def test_rows_are_numbered_across_empty_lines_and_rows_of_another_length(tmp_path: Path) -> None:
    good = row(named(1), 1, 1)
    rows = [good] * 9000  # more than the reader takes at once
    rows[10], rows[4000], rows[8000], rows[8500] = "", f"{good},more", "", geo(named(3), 2, "POLYGN")
    layout = layout_of(tmp_path, rows)
    assert layout.summary is not None
    assert layout.summary.stat().st_size > 2 * 2**20
    labels = read_labels(layout, skip_bad=True)
    assert labels.rejected[["row", "tile_id", "reason"]].values.tolist() == [
        [4002, named(1), "has 5 fields, not 4"],
        [8502, named(3), "PolygonWKT_Geo is not WKT"],
    ]
    assert (labels.rows, len(labels.table)) == (8998, 8996)
    with pytest.raises(LabelError, match=r"row 4002: has 5 fields, not 4 .* So are 1 more"):
        read_labels(layout)


def test_a_sample_of_what_is_drawn_in_pixels_comes_from_all_tiles(tmp_path: Path) -> None:
    rows = [row(named(1), number, 1) for number in range(2500)]
    rows += [row(named(3), number, 3) for number in range(5)]
    rows += [geo(named(2), 1, wkt(square_wgs84(2))), geo(named(2), 2, "POLYGON EMPTY")]  # nothing in pixels
    layout = layout_of(tmp_path, rows)
    sample = read_labels(layout).pixel_sample
    assert sample["tile_id"].value_counts().to_dict() == {named(1): 1995, named(3): 5}
    assert shapely.equals(sample["geometry_px"].to_numpy(), shapely.Polygon(square_px())).all()
    for number in (1, 3):
        drawn = sample["geometry"][sample["tile_id"] == named(number)].to_numpy()
        assert shapely.equals_exact(drawn, shapely.Polygon(square_wgs84(number)), 1e-12).all()
    assert read_labels(without_table(layout)).pixel_sample.empty


def test_labels_of_unknown_tiles_are_an_error_unless_skipped(tmp_path: Path) -> None:
    layout = layout_of(tmp_path, [row(named(1), 1, 1), *[row(named(number), 1, 1) for number in (7, 8, 9, 10, 10)]])
    with pytest.raises(LabelError) as caught:
        read_labels(layout)
    assert caught.value.problem == (
        f"{CSV}: 5 labels belong to 4 tiles that the source does not have ({named(7)}, {named(8)}, {named(9)}, …)."
    )
    assert "pass --skip-bad-labels to drop them and list them in labels_rejected.csv" in caught.value.fix
    labels = read_labels(layout, skip_bad=True)
    assert labels.rejected["row"].tolist() == [3, 4, 5, 6, 7]
    assert set(labels.rejected["reason"]) == {"belongs to a tile that the source does not have"}
    assert len(labels.table) == labels.rows == 1
    assert read_labels(replace(layout, complete=False)).rejected.empty


def test_labels_of_tiles_left_out_are_passed_over(tmp_path: Path) -> None:
    layout = discover(write_spacenet1(tmp_path, 5)).first(1)
    labels = read_labels(layout)
    assert labels.table["tile_id"].tolist() == [named(1)]
    assert (labels.rows, len(labels.rejected)) == (1, 0)
    assert len(read_labels(without_table(layout)).table) == 1


def test_tiles_without_any_row_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels = read_labels(layout_of(tmp_path, [row(named(1), 1, 1)]))
    assert labels.unlabelled == (named(2), named(3))
    assert labels.pixel_sample["tile_id"].tolist() == [named(1)]
    assert f"2 tiles have no label: {named(2)}, {named(3)}" in caplog.text


def test_pixels_are_placed_by_the_tile_when_there_are_no_degrees(tmp_path: Path) -> None:
    rows = [f'{named(number)},1,"{wkt(square_px())}"' for number in (3, 1)]
    layout = layout_of(tmp_path, rows, header="ImageId,BuildingId,PolygonWKT_Pix")
    labels = read_labels(layout)
    assert labels.table["tile_id"].tolist() == [named(3), named(1)]
    for number, found in zip((3, 1), labels.table.geometry, strict=True):
        assert found.equals_exact(shapely.Polygon(square_wgs84(number)), 1e-12)
    layout.tiles[0].image.write_bytes(b"no image")
    with pytest.raises(TileError, match=r"3band_AOI_1_RIO_img1\.tif: cannot be read"):
        read_labels(layout)


def test_pixels_of_a_projected_tile_end_up_in_degrees(tmp_path: Path) -> None:
    rows = [f'{named(1)},1,"{wkt(square_px())}",']
    layout = layout_of(tmp_path, rows, tiles=1)
    profile = {"driver": "GTiff", "width": 8, "height": 8, "count": 3, "dtype": "uint8", "crs": "EPSG:32630"}
    transform = rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 600_000)
    with rasterio.open(layout.tiles[0].image, "w", transform=transform, **profile) as raster:
        raster.write(np.zeros((3, 8, 8), np.uint8))
    centre = read_labels(layout).table.geometry[0].centroid
    assert (centre.x, centre.y) == pytest.approx((-3.0, 5.4277), abs=1e-3)  # zone 30's middle meridian


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read as CSV"),
        ("ImageId,PolygonWKT_Geo\nx,y\n", "has no column BuildingId"),
        ("ImageId,BuildingId\nx,1\n", "has no column PolygonWKT_Geo"),
        ("a,b\n1,2\n", "has no column ImageId, BuildingId, PolygonWKT_Geo"),
    ],
)
def test_a_table_that_is_none(tmp_path: Path, content: str, message: str) -> None:
    layout = discover(write_spacenet1(tmp_path))
    assert layout.summary is not None
    layout.summary.write_text(content)
    with pytest.raises(LabelError) as caught:
        read_labels(layout)
    assert caught.value.problem.startswith(f"{CSV}: ")
    assert message in caught.value.problem
    assert "ImageId, BuildingId and PolygonWKT_Geo" in caught.value.fix


def test_bytes_that_are_no_text_a_byte_order_mark_and_the_line_ends_of_others(tmp_path: Path) -> None:
    layout = discover(write_spacenet1(tmp_path))
    assert layout.summary is not None
    content = layout.summary.read_bytes()
    layout.summary.write_bytes(b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n"))
    assert len(read_labels(layout).table) == 2
    layout.summary.write_bytes(content.replace(b"\n", b"\r"))
    assert len(read_labels(layout).table) == 2
    layout.summary.write_bytes(b"\x89PNG\xff\xfe" + content)
    with pytest.raises(LabelError, match="cannot be read as CSV"):
        read_labels(layout)


def test_label_files_when_there_is_no_table(tmp_path: Path) -> None:
    layout = without_table(discover(write_spacenet1(tmp_path, 4)))
    label_file(layout, 3).write_bytes(b"")
    cut = {"type": "LineString", "coordinates": [list(point) for point in square_wgs84(4)[:2]]}
    parts = {"type": "MultiPolygon", "coordinates": [polygon(square_wgs84(4))["coordinates"]]}
    write_geojson(label_file(layout, 4), [None, cut, parts, polygon(square_wgs84(4))])
    labels = read_labels(layout)
    assert labels.table["tile_id"].tolist() == [named(1), named(4), named(4)]
    assert labels.table["building_id"].tolist() == [1, 3, 4]
    assert (labels.rows, labels.empty, labels.slivers, labels.unlabelled) == (5, 1, 1, ())
    assert not labels.table.geometry.has_z.any()
    assert labels.table.geometry[2].equals_exact(shapely.Polygon(square_wgs84(4)), 1e-12)


def test_one_odd_feature_costs_no_other_and_a_file_that_is_none_says_nothing_of_its_tile(tmp_path: Path) -> None:
    layout = without_table(discover(write_spacenet1(tmp_path, 4)))
    write_geojson(label_file(layout, 1), [polygon(square_wgs84(1))] * 3)
    told = json.loads(label_file(layout, 1).read_text())
    del told["features"][1]["geometry"]
    told["features"].append(7)
    label_file(layout, 1).write_text(json.dumps(told))
    label_file(layout, 3).write_text('{"features": [{"type": "Fea')  # cut short
    labels = read_labels(layout, skip_bad=True)
    assert labels.table["tile_id"].tolist() == [named(1), named(1), named(4)]
    assert labels.table["building_id"].tolist() == [1, 3, 1]
    assert labels.rejected["row"].tolist() == [2, 4, 1]
    assert labels.unlabelled == (named(3),)


@pytest.mark.parametrize(
    ("given", "ids"),
    [
        ((5, 9), [5, 9]),
        ((7, 7), [1, 2]),
        ((2, None), [1, 2]),
        ((-1, 4), [1, 2]),
        ((True, 3), [1, 2]),
        (("4", 5), [1, 2]),
    ],
)
def test_ids_of_features_tell_buildings_apart(tmp_path: Path, given: tuple, ids: list[int]) -> None:
    layout = without_table(discover(write_spacenet1(tmp_path, 1)))
    write_geojson(label_file(layout, 1), [polygon(square_wgs84(1))] * 2)
    told = json.loads(label_file(layout, 1).read_text())
    for feature, number in zip(told["features"], given, strict=True):
        feature["properties"] = {} if number is None else {"BuildingId": number}
    label_file(layout, 1).write_text(json.dumps(told))
    assert read_labels(layout).table["building_id"].tolist() == ids


def line(*points: tuple[float, float]) -> dict:
    return {"type": "LineString", "coordinates": list(map(list, points))}


def test_a_building_drawn_as_a_line_is_one_when_the_line_closes(tmp_path: Path) -> None:
    layout = without_table(discover(write_spacenet1(tmp_path, 3)))
    ring, bow_tie = square_wgs84(1), at((0, 0), (4, 4), (4, 0), (0, 4))
    write_geojson(label_file(layout, 1), [line(*ring), line(*bow_tie), line(*ring[:2]), line(*at((0, 0), (0.1, 0.1)))])
    labels = read_labels(layout)
    of_first = labels.table[labels.table["tile_id"] == named(1)]
    assert of_first["building_id"].tolist() == [1, 2]
    assert of_first.geometry.iloc[0].equals_exact(shapely.Polygon(ring), 1e-12)
    assert (labels.repaired, labels.slivers, len(labels.rejected)) == (1, 2, 0)

    several = {"type": "MultiLineString", "coordinates": [list(map(list, ring)), list(map(list, square_wgs84(2)))]}
    write_geojson(label_file(layout, 1), [line(*ring[:-1]), several])
    with pytest.raises(LabelError, match=r"feature 1: geometry is an open line, or several, .* So are 1 more"):
        read_labels(layout)
    assert len(read_labels(layout, skip_bad=True).rejected) == 2


def test_labels_in_metres_are_told_how_to_become_degrees(tmp_path: Path) -> None:
    layout = without_table(discover(write_spacenet1(tmp_path, 1)))
    metres = [(600_000.0 + x, 5_000_000.0 + y) for x, y in square_px()]
    for geometry in (polygon(metres), line(*metres), line(*metres[:-1])):
        write_geojson(label_file(layout, 1), [geometry])
        with pytest.raises(LabelError, match="geometry is not in degrees") as caught:
            read_labels(layout)
        assert caught.value.fix.startswith("Reproject the labels to EPSG:4326 (ogr2ogr -t_srs EPSG:4326 ")
        assert "--skip-bad-labels" in caught.value.fix


def test_an_image_may_be_named_as_its_file_is(tmp_path: Path) -> None:
    layout = layout_of(tmp_path, [row(f"3band_{named(1)}.tif", 1, 1), row(f"{named(2)}.TIFF", 1, 2)])
    assert read_labels(layout).table["tile_id"].tolist() == [named(1), named(2)]


def test_stray_label_files_are_named_by_their_pattern(tmp_path: Path) -> None:
    for number in (1, 2):
        write_tile(tmp_path / f"t{number}" / "rgb.tif", number=number)
        write_geojson(tmp_path / f"t{number}" / "buildings.geojson", [polygon(square_wgs84(number))])
    (tmp_path / "t2" / "rgb.tif").unlink()
    layout = discover(tmp_path, patterns=Patterns("{tile}/rgb.tif", "{tile}/buildings.geojson"))
    with pytest.raises(LabelError, match=r"1 labels belong to 1 tiles that the source does not have \(t2\)"):
        read_labels(layout)
    assert read_labels(layout, skip_bad=True).rejected["tile_id"].tolist() == ["t2"]


def test_a_tile_without_a_label_file_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    root = write_spacenet1(tmp_path, 3, csv=False)
    (root / "vectordata" / "geojson" / f"Geo_{named(3)}.geojson").unlink()
    labels = read_labels(discover(root))
    assert labels.unlabelled == (named(3),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{broken", 'feature 1: the file is not GeoJSON with a list of features ("{broken")'),
        (b"[1, 2]", "the file is not GeoJSON"),
        (b'{"features": [7]}', "is no feature with a geometry"),
        (b"\xff\xfe\x00", "the file is not GeoJSON"),
        (b'{"features": [{"geometry": {"type": "Polygon", "coordinates": [[[0, "a"]]]}}]}', "geometry is not GeoJSON"),
        (
            b'{"features": [{"geometry": {"type": "GeometryCollection", "geometries": '
            b'[{"type": "Point", "coordinates": [1, 2]}]}}]}',
            "geometry is a Geometrycollection, not a polygon",
        ),
    ],
)
def test_a_label_file_that_is_none(tmp_path: Path, content: bytes, message: str) -> None:
    layout = without_table(discover(write_spacenet1(tmp_path)))
    label_file(layout, 3).write_bytes(content)
    with pytest.raises(LabelError) as caught:
        read_labels(layout)
    assert caught.value.problem.startswith(f"Geo_{named(3)}.geojson, feature 1: ")
    assert message in caught.value.problem
    assert caught.value.fix.startswith("Fix the feature, or pass --skip-bad-labels")
    labels = read_labels(layout, skip_bad=True)
    assert labels.table["tile_id"].tolist() == [named(1)]
    assert labels.rejected["file"].tolist() == [f"Geo_{named(3)}.geojson"]


def test_label_files_of_unknown_tiles_are_an_error(tmp_path: Path) -> None:
    root = write_spacenet1(tmp_path, 2, csv=False)
    for number in (8, 9):
        write_geojson(root / "vectordata" / "geojson" / f"Geo_{named(number)}.geojson", [polygon(square_wgs84(1))])
    layout = discover(root)
    with pytest.raises(LabelError, match="2 label files: 2 labels belong to 2 tiles that the source does not have"):
        read_labels(layout)
    assert len(read_labels(layout, skip_bad=True).rejected) == 2
    known = replace(layout, tile_ids=layout.tile_ids | {named(8), named(9)})
    assert len(read_labels(known).table) == 1


def test_no_labels_at_all_in_the_label_files(tmp_path: Path) -> None:
    layout = discover(write_spacenet1(tmp_path, 1, csv=False))
    label_file(layout, 1).write_bytes(b"")
    labels = read_labels(layout)
    assert (len(labels.table), labels.rows, labels.unlabelled) == (0, 0, ())
    assert isinstance(labels.rejected, pd.DataFrame)


@pytest.mark.parametrize(
    ("name", "buildings", "rows", "empty"), [("accra", 4177, 4177, 0), ("rio", 168, 171, 3), ("vegas", 73, 75, 2)]
)
def test_real_labels(real_data: Path, name: str, buildings: int, rows: int, empty: int) -> None:
    layout = discover(real_data / name)
    labels = read_labels(layout)
    assert (len(labels.table), labels.rows, labels.empty, len(labels.rejected)) == (buildings, rows, empty, 0)
    assert labels.table.geometry.is_valid.all()
    assert not labels.table.geometry.has_z.any()
    files = read_labels(without_table(layout))
    assert abs(len(files.table) - buildings) <= 1  # one row of the table is a part of its own in the file, or not
    both = shapely.union_all(labels.table.geometry), shapely.union_all(files.table.geometry)
    assert shapely.intersection(*both).area / shapely.union(*both).area > 0.999


def test_a_sample_has_every_building_of_a_tile_of_few(tmp_path: Path) -> None:
    rows = [row(named(1), number, 1) for number in range(2500)] + [row(named(3), number, 3) for number in range(50)]
    sample = read_labels(layout_of(tmp_path, rows)).pixel_sample
    assert sample["tile_id"].value_counts().to_dict() == {named(1): 1950, named(3): 50}


def test_a_shed_is_no_sliver(tmp_path: Path) -> None:
    side = (0.1 / 0.25) ** 0.5  # of a pixel of half a metre: a tenth of a square metre
    shed = wkt(at((0, 0), (side, 0), (side, side), (0, side)))
    labels = read_labels(layout_of(tmp_path, [geo(named(1), 1, shed)]))
    assert (len(labels.table), labels.slivers) == (1, 0)


def test_pixels_of_a_turned_tile_end_up_where_it_says(tmp_path: Path) -> None:
    layout = layout_of(tmp_path, [f'{named(1)},1,"{wkt(square_px())}",'], tiles=1)
    turned = rasterio.Affine(3e-6, 1e-6, WEST, 2e-6, -4e-6, NORTH)
    profile = {"driver": "GTiff", "width": 8, "height": 8, "count": 3, "dtype": "uint8", "crs": "EPSG:4326"}
    with rasterio.open(layout.tiles[0].image, "w", transform=turned, **profile) as raster:
        raster.write(np.zeros((3, 8, 8), np.uint8))
    expected = shapely.Polygon([turned @ point for point in square_px()])
    assert read_labels(layout).table.geometry[0].normalize().equals_exact(expected.normalize(), 1e-12)


@pytest.mark.parametrize("ring", ["20 95, 21 95, 21 96, 20 95", "200 5, 201 5, 201 6, 200 5"])
def test_either_coordinate_may_be_no_degree(tmp_path: Path, ring: str) -> None:
    with pytest.raises(LabelError, match="is not in degrees of longitude"):
        read_labels(layout_of(tmp_path, [geo(named(1), 1, f"POLYGON (({ring}))")]))


@pytest.mark.parametrize(
    ("name", "fits"), [("urn:ogc:def:crs:OGC:1.3:CRS84", True), ("EPSG:4326", True), ("EPSG:4267", False)]
)
def test_a_label_file_in_another_system_is_not_taken_for_wgs_84(tmp_path: Path, name: str, fits: bool) -> None:
    layout = without_table(layout_of(tmp_path, [], tiles=1))
    path = label_file(layout, 1)
    write_geojson(path, [polygon(square_wgs84(1))])
    crs = {"type": "name", "properties": {"name": name}}
    path.write_text(json.dumps({**json.loads(path.read_text()), "crs": crs}))
    if fits:
        assert len(read_labels(layout).table) > 0
        return
    with pytest.raises(LabelError, match="is in EPSG:4267, not in degrees of longitude") as caught:
        read_labels(layout)
    assert "ogr2ogr -t_srs EPSG:4326" in caught.value.fix
