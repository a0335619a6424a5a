import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.transform import Affine, from_bounds, from_origin
from rasterio.warp import calculate_default_transform, reproject, transform

from footprint_pipeline.errors import ImageryError, NoImageryError, SettingsError
from footprint_pipeline.footprints.geotiff import GeoTiffImagery
from footprint_pipeline.footprints.mercator import Bounds, Tile, project, tile_at, to_wgs84
from footprint_pipeline_tests.footprints.red_city import Answers, http_server, write_city, write_raster

TILE = tile_at(-43.2, -22.9, 18)
AREA = TILE.bounds_3857


def raster(path: Path, image: np.ndarray, **profile: object) -> GeoTiffImagery:
    """The tile's extent, in the service's own frame."""
    write_raster(path, image, from_bounds(*AREA, *image.shape[:0:-1]), "EPSG:3857", **profile)
    return GeoTiffImagery(path, attribution="© the test")


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).integers(1, 255, shape, np.uint8)


def test_the_files_own_grid_comes_back_unchanged(tmp_path: Path) -> None:
    image = noise(3, 100, 120)
    imagery = raster(tmp_path / "city.tif", image)
    patch = imagery.read(AREA, 100, 120)
    assert np.array_equal(patch.pixels, image.transpose(1, 2, 0))
    assert patch.pixels.dtype == np.uint8
    assert patch.valid.all()
    assert patch.source == imagery.name == "city.tif"


def test_bit_depth_is_the_files_own_and_red_is_found_wherever_it_is(tmp_path: Path) -> None:
    image = noise(4, 32, 32).astype(np.uint16) * 8
    path = tmp_path / "deep.tif"
    write_raster(path, image, from_bounds(*AREA, 32, 32), "EPSG:3857", photometric="MINISBLACK")
    with rasterio.open(path, "r+") as target:
        colour = rasterio.enums.ColorInterp
        target.colorinterp = (colour.blue, colour.green, colour.red, colour.undefined)
    pixels = GeoTiffImagery(path).read(AREA, 32, 32).pixels
    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels, image[[2, 1, 0]].transpose(1, 2, 0))


@pytest.mark.parametrize("how", ["alpha", "nodata", "black"])
def test_pixels_without_imagery_are_not_valid(tmp_path: Path, how: str) -> None:
    image = noise(3, 64, 64)
    image[:, :, :20] = 0
    image[:, 40:43, 40:43] = 0
    if how == "alpha":
        image = np.concatenate([image, (image.any(axis=0) * 255).astype(np.uint8)[None]])
    imagery = raster(tmp_path / "city.tif", image, **{"nodata": {"nodata": 0}, "alpha": {"alpha": "yes"}}.get(how, {}))
    valid = imagery.read(AREA, 64, 64).valid
    assert not valid[:, :20].any()
    assert valid[:, 20:40].all()
    assert valid[40:43, 40:43].all() == (how == "black")  # a dark spot is a shadow, unless the file says otherwise


def test_what_lies_beyond_the_file_is_not_valid(tmp_path: Path) -> None:
    imagery = raster(tmp_path / "city.tif", noise(3, 64, 64))
    side = AREA.right - AREA.left
    beside = Bounds(AREA.left + side / 2, AREA.bottom, AREA.right + side / 2, AREA.top)
    valid = imagery.read(beside, 64, 64).valid
    assert valid[:, :32].all()
    assert not valid[:, 32:].any()


@pytest.mark.parametrize("step", [1.0, 1.5, 2.5, 3.3])
def test_reads_of_one_grid_agree_where_they_overlap(tmp_path: Path, step: float) -> None:
    """However many of the file's pixels make one of the grid's."""
    imagery = raster(tmp_path / "city.tif", noise(3, 1201, 1201))
    pixel = step * (AREA.right - AREA.left) / 1201

    def read(column: int, row: int, size: int) -> np.ndarray:
        left, top = AREA.left + (column + 20) * pixel, AREA.top - (row + 20) * pixel
        return imagery.read(Bounds(left, top - size * pixel, left + size * pixel, top), size, size).pixels.astype(int)

    whole, part = read(0, 0, 200), read(17, 40, 101)
    assert np.abs(whole[42:139, 19:116] - part[2:-2, 2:-2]).max() <= 1


