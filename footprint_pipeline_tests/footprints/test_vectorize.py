import cv2
import numpy as np
import pytest
import shapely
from shapely import affinity

from footprint_pipeline.footprints.pixels import mean_inside, pixels_of
from footprint_pipeline.footprints.vectorize import vectorize


def raster(*boxes: tuple[int, int, int, int], shape: tuple[int, int] = (40, 60)) -> np.ndarray:
    probability = np.zeros(shape, np.float32)
    for top, left, bottom, right in boxes:
        probability[top:bottom, left:right] = 1.0
    return probability


def test_a_building_keeps_its_place_and_size() -> None:
    found = vectorize(raster((10, 20, 25, 45)), tolerance=0.5)
    assert len(found) == 1
    assert found.polygons[0].bounds == pytest.approx((20, 10, 45, 25), abs=0.51)
    assert found.polygons[0].area == pytest.approx(15 * 25, rel=0.01)
    assert found.confidence[0] == pytest.approx(1.0)


def test_a_building_is_drawn_the_same_in_every_raster_that_holds_it() -> None:
    noise = np.random.default_rng(3).random((300, 300)).astype(np.float32)
    field = np.rint(255 * cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 1, cv2.NORM_MINMAX)) / 255
    top, left = 37, 91
    whole = vectorize(field, tolerance=0.4).polygons
    part = shapely.MultiPolygon(list(vectorize(field[top:, left:], tolerance=0.4).polygons))
    part = affinity.translate(part, left, top)
    uncut = shapely.box(left + 1, top + 1, 299, 299)
    here, there = ({one.wkb for one in found if uncut.contains(one)} for found in (whole, part.geoms))
    assert here == there
    assert len(here) > 40


def test_nothing_is_an_empty_answer() -> None:
    for probability in (raster(), np.zeros((0, 5), np.float32)):
        found = vectorize(probability, tolerance=0.5)
        assert len(found) == 0
        assert found.confidence.dtype == np.float32


def test_holes_stay_holes_and_a_building_inside_one_is_its_own() -> None:
    probability = raster((2, 2, 38, 38))
    probability[8:32, 8:32] = 0.0
    probability[16:24, 16:24] = 1.0
    found = vectorize(probability, tolerance=0.5)
    areas = sorted(shapely.area(found.polygons))
    assert areas == pytest.approx([64, 36 * 36 - 24 * 24], rel=0.03)
    assert sorted(len(polygon.interiors) for polygon in found.polygons) == [0, 1]


def test_a_building_on_the_edge_ends_on_the_edge() -> None:
    found = vectorize(raster((0, 0, 40, 7)), tolerance=0.5)
    assert found.polygons[0].bounds == pytest.approx((0, 0, 7, 40), abs=0.51)
    left, top, _, bottom = found.polygons[0].bounds
    assert (left, top, bottom) == (0, 0, 40)


def test_tolerance_is_how_far_below_certainty_counts() -> None:
    probability = raster((5, 5, 15, 15)) * np.float32(0.3)
    assert len(vectorize(probability, tolerance=0.6)) == 0
    assert len(vectorize(probability, tolerance=0.8)) == 1


def test_small_ones_are_dropped_and_the_surest_come_first() -> None:
    probability = raster((5, 5, 15, 15), (20, 20, 22, 22), (20, 40, 30, 50))
    probability[5:15, 5:15] = 0.8
    found = vectorize(probability, tolerance=0.5, min_area_px=10)
    assert found.confidence.tolist() == pytest.approx([1.0, 0.8])


def test_simplifying_costs_neither_area_nor_place() -> None:
    random = np.random.default_rng(0)
    lost = []
    for _ in range(50):
        width, height, angle = *random.uniform(10, 30, 2), random.uniform(0, 90)
        building = affinity.rotate(shapely.box(30 - width / 2, 30 - height / 2, 30 + width / 2, 30 + height / 2), angle)
        y, x = np.mgrid[:60, :60] + 0.5
        probability = shapely.contains_xy(building, x, y).astype(np.float32)
        outline = vectorize(probability, tolerance=0.5).polygons[0]
        exact = vectorize(probability, tolerance=0.5, simplify_px=0).polygons[0]
        assert shapely.get_num_coordinates(outline) < 0.8 * shapely.get_num_coordinates(exact)
        assert outline.hausdorff_distance(building) < 1.5
        lost.append(1 - outline.area / probability.sum())
    assert abs(np.mean(lost)) < 0.005


