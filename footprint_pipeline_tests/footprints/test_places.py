import numpy as np
import pytest

from footprint_pipeline.footprints.places import MOST_BOXES, NEAR_M, boxes_around, place_of
from footprint_pipeline.footprints.spec import ModelSpec

TILE = 0.002


def tiles(*corners: tuple[float, float]) -> np.ndarray:
    return np.array([(x, y, x + TILE, y + TILE) for x, y in corners])


def test_tiles_that_are_near_each_other_share_a_box() -> None:
    city = [(-115.30, 36.10), (-115.25, 36.12), (-115.20, 36.20)]
    assert boxes_around(tiles(*city)) == ((-115.3, 36.1, -115.198, 36.202),)
    assert boxes_around(tiles(*city, (39.2, -6.1))) == (
        (-115.3, 36.1, -115.198, 36.202),
        (39.2, -6.1, 39.202, -6.098),
    )
    assert boxes_around(np.empty((0, 4))) == ()


def test_near_is_measured_on_the_ground() -> None:
    """A tenth of a degree of longitude is 11 km at the equator and 5.6 km at 60° north."""
    assert [len(boxes_around(tiles((10.0, y), (10.1, y)))) for y in (0.0, 60.0)] == [2, 1]


def test_tiles_all_over_the_world_take_a_bounded_number_of_boxes() -> None:
    rng = np.random.default_rng(0)
    scattered = tiles(*np.column_stack([rng.uniform(-179, 179, 2000), rng.uniform(-70, 70, 2000)]))
    boxes = np.array(boxes_around(scattered))
    assert 1 <= len(boxes) <= MOST_BOXES
    held = [
        ((boxes[:, :2] <= tile[:2] + 1e-4) & (boxes[:, 2:] >= tile[2:] - 1e-4)).all(axis=1).any() for tile in scattered
    ]
    assert all(held)


@pytest.mark.parametrize(
    ("longitude", "latitude", "aoi"),
    [
        (-43.5, -22.95, "Rio"),
        (-43.5, -22.95 + 0.05 + 0.9 * NEAR_M / 111_195, "Rio"),
        (-43.5, -22.95 + 0.05 + 1.1 * NEAR_M / 111_195, None),
        (-43.28 + 360.0, -22.95, "Rio"),
        (-0.19, 5.60, "Accra"),
        (-0.10, 5.60, "Tema"),
        (179.95, 0.0, "Line"),
        (0.0, 90.0, None),
    ],
)
def test_a_place_belongs_to_the_nearest_area_that_is_near(longitude: float, latitude: float, aoi: str | None) -> None:
    places = {
        "Rio": ((-43.7, -23.0, -43.3, -22.9),),
        "Accra": ((-0.25, 5.5, -0.2, 5.7),),
        "Tema": ((-0.05, 5.6, 0.0, 5.7),),
        "Line": ((-180.0, -0.1, -179.95, 0.1), (20.0, 20.0, 20.1, 20.1)),
        "Nowhere": (),
    }
    assert place_of(places, longitude, latitude) == aoi


def test_a_model_has_another_tolerance_where_an_area_has_its_own() -> None:
    spec = ModelSpec(
        model_name="m", network="n", tolerance=0.7, gsd_m=0.3, chip_size=64, stride=16, normalization={},
        aois=("Rio", "Accra"), own_tolerances={"Rio": 0.94},
        places={"Rio": ((-43.7, -23.0, -43.3, -22.9),), "Accra": ((-0.25, 5.5, -0.2, 5.7),)},
    )  # fmt: skip
    assert [spec.tolerance_at(*place) for place in ((-43.5, -22.95), (-0.22, 5.6), (10.0, 10.0))] == [0.94, 0.7, 0.7]
    assert [spec.tolerance_of(aoi) for aoi in ("Rio", "Accra", "Paris", None)] == [0.94, 0.7, 0.7, 0.7]
