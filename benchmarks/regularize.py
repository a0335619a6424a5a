"""Regularised outlines: how long they take, and whether they are nearer to the buildings than the raw ones.

The buildings are those of the synthetic city. They are drawn on a raster of half a metre and vectorised again: once
sharp, once blurred and pulled about by a pixel or so, as a network draws them. The peer is what shapely has at hand,
building by building: the least rectangle around it where that has as much IoU with it as ours must have, else the
outline simplified by a pixel. Quality is that of the buildings whose raw outline meets a true one with IoU 0.5.
"""

from collections.abc import Callable

import cv2
import numpy as np
import shapely

from benchmarks.form import Figure, in_turn, main
from footprint_pipeline.footprints.regularize import LEAST_IOU, regularize
from footprint_pipeline.footprints.vectorize import vectorize
from footprint_pipeline.spacenet.synthetic.blocks import lay_out

GSD_M = 0.5
GOAL_MS = 1.0


def measure(quick: bool) -> list[Figure]:
    """Time and quality on both rasters."""
    side_m = 200 if quick else 1000
    true = buildings(side_m)
    figures: list[Figure] = []
    drawings: dict[str, Callable[[np.ndarray], np.ndarray]] = {"sharp": lambda cover: cover, "as a network": worn}
    for name, drawing in drawings.items():
        raw = vectorize(drawing(coverage(true, round(side_m / GSD_M))), tolerance=0.5, min_area_px=16).polygons
        seconds, peer_seconds = in_turn(lambda raw=raw: regularize(raw), lambda raw=raw: by_hand(raw))
        ours, rival = regularize(raw), by_hand(raw)
        iou, iou_raw, iou_rival = (best_iou(each, true) for each in (ours.polygons, raw, rival))
        known = iou_raw >= 0.5
        taken, taken_peer = 1e3 * seconds / len(raw), 1e3 * peer_seconds / len(raw)
        gain, loss = float(iou[known].mean()), float(iou_raw[known].mean())
        figures += [
            Figure(f"{name}: a building, of {len(raw):,}; peer: shapely's", taken, "ms", taken_peer,
                   taken_peer / taken, f"≤ {GOAL_MS:g}", taken <= GOAL_MS),
            Figure(f"{name}: regularised", 100 * float(ours.changed.mean()), "%"),
            Figure(f"{name}: mean IoU with the true building; peer: raw", gain, "", loss, gain / loss,
                   "no less", gain >= loss),
            Figure(f"{name}: the same; peer: shapely's", gain, "", float(iou_rival[known].mean()),
                   gain / float(iou_rival[known].mean()), "no less", gain >= float(iou_rival[known].mean())),
            *of_corners(name, ours.polygons[known], raw[known], true),
        ]  # fmt: skip
    return figures


def of_corners(name: str, ours: np.ndarray, raw: np.ndarray, true: np.ndarray) -> list[Figure]:
    """How many there are, and how many of them are square."""
    corners, corners_raw, corners_true = (len(turns(each)) / len(each) for each in (ours, raw, true))
    square, square_raw, square_true = (100 * float(np.mean(np.abs(turns(each) - 90) < 1)) for each in (ours, raw, true))
    return [
        Figure(f"{name}: corners a building (true: {corners_true:.1f}); peer: raw", corners, "", corners_raw,
               corners_raw / corners, "fewer", corners < corners_raw),
        Figure(f"{name}: of these square to 1° (true: {square_true:.0f} %); peer: raw", square, "%", square_raw,
               goal="more", met=square > square_raw),
    ]  # fmt: skip


def buildings(side_m: float) -> np.ndarray:
    """Those of a city, in pixels, shapely Polygons of at least 16 px²."""
    scene = lay_out(side_m, side_m, [], np.random.default_rng(0))
    whole = np.array([building.footprint for building in scene.buildings], object)
    side = side_m / GSD_M
    parts = shapely.get_parts(
        shapely.intersection(shapely.transform(whole, lambda xy: xy / GSD_M), shapely.box(0, 0, side, side))
    )
    return parts[(shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & (shapely.area(parts) >= 16)]


def coverage(polygons: np.ndarray, side: int, fineness: int = 4) -> np.ndarray:
    """How much of each pixel they cover, float32 in [0, 1], shape (side, side)."""
    fine = np.zeros((side * fineness, side * fineness), np.uint8)
    for polygon in polygons:
        rings = [shapely.get_coordinates(ring) for ring in (polygon.exterior, *polygon.interiors)]
        cv2.fillPoly(fine, [np.rint(xy * fineness - 0.5).astype(np.int32) for xy in rings], 1)
    return cv2.resize(fine.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)


def worn(cover: np.ndarray) -> np.ndarray:
    """The same, outlines pulled about by a pixel over three and over ten pixels, and blurred."""
    rng = np.random.default_rng(1)
    places = np.indices(cover.shape, np.float32)[::-1]
    for reach in (3, 10):
        pulls = [cv2.GaussianBlur(rng.normal(0, 1, cover.shape).astype(np.float32), (0, 0), reach) for _ in "xy"]
        x, y = (place + 0.7 * pull / pull.std() for place, pull in zip(places, pulls, strict=True))
        cover = cv2.remap(cover, x, y, cv2.INTER_LINEAR)
    return cv2.GaussianBlur(cover, (0, 0), 1.8)


def by_hand(polygons: np.ndarray) -> np.ndarray:
    """The peer."""
    made = []
    for polygon in polygons:
        rectangle = polygon.minimum_rotated_rectangle
        iou = rectangle.intersection(polygon).area / rectangle.union(polygon).area
        made.append(rectangle if iou >= LEAST_IOU else polygon.simplify(1.0))
    return np.array(made, object)


def best_iou(polygons: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Of each polygon with the true one that it meets best."""
    one, other = shapely.STRtree(true).query(polygons, predicate="intersects")
    common = shapely.area(shapely.intersection(polygons[one], true[other]))
    best = np.zeros(len(polygons))
    np.maximum.at(best, one, common / (shapely.area(polygons[one]) + shapely.area(true[other]) - common))
    return best


def turns(polygons: np.ndarray) -> np.ndarray:
    """The turn at every corner, degrees in [0, 180]."""
    found = []
    for ring in shapely.get_rings(polygons):
        xy = shapely.get_coordinates(ring)[:-1]
        x, y = (np.roll(xy, -1, axis=0) - xy).T
        heading = np.degrees(np.arctan2(y, x))
        found.append(np.abs((np.roll(heading, -1) - heading + 180) % 360 - 180))
    return np.concatenate(found)


if __name__ == "__main__":
    main(measure, description=(__doc__ or "").splitlines()[0])
