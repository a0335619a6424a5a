"""Footprints → GeoJSON (RFC 7946): WGS 84, longitude first, counter-clockwise exteriors, seven decimals."""

from hashlib import blake2b
from typing import Any

import numpy as np
import shapely
from shapely.geometry import mapping

from footprint_pipeline.footprints.domain import InputProfile
from footprint_pipeline.footprints.extract import Extraction
from footprint_pipeline.footprints.spec import ModelSpec

DECIMALS = 7


def feature_collection(
    extraction: Extraction, spec: ModelSpec, *, model_version: str, attribution: str = ""
) -> dict[str, Any]:
    """A GeoJSON FeatureCollection: one feature a building, each with an id and what it was made from.

    The id is a fingerprint of outline and model version: it stays as long as both do. Collection and features say
    how far out of domain the imagery is, where the model knows.
    """
    told = out_of_domain(extraction.raster.profile)
    common = {
        "model": spec.model_name,
        "model_version": model_version,
        "tolerance": extraction.tolerance,
        "gsd_m": spec.gsd_m,
        "imagery": extraction.raster.source,
        **told,
    }
    features = [
        {
            "type": "Feature",
            "id": blake2b(polygon.wkb + model_version.encode(), digest_size=8).hexdigest(),
            "geometry": mapping(polygon),
            "properties": {"confidence": round(float(confidence), 4), "area_m2": round(float(area_m2), 2), **common},
        }
        for polygon, confidence, area_m2 in zip(
            rounded(extraction.polygons_wgs84), extraction.confidence, extraction.area_m2, strict=True
        )
        if not polygon.is_empty
    ]
    return {"type": "FeatureCollection", **_credit(attribution), **told, "features": features}


def multipolygon(extraction: Extraction, *, attribution: str = "") -> dict[str, Any]:
    """All footprints as one GeoJSON MultiPolygon."""
    parts = shapely.get_parts(rounded(extraction.polygons_wgs84))
    coordinates = [mapping(part)["coordinates"] for part in parts if not part.is_empty]
    return {"type": "MultiPolygon", **_credit(attribution), "coordinates": coordinates}


def out_of_domain(profile: InputProfile) -> dict[str, float]:
    """`out_of_domain` with three decimals; nothing where it is not known."""
    return {} if profile.out_of_domain is None else {"out_of_domain": round(profile.out_of_domain, 3)}


def rounded(polygons_wgs84: np.ndarray) -> np.ndarray:
    """The polygons on a grid of 1e-7 degrees (a centimetre), valid and right-handed; slivers can become empty.

    One that falls apart where it was narrower than the grid keeps its largest part.
    """
    snapped = shapely.set_precision(polygons_wgs84, 10.0**-DECIMALS)
    for i in np.flatnonzero(shapely.get_num_geometries(snapped) > 1):
        snapped[i] = max(shapely.get_parts(snapped[i]), key=shapely.area)
    return shapely.transform(shapely.orient_polygons(snapped), lambda points: np.round(points, DECIMALS))


def _credit(attribution: str) -> dict[str, str]:
    return {"attribution": attribution} if attribution else {}