@pytest.mark.parametrize("steps", [4, 100_000])
def test_noise_gives_valid_polygons(steps: int) -> None:
    """In few steps outlines run through pixels' centres, and touch themselves there."""
    noise = np.rint(np.random.default_rng(3).random((120, 120), np.float32) * steps) / np.float32(steps)
    found = vectorize(noise, tolerance=0.5)
    assert shapely.is_valid(found.polygons).all()
    assert not shapely.is_empty(found.polygons).any()
    assert len(found) == len(found.confidence) > 10
    assert (found.confidence > 0.5).all()


def test_a_building_of_thousands_of_holes_is_drawn() -> None:
    """As a network that has hardly learned anything sees one; GEOS alone takes minutes to simplify it."""
    noise = np.random.default_rng(3).random((400, 400), np.float32)
    found = vectorize(noise, tolerance=0.7, min_area_px=1000)
    assert shapely.is_valid(found.polygons).all()
    assert shapely.get_num_interior_rings(found.polygons).sum() > 2000
    exact = vectorize(noise, tolerance=0.7, min_area_px=1000, simplify_px=0)
    assert shapely.area(found.polygons).sum() == pytest.approx(shapely.area(exact.polygons).sum(), rel=1e-3)


def test_everything_a_building_is_one_polygon() -> None:
    found = vectorize(np.ones((20, 30), np.float32), tolerance=1.0)
    assert len(found) == 1
    assert found.polygons[0].equals(shapely.box(0, 0, 30, 20))


def test_what_lies_outside_may_be_left_out() -> None:
    probability = np.maximum(raster((5, 5, 12, 12)), raster((10, 20, 25, 45)))
    every = vectorize(probability, tolerance=0.5)
    boxes = {(0, 0, 60, 40): 2, (21, 11, 24, 14): 1, (30, 0, 60, 9): 0, (20, 30, 60, 40): 0, (12, 5, 40, 12): 1}
    for box, count in boxes.items():
        found = vectorize(probability, tolerance=0.5, reaching_into=box)
        assert len(found) == count
        assert {polygon.wkb for polygon in found.polygons} <= {polygon.wkb for polygon in every.polygons}


@pytest.mark.parametrize("tolerance", [0.3, 0.5, 0.7, 0.9])
def test_confidence_is_of_a_buildings_own_pixels(tolerance: float) -> None:
    """Wherever its outline runs, and whatever it surrounds."""
    probability = raster((3, 3, 9, 9), (10, 20, 30, 40)) * np.float32(0.95)
    probability[16:24, 26:34] = 0.0
    found = vectorize(probability, tolerance=tolerance)
    assert len(found) == 2
    assert found.confidence.tolist() == pytest.approx([0.95, 0.95])


@pytest.mark.parametrize("corner", [2, 3])
def test_a_rim_between_two_pixels_counts_to_the_inner_one(corner: int) -> None:
    values = np.random.default_rng(0).random((10, 10), np.float32)
    whole = np.array([shapely.box(corner, corner, corner + 3, corner + 3)], object)
    (mean,) = mean_inside(values, whole, pixels_of(whole, among=np.ones(values.shape, bool)))
    assert mean == pytest.approx(values[corner : corner + 3, corner : corner + 3].mean())


def test_one_that_holds_no_pixel_is_as_sure_as_the_pixel_under_it() -> None:
    values = np.random.default_rng(0).random((10, 12), np.float32)
    within_one = np.array([shapely.box(7.1, 3.1, 7.3, 3.3), shapely.box(7.6, 3.6, 7.9, 3.9)], object)
    held = pixels_of(within_one, among=np.zeros(values.shape, bool))
    assert mean_inside(values, within_one, held).tolist() == [values[3, 7]] * 2


def test_a_pixel_of_just_what_is_to_be_exceeded_is_no_building() -> None:
    probability = np.full((30, 30), 0.5, np.float32)
    probability[5:15, 5:15] = 0.9
    found = vectorize(probability, tolerance=0.5)
    assert found.confidence == pytest.approx([0.9])
    assert len(vectorize(np.full((8, 8), 0.5, np.float32), tolerance=0.5)) == 0
