"""Buildings that touch → one polygon each.

Beside the building, the network may tell of a building's rim and of where two nearly touch. What is left of the
building, its interior, falls apart where roofs do not. The connected parts of the interior are seeds; they grow, the
surest pixels first, until they meet (a watershed), and the lines along which they do cut the polygons.
What belongs here: interiors, seeds, and the cutting. Outlines are `vectorize`'s business.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import shapely

from footprint_pipeline.footprints.pixels import pixels_of

MIN_SEED_PX = 16
"""Smaller parts of the interior are no building, pixels; nor are pieces that a cut leaves, square pixels."""
_SMOOTHING_PX = 1.0
"""How far a line between two buildings may stray from the pixels' edges: enough to smooth their steps."""
_REACH_PX = 1.5
"""How far such a line is drawn out at its ends, so that it reaches the outline."""


def interior_of(probability: np.ndarray, heads: Sequence[str]) -> np.ndarray | None:
    """How sure it is that a pixel lies inside one building: on the building, on no rim, between no two.

    Args:
        probability: float32 in [0, 1], shape (H, W, heads).
        heads: what the network tells of each pixel, in order.

    Returns:
        float32 in [0, 1], shape (H, W); None when the network tells of buildings alone.
    """
    others = [number for number, head in enumerate(heads) if head in ("border", "contact")]
    if not others:
        return None
    inside = cv2.extractChannel(probability, list(heads).index("building"))
    for number in others:
        inside *= 1.0 - cv2.extractChannel(probability, number)
    return inside


def separate(
    polygons: np.ndarray, interior: np.ndarray, *, built_up: np.ndarray, held: np.ndarray, seed_level: float
) -> np.ndarray:
    """Cut every polygon that holds two seeds or more between them.

    Args:
        polygons: valid shapely Polygons that do not overlap, in pixels, shape (N,), dtype object.
        interior: float32 in [0, 1], shape (H, W); see `interior_of`.
        built_up: where there is a building, bool, shape (H, W).
        held: the number, from 1, of the polygon that holds each of these pixels, 0 for none, int32, shape (H, W).
        seed_level: seeds are where the interior is above it.

    Returns:
        Valid Polygons that do not overlap, shape (M,): first those that are not cut, themselves and in their order. The
        same array where none is.
    """
    parts, number, holder = _seeds((interior > seed_level) & built_up, held)
    several = np.bincount(holder, minlength=len(polygons) + 1)[1:] > 1
    if not several.any():
        return polygons

    labels = _grow(number[parts], interior, built_up)
    lines = _lines(labels, np.append(0, holder), built_up)
    joints = shapely.union_all(np.append(shapely.boundary(polygons[several]), lines))
    faces = shapely.get_parts(shapely.polygonize(shapely.get_parts(joints)))
    middles = shapely.point_on_surface(faces)
    polygon, face = shapely.STRtree(middles).query(polygons[several], predicate="contains")
    pieces = _joined(faces[face], polygon, _label_of(faces[face], middles[face], labels, built_up))
    return np.concatenate([polygons[~several], pieces[shapely.area(pieces) >= MIN_SEED_PX]])


