"""Import of images and masks: files are made here, as public sets have them, and read back as the pipeline does."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
import shapely
from PIL import Image
from rasterio.enums import ColorInterp

from footprint_pipeline.commands.import_masks import import_masks
from footprint_pipeline.dataset.polygons import build_polygon_table
from footprint_pipeline.dataset.rasterize import rasterize_polygons
from footprint_pipeline.dataset.spec import MaskSpec, SplitSpec
from footprint_pipeline.dataset.tiles import index_tiles, read_tile
from footprint_pipeline.errors import SourceError
from footprint_pipeline.lake import Lake
from footprint_pipeline.settings import Settings
from footprint_pipeline.spacenet.labels import read_labels
from footprint_pipeline.spacenet.layout import discover
from footprint_pipeline.spacenet.mask_pairs import import_pairs, outlines
from footprint_pipeline.spacenet.pair_files import read_building_mask
from footprint_pipeline.spacenet.sources import resolve_source
from footprint_pipeline.stages.data import collect_polygons, draw_masks, fetch_tiles, split_tiles

HEIGHT, WIDTH = 48, 60
DEGREES = 2.7e-6
WEST, NORTH = 36.8, -1.2


def drawn(seed: int) -> np.ndarray:
    """Houses, one of them with a courtyard, one turned, and a speck of three pixels: bool, shape (H, W)."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    top, left = rng.integers(2, 8, 2)
    mask[top : top + 14, left : left + 16] = 1
    mask[top + 5 : top + 9, left + 5 : left + 11] = 0
    corners = cv2.boxPoints(((40.0, 30.0), (20.0, 11.0), float(rng.uniform(10, 80))))
    cv2.fillPoly(mask, [np.rint(corners).astype(np.int32)], 1)
    mask[44, 2:5] = 1
    return mask == 1


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 256, (HEIGHT, WIDTH, 3), np.uint8)


def bounds_of(number: int) -> tuple[float, float, float, float]:
    west = WEST + number * WIDTH * DEGREES
    return west, NORTH - HEIGHT * DEGREES, west + WIDTH * DEGREES, NORTH


def write(folder: Path, name: str, pixels: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(folder / name), pixels[..., ::-1] if pixels.ndim == 3 else pixels)
    return folder / name


def pair(home: Path, stem: str, number: int = 0) -> None:
    write(home / "images", f"{stem}.png", picture(number))
    write(home / "masks", f"{stem}.png", drawn(number) * np.uint8(255))