def test_coarse_reads_average_and_use_the_overviews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise(3, 512, 512)
    path = tmp_path / "city.tif"
    write_raster(path, image, from_bounds(*AREA, 512, 512), "EPSG:3857", tiled=True, blockxsize=256, blockysize=256)
    plain = GeoTiffImagery(path).read(AREA, 64, 64).pixels.astype(float)
    mean = image.reshape(3, 64, 8, 64, 8).mean(axis=(2, 4)).transpose(1, 2, 0)
    assert np.abs(plain - mean).mean() < 15

    with rasterio.open(path, "r+") as target:
        target.build_overviews([2, 4, 8, 16], Resampling.average)
    imagery = GeoTiffImagery(path)
    opened = []
    rasterio_open = rasterio.open
    monkeypatch.setattr(rasterio, "open", lambda *a, **k: opened.append(k) or rasterio_open(*a, **k))
    assert np.abs(imagery.read(AREA, 64, 64).pixels - mean).max() <= 2
    imagery.read(AREA, 200, 200)
    imagery.read(AREA, 512, 512)
    assert opened == [{"overview_level": 2}, {"overview_level": 0}, {}]


def test_a_patch_tells_the_resolution_it_was_read_at(tmp_path: Path) -> None:
    path = tmp_path / "city.tif"
    write_raster(path, noise(3, 512, 512), from_bounds(*AREA, 512, 512), "EPSG:3857", tiled=True)
    with rasterio.open(path, "r+") as target:
        target.build_overviews([2, 4], Resampling.average)
    own = 152.874 * np.cos(np.radians(22.9)) / 512  # a tile of zoom 18 is 152.874 projected metres wide
    for pixels, factor in ((1024, 1), (512, 1), (256, 2), (128, 4), (64, 4)):
        assert GeoTiffImagery(path).read(AREA, pixels, pixels).gsd_m == pytest.approx(factor * own, rel=1e-3)


def test_pixels_that_are_no_squares_on_the_ground_are_not_read_coarser_than_the_grid(tmp_path: Path) -> None:
    """Square degrees at 60° of latitude are half as wide as high."""
    degrees = 0.5 / 111_412
    path = tmp_path / "north.tif"
    write_raster(path, noise(3, 512, 1024), from_origin(20, 60, degrees, degrees), "EPSG:4326", tiled=True)
    with rasterio.open(path, "r+") as target:
        target.build_overviews([2, 4], Resampling.average)
    imagery = GeoTiffImagery(path)
    left, top = project(np.array([(20 + 100 * degrees, 60 - 100 * degrees)]))[0]
    side = 128 / np.cos(np.radians(60))  # on the ground 128 m
    area = Bounds(left, top - side, left + side, top)
    assert imagery.read(area, 256, 256).gsd_m == pytest.approx(0.5 / 2**0.5, rel=0.01)
    assert imagery.read(area, 128, 128).gsd_m == pytest.approx(1.0 / 2**0.5, rel=0.01)
    assert imagery.zooms[1] == tile_zoom_of(0.25, latitude=60)


def tile_zoom_of(gsd_m: float, *, latitude: float) -> int:
    """The coarsest zoom whose pixels are no wider than that on the ground."""
    return int(np.ceil(np.log2(40_075_017 * np.cos(np.radians(latitude)) / 256 / gsd_m) - 0.01))


