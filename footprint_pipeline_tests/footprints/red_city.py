"""A world for tests: red roofs on grey ground, a network that knows red from grey, and a server of its tiles."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import openvino as ov
import rasterio
from openvino import opset13 as ops
from rasterio.transform import from_origin

from footprint_pipeline.footprints.mercator import Bounds, Tile, to_wgs84
from footprint_pipeline.footprints.normalization import Normalization
from footprint_pipeline.footprints.spec import ModelSpec

GSD_M = 0.5
DEGREE_M = 111_319.5
RED, GREY = (255, 0, 0), (120, 120, 120)


def write_model(folder: Path, **changes: object) -> Path:
    """An exported model whose probability is near 1 where red exceeds green by more than a half."""
    folder.mkdir(parents=True, exist_ok=True)
    image = ops.parameter(ov.PartialShape([-1, -1, -1, 3]), np.float32, name="image")
    weights = np.array([20.0, -20.0, 0.0], np.float32).reshape(3, 1)
    score = ops.subtract(ops.matmul(image, ops.constant(weights), False, False), ops.constant(np.float32(10.0)))
    ov.save_model(ov.Model([ops.sigmoid(score)], [image], "red"), folder / "model.xml")
    spec = ModelSpec(
        **{
            "model_name": "red-roofs",
            "network": "red minus green",
            "tolerance": 0.5,
            "gsd_m": GSD_M,
            "chip_size": 256,
            "stride": 16,
            "aois": ("AOI_1",),
            "normalization": {"AOI_1": Normalization()},
            **changes,
        }
    )
    spec.write(folder)
    return folder


def roof(longitude: float, latitude: float, width_m: float, height_m: float) -> Bounds:
    """A rectangle in degrees around its middle."""
    dx = width_m / 2 / DEGREE_M / np.cos(np.radians(latitude))
    dy = height_m / 2 / DEGREE_M
    return Bounds(longitude - dx, latitude - dy, longitude + dx, latitude + dy)


def write_city(
    path: Path, area_wgs84: Bounds, roofs: list[Bounds], *, gsd_m: float = GSD_M, alpha: bool = False, **profile: object
) -> Path:
    """A GeoTIFF in EPSG:4326 with roofs painted on it."""
    pixel = gsd_m / DEGREE_M
    width = round((area_wgs84.right - area_wgs84.left) / pixel)
    height = round((area_wgs84.top - area_wgs84.bottom) / pixel)
    image = np.empty((4 if alpha else 3, height, width), profile.get("dtype", np.uint8))
    image[:3] = np.array(GREY)[:, None, None]
    if alpha:
        image[3] = 255
    for box in roofs:
        rows = slice(round((area_wgs84.top - box.top) / pixel), round((area_wgs84.top - box.bottom) / pixel))
        columns = slice(round((box.left - area_wgs84.left) / pixel), round((box.right - area_wgs84.left) / pixel))
        image[:3, rows, columns] = np.array(RED)[:, None, None]
    write_raster(path, image, from_origin(area_wgs84.left, area_wgs84.top, pixel, pixel), "EPSG:4326", **profile)
    return path


def write_raster(path: Path, image: np.ndarray, transform: object, crs: str | None, **profile: object) -> None:
    options = {
        "driver": "GTiff",
        "count": image.shape[0],
        "height": image.shape[1],
        "width": image.shape[2],
        "dtype": image.dtype,
        "photometric": "RGB" if image.shape[0] >= 3 else "MINISBLACK",
        **profile,
    }
    with rasterio.open(path, "w", transform=transform, crs=crs, **options) as target:
        target.write(image)


def paint_tile(tile: Tile, roofs: list[Bounds], side: int = 256) -> np.ndarray:
    """A slippy tile of the city, RGB, shape (side, side, 3)."""
    image = np.full((side, side, 3), GREY, np.uint8)
    area = to_wgs84(tile.bounds_3857)
    for box in roofs:  # at the zooms of the tests, latitude is linear within a tile
        x = [(value - area.left) / (area.right - area.left) * side for value in (box.left, box.right)]
        y = [(area.top - value) / (area.top - area.bottom) * side for value in (box.top, box.bottom)]
        columns, rows = (slice(*(min(max(round(value), 0), side) for value in axis)) for axis in (x, y))
        image[rows, columns] = RED
    return image


def png(image: np.ndarray) -> bytes:
    """RGB or RGBA as PNG."""
    order = [2, 1, 0, 3][: image.shape[2]]
    return cv2.imencode(".png", image[..., order])[1].tobytes()


class Answers(dict[str, tuple[int, bytes]]):
    """What a test server answers by path; anything else is a 404. `asked` lists what came, headers included."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.address = ""

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        status, body = self.get(path, (404, b"nothing"))
        return status, body, {}


@contextmanager
def http_server(answers: Answers, *, certificate: Path | None = None) -> Iterator[Answers]:
    """A local HTTP server (HTTPS with a certificate and its key); `answers.address` is where."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            answers.asked.append((self.path, dict(self.headers)))
            status, body, headers = answers.answer(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    answers.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield answers
    finally:
        server.shutdown()
        server.server_close()


class TileServer(Answers):
    """Answers `/{z}/{x}/{y}.png` with painted tiles."""

    def __init__(self, roofs: list[Bounds], *, side: int = 256, covered: Bounds | None = None) -> None:
        super().__init__()
        self.roofs, self.side, self.covered = roofs, side, covered

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        z, x, y = (int(part) for part in path.split("?")[0].removesuffix(".png").removesuffix("@2x").split("/")[-3:])
        tile = Tile(z, x, y)
        if self.covered is not None and not to_wgs84(tile.bounds_3857).overlaps(self.covered):
            return 404, b"", {}
        return 200, png(paint_tile(tile, self.roofs, self.side)), {}
