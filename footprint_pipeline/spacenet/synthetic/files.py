"""The file formats of the synthetic city: tiles, GeoJSON and well-known text as SpaceNet writes them.

Here belongs what knows a format and nothing of a city.
"""

import json
from pathlib import Path

import numpy as np
import rasterio
import shapely
from rasterio import Affine

_CRS84 = {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}


def write_image(path: Path, pixels: np.ndarray, transform: Affine, **options: object) -> None:
    """A DEFLATE GeoTIFF in EPSG:4326, pixel interleaved.

    Args:
        path: of the new file.
        pixels: RGB, uint8, shape (H, W, 3).
        transform: from pixels to degrees.
        options: further creation options.
    """
    height, width, bands = pixels.shape
    profile: dict[str, object] = {"driver": "GTiff", "dtype": "uint8", "photometric": "RGB", "interleave": "pixel"}
    profile |= {"compress": "deflate", "predictor": 2, "zlevel": 4, "crs": "EPSG:4326", **options}
    with rasterio.open(path, "w", height=height, width=width, count=bands, transform=transform, **profile) as image:
        image.write(np.moveaxis(pixels, 2, 0))


def write_geojson(path: Path, polygons: np.ndarray, properties: list[dict[str, float]]) -> None:
    """A FeatureCollection with a third ordinate of 0, as in SpaceNet's files."""
    features = [
        {"type": "Feature", "properties": known, "geometry": json.loads(shapely.to_geojson(polygon))}
        for known, polygon in zip(properties, shapely.force_3d(polygons), strict=True)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": _CRS84, "features": features}), encoding="utf-8")


def to_wgs84(polygons: np.ndarray, transform: Affine) -> np.ndarray:
    """Polygons in pixels to longitude and latitude, shape (N,), dtype object."""
    scale, origin = np.array([transform.a, transform.e]), np.array([transform.c, transform.f])
    return np.asarray(shapely.transform(polygons, lambda xy: xy * scale + origin), object)


def spacenet_wkt(polygon: shapely.Polygon, decimals: int) -> str:
    """Well-known text as SpaceNet writes it: ``POLYGON ((x y 0,x y 0,…))``."""
    rings = (
        ",".join(f"{x:.{decimals}f} {y:.{decimals}f} 0" for x, y in ring.coords)
        for ring in (polygon.exterior, *polygon.interiors)
    )
    return f"POLYGON ({','.join(f'({ring})' for ring in rings)})"