@pytest.mark.parametrize("flip", [(1, -1), (-1, -1), (-1, 1)])
def test_rows_from_south_to_north_and_columns_from_east_to_west(tmp_path: Path, flip: tuple[int, int]) -> None:
    image = noise(3, 64, 64)
    extent = to_wgs84(AREA)
    usual = from_bounds(*extent, 64, 64)
    write_raster(tmp_path / "usual.tif", image, usual, "EPSG:4326")
    expected = GeoTiffImagery(tmp_path / "usual.tif")
    turned = usual * Affine.translation(64 * (flip[0] < 0), 64 * (flip[1] < 0)) * Affine.scale(*flip)
    write_raster(tmp_path / "turned.tif", image[:, :: flip[1], :: flip[0]], turned, "EPSG:4326")
    imagery = GeoTiffImagery(tmp_path / "turned.tif")
    assert imagery.extent_wgs84 == pytest.approx(expected.extent_wgs84)
    assert imagery.zooms == expected.zooms
    assert np.array_equal(imagery.read(AREA, 64, 64).pixels, expected.read(AREA, 64, 64).pixels)


def test_a_rectangle_across_the_antimeridian_tells_its_resolution_too(tmp_path: Path) -> None:
    area = tile_at(180, 0, 18).bounds_3857
    write_raster(tmp_path / "east.tif", noise(3, 64, 64), from_bounds(*to_wgs84(area), 64, 64), "EPSG:4326")
    side = area.right - area.left
    wider = Bounds(area.left - side, area.bottom - side, area.right + side, area.top + side)
    patch = GeoTiffImagery(tmp_path / "east.tif").read(wider, 192, 192)
    assert patch.valid[70:120, 70:120].all()
    assert patch.gsd_m == pytest.approx(side / 64, rel=1e-3)
    assert GeoTiffImagery(tmp_path / "east.tif").gsd_m == pytest.approx(patch.gsd_m, rel=1e-3)


@pytest.mark.parametrize(
    ("tags", "date"),
    [
        ({}, None),
        ({"TIFFTAG_DATETIME": "2019:03:07 12:00:00"}, "2019-03-07"),
        ({"TIFFTAG_DATETIME": "2019:03:07 12:00:00", "ACQUISITIONDATETIME": "2018-12-31 23:59:59"}, "2018-12-31"),
        ({"TIFFTAG_DATETIME": "long ago"}, None),
        ({"TIFFTAG_DATETIME": "0000:00:00 00:00:00"}, None),
        ({"TIFFTAG_DATETIME": "2019:03:07 12:00:00", "ACQUISITIONDATETIME": "2024-13-45"}, "2019-03-07"),
    ],
)
def test_the_date_is_what_is_said_of_the_picture_first_and_of_the_file_second(
    tmp_path: Path, tags: dict[str, str], date: str | None
) -> None:
    imagery = raster(tmp_path / "city.tif", noise(3, 16, 16))
    assert imagery.read(AREA, 16, 16).date is None
    with rasterio.open(tmp_path / "city.tif", "r+") as target:
        for name, value in tags.items():
            target.update_tags(ns="IMAGERY" if name.startswith("ACQ") else "", **{name: value})
    assert GeoTiffImagery(tmp_path / "city.tif").read(AREA, 16, 16).date == date
    assert GeoTiffImagery(tmp_path / "city.tif", date="spring").read(AREA, 16, 16).date == "spring"


class FileServer(Answers):
    """Answers with parts of one file, as object stores do."""

    content = b""
    refuses = False

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        asked = self.asked[-1][1].get("Range")
        if self.refuses or asked is None:
            return (403, b"", {}) if self.refuses else (200, self.content, {"Accept-Ranges": "bytes"})
        first, last = (int(part) for part in asked.removeprefix("bytes=").split("-"))
        part = self.content[first : last + 1]
        return 206, part, {"Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(self.content)}"}