def write_bounds(home: Path, *stems: str) -> Path:
    rows = [f"{stem}.png,somewhere,{','.join(map(repr, bounds_of(i)))}" for i, stem in enumerate(stems)]
    (home / "bounds.csv").write_text("file,place,west,south,east,north\n" + "\n".join(rows) + "\n")
    return home / "bounds.csv"


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Three pairs and the CSV of their bounds."""
    for number, stem in enumerate(("a", "b 1", "b-2")):
        pair(tmp_path, stem, number)
    write_bounds(tmp_path, "a", "b 1", "b-2")
    return tmp_path


def run(home: Path, **changes: object) -> dict:
    options = {"aoi": "Town", "bounds": home / "bounds.csv", "out": home / "out"} | changes
    return import_masks(Settings(), images=home / "images", masks=home / "masks", **options)


def test_what_is_imported_reads_back_to_the_pixel(three: Path) -> None:
    answer = run(three, aoi="TOWN")
    assert (answer["aoi"], answer["tiles"], answer["kept"], answer["buildings"]) == ("AOI_99_Town", 3, 0, 6)
    assert answer["slivers"] == 3
    assert "footprint prepare --source" in answer["_lines"][-1]
    layout = discover(Path(answer["source"]))
    assert (layout.aoi, layout.kind, layout.summary) == ("AOI_99_Town", "spacenet1", None)
    assert [tile.tile_id for tile in layout.tiles] == [f"AOI_99_Town_{stem}" for stem in ("a", "b-2", "b_1")]
    index = index_tiles([(tile.tile_id, tile.image) for tile in layout.tiles], aoi=layout.aoi, on_bad_tile="fail").table
    labels = read_labels(layout)
    assert (labels.repaired, labels.slivers, labels.unlabelled) == (0, 0, ())
    placed = build_polygon_table(labels.table, index)
    assert (placed.clipped, placed.outside) == (0, 0)
    for row, number in zip(index.itertuples(), (0, 2, 1), strict=True):
        assert np.array_equal(read_tile(Path(row.path))[0], picture(number))
        assert row.geometry.bounds == pytest.approx(bounds_of(number), abs=1e-9)
        expected = drawn(number)
        expected[44, 2:5] = False
        of_tile = placed.table[placed.table["tile_id"] == row.tile_id]
        again = rasterize_polygons(of_tile["geometry_px"].to_numpy(), height=HEIGHT, width=WIDTH)
        assert np.array_equal(again == 1, expected)


def test_rows_of_bounds_that_name_no_image_are_told_and_names_may_have_dots(
    three: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pair(three, "town.v1", 3)
    table = write_bounds(three, "a", "b 1", "b-2", "town.v1")
    table.write_text(table.read_text().replace("town.v1.png", "town.v1"))
    assert run(three)["tiles"] == 4
    assert "name no image" not in caplog.text
    table.write_text(table.read_text().replace("a.png", "A.png"))
    with pytest.raises(SourceError, match="has no georeference"):
        run(three, out=three / "again")
    assert "1 rows name no image that is imported, A the first; 1 images have no row" in caplog.text


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_where_a_mask_says_nothing_there_is_no_building(tmp_path: Path) -> None:
    values = np.zeros((1, 8, 8), np.uint8)
    values[0, :2], values[0, 4:6] = 255, 1
    profile = {"driver": "GTiff", "height": 8, "width": 8, "count": 1, "dtype": "uint8", "nodata": 255}
    with rasterio.open(tmp_path / "mask.tif", "w", **profile) as target:
        target.write(values)
    assert np.array_equal(read_building_mask(tmp_path / "mask.tif"), values[0] == 1)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    ("palette", "building"),
    [([255, 255, 255, 0, 0, 0], 0), ([0, 0, 0, 255, 255, 255], 1), ([0, 0, 0, 128, 0, 0], 1), ([0, 0, 0, 0, 0, 0], 1)],
    ids=["white first", "black first", "classes", "no colours"],
)
def test_a_palette_of_a_mask_is_looked_up(tmp_path: Path, palette: list[int], building: int) -> None:
    mask = drawn(1)
    with rasterio.open(
        tmp_path / "mask.png", "w", driver="PNG", width=WIDTH, height=HEIGHT, count=1, dtype="uint8"
    ) as target:
        target.write_colormap(1, {0: tuple(palette[:3]), 1: tuple(palette[3:])})
        target.write(np.where(mask, building, 1 - building).astype(np.uint8), 1)
    assert np.array_equal(read_building_mask(tmp_path / "mask.png"), mask)


def test_it_can_be_prepared_as_any_other_area(three: Path, tmp_path: Path) -> None:
    source = run(three)["source"]
    folder = Lake(tmp_path / "home").aoi("AOI_99_Town")
    aoi = resolve_source(source, tmp_path / "home")
    _, index = fetch_tiles(Settings(home=tmp_path / "home"), aoi, folder, tiles=None, on_bad_tile="fail")
    assert len(collect_polygons(folder, skip_bad_labels=False).polygons.table) == 6
    assert draw_masks(folder, MaskSpec()).tiles == len(index.table) == 3
    table = tmp_path / "splits.csv"
    table.write_text("tile_id,split\nAOI_99_Town_a,train\nAOI_99_Town_b_1,validation\n")
    manifest, _ = split_tiles(folder, SplitSpec(), assigned=table)
    assert manifest["split"].tolist() == ["train", "guard", "validation"]


@pytest.mark.parametrize("density", [0.2, 0.45, 0.7])
def test_outlines_drawn_again_are_the_mask_and_have_few_corners(density: float) -> None:
    noise = cv2.resize((np.random.default_rng(1).random((40, 50)) < density).astype(np.uint8), (150, 120)) == 1
    found, slivers = outlines(noise, min_area_px=0)
    parts = cv2.connectedComponents(noise.astype(np.uint8), connectivity=4)[0] - 1
    assert (len(found), slivers) == (parts, 0)
    assert shapely.is_valid(found).all()
    assert np.array_equal(rasterize_polygons(found, height=120, width=150) == 1, noise)
    turned, _ = outlines(drawn(3))
    assert [len(polygon.interiors) for polygon in turned] == [1, 0]
    assert shapely.get_num_coordinates(turned[1]) < 0.5 * turned[1].length


def test_a_second_import_keeps_what_has_not_changed(three: Path) -> None:
    run(three)
    folder = three / "out/AOI_99_Town/processedData/processedBuildingLabels"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")}
    assert len(before) == 6
    assert run(three)["kept"] == 3
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")} == before
    write(three / "masks", "a.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    (folder / "3band/3band_AOI_99_Town_b_1.tif").unlink()
    answer = run(three)
    assert (answer["kept"], answer["buildings"]) == (1, 4)
    assert run(three, min_area_px=1.0)["kept"] == 0
    assert run(three, min_area_px=1.0)["buildings"] == 6


def test_an_import_that_failed_goes_on_where_it_stopped(three: Path) -> None:
    (three / "masks/b-2.png").write_bytes(b"\x89PNG no more")
    with pytest.raises(SourceError, match=r"b-2\.png: cannot be read"):
        import_pairs(
            three / "images", three / "masks", three / "out", aoi="Town", bounds=three / "bounds.csv", threads=1
        )
    pair(three, "b-2", 2)
    answer = run(three)
    assert (answer["tiles"], answer["kept"], answer["buildings"]) == (3, 2, 6)
    assert not list((three / "out").rglob(".*"))


def test_files_that_another_image_made_are_not_written_over(three: Path, tmp_path: Path) -> None:
    run(three)
    other = tmp_path / "other"
    pair(other, "a", 5)
    with pytest.raises(SourceError, match=r"Geo_AOI_99_Town_a\.geojson: is there already and was not made from .*a\.p"):
        run(other, bounds=write_bounds(other, "a"), out=three / "out")
    assert run(other, bounds=other / "bounds.csv", out=three / "out", aoi="AOI_7_Else")["aoi"] == "AOI_7_Else"


def test_what_lacks_its_counterpart_is_left_out_and_named(three: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(three / "images", "alone.jpg", picture(9))
    (three / "masks/a.png").unlink()
    write(three / "masks", "c.png", drawn(1) * np.uint8(255))
    answer = run(three)
    assert (answer["tiles"], answer["without_mask"], answer["without_image"]) == (2, ["a.png", "alone.jpg"], ["c.png"])
    assert "2 images have no mask and are left out, a.png the first" in caplog.text
    assert answer["others"] == []
    (three / "masks/c.png").unlink()
    (three / "masks/b-2.png").rename(three / "masks/withdrawn.png")
    answer = run(three)
    assert (answer["tiles"], answer["others"]) == (1, ["3band_AOI_99_Town_b-2.tif"])
    assert any("1 tiles of other pairs stay" in line for line in answer["_lines"])


def test_georeferences_of_every_kind_lead_to_the_same_place(tmp_path: Path) -> None:
    grid = rasterio.Affine(0.5, 0, 257_000.0, 0, -0.5, 9_867_000.0)
    for name in ("geotiff", "world"):
        write(tmp_path / "masks", f"{name}.png", drawn(0) * np.uint8(1))
    profile = {"driver": "GTiff", "width": WIDTH, "height": HEIGHT, "count": 3, "dtype": "uint8"}
    with rasterio.open(tmp_path / "images.tif", "w", crs="EPSG:32737", transform=grid, **profile) as target:
        target.write(np.moveaxis(picture(0), -1, 0))
    write(tmp_path / "images", "world.png", picture(0))
    (tmp_path / "images.tif").rename(tmp_path / "images/geotiff.tif")
    with pytest.raises(SourceError, match=r"world\.png: has no georeference\.\n.*world file.*--bounds"):
        run(tmp_path, bounds=None)
    (tmp_path / "images/world.pgw").write_text("0.5\n0\n0\n-0.5\n257000.25\n9866999.75\n")
    with pytest.raises(SourceError, match=r"world\.png: its georeference names no CRS"):
        run(tmp_path, bounds=None)
    with pytest.raises(SourceError, match="'EPSG:1' is no CRS"):
        run(tmp_path, bounds=None, crs="EPSG:1")
    layout = discover(Path(run(tmp_path, bounds=None, crs="EPSG:32737")["source"]))
    one, other = index_tiles([(tile.tile_id, tile.image) for tile in layout.tiles], aoi="Town").table.itertuples()
    assert (one.crs, one.transform) == (other.crs, other.transform) == ("EPSG:32737", list(grid)[:6])
    labels = read_labels(layout).table
    assert labels.geometry.iloc[0].equals(labels.geometry.iloc[2])
    assert labels.total_bounds == pytest.approx(one.geometry.bounds, abs=2e-4)


GRID = rasterio.Affine(0.5, 0, 257_000.0, 0, -0.5, 9_867_000.0)
SOUTH_UP = GRID @ rasterio.Affine(1, 0, 0, 0, -1, HEIGHT)


def write_placed(path: Path, pixels: np.ndarray, crs: str | None, grid: rasterio.Affine) -> None:
    bands = np.moveaxis(np.atleast_3d(pixels), -1, 0)
    path.parent.mkdir(exist_ok=True)
    profile = {"driver": "GTiff", "width": WIDTH, "height": HEIGHT, "count": len(bands), "dtype": "uint8"}
    with rasterio.open(path, "w", crs=crs, transform=grid, **profile) as target:
        target.write(bands)


def write_placed_pair(home: Path, image: rasterio.Affine, mask: rasterio.Affine, crs: str | None) -> None:
    """A GeoTIFF and its mask, each with a georeference of its own."""
    write_placed(home / "images/a.tif", picture(0), "EPSG:32737", image)
    write_placed(home / "masks/a.tif", drawn(0) * np.uint8(255), crs, mask)


@pytest.mark.parametrize(
    ("image", "mask", "crs", "problem"),
    [
        (SOUTH_UP, GRID, "EPSG:32737", r"up to 48\.0 pixels off, mirrored\.\n"),
        (GRID, GRID @ rasterio.Affine.translation(200, 20), "EPSG:32737", r"up to 200\.0 pixels off\.\n"),
        (GRID, GRID @ rasterio.Affine.translation(0, 0.6), "EPSG:32737", r"up to 0\.6 pixels off\.\n"),
        (GRID, GRID @ rasterio.Affine.scale(1.1), "EPSG:32737", r"up to 6\.0 pixels off\.\n"),
        (
            GRID,
            GRID,
            "EPSG:32736",
            r"up to 1,341,[\d.]+ pixels off \(WGS 84 / UTM zone 36S, not WGS 84 / UTM zone 37S\)\.\n",
        ),
        (GRID, GRID @ rasterio.Affine.scale(1e10), "EPSG:32736", r"nowhere on it \(.* 36S, not .* 37S\)\.\n"),
        (GRID, GRID, 'LOCAL_CS["plan",UNIT["metre",1]]', r"nowhere on it \(plan, not .*zone 37S\)\.\n"),
    ],
    ids=[
        "mirrored",
        "beside",
        "more than half a pixel",
        "larger",
        "another zone",
        "off the earth",
        "no CRS to place",
    ],
)
def test_a_mask_that_lies_elsewhere_by_its_own_georeference_is_refused(
    tmp_path: Path, image: rasterio.Affine, mask: rasterio.Affine, crs: str, problem: str
) -> None:
    write_placed_pair(tmp_path, image, mask, crs)
    with pytest.raises(
        SourceError, match=rf"masks/a\.tif: .* its image .*images/a\.tif: {problem}.*rio warp.*--bounds"
    ):
        run(tmp_path, bounds=None)
    assert not list((tmp_path / "out").rglob("*.*"))
    write_bounds(tmp_path, "a")
    assert run(tmp_path)["buildings"] == 2


@pytest.mark.parametrize(
    ("image", "mask", "crs"),
    [
        (GRID, GRID, "EPSG:32737"),
        (SOUTH_UP, SOUTH_UP, "EPSG:32737"),
        (GRID, GRID @ rasterio.Affine.translation(0.5, -0.5), "EPSG:32737"),
        (GRID, GRID, rasterio.CRS.from_epsg(32737).to_wkt().replace("WGS 84 / UTM zone 37S", "a name of its own")),
        (GRID, GRID, "EPSG:32737+5773"),
        (GRID, rasterio.Affine.identity(), "EPSG:32737"),
        (GRID, SOUTH_UP, None),
    ],
    ids=["same", "south up", "half a pixel", "named otherwise", "with heights", "no grid", "no CRS"],
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_mask_that_lies_on_its_image_or_nowhere_is_taken(
    tmp_path: Path, image: rasterio.Affine, mask: rasterio.Affine, crs: str | None
) -> None:
    write_placed_pair(tmp_path, image, mask, crs)
    assert run(tmp_path, bounds=None)["buildings"] == 2


def test_masks_are_held_against_images_with_world_files_too(tmp_path: Path) -> None:
    pair(tmp_path, "a")
    (tmp_path / "images/a.pgw").write_text("0.5\n0\n0\n-0.5\n257000.25\n9866999.75\n")
    assert run(tmp_path, bounds=None, crs="EPSG:32737", out=tmp_path / "without")["buildings"] == 2
    (tmp_path / "masks/a.pgw").write_text("0.5\n0\n0\n-0.5\n257010.25\n9866999.75\n")
    with pytest.raises(SourceError, match=r"up to 20\.0 pixels off\.\n"):
        run(tmp_path, bounds=None, crs="EPSG:32737")
    (tmp_path / "masks/a.pgw").unlink()
    (tmp_path / "masks/a.png").unlink()
    write_placed(tmp_path / "masks/a.tif", drawn(0) * np.uint8(255), "EPSG:32737", SOUTH_UP)
    with pytest.raises(SourceError, match=r"up to 48\.0 pixels off, mirrored\.\n"):
        run(tmp_path, bounds=None, crs="EPSG:32737")
    write_placed(tmp_path / "masks/a.tif", drawn(0) * np.uint8(255), "EPSG:32737", GRID)
    assert run(tmp_path, bounds=None, crs="EPSG:32737")["buildings"] == 2


def test_files_are_read_as_they_come(tmp_path: Path) -> None:
    opaque = np.full((HEIGHT, WIDTH), 255, np.uint8)
    opaque[:20] = 0
    indexed = Image.fromarray(picture(3)).quantize(16)
    (tmp_path / "images").mkdir()
    Image.fromarray(np.dstack([picture(0), opaque])).save(tmp_path / "images/clear.png")
    indexed.save(tmp_path / "images/indexed.png")
    write(tmp_path / "images", "grey.png", picture(1)[..., 0])
    write(tmp_path / "images", "deep.png", picture(2).astype(np.uint16) * 8)
    size = {"count": 3, "height": HEIGHT, "width": WIDTH, "dtype": np.uint8, "transform": rasterio.Affine.scale(0.1)}
    with rasterio.open(tmp_path / "images/turned.tif", "w", **size) as turned:
        turned.colorinterp = [ColorInterp.blue, ColorInterp.green, ColorInterp.red]
        turned.write(np.moveaxis(picture(4)[..., ::-1], -1, 0))
    write(tmp_path / "masks", "turned.png", drawn(4) * np.uint8(255))
    write(tmp_path / "masks", "clear.jpg", drawn(0) * np.uint8(255))
    write(tmp_path / "masks", "grey.png", np.dstack([drawn(1) * np.uint8(1)] * 3))
    write(tmp_path / "masks", "deep.tif", drawn(2) * np.uint8(7))
    write(tmp_path / "masks", "indexed.png", drawn(3) * np.uint8(255))
    assert len(np.unique(cv2.imread(str(tmp_path / "masks/clear.jpg")))) > 5  # it rings
    stems = ("clear", "deep", "grey", "indexed", "turned")
    folder = Path(run(tmp_path, bounds=write_bounds(tmp_path, *stems))["source"])
    tiles = {tile.tile_id.split("_")[-1]: tile for tile in discover(folder).tiles}
    image, valid = read_tile(tiles["clear"].image)
    assert not image[:20].any()
    assert not valid[:20].any()
    assert np.array_equal(image[20:], picture(0)[20:])
    assert np.array_equal(read_tile(tiles["grey"].image)[0], picture(1)[..., :1].repeat(3, axis=2))
    assert np.array_equal(read_tile(tiles["deep"].image)[0], picture(2).astype(np.uint16) * 8)
    assert np.array_equal(read_tile(tiles["indexed"].image)[0], np.array(indexed.convert("RGB")))
    assert np.array_equal(read_tile(tiles["turned"].image)[0], picture(4))
    for stem in stems:
        assert len(json.loads(tiles[stem].geojson.read_text())["features"]) == 2


def table(rows: str) -> Callable[[Path], object]:
    return lambda home: (home / "bounds.csv").write_text(f"file,west,south,east,north\n{rows}\n")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda home: write(home / "masks", "a.png", np.zeros((9, 8), np.uint8)), "has 60 x 48 pixels, its mask 8 x 9"),
        (lambda home: write(home / "images", "a.jpg", picture(0)), r"a\.jpg and a\.png have the same name"),
        (lambda home: pair(home, "b_1"), r"b 1\.png and b_1\.png would be one tile"),
        (lambda home: (home / "masks").rename(home / "gone"), "masks: is no folder"),
        (lambda home: [path.unlink() for path in (home / "masks").iterdir()], r"a\.png, .* has a mask in .*\(none\)"),
        (lambda home: (home / "bounds.csv").write_text("file,west\na,1\n"), "has no column south, east, north"),
        (lambda home: (home / "bounds.csv").unlink(), r"bounds\.csv: cannot be read as CSV"),
        (table("a,1,2,3,"), "bounds of a are no numbers"),
        (table("a,3,2,1,4"), "a cannot reach from 3.0, 2.0 to 1.0, 4.0"),
        (table("a,1,2,3,4\na,1,2,3,5"), "a lies at two places"),
        (table("c,1,2,3,4"), r"a\.png: has no georeference"),
    ],
    ids=[
        "size",
        "twice",
        "one tile",
        "folder",
        "nothing",
        "columns",
        "no table",
        "numbers",
        "order",
        "places",
        "where",
    ],
)
def test_what_is_wrong_is_named(three: Path, change: Callable[[Path], object], problem: str) -> None:
    change(three)
    with pytest.raises(SourceError, match=problem):
        run(three)


@pytest.mark.parametrize("name", ["North Side", "AOI_x_Town", "town2", ""])
def test_a_name_that_the_layout_cannot_hold_is_refused(three: Path, name: str) -> None:
    with pytest.raises(SourceError, match="cannot be the name of an AOI"):
        run(three, aoi=name)
    assert not (three / "out").exists()
