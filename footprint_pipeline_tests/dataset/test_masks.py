import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.features import rasterize
from shapely import affinity

from footprint_pipeline.dataset import masks
from footprint_pipeline.dataset.masks import (
    MaskSpec,
    draw_mask,
    mask_path,
    read_mask,
    read_mask_bands,
    read_mask_index,
    write_masks,
)
from footprint_pipeline.dataset.polygons import build_polygon_table
from footprint_pipeline.dataset.tiles import index_tiles
from footprint_pipeline.errors import DatasetError
from footprint_pipeline.files import write_if_other
from footprint_pipeline_tests.dataset.conftest import UTM, degrees, labels, metres, on_ground, write_image
from footprint_pipeline_tests.dataset.test_polygons import tile_index

HEIGHT, WIDTH = 90, 110


def scattered(seed: int, count: int = 25) -> list[shapely.Geometry]:
    """Turned buildings, some with a courtyard, some of two parts, some over the tile's edge, in pixels."""
    rng = np.random.default_rng(seed)
    shapes = []
    for number in range(count):
        house = shapely.box(0, 0, rng.uniform(3, 22), rng.uniform(3, 22))
        if number % 4 == 0:
            house = house.difference(affinity.scale(house, 0.4, 0.4))
        if number % 5 == 0:
            house = house.union(affinity.translate(house, 30, 0))
        shapes.append(
            affinity.translate(
                affinity.rotate(house, rng.uniform(0, 90)), rng.uniform(-5, WIDTH), rng.uniform(-5, HEIGHT)
            )
        )
    return shapes


@pytest.mark.parametrize("crs", ["EPSG:4326", UTM])
def test_masks_are_gdals_own_of_the_labels_on_the_ground(tmp_path: Path, crs: str) -> None:
    grid = degrees if crs == "EPSG:4326" else metres
    image = np.full((HEIGHT, WIDTH, 3), 80, np.uint8)
    names = [f"t{i}" for i in range(4)]
    tiles = index_tiles(
        [
            (name, write_image(tmp_path / f"{name}.tif", image, crs=crs, transform=grid(i)))
            for i, name in enumerate(names)
        ],
        aoi="Rio",
    ).table
    rows = [
        (name, i, on_ground(shape, grid(tile), crs))
        for tile, name in enumerate(names[:3])
        for i, shape in enumerate(scattered(tile))
    ]
    table = build_polygon_table(labels(rows), tiles).table
    summary = write_masks(table, tiles, tmp_path / "masks", spec=MaskSpec(border_m=0, contact_m=0))
    total = 0
    for tile, name in enumerate(names):
        on_grid = table[table["tile_id"] == name].to_crs(crs).geometry
        expected = (
            rasterize(list(on_grid), out_shape=(HEIGHT, WIDTH), transform=grid(tile), dtype="uint8")
            if len(on_grid)
            else np.zeros((HEIGHT, WIDTH), np.uint8)
        )
        mask = read_mask(mask_path(tmp_path / "masks", name))
        assert np.array_equal(mask, expected), name
        total += int(mask.sum())
        with rasterio.open(mask_path(tmp_path / "masks", name)) as source:
            assert source.crs == rasterio.CRS.from_string(crs)
            assert list(source.transform)[:6] == list(grid(tile))[:6]
            assert (source.count, source.dtypes, source.compression.value) == (1, ("uint8",), "DEFLATE")
            assert source.descriptions == ("building",)
    assert total > 1000
    assert (summary.tiles, summary.pixels, summary.building_pixels) == (4, 4 * HEIGHT * WIDTH, total)
    index = read_mask_index(tmp_path / "masks")
    assert list(index.columns) == ["tile_id", "building_pixels", "building_share"]
    assert list(index["tile_id"]) == names
    assert index["building_pixels"].sum() == total
    assert index["building_share"].tolist() == [read_mask(mask_path(tmp_path / "masks", name)).mean() for name in names]