def test_a_remote_files_token_stays_out_of_logs_and_errors(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token = "very-secret-signature"
    raster(tmp_path / "city.tif", noise(3, 16, 16))
    server = FileServer()
    server.content = (tmp_path / "city.tif").read_bytes()
    with http_server(server):
        imagery = GeoTiffImagery(f"{server.address}/city.tif?sig={token}", attribution="©")
        patch = imagery.read(AREA, 16, 16)
        assert patch.valid.all()
        server.refuses = True
        with pytest.raises(SettingsError, match=r"^gone\.tif: missing") as error:
            GeoTiffImagery(f"{server.address}/gone.tif?sig={token}")
        private = f"{server.address.replace('//', f'//user:{token}@')}/{token}/m.tif?sig={token}"
        for name in ("_base", "_env", "_err", "_io"):  # as GDAL says it, there or there
            logging.getLogger(f"rasterio.{name}").warning("HTTP error code: 500 - %s. Retrying again", private)
    logged = [record.getMessage() for record in caplog.records]
    assert any(f"{server.address}/…" in line for line in logged)
    assert f"HTTP error code: 500 - {server.address}/… Retrying again" in logged
    assert not [text for text in (*logged, patch.source, str(error.value), repr(imagery)) if token in text]


def test_threads_share_what_is_open_and_an_upload_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = noise(3, 512, 512)
    trusted = raster(tmp_path / "city.tif", image, compress="deflate", tiled=True, blockxsize=64, blockysize=64)
    upload = GeoTiffImagery(tmp_path / "city.tif", untrusted=True)
    opened: list[rasterio.DatasetReader] = []
    rasterio_open = rasterio.open
    monkeypatch.setattr(
        rasterio, "open", lambda *args, **options: opened.append(rasterio_open(*args, **options)) or opened[-1]
    )
    left, bottom, right, top = AREA
    shift = (right - left) / 512

    def read(column: int) -> np.ndarray:
        area = Bounds(left + column * shift, bottom, left + (column + 128) * shift, top)
        return trusted.read(area, 512, 128).pixels

    with ThreadPoolExecutor(4) as threads:
        for column, pixels in enumerate(threads.map(read, range(384))):
            assert np.array_equal(pixels, image[:, :, column : column + 128].transpose(1, 2, 0))
    assert 1 <= len(opened) <= 4
    assert not any(source.closed for source in opened)
    other = noise(3, 512, 512)[:, ::-1]
    raster(tmp_path / "new.tif", other).read(AREA, 8, 8)
    (tmp_path / "new.tif").rename(tmp_path / "city.tif")
    assert np.array_equal(trusted.read(AREA, 512, 512).pixels, other.transpose(1, 2, 0))
    opened.clear()
    upload.read(AREA, 512, 512)
    assert [source.closed for source in opened] == [True]


def test_another_projection_lands_in_the_same_place(tmp_path: Path) -> None:
    image = np.full((3, 300, 300), 90, np.uint8)
    image[0, 100:150, 200:240] = 250
    grid, width, height = calculate_default_transform("EPSG:3857", "EPSG:32723", 300, 300, *AREA)
    utm = np.zeros((3, height, width), np.uint8)
    reproject(
        image,
        utm,
        src_transform=from_bounds(*AREA, 300, 300),
        src_crs="EPSG:3857",
        dst_transform=grid,
        dst_crs="EPSG:32723",
    )
    write_raster(tmp_path / "utm.tif", utm, grid, "EPSG:32723", nodata=0)
    red = GeoTiffImagery(tmp_path / "utm.tif").read(AREA, 300, 300).pixels[..., 0] > 170
    rows, columns = np.nonzero(red)
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == pytest.approx((100, 150, 200, 240), abs=1)


def test_no_imagery_names_the_place_and_what_there_is(tmp_path: Path) -> None:
    imagery = raster(tmp_path / "city.tif", noise(3, 16, 16))
    with pytest.raises(
        NoImageryError, match=r"city\.tif: no imagery around latitude -22\.8\d+, longitude -43\.1"
    ) as error:
        imagery.read(Tile(18, TILE.x + 50, TILE.y - 50).bounds_3857, 16, 16)
    assert "latitude -22.90" in error.value.fix
    hollow = raster(tmp_path / "hollow.tif", np.zeros((3, 64, 64), np.uint8), nodata=0)
    with pytest.raises(NoImageryError):
        hollow.read(AREA, 64, 64)


def test_files_that_cannot_serve_are_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"gone\.tif: missing"):
        GeoTiffImagery(tmp_path / "gone.tif")
    with pytest.raises(SettingsError, match=r"grey\.tif: has 1 bands"):
        raster(tmp_path / "grey.tif", noise(1, 16, 16))
    write_raster(tmp_path / "lost.tif", noise(3, 16, 16), from_bounds(0, 0, 2, 3, 16, 16), None)
    with pytest.raises(SettingsError, match=r"lost\.tif: is not georeferenced"):
        GeoTiffImagery(tmp_path / "lost.tif")


