"""Reading imagery of a place from a GeoTIFF, beside GDAL's warper, which is what rio-tiler reads with.

The file is a tiled one with overviews, in UTM, of soft hills of colour; the places are squares about as wide as a map
tile of zoom 18 with its halo. The peer is a `WarpedVRT` of rasterio on the same grid, made anew
for every place, as rio-tiler makes it. Ours keeps the file open, and with it what GDAL has decoded, up to as much as in
the service: some of the places share blocks with others.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import from_bounds, from_origin
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds

from benchmarks.form import Figure, in_turn, main
from footprint_pipeline.footprints.geotiff import WEB_MERCATOR, GeoTiffImagery
from footprint_pipeline.footprints.mercator import Bounds

os.environ.setdefault("GDAL_CACHEMAX", "64")

CRS = "EPSG:32723"
ORIGIN = (680_000.0, 7_470_000.0)
GSD_M = 0.3
SIDE_PX = 410
MOST_APART = 2.0
"""Of 255, on average; more is another picture."""


def measure(quick: bool) -> list[Figure]:
    """Time and agreement at the file's own resolution and at a third of it."""
    side, places, rounds = (2048, 4, 1) if quick else (8192, 40, 7)
    with tempfile.TemporaryDirectory() as scratch:
        path = write_hills(Path(scratch) / "hills.tif", side)
        imagery = GeoTiffImagery(path)
        figures = []
        for name, grid_m in (("as fine as the file", GSD_M), ("a third as fine", 3 * GSD_M)):
            grids = squares(side, grid_m, places)
            ours, peer = in_turn(
                each(grids, lambda grid: imagery.read(grid, SIDE_PX, SIDE_PX)),
                each(grids, lambda grid: through_gdal(path, grid)),
                rounds=rounds,
            )
            taken, taken_peer = (1e3 * seconds / places for seconds in (ours, peer))
            apart = float(np.mean([difference(imagery, path, grid) for grid in grids]))
            if apart > MOST_APART:
                raise SystemExit(f"The two ways read another picture: they are {apart:.1f} of 255 apart.")
            figures += [
                Figure(f"{SIDE_PX}×{SIDE_PX} pixels, {name}; peer: GDAL's warper", taken, "ms", taken_peer,
                       taken_peer / taken, "≥ 1", taken <= taken_peer),
                Figure(f"{name}: how far both are apart, of 255", apart, ""),
            ]  # fmt: skip
    return figures


def write_hills(path: Path, side: int) -> Path:
    """An image without edges, so that two ways to interpolate it agree."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (side // 16, side // 16, 3), np.uint8)
    image = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=side, width=side, dtype="uint8", photometric="RGB", crs=CRS,
        tiled=True, blockxsize=512, blockysize=512, compress="deflate", transform=from_origin(*ORIGIN, GSD_M, GSD_M),
    ) as target:  # fmt: skip
        target.write(np.moveaxis(image, -1, 0))
    with rasterio.open(path, "r+") as target:
        target.build_overviews([2, 4, 8], Resampling.average)
    return path


def squares(side: int, grid_m: float, count: int) -> list[Bounds]:
    """Grids of `SIDE_PX` at this resolution, well within the file, in Web Mercator."""
    rng = np.random.default_rng(1)
    span = SIDE_PX * grid_m
    corners = rng.uniform(0.05 * side * GSD_M, 0.95 * side * GSD_M - span, (count, 2))
    left, top = ORIGIN
    return [
        Bounds(*transform_bounds(CRS, WEB_MERCATOR, left + x, top - y - span, left + x + span, top - y))
        for x, y in corners
    ]


def each(grids: list[Bounds], read: Callable[[Bounds], object]) -> Callable[[], None]:
    """Read them all, one after another."""

    def work() -> None:
        for grid in grids:
            read(grid)

    return work


def through_gdal(path: Path, grid: Bounds) -> tuple[np.ndarray, np.ndarray]:
    """Pixels, shape (3, H, W), and which are valid."""
    with (
        rasterio.open(path) as source,
        WarpedVRT(
            source, crs=WEB_MERCATOR, transform=from_bounds(*grid, SIDE_PX, SIDE_PX), width=SIDE_PX, height=SIDE_PX,
            resampling=Resampling.bilinear, add_alpha=True,
        ) as warped,
    ):  # fmt: skip
        return warped.read((1, 2, 3)), warped.read(4) > 0


def difference(imagery: GeoTiffImagery, path: Path, grid: Bounds) -> float:
    """Mean difference of the two where both are valid."""
    ours, (pixels, valid) = imagery.read(grid, SIDE_PX, SIDE_PX), through_gdal(path, grid)
    apart = np.abs(ours.pixels.astype(float) - np.moveaxis(pixels, 0, -1))
    return float(apart[ours.valid & valid].mean())


if __name__ == "__main__":
    main(measure, description=__doc__ or "")
