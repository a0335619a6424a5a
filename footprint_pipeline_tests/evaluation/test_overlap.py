from collections.abc import Callable

import numpy as np
import pytest
import shapely
from shapely import affinity

from footprint_pipeline.evaluation import overlap
from footprint_pipeline.evaluation.overlap import geos_overlap_area, overlap_area

COUNT = 1500


def stars(rng: np.random.Generator, count: int, corners: tuple[int, int] = (3, 17)) -> np.ndarray:
    """Polygons of any shape around places that are near each other, either way round."""
    made = []
    for number in rng.integers(*corners, count):
        angle = np.sort(rng.uniform(0, 2 * np.pi, number))[:: rng.choice([1, -1])]
        radius = rng.uniform(2, 20, (number, 1))
        ring = rng.uniform(0, 25, 2) + radius * np.column_stack([np.cos(angle), np.sin(angle)])
        made.append(shapely.Polygon(ring))
    return np.array([polygon if polygon.is_valid else polygon.convex_hull for polygon in made], object)


def steps(rng: np.random.Generator, count: int) -> np.ndarray:
    """Boxes and unions of boxes on a coarse grid: they share edges and corners, touch and are the same."""
    low, size = rng.integers(0, 6, (2, count, 2)), rng.integers(1, 5, (2, count, 2))
    one, two = (shapely.box(*np.hstack([a, a + b]).T.astype(float)) for a, b in zip(low, size, strict=True))
    return shapely.union(one, np.where(rng.random(count) < 0.5, two, one))


def turned(rng: np.random.Generator, count: int) -> np.ndarray:
    """The same by an angle that rounding does not spare, with edges that are all but upright among them."""
    shapes = steps(rng, count)
    for degrees, members in zip((30.0, 1e-7, 90 - 1e-13), np.array_split(np.arange(count), 3), strict=True):
        shapes[members] = [affinity.rotate(shape, degrees, origin=(0, 0)) for shape in shapes[members]]
    return shapes


def with_courtyards(rng: np.random.Generator, count: int) -> np.ndarray:
    shapes = stars(rng, count)
    return shapely.difference(shapes, shapely.buffer(shapely.centroid(shapes), 1.5, quad_segs=2))


@pytest.mark.parametrize("make", [stars, steps, turned, with_courtyards])
@pytest.mark.parametrize("place", [(0, 0), (380.3, 1200.7)])
def test_areas_are_those_of_the_intersections(
    make: Callable[[np.random.Generator, int], np.ndarray], place: tuple[float, float]
) -> None:
    rng = np.random.default_rng(len(make.__name__))
    ours, theirs = (shapely.transform(make(rng, COUNT), lambda xy: xy + place) for _ in range(2))
    ours[:50] = theirs[:50]
    expected = geos_overlap_area(ours, theirs)
    assert (expected > 0).sum() > COUNT / 4
    area = overlap_area(ours, theirs)
    # GEOS takes a polygon for one that lies in the other now and then, where edges are in line but for rounding. On a
    # fixed grid it does not.
    apart = np.abs(area - expected) > 1e-10
    assert apart.sum() <= COUNT / 500
    snapped = shapely.area(shapely.intersection(ours[apart], theirs[apart], grid_size=1e-9))
    assert area[apart] == pytest.approx(snapped, abs=1e-6)
    assert np.abs(overlap_area(ours, ours) - shapely.area(ours)).max() < 1e-10


@pytest.mark.parametrize("most_edge_pairs", [overlap._MOST_EDGE_PAIRS, 10**6])
def test_of_whatever_size(most_edge_pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "_MOST_EDGE_PAIRS", most_edge_pairs)
    rng = np.random.default_rng(3)
    few, many = stars(rng, 20, (3, 6)), stars(rng, 20, (150, 250))
    one, other = np.concatenate([few, many, few, many]), np.concatenate([many, many[::-1], few[::-1], few])
    assert np.abs(overlap_area(one, other) - geos_overlap_area(one, other)).max() < 1e-10


def test_simple_polygons_need_no_intersection(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        overlap, "geos_overlap_area", lambda one, other: asked.append(len(one)) or geos_overlap_area(one, other)
    )
    rng = np.random.default_rng(4)
    overlap_area(stars(rng, 100), stars(rng, 100))
    overlap_area(with_courtyards(rng, 100), stars(rng, 100))
    assert asked[0] == 0
    assert asked[1] > 50


def test_of_several_parts_and_of_nothing() -> None:
    house = shapely.box(0, 0, 10, 10)
    both = shapely.MultiPolygon([shapely.box(0, 0, 5, 10), shapely.box(8, 0, 15, 10)])
    flat = shapely.Polygon([(0, 5), (10, 5), (3, 5)])
    one = np.array([both, house, both, shapely.Polygon(), flat], object)
    other = np.array([house, both, both, house, house], object)
    assert overlap_area(one, other).tolist() == pytest.approx([70, 70, 120, 0, 0])
    assert overlap_area(one[:0], other[:0]).shape == (0,)


def test_pairs_are_worked_on_in_parts_of_bounded_size() -> None:
    edges = np.random.default_rng(5).integers(3, 300, (2, 500))
    chunks = list(overlap._chunks(np.arange(500), edges))
    assert sorted(np.concatenate(chunks)) == list(range(500))
    for chunk in chunks:
        assert len(chunk) == 1 or len(chunk) * edges[:, chunk].max(axis=1).prod() <= overlap._AT_ONCE
