"""Footprints → GeoJSON (RFC 7946): WGS 84, longitude first, counter-clockwise exteriors, seven decimals.

Those of an image without a place have pixels for coordinates, which RFC 7946 does not foresee; they say so.
"""

from collections import Counter
from hashlib import blake2b
from typing import Any

import numpy as np
import shapely

from footprint_pipeline.footprints.area import geodesic_area_m2
from footprint_pipeline.footprints.domain import InputProfile
from footprint_pipeline.footprints.extract import Extraction
from footprint_pipeline.footprints.spec import ModelSpec
from footprint_pipeline.footprints.unplaced import UnplacedExtraction

DECIMALS = 7
_PX_DECIMALS = 2
PIXELS = "pixels, x to the right and y down from the upper left corner"
_LEAST_PART = 0.01
"""Of a building, a part that falls off it by rounding: a smaller one is a splinter, not a building."""
_PLACE_DEG, _PLACE_PX = 2e-5, 8.0
"""Side of the cells that ids tell the places of centroids by: degrees, two metres of latitude, and pixels."""


def feature_collection(
    extraction: Extraction, spec: ModelSpec, *, model_version: str, attribution: str = ""
) -> dict[str, Any]:
    """A GeoJSON FeatureCollection: one feature a building, each with an id and what it was made from.

    The id is a fingerprint of the centroid's place, to some two metres, and of the model's version: it stays when the
    building is found from another area or at another tolerance, unless that moves the centroid into the next cell.
    Collection and features say the tolerance and, where the model knows, how far out of domain the imagery is; features
    say when the imagery was taken and how fine it is, where its source does.
    """
    raster = extraction.raster
    imagery = {"imagery": raster.source, "imagery_date": raster.date, "imagery_gsd_m": _rounded(raster.profile.gsd_m)}
    told = out_of_domain(raster.profile)
    common = _common(spec, model_version, extraction.tolerance) | imagery | told
    polygons, given, changed = rounded(extraction.polygons_wgs84)
    areas_m2 = extraction.area_m2[given]
    areas_m2[changed] = geodesic_area_m2(polygons[changed])
    features = [
        _feature(
            polygon,
            identity,
            confidence,
            {"area_m2": round(float(area_m2), 2), "outline": outline, **common},
        )
        for polygon, identity, confidence, area_m2, outline in zip(
            polygons,
            _identities(polygons, model_version, _PLACE_DEG),
            extraction.confidence[given],
            areas_m2,
            outlines(extraction)[given],
            strict=True,
        )
    ]
    whole = {**_credit(attribution), "tolerance": extraction.tolerance, **told}
    return {"type": "FeatureCollection", **whole, "features": features}


def pixel_collection(extraction: UnplacedExtraction, spec: ModelSpec, *, model_version: str) -> dict[str, Any]:
    """The same in pixels. `area_m2` is there when it is known what a pixel measures."""
    told = out_of_domain(extraction.profile)
    imagery = {"imagery": extraction.source, "imagery_gsd_m": extraction.gsd_m}
    common = _common(spec, model_version, extraction.tolerance) | imagery | told
    polygons, given, changed = rounded(extraction.polygons_px, decimals=_PX_DECIMALS)
    areas_px = extraction.area_px[given]
    areas_px[changed] = shapely.area(polygons[changed])
    features = []
    for polygon, identity, confidence, area_px, outline in zip(
        polygons,
        _identities(polygons, model_version, _PLACE_PX),
        extraction.confidence[given],
        areas_px,
        outlines(extraction)[given],
        strict=True,
    ):
        area = {"area_px": round(float(area_px), 2)}
        if extraction.gsd_m is not None:
            area["area_m2"] = round(float(area_px) * extraction.gsd_m**2, 2)
        features.append(_feature(polygon, identity, confidence, {**area, "outline": outline, **common}))
    whole = {"coordinate_system": PIXELS, "tolerance": extraction.tolerance, **told}
    return {"type": "FeatureCollection", **whole, "features": features}


def multipolygon(extraction: Extraction, *, attribution: str = "") -> dict[str, Any]:
    """All footprints as one GeoJSON MultiPolygon."""
    polygons, _, _ = rounded(extraction.polygons_wgs84)
    coordinates = [_rings(polygon) for polygon in polygons]
    return {"type": "MultiPolygon", **_credit(attribution), "coordinates": coordinates}


