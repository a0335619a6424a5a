"""Imagery from a georeferenced raster: a GeoTIFF or COG, on disk or behind a URL."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date as calendar_date
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import rasterio
from rasterio import DatasetReader
from rasterio._err import CPLE_BaseError
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.warp import transform, transform_bounds
from rasterio.windows import Window

from footprint_pipeline.errors import ImageryError, SettingsError, first_line
from footprint_pipeline.footprints.bands import rgb_bands
from footprint_pipeline.footprints.discretion import be_discreet
from footprint_pipeline.footprints.mercator import Bounds, ground_scale, tile_at, to_wgs84
from footprint_pipeline.footprints.patch import Patch, no_imagery
from footprint_pipeline.footprints.tiff import ALONE
from footprint_pipeline.footprints.warp import darkest, footsteps, spread_out, warp

WEB_MERCATOR = "EPSG:3857"
GdalError = CPLE_BaseError
"""What GDAL and PROJ find wrong. It is no `RasterioError`, and rasterio has no public name for it."""
_KNOT_PX = 32
"""How far apart the pixels are whose places are projected; in between, they lie on straight lines."""
_NOWHERE = -1e6
_BLACK_PX = 9
_MAP_TILE_PX, _KNOWN_ZOOM = 256, 18
_MOST_READ_PX = 2048**2
_DATE_TAGS = ("ACQUISITIONDATETIME", "ACQUISITION_DATETIME", "ACQUISITION_DATE", "TIFFTAG_DATETIME")
_MOST_IDLE = 16
_REMOTE = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_HTTP_TIMEOUT": 20, "GDAL_HTTP_MAX_RETRY": 2,
           "GDAL_HTTP_RETRY_DELAY": 0.5}  # fmt: skip


class GeoTiffImagery:
    """A raster with red, green and blue bands in any CRS. Safe to read from several threads.

    Pixels without imagery are those that the file's alpha band, mask or nodata value says, and those that are no
    number; where it has no such band, mask or value, wholly black areas wider than a few pixels as well.

    Args:
        path: a file, or the URL of a COG.
        attribution: whom to credit.
        name: what to call it; the file's name when None.
        date: when the imagery was taken; what the file's tags say when None.
        untrusted: whether it must be a GeoTIFF that is read by itself: without its overviews, which may be any file or
            URL that it names.

    Raises:
        SettingsError: the file is missing, no raster, not georeferenced, or has fewer than three bands.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        attribution: str = "",
        name: str | None = None,
        date: str | None = None,
        untrusted: bool = False,
    ) -> None:
        self._path = str(path)
        self.attribution = attribution
        self.name = name or Path(urlsplit(self._path).path if "://" in self._path else self._path).name
        be_discreet()
        self._environment = _REMOTE if "://" in self._path else {}
        self._options = ALONE if untrusted else {}
        self._keeps_open, self._state = not untrusted, _state(self._path)
        self._idle: dict[int | None, list[DatasetReader]] = {}
        try:
            with rasterio.Env(**self._environment), rasterio.open(self._path, **self._options) as source:
                self._bands = rgb_bands(source.colorinterp)
                if source.crs is None or len(self._bands) < 3:
                    lack = (
                        "is not georeferenced"
                        if source.crs is None
                        else f"has {len(self._bands)} bands of colour, not three"
                    )
                    raise SettingsError(
                        f"{self.name}: {lack}.", fix="Point FOOTPRINT_IMAGERY at a GeoTIFF with red, green and blue."
                    )
                self._crs, self._shape, self._to_pixels = source.crs, source.shape, ~source.transform
                self._overviews = source.overviews(1)
                self._declares_mask = MaskFlags.all_valid not in source.mask_flag_enums[self._bands[0] - 1]
                self.date = date or _date({**source.tags(), **source.tags(ns="IMAGERY")})
                self.extent_wgs84 = _from_west_to_east(
                    transform_bounds(source.crs, "EPSG:4326", *_upright(source.bounds))
                )
                self._turn = _turn(source.crs, self.extent_wgs84.centre[0])
                self._middle, _ = source.transform * (source.width / 2, source.height / 2)
        except RasterioError:
            raise SettingsError(
                f"{self.name}: missing, or not a raster that GDAL can read.",
                fix="Set FOOTPRINT_IMAGERY to a GeoTIFF, an XYZ template with {z} {x} {y}, or 'mapbox'.",
            ) from None

    @cached_property
    def gsd_m(self) -> float:
        """What a pixel measures on the ground in the middle, metres."""
        tile, steps = self._middle_tile
        return (tile.right - tile.left) / _MAP_TILE_PX * ground_scale(tile) / math.sqrt(math.prod(steps))

    @cached_property
    def _middle_tile(self) -> tuple[Bounds, tuple[float, float]]:
        """A map tile in the middle, and how many of the raster's pixels one of its pixels spans, across and down."""
        tile = tile_at(*self.extent_wgs84.centre, _KNOWN_ZOOM).bounds_3857
        return tile, footsteps(*self._places(tile, _MAP_TILE_PX, _MAP_TILE_PX))

    @cached_property
    def zooms(self) -> tuple[int, int]:
        """See `Imagery.zooms`. Without overviews a coarse tile is made of all the pixels in it, so there is a limit."""
        _, steps = self._middle_tile
        finest = min(max(_KNOWN_ZOOM + math.ceil(math.log2(max(steps)) - 0.01), 0), 24)
        for zoom in range(finest - 1, -1, -1):
            at_zoom = [step * 2.0 ** (_KNOWN_ZOOM - zoom) for step in steps]
            level = self._overview(min(at_zoom))
            factor = 1 if level is None else self._overviews[level]
            sides = zip(at_zoom, reversed(self._shape), strict=True)
            if math.prod(min(_MAP_TILE_PX * step, side) / factor for step, side in sides) > _MOST_READ_PX:
                return zoom + 1, finest
        return 0, finest

    def read(self, bounds_3857: Bounds, height: int, width: int) -> Patch:
        """Pixels of a rectangle on a grid of `height` × `width`; see `Imagery.read`."""
        if not self._reaches(to_wgs84(bounds_3857)):
            raise no_imagery(self, bounds_3857)
        x, y = self._places(bounds_3857, height, width)
        steps = footsteps(x, y)
        level = self._overview(min(steps))  # pixels in degrees are no squares on the ground
        factor = 1 if level is None else self._overviews[level]
        try:
            with self._opened(level) as source:
                # GDAL rounds the sides of an overview up, each by itself.
                down, across = (np.float32(side / own) for side, own in zip(source.shape, self._shape, strict=True))
                read = self._read(source, x * across, y * down)
        except RasterioError as error:
            reason = type(error).__name__ if self._environment else first_line(error)
            raise ImageryError(
                f"{self.name}: cannot be read ({reason}).", fix="Check that the file is whole and can be reached."
            ) from None
        if read is None:
            raise no_imagery(self, bounds_3857)
        pixels, valid = read
        if not self._declares_mask:
            black = _black_areas(pixels)
            pixels[black] = darkest(pixels.dtype)
            valid &= ~black
        if not valid.any():
            raise no_imagery(self, bounds_3857)
        grid_m = (bounds_3857.right - bounds_3857.left) / width * ground_scale(bounds_3857)
        return Patch(pixels, valid, self.name, gsd_m=grid_m / math.sqrt(math.prod(steps)) * factor, date=self.date)

    @contextmanager
    def _opened(self, level: int | None) -> Iterator[DatasetReader]:
        """The raster, or an overview of it, for one thread, and then for the next.

        GDAL forgets what it has decoded when a file is closed, and neighbouring areas share blocks.
        """
        if (state := _state(self._path)) != self._state:  # those of the former file close when nobody reads them
            self._idle, self._state = {}, state
        idle = self._idle.setdefault(level, [])
        with rasterio.Env(**self._environment):
            try:
                source = idle.pop()
            except IndexError:
                options: dict[str, Any] = self._options if level is None else {"overview_level": level}
                source = rasterio.open(self._path, **options)
            try:
                yield source
            except BaseException:
                source.close()
                raise
            if self._keeps_open and len(idle) < _MOST_IDLE:
                idle.append(source)
            else:
                source.close()

    def _reaches(self, area_wgs84: Bounds) -> bool:
        """Whether the raster and an area may overlap, whichever turn of the globe their longitudes are of."""
        left, bottom, right, top = area_wgs84
        return any(
            Bounds(left + turn, bottom, right + turn, top).overlaps(self.extent_wgs84) for turn in (-360.0, 0.0, 360.0)
        )

    def _places(self, bounds_3857: Bounds, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the centres of a grid's pixels lie, in columns and rows of the file, float32, shape (H, W) each."""
        left, bottom, right, top = bounds_3857
        half_x, half_y = (right - left) / width / 2, (top - bottom) / height / 2
        columns, rows = (2 + side // _KNOT_PX for side in (width, height))
        knots = np.meshgrid(np.linspace(left + half_x, right - half_x, columns),
                            np.linspace(top - half_y, bottom + half_y, rows))  # fmt: skip
        east, north = (np.reshape(along, (rows, columns)) for along in
                       transform(WEB_MERCATOR, self._crs, *(along.ravel() for along in knots)))  # fmt: skip
        if self._turn is not None:  # the antimeridian may run through the grid, or through the raster
            before, after = east[rows // 2, (columns - 1) // 2], east[rows // 2, columns // 2]
            before = _near(self._middle, before, self._turn)
            middle = (before + _near(before, after, self._turn)) / 2
            east = _near(middle, east, self._turn)
        x, y = (np.where(np.isfinite(along), along, _NOWHERE) for along in self._to_pixels * (east, north))
        return spread_out(x, height, width), spread_out(y, height, width)

    def _read(self, source: DatasetReader, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Pixels and which are valid at these columns and rows; None where none of them lies in the raster."""
        across, down = (max(1, int(step)) for step in footsteps(x, y))  # where there is no overview that coarse
        # Cells of so many pixels begin at multiples of that, whatever is read.
        first = [max(0, math.floor(along.min() / step) - 1) * step for along, step in ((x, across), (y, down))]
        last = [
            min(side, (math.ceil(along.max() / step) + 1) * step)
            for along, step, side in ((x, across, source.width), (y, down, source.height))
        ]
        width, height = (end - start for start, end in zip(first, last, strict=True))
        if width <= 0 or height <= 0:
            return None
        shape = -(-height // down), -(-width // across)
        what = {"window": Window(*first, width, height), "out_shape": shape, "resampling": Resampling.average}
        pixels = cv2.merge(list(source.read(self._bands, **what)))
        valid = np.ones(shape, bool)
        if self._declares_mask:
            valid = source.dataset_mask(**{**what, "resampling": Resampling.nearest}) > 0
        if np.issubdtype(pixels.dtype, np.floating):
            valid &= np.isfinite(pixels).all(axis=2)
        x, y = (
            (along - start) * np.float32(read / side)
            for along, start, read, side in ((x, first[0], shape[1], width), (y, first[1], shape[0], height))
        )
        return warp(pixels, valid, x, y)

    def _overview(self, decimation: float) -> int | None:
        """The coarsest overview that is still no coarser than the grid; None for the raster itself."""
        usable = [level for level, factor in enumerate(self._overviews) if factor <= decimation * 1.001]
        return usable[-1] if usable else None


def _state(path: str) -> str:
    """Changes when a file on disk does; the same for all that is elsewhere."""
    try:
        told = Path(path).stat()
    except OSError:
        return ""
    return f"{told.st_ino} {told.st_mtime_ns} {told.st_size}"


def _turn(crs: rasterio.CRS, longitude: float) -> float | None:
    """How far a turn around the globe leads along x, where it leads along x alone: in degrees, and on a cylinder.

    Args:
        crs: of a raster.
        longitude: where that lies, about.
    """
    if crs.is_geographic:
        return 360.0
    meridians, parallels = longitude + np.arange(-20.0, 21.0, 10.0), np.array([0.0, 40.0])
    with suppress(GdalError), np.errstate(invalid="ignore"):  # there is no such place in it
        x, y = (np.reshape(along, (2, 5)) for along in
                transform("EPSG:4326", crs, np.tile(meridians, 2), parallels.repeat(5)))  # fmt: skip
        step = float(np.median(np.diff(x[0])))  # the antimeridian of the CRS may lie between two of them
        if np.abs(x[0] - x[1]).max() < 0.01 and np.ptp(y, axis=1).max() < 0.01:
            return 36 * abs(step)
    return None


def _near(x: float, others: np.ndarray | float, turn: float) -> Any:
    """Other x, each of the turn around the globe that brings it closest to one."""
    return x + (others - x + turn / 2) % turn - turn / 2


def _upright(bounds: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """The same of a raster whose rows run from south to north, or its columns from east to west."""
    left, bottom, right, top = bounds
    return min(left, right), min(bottom, top), max(left, right), max(bottom, top)


def _from_west_to_east(bounds_wgs84: tuple[float, float, float, float]) -> Bounds:
    """The same with its western edge within ±180 degrees, and its eastern one east of it, beyond 180 if need be."""
    left, bottom, right, top = bounds_wgs84
    right += 360.0 if left > right else 0.0
    turn = 360.0 * math.floor((left + 180.0) / 360.0) if abs(left) <= 360.0 else 0.0
    return Bounds(left - turn, bottom, right - turn, top)


def _date(tags: dict[str, str]) -> str | None:
    """When the imagery was taken, else when the file was made, as YYYY-MM-DD; None where no tag says it."""
    for name in _DATE_TAGS:
        if found := re.match(r"(\d{4})[:-](\d{2})[:-](\d{2})", tags.get(name, "")):
            with suppress(ValueError):  # a clock that was never set says 0000:00:00
                return calendar_date(*map(int, found.groups())).isoformat()
    return None


def _black_areas(pixels: np.ndarray) -> np.ndarray:
    black = cv2.inRange((pixels == 0).view(np.uint8), (1, 1, 1), (1, 1, 1))
    return cv2.morphologyEx(black, cv2.MORPH_OPEN, np.ones((_BLACK_PX, _BLACK_PX), np.uint8)) > 0
