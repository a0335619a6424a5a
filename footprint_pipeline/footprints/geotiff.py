"""Imagery from a georeferenced raster: a GeoTIFF or COG, on disk or behind a URL."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.transform import from_bounds
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds

from footprint_pipeline.errors import ImageryError, SettingsError
from footprint_pipeline.footprints.discretion import be_discreet
from footprint_pipeline.footprints.mercator import Bounds, ground_scale, to_wgs84
from footprint_pipeline.footprints.patch import Patch, no_imagery

WEB_MERCATOR = "EPSG:3857"
_BLACK_PX = 9
_DATE_TAGS = ("ACQUISITIONDATETIME", "ACQUISITION_DATETIME", "ACQUISITION_DATE", "TIFFTAG_DATETIME")
_REMOTE = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_HTTP_TIMEOUT": 20, "GDAL_HTTP_MAX_RETRY": 2}


class GeoTiffImagery:
    """A raster with red, green and blue bands in any CRS. Safe to read from several threads.

    Pixels without imagery are those that the file's alpha band, mask or nodata value says; where it has none
    of them, wholly black areas wider than a few pixels.

    Args:
        path: a file, or the URL of a COG.
        attribution: whom to credit.
        name: what to call it; the file's name when None.
        date: when the imagery was taken; what the file's tags say when None.

    Raises:
        SettingsError: the file is missing, no raster, not georeferenced, or has fewer than three bands.
    """

    def __init__(
        self, path: str | Path, *, attribution: str = "", name: str | None = None, date: str | None = None
    ) -> None:
        self._path = str(path)
        self.attribution = attribution
        self.name = name or Path(urlsplit(self._path).path if "://" in self._path else self._path).name
        be_discreet()
        self._environment = _REMOTE if "://" in self._path else {}
        try:
            with rasterio.Env(**self._environment), rasterio.open(self._path) as source:
                if source.crs is None or source.count < 3:
                    lack = "is not georeferenced" if source.crs is None else f"has {source.count} bands, not three"
                    raise SettingsError(
                        f"{self.name}: {lack}.", fix="Point FOOTPRINT_IMAGERY at a GeoTIFF with red, green and blue."
                    )
                self._crs, self._extent, self._size = source.crs, source.bounds, (source.width, source.height)
                self._overviews = source.overviews(1)
                self._bands = _rgb_bands(source.colorinterp)
                self._declares_mask = MaskFlags.all_valid not in source.mask_flag_enums[self._bands[0] - 1]
                self._nodata = source.nodata
                self.date = date or _date({**source.tags(), **source.tags(ns="IMAGERY")})
                self.extent_wgs84 = Bounds(*transform_bounds(source.crs, "EPSG:4326", *source.bounds))
        except RasterioError:
            raise SettingsError(
                f"{self.name}: missing, or not a raster that GDAL can read.",
                fix="Set FOOTPRINT_IMAGERY to a GeoTIFF, an XYZ template with {z} {x} {y}, or 'mapbox'.",
            ) from None

    def read(self, bounds_3857: Bounds, height: int, width: int) -> Patch:
        """Pixels of a rectangle on a grid of `height` × `width`; see `Imagery.read`."""
        if not to_wgs84(bounds_3857).overlaps(self.extent_wgs84):
            raise no_imagery(self, bounds_3857)
        decimation = self._decimation(bounds_3857, width)
        level = self._overview(decimation)
        grid = {
            "crs": WEB_MERCATOR,
            "transform": from_bounds(*bounds_3857, width, height),
            "width": width,
            "height": height,
        }
        try:
            with (
                rasterio.Env(**self._environment),
                rasterio.open(self._path, **({} if level is None else {"overview_level": level})) as source,
                WarpedVRT(
                    source,
                    resampling=Resampling.bilinear,
                    add_alpha=self._nodata is None and ColorInterp.alpha not in source.colorinterp,
                    **grid,
                ) as warped,
            ):
                pixels = warped.read(self._bands).transpose(1, 2, 0)
                valid = warped.dataset_mask() > 0
        except RasterioError as error:
            reason = type(error).__name__ if self._environment else str(error).splitlines()[0]
            raise ImageryError(
                f"{self.name}: cannot be read ({reason}).", fix="Check that the file is whole and can be reached."
            ) from None
        if not self._declares_mask:
            valid &= ~_black_areas(pixels)
        if not valid.any():
            raise no_imagery(self, bounds_3857)
        grid_m = (bounds_3857.right - bounds_3857.left) / width * ground_scale(bounds_3857)
        gsd_m = grid_m / decimation * (1 if level is None else self._overviews[level])
        return Patch(np.ascontiguousarray(pixels), valid, self.name, gsd_m=gsd_m, date=self.date)

    def _decimation(self, bounds_3857: Bounds, width: int) -> float:
        """How many of the file's own pixels a pixel of the grid is wide."""
        (x, y), quarter = bounds_3857.centre, (bounds_3857.right - bounds_3857.left) / width / 4
        middle = x - quarter, y - quarter, x + quarter, y + quarter  # the whole may reach across the antimeridian
        left, _, right, _ = transform_bounds(WEB_MERCATOR, self._crs, *middle)
        own_pixel = (self._extent.right - self._extent.left) / self._size[0]
        return 2 * (right - left) / own_pixel

    def _overview(self, decimation: float) -> int | None:
        """The coarsest overview that is still no coarser than the grid; None for the raster itself."""
        usable = [level for level, factor in enumerate(self._overviews) if factor <= decimation * 1.001]
        return usable[-1] if usable else None


def _date(tags: dict[str, str]) -> str | None:
    """When the imagery was taken, else when the file was made, as YYYY-MM-DD; None where no tag says it."""
    for name in _DATE_TAGS:
        if found := re.match(r"(\d{4})[:-](\d{2})[:-](\d{2})", tags.get(name, "")):
            return "-".join(found.groups())
    return None


def _rgb_bands(interpretation: tuple[ColorInterp, ...]) -> list[int]:
    wanted = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    if all(colour in interpretation for colour in wanted):
        return [interpretation.index(colour) + 1 for colour in wanted]
    return [1, 2, 3]


def _black_areas(pixels: np.ndarray) -> np.ndarray:
    black = (~pixels.any(axis=2)).astype(np.uint8)
    return cv2.morphologyEx(black, cv2.MORPH_OPEN, np.ones((_BLACK_PX, _BLACK_PX), np.uint8)).astype(bool)