def outlines(extraction: Extraction | UnplacedExtraction) -> np.ndarray:
    """How each footprint is drawn, as `Outline` says it, str, shape (N,)."""
    return np.where(extraction.regularised, "regularised", "raw").astype(object)


def out_of_domain(profile: InputProfile) -> dict[str, float]:
    """`out_of_domain` with three decimals; nothing where it is not known."""
    return {} if profile.out_of_domain is None else {"out_of_domain": round(profile.out_of_domain, 3)}


def rounded(polygons: np.ndarray, *, decimals: int = DECIMALS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The polygons on a grid, as a rule of 1e-7 degrees (a centimetre), valid and right-handed.

    Where one is narrower than the grid it may fall apart into several; parts under a hundredth of it vanish.

    Returns:
        Polygons, of which one each was made, int, and whether it is less than that one, bool; all of shape (M,).
    """

    def round_all(given: np.ndarray) -> np.ndarray:
        return shapely.transform(given, lambda points: np.round(points, decimals))

    snapped, given = round_all(polygons), np.arange(len(polygons))
    rings, of = shapely.get_rings(snapped, return_index=True)
    left, bottom, right, top = shapely.bounds(rings).reshape(-1, 4).T
    broken = shapely.is_empty(snapped)
    broken[of[(left == right) & (bottom == top)]] = True  # one point, of which GEOS makes no ring
    snapped[~broken] = shapely.remove_repeated_points(snapped[~broken])
    broken |= ~shapely.is_valid(snapped)
    if not broken.any():
        return shapely.orient_polygons(snapped), given, broken
    # Seldom: two walls have met.
    parts, of = shapely.get_parts(shapely.set_precision(polygons[broken], 10.0**-decimals), return_index=True)
    drawn = shapely.area(parts) > _LEAST_PART * shapely.area(polygons[broken])[of]
    parts, of = round_all(parts[drawn]), given[broken][of[drawn]]
    snapped, given = np.concatenate([snapped[~broken], parts]), np.concatenate([given[~broken], of])
    order = np.argsort(given, kind="stable")
    return shapely.orient_polygons(snapped[order]), given[order], order >= len(given) - len(of)


def _common(spec: ModelSpec, model_version: str, tolerance: float) -> dict[str, Any]:
    return {"model": spec.model_name, "model_version": model_version, "tolerance": tolerance, "gsd_m": spec.gsd_m}


def _identities(polygons: np.ndarray, model_version: str, place: float) -> list[str]:
    """An id each; centroids in one cell are numbered, the largest building's first, for small ones may be left out."""
    cells = np.floor(shapely.get_coordinates(shapely.centroid(polygons)) / place).tolist()
    met, ids = Counter[tuple[float, float]](), [""] * len(polygons)
    for number in np.argsort(-shapely.area(polygons), kind="stable").tolist():
        x, y = cells[number]
        met[x, y] += 1
        ids[number] = blake2b(f"{model_version} {x:.0f} {y:.0f} {met[x, y]}".encode(), digest_size=8).hexdigest()
    return ids


def _feature(polygon: shapely.Polygon, identity: str, confidence: float, properties: dict[str, Any]) -> dict[str, Any]:
    known = {name: value for name, value in properties.items() if value is not None}
    return {
        "type": "Feature",
        "id": identity,
        "geometry": {"type": "Polygon", "coordinates": _rings(polygon)},
        "properties": {"confidence": round(float(confidence), 4), **known},
    }


def _rings(polygon: shapely.Polygon) -> list[list[list[float]]]:
    """The coordinates of its outline and holes; what `shapely.geometry.mapping` says, as lists."""
    if shapely.get_num_interior_rings(polygon) == 0:
        return [shapely.get_coordinates(polygon).tolist()]
    return [shapely.get_coordinates(ring).tolist() for ring in shapely.get_rings(polygon)]


def _rounded(gsd_m: float | None) -> float | None:
    return None if gsd_m is None else round(gsd_m, 4)


def _credit(attribution: str) -> dict[str, str]:
    return {"attribution": attribution} if attribution else {}
