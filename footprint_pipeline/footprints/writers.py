"""Footprints → GeoJSON (RFC 7946): WGS 84, longitude first, counter-clockwise exteriors, seven decimals.

Those of an image without a place have pixels for coordinates, which RFC 7946 does not foresee; they say so.
"""

from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import numpy as np
import shapely

from footprint_pipeline.footprints.domain import InputProfile
from footprint_pipeline.footprints.extract import Extraction
from footprint_pipeline.footprints.regularize import Outline
from footprint_pipeline.footprints.spec import ModelSpec
from footprint_pipeline.footprints.unplaced import UnplacedExtraction

DECIMALS = 7
_PX_DECIMALS = 2
PIXELS = "pixels, x to the right and y down from the upper left corner"
_PLACE_DEG, _PLACE_PX = 2e-5, 8.0
"""Side of the cells that ids tell the places of centroids by: degrees, two metres of latitude, and pixels."""


def feature_collection(
    extraction: Extraction, spec: ModelSpec, *, model_version: str, attribution: str = ""
) -> dict[str, Any]:
    """A GeoJSON FeatureCollection: one feature a building, each with an id and what it was made from.

    The id is a fingerprint of the centroid's place, to some two metres, and of the model's version: it stays when the
    building is found from another area or at another tolerance, unless that moves the centroid into the next cell.
    Collection and features say how far out of domain the imagery is, where the model knows; features say when the
    imagery was taken and how fine it is, where its source does.
    """
    raster = extraction.raster
    imagery = {"imagery": raster.source, "imagery_date": raster.date, "imagery_gsd_m": _rounded(raster.profile.gsd_m)}
    told = out_of_domain(raster.profile)
    common = _common(spec, model_version, extraction.tolerance) | imagery | told
    polygons = rounded(extraction.polygons_wgs84)
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
            extraction.confidence,
            extraction.area_m2,
            outlines(extraction),
            strict=True,
        )
        if not polygon.is_empty
    ]
    return {"type": "FeatureCollection", **_credit(attribution), **told, "features": features}


def pixel_collection(extraction: UnplacedExtraction, spec: ModelSpec, *, model_version: str) -> dict[str, Any]:
    """The same in pixels. `area_m2` is there when it is known what a pixel measures."""
    told = out_of_domain(extraction.profile)
    imagery = {"imagery": extraction.source, "imagery_gsd_m": extraction.gsd_m}
    common = _common(spec, model_version, extraction.tolerance) | imagery | told
    polygons = rounded(extraction.polygons_px, decimals=_PX_DECIMALS)
    features = []
    for polygon, identity, confidence, area_px, outline in zip(
        polygons,
        _identities(polygons, model_version, _PLACE_PX),
        extraction.confidence,
        extraction.area_px,
        outlines(extraction),
        strict=True,
    ):
        if polygon.is_empty:
            continue
        area = {"area_px": round(float(area_px), 2)}
        if extraction.gsd_m is not None:
            area["area_m2"] = round(float(area_px) * extraction.gsd_m**2, 2)
        features.append(_feature(polygon, identity, confidence, {**area, "outline": outline, **common}))
    return {"type": "FeatureCollection", "coordinate_system": PIXELS, **told, "features": features}


def multipolygon(extraction: Extraction, *, attribution: str = "") -> dict[str, Any]:
    """All footprints as one GeoJSON MultiPolygon."""
    parts = shapely.get_parts(rounded(extraction.polygons_wgs84))
    coordinates = [_rings(part) for part in parts if not part.is_empty]
    return {"type": "MultiPolygon", **_credit(attribution), "coordinates": coordinates}


def outlines(extraction: Extraction | UnplacedExtraction) -> list[Outline]:
    """How each footprint is drawn."""
    if extraction.regularised is None:
        return ["raw"] * len(extraction)
    return ["regularised" if changed else "raw" for changed in extraction.regularised]


def out_of_domain(profile: InputProfile) -> dict[str, float]:
    """`out_of_domain` with three decimals; nothing where it is not known."""
    return {} if profile.out_of_domain is None else {"out_of_domain": round(profile.out_of_domain, 3)}


def rounded(polygons: np.ndarray, *, decimals: int = DECIMALS) -> np.ndarray:
    """The polygons on a grid, as a rule of 1e-7 degrees (a centimetre), valid, right-handed; slivers can become empty.

    One that falls apart where it was narrower than the grid keeps its largest part.
    """

    def round_all(given: np.ndarray) -> np.ndarray:
        return shapely.transform(given, lambda points: np.round(points, decimals))

    snapped = round_all(polygons)
    left, bottom, right, top = shapely.bounds(snapped).reshape(-1, 4).T
    drawn = (left < right) | (bottom < top)  # else it is one point, of which GEOS makes no ring
    snapped[drawn] = shapely.remove_repeated_points(snapped[drawn])
    for i in np.flatnonzero(~shapely.is_valid(snapped) | ~drawn):  # seldom: two walls have met
        parts = shapely.get_parts(shapely.set_precision(polygons[i], 10.0**-decimals))
        snapped[i] = round_all(max(parts, key=shapely.area, default=shapely.Polygon()))
    return shapely.orient_polygons(snapped)


def _common(spec: ModelSpec, model_version: str, tolerance: float) -> dict[str, Any]:
    return {"model": spec.model_name, "model_version": model_version, "tolerance": tolerance, "gsd_m": spec.gsd_m}


def _identities(polygons: np.ndarray, model_version: str, place: float) -> Iterator[str]:
    """An id each; of several with their centroids in one cell, the later ones count on."""
    middles, met = shapely.centroid(polygons), Counter[tuple[float, float]]()
    middles[shapely.is_empty(middles)] = shapely.Point(0, 0)  # a sliver's, which is not written
    for x, y in np.floor(shapely.get_coordinates(middles) / place).tolist():
        met[x, y] += 1
        yield blake2b(f"{model_version} {x:.0f} {y:.0f} {met[x, y]}".encode(), digest_size=8).hexdigest()


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
