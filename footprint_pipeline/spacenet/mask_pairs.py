"""Images and masks as public building sets come → tiles and labels in SpaceNet 1's layout, which everything reads.

What belongs here: outlines of masks, and the files that are written. How images and masks are found, opened and
placed is the business of `pair_files`.

For every pair: `AOI_<n>_<NAME>/processedData/processedBuildingLabels/3band/3band_AOI_<n>_<NAME>_<stem>.tif`, and
`vectordata/geojson/Geo_AOI_<n>_<NAME>_<stem>.geojson` beside it, so the id of a tile tells the file that it came from.
The GeoJSON is written last and says what it was made of: a pair that is there already is passed over.
"""

import json
import logging
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from pyproj import Transformer
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.features import shapes

from footprint_pipeline.errors import SourceError
from footprint_pipeline.files import atomic_path
from footprint_pipeline.many import each_in_threads
from footprint_pipeline.spacenet.layout import aoi_name, tile_id
from footprint_pipeline.spacenet.pair_files import (
    Bounds,
    PlacedImage,
    check_place,
    find_pairs,
    read_bounds,
    read_building_mask,
    read_crs,
    read_image,
)

_log = logging.getLogger(__name__)

MIN_AREA_PX = 4.0
"""Smaller parts of a mask are no building."""
_OWN_NUMBER = 99
_SIMPLIFY_PX = 0.499
"""Below half a pixel no pixel's centre changes sides: drawn again, the outlines give the mask that they came from."""
_MADE_OF = "made_of"


@dataclass(frozen=True)
class ImportedPairs:
    """What an import made.

    Attributes:
        aoi: name of the AOI.
        folder: what to give as the source.
        tiles: pairs that lie there now.
        kept: how many of them were there before.
        buildings: outlines in all.
        slivers: parts of masks left out as too small, of the pairs that were made now.
        min_area_px: how many pixels would have been enough.
        without_mask: names of images left out for want of a mask.
        without_image: names of masks left out for want of an image.
        others: tiles that lie there besides, of other pairs imported before.
    """

    aoi: str
    folder: Path
    tiles: int
    kept: int
    buildings: int
    slivers: int
    min_area_px: float
    without_mask: tuple[str, ...]
    without_image: tuple[str, ...]
    others: tuple[str, ...]


@dataclass(frozen=True)
class _Made:
    buildings: int
    slivers: int = 0
    kept: bool = False


@dataclass(frozen=True)
class _Job:
    """One pair, what becomes of it, and what decides how it comes out."""

    image: Path
    mask: Path
    tif: Path
    geojson: Path
    bounds: Bounds | None
    crs: str | None
    min_area_px: float

    @property
    def made_of(self) -> dict[str, Any]:
        """As it is written into the GeoJSON; equal when nothing has changed."""
        return {
            "image": str(self.image.absolute()),
            "mask": str(self.mask.absolute()),
            "changed_ns": [self.image.stat().st_mtime_ns, self.mask.stat().st_mtime_ns],
            "bounds": list(self.bounds) if self.bounds else None,
            "crs": self.crs,
            "min_area_px": self.min_area_px,
        }