def test_masks_of_tiles_that_are_gone_are_removed_and_others_replaced(tmp_path: Path) -> None:
    image = np.full((20, 20, 3), 80, np.uint8)
    tiles = index_tiles([("a", write_image(tmp_path / "a.tif", image))], aoi="Rio").table
    folder = tmp_path / "masks"
    folder.mkdir()
    for name in ("gone.tif", ".1234-a.tif"):
        (folder / name).touch()
    (folder / "notes.txt").touch()
    table = build_polygon_table(labels([("a", 1, on_ground(shapely.box(2, 2, 5, 5), degrees()))]), tiles).table
    write_masks(table, tiles, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["a.tif", "masks.parquet", "notes.txt"]
    assert list(read_mask_bands(folder / "a.tif")) == ["building", "border", "contact"]
    assert read_mask(folder / "a.tif").sum() == 9
    write_masks(gpd.GeoDataFrame(table.iloc[:0]), tiles, folder)
    assert read_mask(folder / "a.tif").sum() == 0


def test_masks_that_do_not_change_keep_their_date(tmp_path: Path) -> None:
    image = np.full((20, 20, 3), 80, np.uint8)
    tiles = index_tiles([(name, write_image(tmp_path / f"{name}.tif", image)) for name in "ab"], aoi="Rio").table
    square = on_ground(shapely.box(2, 2, 5, 5), degrees())
    folder = tmp_path / "masks"
    write_masks(build_polygon_table(labels([("a", 1, square), ("b", 1, square)]), tiles).table, tiles, folder)
    for name in "ab":
        os.utime(folder / f"{name}.tif", (1, 1))
    write_masks(build_polygon_table(labels([("a", 1, square)]), tiles).table, tiles, folder)
    assert (folder / "a.tif").stat().st_mtime == 1
    assert (folder / "b.tif").stat().st_mtime > 1
    assert [read_mask(folder / f"{name}.tif").sum() for name in "ab"] == [9, 0]


def tile_of(height: int, width: int, *, gsd_x_m: float = 0.5, gsd_y_m: float = 0.5) -> SimpleNamespace:
    return SimpleNamespace(height=height, width=width, gsd_x_m=gsd_x_m, gsd_y_m=gsd_y_m)


def bands_by_distance(shapes: list[shapely.Geometry], tile: SimpleNamespace, spec: MaskSpec) -> np.ndarray:
    """Border and contact as their definition says: the distance of every pixel centre, in metres, to every building."""
    gsd = np.array([tile.gsd_x_m, tile.gsd_y_m])
    x, y = np.meshgrid((np.arange(tile.width) + 0.5) * gsd[0], (np.arange(tile.height) + 0.5) * gsd[1])
    centres = shapely.points(x, y)
    border, near = np.zeros(x.shape, bool), np.zeros(x.shape, int)
    for shape in shapes:
        building = shapely.transform(shape, lambda xy: xy * gsd)
        shapely.prepare(building)
        border |= shapely.contains(building, centres) & (
            shapely.distance(shapely.boundary(building), centres) <= spec.border_m
        )
        near += shapely.distance(building, centres) <= spec.contact_m / 2
    return np.stack([border, near >= 2]).astype(np.uint8)


@pytest.mark.parametrize(("gsd_x_m", "gsd_y_m"), [(0.5, 0.5), (0.24, 0.5)])
def test_border_and_contact_are_distances_on_the_ground(gsd_x_m: float, gsd_y_m: float) -> None:
    tile = tile_of(HEIGHT, WIDTH, gsd_x_m=gsd_x_m, gsd_y_m=gsd_y_m)
    inside = shapely.box(1, 1, WIDTH - 1, HEIGHT - 1)
    shapes = [shape for shape in scattered(3, count=60) if inside.contains(shape)]
    spec = MaskSpec(border_m=1.1, contact_m=2.3)
    mask = draw_mask(np.array(shapes, object), tile, spec=spec)
    expected = bands_by_distance(shapes, tile, spec)
    assert min(expected.sum((1, 2))) > 200
    # Round corners are drawn with straight segments, so a centre right at the distance may fall on either side.
    assert (mask[1:] != expected).mean((1, 2)).max() < 0.002


def test_a_border_follows_a_buildings_own_outline_also_where_another_touches_it() -> None:
    touching = np.array([shapely.box(2, 2, 10, 12), shapely.box(10, 2, 18, 12)], object)
    building, border, contact = draw_mask(touching, tile_of(14, 20), spec=MaskSpec(border_m=1, contact_m=1))
    assert building[7, 2:18].all()
    assert np.flatnonzero(border[7]).tolist() == [2, 3, 8, 9, 10, 11, 16, 17]
    assert np.flatnonzero(contact[7]).tolist() == [9, 10]
    assert np.flatnonzero(contact[:, 9]).tolist() == list(range(1, 13))


def test_a_building_of_two_parts_has_a_border_and_no_contact_with_itself() -> None:
    parts = shapely.MultiPolygon([shapely.box(2, 2, 9, 12), shapely.box(10, 2, 18, 12)])
    _, border, contact = draw_mask(np.array([parts], object), tile_of(14, 20), spec=MaskSpec(border_m=1, contact_m=2))
    assert np.flatnonzero(border[7]).tolist() == [2, 3, 7, 8, 10, 11, 16, 17]
    assert not contact.any()


def test_an_overlap_is_contact() -> None:
    over = np.array([shapely.box(2, 2, 10, 12), shapely.box(6, 2, 14, 12)], object)
    _, contact = draw_mask(over, tile_of(14, 20), spec=MaskSpec(border_m=0, contact_m=0.1))
    assert np.flatnonzero(contact[7]).tolist() == [6, 7, 8, 9]


def test_where_the_tile_cuts_a_building_there_is_no_border() -> None:
    cut = np.array([shapely.box(14, 2, 20, 12), shapely.box(-0.001, 4, 6, 10)], object)
    _, border = draw_mask(cut, tile_of(14, 20), spec=MaskSpec(border_m=1, contact_m=0))
    assert np.flatnonzero(border[7]).tolist() == [4, 5, 14, 15]
    assert np.flatnonzero(border[:, 19]).tolist() == [2, 3, 10, 11]


def test_bands_are_named_in_the_file_and_counted_in_the_index(tmp_path: Path) -> None:
    image = np.full((20, 20, 3), 80, np.uint8)
    tiles = index_tiles([(name, write_image(tmp_path / f"{name}.tif", image)) for name in "ab"], aoi="Rio").table
    drawn = [shapely.box(2, 2, 9, 9), shapely.box(10, 2, 18, 9)]
    rows = [("a", number, on_ground(shape, degrees())) for number, shape in enumerate(drawn)]
    spec = MaskSpec(border_m=0.8, contact_m=1.5)
    write_masks(build_polygon_table(labels(rows), tiles).table, tiles, tmp_path / "masks", spec=spec)
    bands = read_mask_bands(tmp_path / "masks" / "a.tif")
    assert list(bands) == ["building", "border", "contact"] == list(spec.bands)
    assert all(band.dtype == np.uint8 and band.shape == (20, 20) and 0 < band.sum() < 400 for band in bands.values())
    assert np.array_equal(bands["building"], read_mask(tmp_path / "masks" / "a.tif"))
    assert not (bands["border"] & ~bands["building"]).any()
    with rasterio.open(tmp_path / "masks" / "b.tif") as source:
        assert (float(source.tags()["border_m"]), float(source.tags()["contact_m"])) == (0.8, 1.5)
        assert not source.read().any()
    first, second = read_mask_index(tmp_path / "masks").to_dict("records")
    assert [first[f"{name}_pixels"] for name in bands] == [int(band.sum()) for band in bands.values()]
    assert [second[f"{name}_pixels"] for name in bands] == [0, 0, 0]


@pytest.mark.parametrize("metres", [-1.0, float("nan"), float("inf")])
def test_a_band_needs_a_distance(metres: float) -> None:
    with pytest.raises(DatasetError, match=r"contact_m: .* is no distance"):
        MaskSpec(contact_m=metres)


def test_a_run_that_was_interrupted_leaves_whole_masks_and_no_index_and_the_next_completes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.full((20, 20, 3), 80, np.uint8)
    names = [f"t{number:02}" for number in range(40)]
    tiles = index_tiles([(name, write_image(tmp_path / f"{name}.tif", image)) for name in names], aoi="Rio").table
    table = build_polygon_table(
        labels([(name, 1, on_ground(shapely.box(2, 2, 5, 5), degrees())) for name in names]), tiles
    ).table
    folder = tmp_path / "masks"
    write_masks(gpd.GeoDataFrame(table.iloc[:0]), tiles, folder)
    begun: list[Path] = []

    def write(target: Path, content: bytes) -> None:
        begun.append(target)
        if target.stem == names[3]:
            raise KeyboardInterrupt
        write_if_other(target, content)
        if target.stem > names[3]:
            time.sleep(0.1)

    with monkeypatch.context() as patched:
        patched.setattr(masks, "write_if_other", write)
        with pytest.raises(KeyboardInterrupt):
            write_masks(table, tiles, folder)
    with pytest.raises(DatasetError, match=r"masks\.parquet: there is no index .* not complete\.\n.*Materialize"):
        read_mask_index(folder)
    assert {path.name for path in folder.iterdir()} == {f"{name}.tif" for name in names}
    left = {name: read_mask(folder / f"{name}.tif").sum() for name in names}
    assert {name for name, pixels in left.items() if pixels == 9} == {path.stem for path in begun} - {names[3]}
    assert len(begun) < len(names)
    write_masks(table, tiles, folder)
    assert read_mask_index(folder)["building_pixels"].tolist() == [9] * len(names)


def test_an_index_of_other_masks_is_refused(tmp_path: Path) -> None:
    image = np.full((20, 20, 3), 80, np.uint8)
    tiles = index_tiles([(name, write_image(tmp_path / f"{name}.tif", image)) for name in "ab"], aoi="Rio").table
    table = build_polygon_table(labels([("a", 1, on_ground(shapely.box(2, 2, 5, 5), degrees()))]), tiles).table
    write_masks(table, tiles, tmp_path / "masks")
    (tmp_path / "masks" / "b.tif").rename(tmp_path / "masks" / "c.tif")
    with pytest.raises(DatasetError, match="1 masks that it lists are gone and 1 are not in it"):
        read_mask_index(tmp_path / "masks")


def test_a_broken_mask_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "t.tif").write_bytes(b"II*\0 not a mask")
    for read in (read_mask, read_mask_bands):
        with pytest.raises(DatasetError, match=r"t\.tif: cannot be read .*\n.*Materialize mask_tiles again"):
            read(tmp_path / "t.tif")


def test_no_mask_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"t\.tif: there is no such mask.\n.*Materialize mask_tiles"):
        read_mask(tmp_path / "t.tif")


def test_masks_that_are_not_listed_are_told(tmp_path: Path) -> None:
    tiles = tile_index(tmp_path, "a")
    write_masks(build_polygon_table(labels([]), tiles).table, tiles, tmp_path / "masks")
    shutil.copy(tmp_path / "masks" / "a.tif", tmp_path / "masks" / "b.tif")
    with pytest.raises(DatasetError, match="0 masks that it lists are gone and 1 are not in it"):
        read_mask_index(tmp_path / "masks")
    (tmp_path / "masks" / "a.tif").unlink()
    with pytest.raises(DatasetError, match="1 masks that it lists are gone"):
        read_mask_index(tmp_path / "masks")
