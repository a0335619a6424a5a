"""Small SpaceNet folders written by the tests themselves."""

import io
import json
import tarfile
from pathlib import Path
from typing import Literal

import numpy as np
import rasterio

GSD_DEG = 4.5e-6
WEST, NORTH = -43.60, -22.90


def write_tile(path: Path, *, number: int = 0, size: int = 8) -> None:
    """A small RGB tile; tiles of different numbers lie side by side."""
    path.parent.mkdir(parents=True, exist_ok=True)
    transform = rasterio.Affine(GSD_DEG, 0, WEST + number * size * GSD_DEG, 0, -GSD_DEG, NORTH)
    profile = {"driver": "GTiff", "width": size, "height": size, "count": 3, "dtype": "uint8", "crs": "EPSG:4326"}
    with rasterio.open(path, "w", transform=transform, **profile) as raster:
        raster.write(np.full((3, size, size), number % 256, np.uint8))


def square_px(number: int = 0) -> list[tuple[float, float]]:
    """A closed ring of 4 × 4 pixels in tile `number`, pixels."""
    return [(2, 2), (6, 2), (6, 6), (2, 6), (2, 2)]


def square_wgs84(number: int = 0, size: int = 8) -> list[tuple[float, float]]:
    """The same ring in degrees."""
    west = WEST + number * size * GSD_DEG
    return [(west + x * GSD_DEG, NORTH - y * GSD_DEG) for x, y in square_px(number)]


def wkt(ring: list[tuple[float, float]], *, z: bool = True) -> str:
    return f"POLYGON (({', '.join(f'{x!r} {y!r}' + (' 0' if z else '') for x, y in ring)}))"


def write_geojson(path: Path, geometries: list[dict | None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    features = [{"type": "Feature", "properties": {}, "geometry": geometry} for geometry in geometries]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def polygon(ring: list[tuple[float, float]]) -> dict:
    return {"type": "Polygon", "coordinates": [[[x, y, 0.0] for x, y in ring]]}


def write_csv(path: Path, rows: list[str], *, header: str = "ImageId,BuildingId,PolygonWKT_Pix,PolygonWKT_Geo") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n")


def row(image: str, building: int, number: int) -> str:
    return f'{image},{building},"{wkt(square_px())}","{wkt(square_wgs84(number))}"'


def write_spacenet1(folder: Path, count: int = 3, *, csv: bool = True, geojson: bool = True) -> Path:
    """The older layout of SpaceNet 1: `count` tiles img1 …, one building each but none in img2."""
    root = folder / "processedBuildingLabels"
    rows = []
    for number in range(1, count + 1):
        name = f"AOI_1_RIO_img{number}"
        write_tile(root / "3band" / f"3band_{name}.tif", number=number)
        write_tile(root / "8band" / f"8band_{name}.tif", number=number)
        empty = number == 2
        if geojson:
            label = root / "vectordata" / "geojson" / f"Geo_{name}.geojson"
            write_geojson(label, [] if empty else [polygon(square_wgs84(number))])
        rows.append(f"{name},-1,POLYGON EMPTY,POLYGON EMPTY" if empty else row(name, 1, number))
    if csv:
        write_csv(root / "vectordata" / "summarydata" / "AOI_1_RIO_polygons_solution_3band.csv", rows)
        write_csv(root / "vectordata" / "summarydata" / "AOI_1_RIO_polygons_solution_8band.csv", rows)
    return root


def write_tar(path: Path, folder: Path, names: list[str]) -> Path:
    """A tar.gz of files or folders below `folder`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            tar.add(folder / name, arcname=name)
    return path


def noise_archive(path: Path, *, tiles: int, labels: Literal["summary", "geojson"] | None, size: int = 1 << 18) -> Path:
    """A tar.gz of tiles that cannot be compressed (`size` bytes each, no real images), each after its label.

    With `summary` the table of all labels comes first.
    """
    random = np.random.default_rng(tiles)
    names = [f"AOI_1_RIO_img{number}" for number in range(1, tiles + 1)]
    table = ["ImageId,BuildingId,PolygonWKT_Pix,PolygonWKT_Geo", *(row(name, 1, 1) for name in names)]
    members = {"summaryData/AOI_1_RIO_polygons_solution_3band.csv": "\n".join(table).encode()}
    members = members if labels == "summary" else {}
    for name in names:
        if labels == "geojson":
            members[f"geojson/Geo_{name}.geojson"] = b""
        members[f"3band/3band_{name}.tif"] = random.bytes(size)
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path
