"""One vector file of the buildings of all tiles."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely

from footprint_pipeline.errors import LabelError
from footprint_pipeline.spacenet.areas import MAPS, Patterns
from footprint_pipeline.spacenet.label_map import _around, _of_one_layer, read_map
from footprint_pipeline.spacenet.labels import Labels, read_labels
from footprint_pipeline.spacenet.layout import discover
from footprint_pipeline_tests.spacenet.conftest import GSD_DEG, NORTH, WEST, write_tile

DRIVERS = {".gpkg": "GPKG", ".fgb": "FlatGeobuf"}
UTM = "EPSG:32723"


def box(west_px: float, north_px: float, east_px: float, south_px: float) -> shapely.Polygon:
    """A rectangle in degrees, by pixels from the upper left corner of tile 0; a tile has 8 × 8."""
    x, y = (WEST + px * GSD_DEG for px in (west_px, east_px)), (NORTH - px * GSD_DEG for px in (north_px, south_px))
    (west, east), (north, south) = x, y
    return shapely.box(west, south, east, north)


def write(path: Path, shapes: list, crs: str | None = "EPSG:4326") -> Path:
    table = gpd.GeoDataFrame({"height": range(len(shapes))}, geometry=shapes, crs="EPSG:4326")
    table = table.to_crs(crs or "EPSG:4326")
    if crs is None:
        table = table.set_crs(None, allow_override=True)
    if path.suffix == ".parquet":
        table.set_index("b" + table["height"].astype(str)).to_parquet(path)
    else:
        table.to_file(path, driver=DRIVERS.get(path.suffix, "GeoJSON"))
    return path


def read(folder: Path, path: Path, *, tiles: int = 4, skip_bad: bool = False) -> Labels:
    """The labels of tiles t0, t1 … side by side."""
    for number in range(tiles):
        write_tile(folder / f"t{number}.tif", number=number)
    layout = discover(folder, patterns=Patterns("{tile}.tif", summary=path.name))
    outlines = gpd.GeoSeries({f"t{number}": box(8 * number, 0, 8 * number + 8, 8) for number in range(tiles)}, crs=4326)
    return read_labels(layout, skip_bad=skip_bad, outlines=outlines)


@pytest.mark.parametrize("suffix", MAPS)
def test_buildings_are_shared_out_to_the_tiles_that_they_lie_on(tmp_path: Path, suffix: str) -> None:
    shapes = [box(1, 1, 3, 3), box(6, 2, 10, 4), box(16, 0, 24, 2), box(1, 20, 3, 22), box(33, 1, 35, 3)]
    in_metres = UTM if suffix not in (".geojson", ".json") else "EPSG:4326"
    labels = read(tmp_path, write(tmp_path / f"all{suffix}", shapes, in_metres))
    # The second lies on two tiles; the third ends at the edges of its own; the others are of no tile.
    of_tile = dict(tuple(labels.table.groupby("tile_id")))
    assert {name: len(buildings) for name, buildings in of_tile.items()} == {"t0": 2, "t1": 1, "t2": 1}
    if suffix != ".fgb":  # which puts features into an order of its own
        assert labels.table["building_id"].tolist() == [1, 2, 2, 3]
    assert labels.table.crs == "EPSG:4326"
    assert of_tile["t1"].geometry.item().normalize().equals_exact(shapes[1].normalize(), 1e-9)
    assert (labels.rejected.empty, labels.unlabelled, labels.rows) == (True, (), 4)


def test_a_tile_beyond_all_buildings_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    labels = read(tmp_path, write(tmp_path / "all.gpkg", [box(1, 1, 3, 3), box(17, 1, 19, 3)]))
    assert labels.unlabelled == ("t3",)  # t1 lies between buildings


def test_a_building_in_another_town_says_nothing_of_a_tile(tmp_path: Path) -> None:
    elsewhere = [box(-400, 0, -398, 2), box(400, 0, 402, 2)]  # on either side of all tiles, and far away
    labels = read(tmp_path, write(tmp_path / "all.gpkg", [box(1, 1, 3, 3), *elsewhere]))
    assert labels.unlabelled == ("t1", "t2", "t3")
    labels = read(tmp_path, write(tmp_path / "all.parquet", [box(1, 1, 3, 3), *elsewhere]))
    assert labels.unlabelled == ("t1", "t2", "t3")


def test_a_closed_line_across_an_edge_is_a_building_on_both_tiles(tmp_path: Path) -> None:
    outline = box(6, 2, 10, 4).exterior
    labels = read(tmp_path, write(tmp_path / "all.gpkg", [shapely.LineString(outline.coords)]))
    assert labels.table["tile_id"].tolist() == ["t0", "t1"]
    assert labels.table.geometry[0].normalize().equals_exact(shapely.Polygon(outline).normalize(), 1e-9)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_coordinate_that_is_no_number_is_named_and_can_be_left_out(tmp_path: Path, broken: float) -> None:
    (west, south, east, north) = box(9, 1, 14, 6).bounds
    with np.errstate(invalid="ignore"):
        wrong = shapely.Polygon([(west, south), (east, south), (broken, north), (west, north)])
    path = write(tmp_path / "all.fgb", [box(1, 1, 3, 3), wrong])
    with pytest.raises(LabelError, match=r"all\.fgb, feature \d: geometry has a coordinate that is no number"):
        read(tmp_path, path)
    labels = read(tmp_path, path, skip_bad=True)
    assert (labels.table["tile_id"].tolist(), labels.rejected["tile_id"].tolist()) == (["t0"], ["t1"])


def test_of_a_large_file_only_the_neighbourhood_is_read(tmp_path: Path) -> None:
    far = [box(1000 * n, 0, 1000 * n + 2, 2) for n in range(1, 50)]
    path = write(tmp_path / "country.gpkg", [*far, box(1, 1, 3, 3)], UTM)
    outlines = gpd.GeoSeries([box(0, 0, 8, 8)], index=["t0"], crs=4326)
    assert len(_of_one_layer(path, _around(outlines))) == 1
    rows, labelled = read_map(path, outlines)
    assert (rows["row"].tolist(), labelled) == ([50], {"t0"})


def test_a_feature_that_is_no_polygon_is_named_and_can_be_left_out(tmp_path: Path) -> None:
    (west, south, east, north) = box(9, 1, 14, 6).bounds
    corner = shapely.LineString([(west, south), (east, south), (east, north)])
    path = write(tmp_path / "all.gpkg", [box(1, 1, 3, 3), corner, shapely.LineString([(0, 0), (1, 0), (1, 1)])])
    with pytest.raises(LabelError, match=r"all\.gpkg, feature 2: geometry is an open line") as caught:
        read(tmp_path, path)
    assert "--skip-bad-labels" in caught.value.fix
    labels = read(tmp_path, path, skip_bad=True)
    assert (len(labels.table), labels.rejected["tile_id"].tolist()) == (1, ["t1"])


def test_a_bowtie_across_an_edge_is_repaired(tmp_path: Path) -> None:
    (west, south, east, north) = box(6, 2, 10, 6).bounds
    bowtie = shapely.Polygon([(west, south), (east, north), (east, south), (west, north)])
    labels = read(tmp_path, write(tmp_path / "all.gpkg", [bowtie]))
    assert labels.table["tile_id"].tolist() == ["t0", "t1"]
    assert labels.repaired == 2


def test_no_feature_at_all_says_nothing_of_any_tile(tmp_path: Path) -> None:
    labels = read(tmp_path, write(tmp_path / "all.parquet", []), tiles=2)
    assert (len(labels.table), labels.unlabelled) == (0, ("t0", "t1"))


def test_a_file_that_cannot_be_placed_or_read_is_explained(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"nowhere\.parquet: has no coordinate system") as caught:
        read(tmp_path, write(tmp_path / "nowhere.parquet", [box(1, 1, 3, 3)], None))
    assert "-a_srs" in caught.value.fix
    for name in ("broken.gpkg", "broken.parquet", "broken.geojson"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(LabelError, match=rf"{name}: cannot be read as a vector file \(.+\)"):
            read(tmp_path, tmp_path / name)


def test_of_several_layers_one_must_be_chosen(tmp_path: Path) -> None:
    table = gpd.GeoDataFrame(geometry=[box(1, 1, 3, 3)], crs="EPSG:4326")
    for layer in ("roads", "buildings"):
        table.to_file(tmp_path / "town.gpkg", layer=layer)
    with pytest.raises(LabelError, match=r"town\.gpkg: holds several layers \(roads, buildings\)") as caught:
        read(tmp_path, tmp_path / "town.gpkg")
    assert "ogr2ogr OUT IN LAYER" in caught.value.fix