def test_a_file_that_breaks_later_is_the_providers_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_city(tmp_path / "city.tif", Bounds(-43.2, -22.9, -43.198, -22.898), [])
    imagery = GeoTiffImagery(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ImageryError, match=r"city\.tif: cannot be read"):
        imagery.read(tile_at(-43.199, -22.899, 18).bounds_3857, 64, 64)
    monkeypatch.setattr(imagery, "_read", Mock(side_effect=RasterioError))
    with pytest.raises(ImageryError, match=r"city\.tif: cannot be read \(RasterioError\)"):
        imagery.read(tile_at(-43.199, -22.899, 18).bounds_3857, 64, 64)


def grey(path: Path, transform: object, crs: str, *, shape: tuple[int, int] = (400, 400)) -> GeoTiffImagery:
    write_raster(path, np.full((3, *shape), 90, np.uint8), transform, crs)
    return GeoTiffImagery(path)


def around(longitude: float, latitude: float, half_m: float = 40.0) -> Bounds:
    x, y = project(np.array([(longitude, latitude)]))[0]
    return Bounds(x - half_m, y - half_m, x + half_m, y + half_m)


def test_a_projected_file_across_the_antimeridian_is_read_on_both_sides(tmp_path: Path) -> None:
    (x,), (y,) = transform("EPSG:4326", "EPSG:32760", [179.995], [-17.0])
    imagery = grey(tmp_path / "fiji.tif", from_origin(x, y, 3, 3), "EPSG:32760")
    assert imagery.extent_wgs84.left == pytest.approx(179.995, abs=1e-3)
    assert imagery.extent_wgs84.right == pytest.approx(180.0063, abs=1e-3)
    for longitude in (179.998, 180.001, -179.998):
        assert imagery.read(around(longitude, -17.005), 64, 64).valid.all()
    assert imagery.zooms == (0, 16)
    with pytest.raises(NoImageryError, match=r"longitude 179\.99\d+ to 180\.00"):
        imagery.read(around(0.0, -17.005), 64, 64)


@pytest.mark.parametrize(
    "crs", ["EPSG:4326", "EPSG:3857", "EPSG:3395", "EPSG:6933", "EPSG:3832", "+proj=eqc +datum=WGS84"]
)
@pytest.mark.parametrize("turns", [-1, 0])
def test_a_map_of_the_world_is_read_across_its_seam_whichever_side_it_begins_on(
    tmp_path: Path, crs: str, turns: int
) -> None:
    (edge, almost), _ = transform("EPSG:4326", crs, [179.999, 179.998], [0.0, 0.0])
    a_degree = 1000 * (edge - almost)
    image = np.tile(np.array([50, 200], np.uint8).repeat(200), (3, 400, 1))  # it changes at 180 degrees
    pixel = a_degree / 200_000
    write_raster(tmp_path / "a.tif", image, from_origin(edge + 360 * turns * a_degree, 200 * pixel, pixel, pixel), crs)
    imagery = GeoTiffImagery(tmp_path / "a.tif")
    for longitude in (180.0, -180.0):
        patch = imagery.read(around(longitude, 0.0), 160, 160)
        assert patch.valid.all()
        assert (patch.pixels[:, :79] == 50).all()
        assert (patch.pixels[:, 81:] == 200).all()
    for longitude, told in ((179.9995, 50), (-179.9995, 200)):
        assert (imagery.read(around(longitude, 0.0), 64, 64).pixels == told).all()
    beyond = imagery.read(around(179.999, 0.0), 160, 160)
    assert not beyond.valid[:, :79].any()
    assert beyond.valid[:, 81:].all()


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:3395"])
def test_the_whole_world_is_one_tile(tmp_path: Path, crs: str) -> None:
    (half,), _ = transform("EPSG:4326", crs, [179.999999], [0.0])
    image = np.tile(np.linspace(1, 250, 720).astype(np.uint8), (3, 360, 1))
    write_raster(tmp_path / "a.tif", image, from_bounds(-half, -half / 2, half, half / 2, 720, 360), crs)
    shown = GeoTiffImagery(tmp_path / "a.tif").read(tile_at(0, 0, 0).bounds_3857, 256, 256).pixels[128, :, 0]
    assert np.abs(shown - np.linspace(1, 250, 256)).max() < 3


