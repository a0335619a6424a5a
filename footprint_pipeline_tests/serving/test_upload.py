"""/v1/footprints/image: what may be sent, and what comes back in which coordinates."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from flask.testing import FlaskClient
from rasterio.transform import from_origin
from shapely.geometry import shape

from footprint_pipeline.footprints.geotiff import GeoTiffImagery
from footprint_pipeline.footprints.tables import SUFFIXES
from footprint_pipeline.settings import Settings
from footprint_pipeline_tests.footprints.red_city import DEGREE_M, GREY, RED, png, write_raster
from footprint_pipeline_tests.footprints.test_tables import assert_same, read_back
from footprint_pipeline_tests.serving.conftest import ROOF
from footprint_pipeline_tests.serving.test_problems import assert_problem
from serving import encoded_image
from serving.admission import Admission
from serving.app import create_app
from serving.encoded_image import check_image
from serving.model_store import ModelStore

URL = "/v1/footprints/image"
PICTURE = np.full((96, 128, 3), GREY, np.uint8)
PICTURE[20:50, 30:70] = RED
WIDE = np.full((2800, 2800, 3), GREY, np.uint8)


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
    flat = tiff(tmp_path / "f.tif", crs="EPSG:4326", transform=Affine(4e-6, 4e-6, 0, 4e-6, 4e-6, 50))
    assert_problem(send(client, flat), 422, "no place on the map")
    huge = tiff(tmp_path / "c.tif", crs="EPSG:4326", transform=from_origin(0, 50, 0.1, 0.1))
    problem = assert_problem(send(client, huge), 422, "too coarse")  # at 5 m it would be too large as well
    assert problem["fix"] == "Send an image whose pixels show less ground."
    wide = tiff(tmp_path / "g.tif", crs="EPSG:32633", transform=from_origin(5e5, 5e6, 0.8, 0.8), image=WIDE)
    problem = assert_problem(send(client, wide), 422, "16,777,216 px at most")
    assert problem["fix"] == "Send a smaller part of it."
    placed = tiff(tmp_path / "d.tif", crs="EPSG:4326", transform=from_origin(0, 50, 4e-6, 4e-6))
    assert_problem(send(client, placed, "gsd_m=0.5"), 422, "gsd_m")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    ("more", "profile"),
    [
        ((), {"photometric": "RGB"}),
        ((), {"photometric": "MINISBLACK"}),
        ((9, 9), {"photometric": "MINISBLACK"}),
        ((0,), {"photometric": "RGB", "alpha": "NO"}),
        ((128,), {"photometric": "RGB", "alpha": "YES"}),
        ((), {"compress": "zstd"}),
        ((), {"interleave": "band"}),
    ],
    ids=["RGB", "grey by name", "five bands", "a fourth one", "half transparent", "zstd", "by band"],
)
def test_a_tiff_without_a_place_is_read_as_one_that_has_it(
    client: FlaskClient, tmp_path: Path, more: tuple[int, ...], profile: dict[str, str]
) -> None:
    image = np.dstack([PICTURE, *(np.full(PICTURE.shape[:2], value, np.uint8) for value in more)])
    where = from_origin(3e5, 4e6, 0.5, 0.5)
    placed = send(client, tiff(tmp_path / "a.tif", crs="EPSG:32633", transform=where, image=image, **profile))
    (feature,) = send(client, tiff(tmp_path / "b.tif", crs=None, image=image, **profile), "gsd_m=0.5").json["features"]
    assert shape(feature["geometry"]).hausdorff_distance(shapely.box(30, 20, 70, 50)) < 1.5
    (same,) = placed.json["features"]
    for name in ("confidence", "area_m2"):
        assert feature["properties"][name] == pytest.approx(same["properties"][name], rel=0.02)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_mask_of_a_tiff_without_a_place_counts(client: FlaskClient, tmp_path: Path) -> None:
    (feature,) = send(client, masked(tmp_path / "a.tif", crs=None)).json["features"]
    assert shape(feature["geometry"]).bounds[2] == pytest.approx(64, abs=1.5)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_bands_that_are_no_picture_are_refused(client: FlaskClient, tmp_path: Path) -> None:
    two = tiff(tmp_path / "a.tif", crs=None, image=PICTURE[..., :2])
    assert_problem(send(client, two), 422, "has 2 bands of colour, not three")
    inks = np.dstack([PICTURE, PICTURE[..., :1]]).astype(np.uint16)
    assert_problem(send(client, tiff(tmp_path / "b.tif", crs=None, image=inks, photometric="CMYK")), 422, "has 0 bands")
    few = tiff(tmp_path / "c.tif", crs=None, image=PICTURE[..., :1] // 16, nbits=4)
    assert_problem(send(client, few), 422, "fewer than 8 bits")


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
    assert "8-bit red, green and blue" in assert_problem(send(client, deep), 422, "uint16")["fix"]
    clear = np.dstack([PICTURE, np.zeros(PICTURE.shape[:2], np.uint8)])
    unseen = tiff(
        tmp_path / "c.tif", crs="EPSG:4326", transform=from_origin(0, 50, 4e-6, 4e-6), image=clear, alpha="yes"
    )
    assert_problem(send(client, unseen), 422, "nothing in it is to be seen")


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_bombs_are_refused_by_their_header(client: FlaskClient, tmp_path: Path) -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    assert_problem(send(client, bomb), 422, "1,600,000,000 px")
    whole = png(PICTURE)
    start, end = whole.index(b"IDAT") - 4, whole.index(b"IEND") - 4
    endless = whole[:start] + chunk(b"IDAT", zlib.compress(bytes(2**28 + 1))) + whole[end:]
    assert_problem(send(client, endless), 422, "MiB once it is decoded")
    wide = np.zeros((16, 16, 3), np.uint8)
    blocks = {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"}
    encoded = tiff(tmp_path / "a.tif", crs="EPSG:4326", transform=from_origin(0, 50, 4e-6, 4e-6), image=wide, **blocks)
    for tag in (322, 323):  # width and length of a tile
        entry = struct.pack("<HHI", tag, 3, 1)
        assert encoded.count(entry + struct.pack("<H", 16)) == 1
        encoded = encoded.replace(entry + struct.pack("<H", 16), entry + struct.pack("<H", 16384))
    assert_problem(send(client, encoded), 422, "MiB once it is decoded")
    nowhere = tiff(tmp_path / "b.tif", crs=None, image=np.zeros((4097, 4096), np.uint8)[..., None], compress="deflate")
    assert_problem(send(client, nowhere), 422, "16,781,312 px")


SMALL_TILES = {"tiled": True, "blockxsize": 16, "blockysize": 16}


def masked(path: Path, crs: str | None = "EPSG:4326", **profile: object) -> bytes:
    """A GeoTIFF with roofs, and a mask that hides the right half of it."""
    where = from_origin(0, 50, 4e-6, 4e-6) if crs else None
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        tiff(path, crs=crs, transform=where, **SMALL_TILES, **profile)
        with rasterio.open(path, "r+") as target:
            target.write_mask(np.arange(128) < np.full((96, 1), 64))
    return path.read_bytes()


def directory(encoded: bytes, at: int) -> tuple[int, int, int]:
    """Of a little-endian TIFF: where a directory is, where its entries end, and where the next one is."""
    (start,) = struct.unpack_from("<I", encoded, at)
    (entries,) = struct.unpack_from("<H", encoded, start)
    end = start + 2 + 12 * entries
    return start, end, *struct.unpack_from("<I", encoded, end)


@pytest.mark.parametrize("order", ["LITTLE", "BIG"])
@pytest.mark.parametrize("big", ["NO", "YES"])
def test_a_mask_is_no_way_around_the_limit(client: FlaskClient, tmp_path: Path, order: str, big: str) -> None:
    encoded = masked(tmp_path / "a.tif", BIGTIFF=big, ENDIANNESS=order)
    answer = send(client, encoded)
    assert answer.json["numberReturned"] == 1, answer.text
    for tag in (322, 323):
        form = ("<" if order == "LITTLE" else ">") + ("HHQH" if big == "YES" else "HHIH")
        before, small, after = encoded.rpartition(struct.pack(form, tag, 3, 1, 16))
        assert small in before, "first the image, then its mask"
        encoded = before + struct.pack(form, tag, 3, 1, 16384) + after
    assert_problem(send(client, encoded), 422, "MiB once it is decoded")


def test_nor_is_a_mask_within_the_image_or_one_behind_a_circle(client: FlaskClient, tmp_path: Path) -> None:
    whole = masked(tmp_path / "a.tif")
    start, end, mask = directory(whole, 4)
    circle = bytearray(whole)
    struct.pack_into("<I", circle, directory(whole, end)[1], start)
    assert_problem(send(client, bytes(circle)), 422, "not an image")
    far = bytearray(masked(tmp_path / "far.tif", BIGTIFF="YES"))
    (first,) = struct.unpack_from("<Q", far, 8)
    struct.pack_into("<Q", far, first + 8 + 20 * far[first], 2**64 - 1)
    assert_problem(send(client, bytes(far)), 422, "not an image")

    within = bytearray(whole)
    sample_format = next(at for at in range(start + 2, end, 12) if whole[at : at + 2] == struct.pack("<H", 339))
    struct.pack_into("<HHII", within, sample_format, 330, 4, 1, mask)
    struct.pack_into("<I", within, end, 0)
    assert send(client, bytes(within)).json["numberReturned"] == 1
    for at in range(mask + 2, directory(whole, end)[1], 12):
        if struct.unpack_from("<H", whole, at)[0] in (322, 323):
            struct.pack_into("<H", within, at + 8, 16384)
    assert_problem(send(client, bytes(within)), 422, "MiB once it is decoded")


def test_what_a_geotiff_names_is_not_opened(client: FlaskClient, tmp_path: Path) -> None:
    """GDAL takes overviews from wherever the metadata of a file says, from a URL too."""
    grey, where = np.full((512, 512, 3), GREY, np.uint8), from_origin(0, 50, 2e-6, 2e-6)
    private = grey[::2, ::2].copy()
    private[50:150, 50:150] = RED
    tiff(tmp_path / "private.tif", crs="EPSG:4326", transform=where, image=private)
    tiff(tmp_path / "a.tif", crs="EPSG:4326", transform=where, image=grey)
    with rasterio.open(tmp_path / "a.tif", "r+") as target:
        target.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=str(tmp_path / "private.tif"))
    assert send(client, (tmp_path / "a.tif").read_bytes()).json["features"] == []


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_nothing_of_a_png_is_inflated_but_its_pixels(client: FlaskClient, kind: bytes) -> None:
    text = {b"zTXt": b"k\0\0", b"iTXt": b"k\0\1\0\0\0", b"iCCP": b"k\0\0"}[kind] + zlib.compress(b"a" * 10**6)
    whole = png(PICTURE)
    header = whole.index(b"IDAT") - 4
    encoded = whole[:header] + chunk(kind, text) * 3 + whole[header:]
    assert check_image(encoded, name="a").encoded == whole
    assert len(send(client, encoded).json["features"]) == 1


def test_a_jpeg_of_very_many_scans_is_refused(client: FlaskClient) -> None:
    progressive = cv2.imencode(".jpg", PICTURE[..., ::-1], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert len(send(client, progressive).json["features"]) == 1
    start = progressive.rindex(b"\xff\xda")
    scan, end = progressive[start:-2], progressive[-2:]
    assert_problem(send(client, progressive[:start] + scan * 101 + end), 422, "scans, more than 100")


def test_an_image_is_not_decoded_before_its_turn(store: ModelStore, city: GeoTiffImagery) -> None:
    admission = Admission(0, at_a_time=1)
    client = create_app(Settings(), store=store, imagery=city, admission=admission).test_client()
    store.current()  # loaded
    admission.enter()
    assert_problem(send(client, b"no image"), 503)
    admission.leave(0.1)
    assert_problem(send(client, b"no image"), 422)


def test_more_than_32_mib_are_413(client: FlaskClient) -> None:
    assert_problem(send(client, b"\0" * (32 * 2**20 + 1)), 413)


def test_an_image_across_the_antimeridian_has_its_place(client: FlaskClient, tmp_path: Path) -> None:
    where = from_origin(180 - 10 * 4e-6, 10, 4e-6, 4e-6)
    answer = send(client, tiff(tmp_path / "east.tif", crs="EPSG:4326", transform=where))
    assert answer.status_code == 200, answer.text
    for feature in answer.json["features"]:
        assert all(-180 <= longitude <= 180 for longitude, _ in feature["geometry"]["coordinates"][0])
    assert answer.json["features"]


def test_pixels_are_not_inflated_beyond_what_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoded_image, "_MAX_DECODED_BYTES", 2**20)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IDAT", zlib.compress(bytes(2**27)))
    assert 2**20 < encoded_image._inflated(bomb) < 2**25