def import_pairs(
    images: Path,
    masks: Path,
    out: Path,
    *,
    aoi: str,
    bounds: Path | None = None,
    crs: str | None = None,
    min_area_px: float | None = None,
    threads: int | None = None,
) -> ImportedPairs:
    """Write pairs of image and mask as tiles and labels of an AOI.

    A mask is building wherever it is above 0 (JPEG: above 127). Its 4-connected parts become polygons along the
    pixels' edges, with their holes, simplified by less than half a pixel.

    Args:
        images: folder of PNG, JPEG or TIFF files.
        masks: folder of masks of the same names, up to the suffix.
        out: where the AOI's folder goes; what lies there already stays, and pairs that have not changed are kept.
        aoi: `AOI_<n>_<NAME>`, or just letters: `Town` and `TOWN` are taken for `AOI_99_Town`.
        bounds: CSV with the columns file, west, south, east, north (degrees), for images without a georeference of
            their own (or a wrong one); other columns are passed over.
        crs: of images with a world file, such as `EPSG:32630`.
        min_area_px: parts of a mask of fewer pixels are left out; `MIN_AREA_PX` when None.
        threads: pairs at a time; as many as there are cores when None.

    Raises:
        SourceError: a name is no AOI's; nothing matches; a file cannot be read or written, has no georeference, or
            its mask another size or place; another image has made that tile. What is written by then stays, and is
            kept by the next run.
    """
    spelt = _spelt(aoi)
    min_area_px = MIN_AREA_PX if min_area_px is None else min_area_px
    if crs is not None:
        read_crs(crs)
    pairs = find_pairs(images, masks)
    for what, names in (("images have no mask", pairs.without_mask), ("masks have no image", pairs.without_image)):
        if names:
            _log.warning("%d %s and are left out, %s the first", len(names), what, names[0])
    places = read_bounds(bounds) if bounds is not None else {}
    if strange := sorted(places.keys() - {stem for stem, _, _ in pairs.found}):
        _log.warning(
            "%s: %d rows name no image that is imported, %s the first; %d images have no row and lie where they say",
            bounds, len(strange), strange[0], sum(stem not in places for stem, _, _ in pairs.found),
        )  # fmt: skip
    folder = out / spelt / "processedData" / "processedBuildingLabels"
    jobs: dict[str, _Job] = {}
    for stem, image, mask in pairs.found:
        name = f"{spelt}_{re.sub(r'[^A-Za-z0-9_-]+', '_', stem)}"
        tif, geojson = folder / f"3band/3band_{name}.tif", folder / f"vectordata/geojson/Geo_{name}.geojson"
        job = _Job(image, mask, tif, geojson, places.get(stem), crs, min_area_px)
        other = jobs.setdefault(tile_id(tif.stem), job)
        if other is not job:
            raise SourceError(f"{other.image.name} and {image.name} would be one tile.", fix="Rename one of them.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        made = list(each_in_threads(_make, list(jobs.values()), f"{spelt} pairs", threads=threads))
    of_these = {job.tif.name for job in jobs.values()}
    return ImportedPairs(
        aoi=spelt,
        folder=out / spelt,
        tiles=len(made),
        kept=sum(one.kept for one in made),
        buildings=sum(one.buildings for one in made),
        slivers=sum(one.slivers for one in made),
        min_area_px=min_area_px,
        without_mask=pairs.without_mask,
        without_image=pairs.without_image,
        others=tuple(sorted(path.name for path in folder.glob("3band/*.tif") if path.name not in of_these)),
    )


def outlines(mask: np.ndarray, *, min_area_px: float = MIN_AREA_PX) -> tuple[np.ndarray, int]:
    """The buildings of a mask.

    Args:
        mask: bool, shape (H, W).
        min_area_px: smaller parts are left out.

    Returns:
        Valid shapely polygons in pixels (x right, y down), one a 4-connected part, shape (N,); and how many parts
        were left out.
    """
    found = [shapely.geometry.shape(part) for part, _ in shapes(mask.astype(np.uint8), mask=mask, connectivity=4)]
    parts = np.array(found, object)
    large = shapely.area(parts) >= min_area_px
    return shapely.simplify(parts[large], _SIMPLIFY_PX), int((~large).sum())


def _make(job: _Job) -> _Made:
    if job.geojson.exists():
        there = json.loads(job.geojson.read_bytes() or "{}")
        made_of = there.get(_MADE_OF, {})
        if made_of.get("image") != job.made_of["image"]:
            raise SourceError(
                f"{job.geojson}: is there already and was not made from {job.image}.",
                fix="Import under another name (--aoi), or into another folder (--out).",
            )
        if made_of == job.made_of and job.tif.exists():
            return _Made(len(there["features"]), kept=True)
    image = read_image(job.image, bounds=job.bounds, crs=job.crs)
    mask = read_building_mask(job.mask)
    if mask.shape != image.bands.shape[1:]:
        (height, width), (mask_height, mask_width) = image.bands.shape[1:], mask.shape
        raise SourceError(
            f"{job.image.name} has {width} x {height} pixels, its mask {mask_width} x {mask_height}.",
            fix="An image and its mask must be of one size.",
        )
    if job.bounds is None:
        check_place(job.mask, job.image, image, crs=job.crs)
    polygons_px, slivers = outlines(mask, min_area_px=job.min_area_px)
    content = _geojson(_on_ground(polygons_px, image), job.made_of)
    try:
        with atomic_path(job.tif) as temporary:
            _write(temporary, image)
        with atomic_path(job.geojson) as temporary:
            temporary.write_text(content, "utf-8")
    except (OSError, RasterioError) as error:
        raise SourceError(f"{job.tif.parent}: cannot be written ({error}).", fix="Is there room, and leave?") from None
    return _Made(len(polygons_px), slivers)


def _on_ground(polygons_px: np.ndarray, image: PlacedImage) -> np.ndarray:
    """Polygons on the image's grid → EPSG:4326."""
    to_wgs84 = Transformer.from_crs(image.crs.to_wkt(), "EPSG:4326", always_xy=True)

    def place(xy: np.ndarray) -> np.ndarray:
        return np.column_stack(to_wgs84.transform(*(image.transform @ xy.T)))

    return shapely.transform(polygons_px, place)


def _geojson(polygons_wgs84: np.ndarray, made_of: dict[str, Any]) -> str:
    geometries = shapely.to_geojson(polygons_wgs84)
    features = ",\n".join(
        f'{{"type": "Feature", "properties": {{"BuildingId": {number}}}, "geometry": {geometry}}}'
        for number, geometry in enumerate(geometries, start=1)
    )
    return f'{{"type": "FeatureCollection", "{_MADE_OF}": {json.dumps(made_of)}, "features": [\n{features}\n]}}\n'


def _write(path: Path, image: PlacedImage) -> None:
    _, height, width = image.bands.shape
    profile = {
        "driver": "GTiff", "count": 3, "height": height, "width": width, "dtype": image.bands.dtype,
        "crs": image.crs, "transform": image.transform, "photometric": "RGB", "compress": "deflate",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as target:
        target.write(image.bands)


def _spelt(aoi: str) -> str:
    """The name of an AOI in full, as the pipeline reads it off the files."""
    name = aoi if aoi.startswith("AOI_") else f"AOI_{_OWN_NUMBER}_{aoi}"
    if re.fullmatch(r"AOI_\d+_[A-Za-z]+", name):
        return aoi_name([name]) or name
    raise SourceError(f"{aoi!r} cannot be the name of an AOI.", fix="Use letters only, or AOI_<number>_<letters>.")
