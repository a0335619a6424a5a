"""Images and masks of the same name in two folders: which belong together, their pixels, and where they lie.

What belongs here: opening PNG, JPEG and TIFF files as they come. What is made of them is `mask_pairs`' business.
Who reads must silence rasterio's `NotGeoreferencedWarning`: a PNG has no georeference of its own, and need not.
"""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError
from rasterio.enums import ColorInterp, Compression
from rasterio.errors import CRSError, RasterioError

from footprint_pipeline.errors import SourceError, first_line
from footprint_pipeline.footprints.bands import is_palette, looked_up, read_rgb
from footprint_pipeline.many import listed

Bounds = tuple[float, float, float, float]
"""West, south, east, north, degrees."""

_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff"}
_BOUNDS_COLUMNS = ("file", "west", "south", "east", "north")
_BOUNDS_FIX = f"Give a CSV with the columns {', '.join(_BOUNDS_COLUMNS)}; bounds are degrees, EPSG:4326."
_LOSSY = {Compression.jpeg, Compression.webp, Compression.lerc}
_SAME_PLACE_PX = 0.501
"""Half a pixel, and what rounding adds to it."""


@dataclass(frozen=True)
class Pairs:
    """What two folders hold.

    Attributes:
        found: stem, image and mask, in order of the stems.
        without_mask: names of images that have no mask.
        without_image: names of masks that have no image.
    """

    found: tuple[tuple[str, Path, Path], ...]
    without_mask: tuple[str, ...]
    without_image: tuple[str, ...]


@dataclass(frozen=True)
class PlacedImage:
    """An image on its grid.

    Attributes:
        bands: in its own dtype, shape (3, H, W); 0 where there is no imagery.
        crs: of its grid.
        transform: pixel → CRS.
    """

    bands: np.ndarray
    crs: rasterio.CRS
    transform: rasterio.Affine


def find_pairs(images: Path, masks: Path) -> Pairs:
    """Match images with masks by their stems.

    Raises:
        SourceError: a folder is missing, two files of it share a stem, or nothing matches.
    """
    image_of, mask_of = _by_stem(images), _by_stem(masks)
    both = sorted(image_of.keys() & mask_of.keys())
    if not both:
        seen, drawn = (listed(path.name for path in files.values()) or "none" for files in (image_of, mask_of))
        raise SourceError(
            f"No image of {images} ({seen}) has a mask in {masks} ({drawn}).",
            fix=f"An image and its mask have the same name, up to the suffix: {', '.join(sorted(_SUFFIXES))}.",
        )
    return Pairs(
        tuple((stem, image_of[stem], mask_of[stem]) for stem in both),
        tuple(image_of[stem].name for stem in sorted(image_of.keys() - mask_of.keys())),
        tuple(mask_of[stem].name for stem in sorted(mask_of.keys() - image_of.keys())),
    )