@pytest.mark.parametrize("west", [179.999, 200.0, -160.0])
def test_longitudes_may_be_of_any_turn(tmp_path: Path, west: float) -> None:
    imagery = grey(tmp_path / "east.tif", from_origin(west, 20.0, 5e-6, 5e-6), "EPSG:4326")
    left = west if west < 180 else west - 360 * (west >= 180)
    assert imagery.extent_wgs84.left == pytest.approx(left)
    for turn in (-360.0, 0.0):
        assert imagery.read(around(left + turn + 0.001, 19.999), 64, 64).valid.all()


def test_the_finest_zoom_is_that_of_the_pixels_however_the_file_is_turned(tmp_path: Path) -> None:
    side = (AREA.right - AREA.left) / 512
    plain = grey(tmp_path / "a.tif", Affine(side, 0, AREA.left, 0, -side, AREA.top), "EPSG:3857", shape=(200, 2000))
    turned = grey(tmp_path / "b.tif", Affine(0, side, AREA.left, side, 0, AREA.top), "EPSG:3857", shape=(200, 2000))
    assert plain.zooms == turned.zooms
    assert plain.zooms[1] == 19


@pytest.mark.parametrize("shape", [(1009, 1024), (1024, 1009)])
def test_overviews_lie_where_the_file_does(tmp_path: Path, shape: tuple[int, int]) -> None:
    """Of a file whose sides are no multiples of theirs."""
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float32) + 0.5
    write_raster(tmp_path / "ramp.tif", np.stack([rows, columns, rows]), from_origin(9, 0, 1, 1), "EPSG:3857")
    with rasterio.open(tmp_path / "ramp.tif", "r+") as target:
        target.build_overviews([2, 4, 8], Resampling.average)
    height, width = (side // 8 for side in shape)
    patch = GeoTiffImagery(tmp_path / "ramp.tif").read(Bounds(9, -8 * height, 9 + 8 * width, 0), height, width)
    inside = slice(2, -2)
    assert patch.pixels[inside, inside, 0].mean(axis=1) == pytest.approx((np.arange(height)[inside] + 0.5) * 8, abs=1)
    assert patch.pixels[inside, inside, 1].mean(axis=0) == pytest.approx((np.arange(width)[inside] + 0.5) * 8, abs=1)


def test_what_is_no_number_is_no_imagery_and_leaves_its_neighbours_alone(tmp_path: Path) -> None:
    image = noise(3, 64, 64).astype(np.float32)
    image[1, :, 20:30] = np.nan
    image[2, :, 40:50] = np.inf
    imagery = raster(tmp_path / "light.tif", image, photometric="MINISBLACK")
    patch = imagery.read(AREA, 64, 64)
    assert np.flatnonzero(~patch.valid[5]).tolist() == [*range(20, 30), *range(40, 50)]
    shifted = imagery.read(Bounds(AREA.left + 1.0, AREA.bottom, AREA.right + 1.0, AREA.top), 64, 64)
    assert np.isfinite(shifted.pixels[shifted.valid]).all()