def _seeds(inside: np.ndarray, held: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The connected parts that are large enough.

    Returns:
        Connected parts, int32 (H, W); of each the number of the seed that it is, from 1, or 0, int32 (parts,); and the
        number of the polygon that holds each seed, int32 (seeds,).
    """
    count, parts = cv2.connectedComponents(inside.view(np.uint8), connectivity=4)
    pixel = np.flatnonzero(inside)
    part = parts.ravel()[pixel]
    large = np.bincount(part, minlength=count) >= MIN_SEED_PX
    number = np.where(large, np.cumsum(large), 0).astype(np.int32)
    holder = np.zeros(count, np.int32)
    holder[part] = held.ravel()[pixel]
    return parts, number, holder[large]


def _grow(markers: np.ndarray, interior: np.ndarray, built_up: np.ndarray) -> np.ndarray:
    """The seed that reaches each pixel first when the surest pixels are taken first, int32 (H, W).

    OpenCV ranks a step by how much two neighbours differ. On a chessboard whose fields hold their doubt in one
    channel or in the other, two neighbours differ by the greater doubt of the two.
    """
    doubt = np.where(built_up, np.rint((1.0 - interior) * 254.0), 255.0).astype(np.uint8)
    board = np.zeros((doubt.shape[0] + 2, doubt.shape[1] + 2, 3), np.uint8)  # OpenCV keeps the frame to itself
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        board[1 + row : -1 : 2, 1 + column : -1 : 2, (row + column) % 2] = doubt[row::2, column::2]
    grown = cv2.watershed(board, np.pad(markers, 1))[1:-1, 1:-1]
    nobodys = grown <= 0  # a line of pixels where two meet
    grown[nobodys] = cv2.dilate(grown.astype(np.float32), np.ones((3, 3), np.uint8))[nobodys]
    return grown


def _lines(labels: np.ndarray, owner: np.ndarray, built_up: np.ndarray) -> np.ndarray:
    """Where two labels that one polygon owns meet: smoothed LineStrings, each from one crossing or end to the next.

    They end a pixel beyond what is built up: how labels divide the ground is nobody's business.
    """
    near = cv2.dilate(built_up.view(np.uint8), np.ones((3, 3), np.uint8)).view(bool)
    edges = []
    for a, b, seen, shift in (
        (labels[:, :-1], labels[:, 1:], near[:, :-1] & near[:, 1:], (1, 0, 1, 1)),
        (labels[:-1], labels[1:], near[:-1] & near[1:], (0, 1, 1, 1)),
    ):
        row, column = np.nonzero((a != b) & seen)
        one, other = owner[a[row, column]], owner[b[row, column]]
        met = (one > 0) & (one == other)
        row, column = row[met], column[met]
        edges.append(np.column_stack([column, row, column, row]) + shift)
    unit = shapely.linestrings(np.concatenate(edges).reshape(-1, 2, 2).astype(float))
    chains = shapely.get_parts(shapely.line_merge(shapely.multilinestrings(unit)))
    return _drawn_out(shapely.simplify(chains, _SMOOTHING_PX, preserve_topology=False))


def _drawn_out(lines: np.ndarray) -> np.ndarray:
    xy, line = shapely.get_coordinates(lines, return_index=True)
    numbers = np.arange(len(lines))
    first, last = np.searchsorted(line, numbers), np.searchsorted(line, numbers, side="right") - 1
    drawn = xy.copy()
    for end, inner in ((first, first + 1), (last, last - 1)):
        along = xy[end] - xy[inner]
        drawn[end] += _REACH_PX * along / np.hypot(*along.T)[:, None]
    return shapely.linestrings(drawn, indices=line)


def _label_of(faces: np.ndarray, middles: np.ndarray, labels: np.ndarray, built_up: np.ndarray) -> np.ndarray:
    """The label of most of a face's pixels, for lines are smoothed; of one that holds none, that under its middle."""
    held = pixels_of(faces, among=built_up)
    pixels = np.flatnonzero(held)
    shape = len(faces), labels.max() + 1
    votes = np.bincount(
        np.ravel_multi_index((held.ravel()[pixels] - 1, labels.ravel()[pixels]), shape), minlength=shape[0] * shape[1]
    ).reshape(shape)
    column, row = shapely.get_coordinates(middles).astype(int).T
    return np.where(votes.any(axis=1), votes.argmax(axis=1), labels[row, column])


def _joined(faces: np.ndarray, polygon: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The faces of one polygon and one label as one, unless they lie apart."""
    order = np.lexsort((label, polygon))
    change = np.diff(polygon[order]) | np.diff(label[order])
    groups = np.split(faces[order], np.flatnonzero(change) + 1)
    return shapely.get_parts([group[0] if len(group) == 1 else shapely.union_all(group) for group in groups])
