"""/v1/footprints/image: what may be sent, and what comes back in which coordinates."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import shapely
from flask.testing import FlaskClient
from rasterio.transform import from_origin
from shapely.geometry import shape

from footprint_pipeline.footprints.tables import SUFFIXES
from footprint_pipeline_tests.footprints.red_city import DEGREE_M, GREY, RED, png, write_raster
from footprint_pipeline_tests.footprints.test_tables import assert_same, read_back
from footprint_pipeline_tests.serving.conftest import ROOF
from footprint_pipeline_tests.serving.test_problems import assert_problem

URL = "/v1/footprints/image"
PICTURE = np.full((96, 128, 3), GREY, np.uint8)
PICTURE[20:50, 30:70] = RED


def send(client: FlaskClient, encoded: bytes, query: str = "", **headers: str):
    return client.post(f"{URL}?{query}", data=encoded, content_type="application/octet-stream", headers=headers)


def jpeg() -> bytes:
    return cv2.imencode(".jpg", PICTURE[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()


def tiff(path: Path, *, crs: str | None, transform=None, image: np.ndarray = PICTURE, **profile: object) -> bytes:
    write_raster(path, np.moveaxis(image, -1, 0), transform, crs, **profile)
    return path.read_bytes()


def test_a_geotiff_is_answered_in_degrees(client: FlaskClient, city_path: Path) -> None:
    answer = send(client, city_path.read_bytes())
    (feature,) = answer.json["features"]
    assert shape(feature["geometry"]).hausdorff_distance(shapely.box(*ROOF)) * DEGREE_M < 0.75
    assert feature["properties"]["imagery"] == "uploaded image"
    assert feature["properties"]["area_m2"] == pytest.approx(24 * 15, rel=0.03)
    assert "coordinate_system" not in answer.json
    assert answer.headers["X-Model-Version"] == "3"


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff"])
def test_what_has_no_place_is_answered_in_pixels(client: FlaskClient, kind: str, tmp_path: Path) -> None:
    encoded = {"png": lambda: png(PICTURE), "jpeg": jpeg, "tiff": lambda: tiff(tmp_path / "a.tif", crs=None)}[kind]()
    answer = send(client, encoded)
    (feature,) = answer.json["features"]
    assert shape(feature["geometry"]).hausdorff_distance(shapely.box(30, 20, 70, 50)) < 1.5
    assert feature["properties"]["area_px"] == pytest.approx(40 * 30, rel=0.05)
    assert "pixels" in answer.json["coordinate_system"]


def test_options_and_forms_are_those_of_places(client: FlaskClient) -> None:
    (feature,) = send(client, png(PICTURE), "gsd_m=0.5").json["features"]
    assert feature["properties"]["area_m2"] == pytest.approx(40 * 30 / 4, rel=0.03)
    assert send(client, png(PICTURE), "gsd_m=0.5&min_area_m2=400").json["features"] == []
    (square,) = send(client, png(PICTURE), "outline=regularised").json["features"]
    assert square["properties"]["outline"] == "regularised"
    assert shape(square["geometry"]).area == pytest.approx(square["properties"]["area_px"], rel=1e-3)
    assert len(square["geometry"]["coordinates"][0]) == 5
    assert send(client, png(PICTURE), Accept="application/x-ndjson").text.count("\n") == 1
    assert_problem(send(client, png(PICTURE), Accept="image/png"), 406)
    assert_problem(send(client, png(PICTURE), "gsd_m=3"), 422, "too coarse")
    assert_problem(send(client, png(PICTURE), "bbox=1,2,3,4"), 422, "bbox")


@pytest.mark.parametrize("form", SUFFIXES)
def test_files_of_what_has_no_place_have_no_crs(client: FlaskClient, form: str, tmp_path: Path) -> None:
    frame = read_back(send(client, png(PICTURE), Accept=form).data, form, tmp_path)
    assert frame.crs is None
    assert_same(frame, send(client, png(PICTURE)).json)


def test_a_form_may_carry_it(client: FlaskClient) -> None:
    def post(**parts: object):
        return client.post(URL, data=parts, content_type="multipart/form-data")

    assert len(post(image=(io.BytesIO(png(PICTURE)), "roofs.png")).json["features"]) == 1
    assert_problem(post(picture=(io.BytesIO(png(PICTURE)), "roofs.png")), 422, "called image")
    assert_problem(post(image=(io.BytesIO(png(PICTURE)), "roofs.png"), note="hello"), 422, "called image")


def test_a_place_that_is_none_is_422(client: FlaskClient, tmp_path: Path) -> None:
    pole = tiff(tmp_path / "a.tif", crs="EPSG:4326", transform=from_origin(0, 95, 1e-5, 1e-5))
    assert_problem(send(client, pole), 422, "no place on the map")
    local = tiff(tmp_path / "b.tif", crs='LOCAL_CS["site",UNIT["metre",1]]', transform=from_origin(0, 9, 1, 1))
    assert "pixels" in send(client, local).json["coordinate_system"]  # somewhere, but not on the map
    far = tiff(tmp_path / "e.tif", crs="EPSG:32724", transform=from_origin(1e15, 1e15, 1, 1))
    assert_problem(send(client, far), 422, "no place on the map")
    huge = tiff(tmp_path / "c.tif", crs="EPSG:4326", transform=from_origin(0, 50, 0.1, 0.1))
    assert_problem(send(client, huge), 422, "16,777,216 px at most")
    placed = tiff(tmp_path / "d.tif", crs="EPSG:4326", transform=from_origin(0, 50, 4e-6, 4e-6))
    assert_problem(send(client, placed, "gsd_m=0.5"), 422, "gsd_m")


@pytest.mark.parametrize("bands", [1, 2])
def test_a_geotiff_needs_three_bands(client: FlaskClient, tmp_path: Path, bands: int) -> None:
    where = from_origin(0, 50, 4e-6, 4e-6)
    grey = tiff(tmp_path / "a.tif", crs="EPSG:4326", transform=where, image=PICTURE[..., :bands])
    assert_problem(send(client, grey), 422, f"has {bands} bands")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_what_cannot_be_decoded_or_seen_is_422(client: FlaskClient, tmp_path: Path, city_path: Path) -> None:
    cut = city_path.read_bytes()
    for body in (b"", b"hello", b"II*\0", png(PICTURE)[:60], cut[: len(cut) // 2], b"<VRTDataset/>"):
        assert_problem(send(client, body), 422)
    floats = tiff(tmp_path / "a.tif", crs=None, image=PICTURE.astype(np.float32))
    assert_problem(send(client, floats), 422, "8 or 16 bits")
    deep = tiff(tmp_path / "b.tif", crs=None, image=PICTURE.astype(np.uint16))
    assert_problem(send(client, deep), 422, "uint16")


def test_bombs_are_refused_by_their_header(client: FlaskClient, tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    assert_problem(send(client, bomb), 422, "1,600,000,000 px")
    wide = np.zeros((16, 16, 3), np.uint8)
    blocks = {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"}
    encoded = tiff(tmp_path / "a.tif", crs="EPSG:4326", transform=from_origin(0, 50, 4e-6, 4e-6), image=wide, **blocks)
    for tag in (322, 323):  # width and length of a tile
        entry = struct.pack("<HHI", tag, 3, 1)
        assert encoded.count(entry + struct.pack("<H", 16)) == 1
        encoded = encoded.replace(entry + struct.pack("<H", 16), entry + struct.pack("<H", 16384))
    assert_problem(send(client, encoded), 422, "MiB once it is decoded")


def test_more_than_32_mib_are_413(client: FlaskClient) -> None:
    assert_problem(send(client, b"\0" * (32 * 2**20 + 1)), 413)


def test_an_image_across_the_antimeridian_has_its_place(client: FlaskClient, tmp_path: Path) -> None:
    where = from_origin(180 - 10 * 4e-6, 10, 4e-6, 4e-6)
    answer = send(client, tiff(tmp_path / "east.tif", crs="EPSG:4326", transform=where))
    assert answer.status_code == 200, answer.text
    for feature in answer.json["features"]:
        assert all(-180 <= longitude <= 180 for longitude, _ in feature["geometry"]["coordinates"][0])
    assert answer.json["features"]