def read_bounds(path: Path) -> dict[str, Bounds]:
    """Where images lie, by stem, from a CSV with the columns file, west, south, east and north (degrees).

    Raises:
        SourceError: it cannot be read, lacks a column, or holds bounds that are none.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            rows = list(reader)
    except (OSError, ValueError, csv.Error) as error:
        raise SourceError(f"{path}: cannot be read as CSV ({error}).", fix=_BOUNDS_FIX) from None
    if lacking := [name for name in _BOUNDS_COLUMNS if name not in (reader.fieldnames or ())]:
        raise SourceError(f"{path}: has no column {', '.join(lacking)}.", fix=_BOUNDS_FIX)
    found: dict[str, Bounds] = {}
    for row in rows:
        try:
            west, south, east, north = (float(row[name]) for name in _BOUNDS_COLUMNS[1:])
        except (TypeError, ValueError):
            raise SourceError(f"{path}: the bounds of {row['file']} are no numbers.", fix=_BOUNDS_FIX) from None
        if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
            raise SourceError(
                f"{path}: {row['file']} cannot reach from {west}, {south} to {east}, {north}.", fix=_BOUNDS_FIX
            )
        if found.setdefault(image_name(row["file"]), (west, south, east, north)) != (west, south, east, north):
            raise SourceError(f"{path}: {row['file']} lies at two places.", fix="Leave one row for each image.")
    return found


def image_name(file: str) -> str:
    """The name of an image without its suffix, whether a table says that or not; `town.v1` has none."""
    path = Path(file.strip())
    return path.stem if path.suffix.lower() in _SUFFIXES else path.name


def read_image(path: Path, *, bounds: Bounds | None, crs: str | None) -> PlacedImage:
    """Three bands of an image, and its grid.

    A palette is looked up, one band stands for all three, and what is transparent or nodata is black.

    Args:
        path: PNG, JPEG or TIFF.
        bounds: where it lies, in place of its own georeference.
        crs: of images whose own georeference names none, as those with a world file.

    Raises:
        SourceError: it cannot be read, or has no georeference.
    """
    with _opened(path) as source:
        bands = read_rgb(source)
        bands[:, source.dataset_mask() == 0] = 0
        if bounds is not None:
            west, south, east, north = bounds
            across, down = (east - west) / source.width, (south - north) / source.height
            return PlacedImage(bands, rasterio.CRS.from_epsg(4326), rasterio.Affine(across, 0, west, 0, down, north))
        if source.transform.is_identity:
            raise SourceError(
                f"{path}: has no georeference.",
                fix="Use GeoTIFFs, put a world file beside each image, or give their bounds (--bounds CSV).",
            )
        if source.crs is None and crs is None:
            raise SourceError(
                f"{path}: its georeference names no CRS.", fix="Name it, as in --crs EPSG:32630, or give --bounds."
            )
        return PlacedImage(bands, source.crs or read_crs(str(crs)), source.transform)


def read_building_mask(path: Path) -> np.ndarray:
    """Where a mask says building: bool, shape (H, W).

    Anything above 0 in any of its colours, and not the file's nodata value; above 127 where the file is JPEG, whose
    edges ring. A palette is looked up; of one that is black throughout, any number above 0.

    Raises:
        SourceError: it cannot be read.
    """
    with _opened(path) as source:
        lossy = source.driver == "JPEG" or source.compression in _LOSSY
        if is_palette(source) and (colours := looked_up(source)).any():
            return np.asarray(colours.any(axis=0))
        values = source.read(_colours(source))
        built = values > (127 if lossy else 0)
        if source.nodata is not None:
            built &= values != source.nodata
        return built.any(axis=0)


def check_place(mask: Path, path: Path, image: PlacedImage, *, crs: str | None) -> None:
    """Hold the georeference of a mask, where it has one of its own, against the grid of its image.

    Args:
        mask: of as many pixels as the image.
        path: of the image.
        image: as it was read.
        crs: of masks whose own georeference names none; these are not held against anything when None.

    Raises:
        SourceError: the mask lies elsewhere, or is mirrored.
    """
    with _opened(mask) as source:
        own, grid = source.crs or (read_crs(crs) if crs is not None else None), source.transform
    if own is None or grid.is_identity:
        return
    apart_px = _apart_px(own, grid, image)
    if apart_px <= _SAME_PLACE_PX:
        return
    off = f"up to {apart_px:,.1f} pixels off" if np.isfinite(apart_px) else "nowhere on it"
    mirrored = ", mirrored" if own == image.crs and grid.determinant * image.transform.determinant < 0 else ""
    systems = "" if own == image.crs else f" ({CRS(own.to_wkt()).name}, not {CRS(image.crs.to_wkt()).name})"
    raise SourceError(
        f"{mask}: by its georeference does not lie on its image {path}: {off}{mirrored}{systems}.",
        fix="Warp the mask onto its image (rio warp MASK OUT --like IMAGE). Where only its georeference is wrong, "
        "give it the image's (rio edit-info MASK --like IMAGE --crs like --transform like), or place both by --bounds.",
    )


def _apart_px(crs: rasterio.CRS, grid: rasterio.Affine, image: PlacedImage) -> float:
    """How far corners, edges and middle of a grid come to lie from those of an image of its size; inf for nowhere."""
    _, height, width = image.bands.shape
    x, y = (each.ravel() for each in np.meshgrid([0, width / 2, width], [0, height / 2, height]))
    there = grid @ (x, y)
    try:
        if crs != image.crs:
            there = Transformer.from_crs(crs.to_wkt(), image.crs.to_wkt(), always_xy=True).transform(*there)
    except ProjError:
        return np.inf
    if not np.isfinite(there).all():
        return np.inf
    return float(np.abs(np.subtract(~image.transform @ there, (x, y))).max())


def read_crs(text: str) -> rasterio.CRS:
    """The CRS that a user names.

    Raises:
        SourceError: there is none of that name.
    """
    try:
        return rasterio.CRS.from_user_input(text)
    except CRSError:
        raise SourceError(f"{text!r} is no CRS.", fix="Name it by its number, as in EPSG:32630.") from None


def _colours(source: rasterio.DatasetReader) -> list[int]:
    """Numbers of the bands that are not transparency."""
    return [band for band, kind in zip(source.indexes, source.colorinterp, strict=True) if kind != ColorInterp.alpha]


@contextmanager
def _opened(path: Path) -> Iterator[rasterio.DatasetReader]:
    """An open raster; whatever fails while it is read becomes a SourceError that names it."""
    try:
        with rasterio.open(path) as source:
            yield source
    except (RasterioError, ValueError) as error:  # ValueError: bands of several types, or none
        raise SourceError(
            f"{path}: cannot be read ({first_line(error)}).", fix="Fetch it again, or remove it."
        ) from None


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise SourceError(f"{folder}: is no folder.", fix="Give the folder that holds the images, or the masks.")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith("."):
            if path.stem in found:
                raise SourceError(
                    f"{folder}: {found[path.stem].name} and {path.name} have the same name up to the suffix.",
                    fix="Leave one of them there.",
                )
            found[path.stem] = path
    return found
