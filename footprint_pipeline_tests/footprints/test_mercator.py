import math

import numpy as np
import pyproj
import pytest

from footprint_pipeline.errors import RequestError
from footprint_pipeline.footprints import mercator
from footprint_pipeline.footprints.mercator import Bounds, Tile

RIO = (-43.2075, -22.9028)


def test_projection_agrees_with_proj_in_both_directions() -> None:
    forward = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:3857", always_xy=True)
    for place in (RIO, (0.0, 0.0), (179.9, 84.9), (-115.17, 36.11)):
        projected = mercator.project(np.array([place]))
        assert projected[0] == pytest.approx(forward.transform(*place), abs=1e-6)
        assert mercator.unproject(projected)[0] == pytest.approx(place, abs=1e-11)


@pytest.mark.parametrize(
    ("place", "zoom", "tile"),
    [  # from mercantile's documentation and the OpenStreetMap wiki
        ((20.6852, 40.1222), 9, Tile(9, 285, 193)),
        ((0.0, 0.0), 1, Tile(1, 1, 1)),
        ((15.0, 51.0), 0, Tile(0, 0, 0)),
        ((-180.0, 89.0), 3, Tile(3, 0, 0)),
        ((180.0, -89.0), 3, Tile(3, 7, 7)),
        ((190.0, 10.0), 3, Tile(3, 0, 3)),  # as -170
        ((-190.0, 10.0), 3, Tile(3, 7, 3)),
    ],
)
def test_tile_at_known_places(place: tuple[float, float], zoom: int, tile: Tile) -> None:
    assert mercator.tile_at(*place, zoom) == tile


def test_there_are_tiles_down_to_a_zoom_and_up_to_the_edge() -> None:
    for there in (Tile(0, 0, 0), Tile(1, 1, 1), Tile(24, 0, 2**24 - 1)):
        there.check()
    for none in (Tile(25, 0, 0), Tile(1, 2, 0), Tile(1, 0, 2), Tile(-1, 0, 0), Tile(3, -1, 0)):
        with pytest.raises(RequestError, match="There is no tile"):
            none.check()


def test_bounds_of_known_tiles() -> None:
    assert Tile(0, 0, 0).bounds_3857 == pytest.approx(
        (-20037508.342789244, -20037508.342789244) + (20037508.342789244,) * 2
    )
    assert Tile(1, 1, 0).bounds_3857 == pytest.approx((0, 0, 20037508.342789244, 20037508.342789244), abs=1e-6)
    assert mercator.to_wgs84(Tile(9, 285, 193).bounds_3857) == pytest.approx(
        (20.390625, 39.90973623453718, 21.09375, 40.446947059600475)
    )


@pytest.mark.parametrize("zoom", range(10, 20))
def test_a_tile_holds_the_place_it_was_asked_for(zoom: int) -> None:
    bounds = mercator.tile_at(*RIO, zoom).bounds_3857
    x, y = mercator.project(np.array([RIO]))[0]
    assert bounds.left <= x < bounds.right
    assert bounds.bottom < y <= bounds.top


def test_covering_a_tile_takes_that_tile_alone_or_its_four_children() -> None:
    tile = mercator.tile_at(*RIO, 17)
    assert list(mercator.tiles_covering(tile.bounds_3857, 17)) == [tile]
    children = [(18, 2 * tile.x + dx, 2 * tile.y + dy) for dy in (0, 1) for dx in (0, 1)]
    assert list(mercator.tiles_covering(tile.bounds_3857, 18)) == children


def test_a_fine_tile_is_covered_by_itself_alone() -> None:
    for x, y in np.random.default_rng(1).integers(0, 2**24, (200, 2)).tolist():
        tile = Tile(24, x, y)
        assert list(mercator.tiles_covering(tile.bounds_3857, 24)) == [tile]


def test_ground_scale_is_the_cosine_of_the_latitude() -> None:
    _, y = mercator.project(np.array([(0.0, 60.0)]))[0]
    assert mercator.ground_scale(Bounds(-1, y - 1, 1, y + 1)) == pytest.approx(math.cos(math.radians(60.0)))


def test_what_shares_an_edge_or_a_corner_does_not_overlap() -> None:
    here = Bounds(0.0, 0.0, 2.0, 1.0)
    beside = [
        Bounds(2.0, 0.0, 3.0, 1.0),
        Bounds(-1.0, 0.0, 0.0, 1.0),
        Bounds(0.0, 1.0, 2.0, 2.0),
        Bounds(2.0, 1.0, 3.0, 2.0),
    ]
    assert not any(here.overlaps(other) or other.overlaps(here) for other in beside)
    assert here.overlaps(Bounds(1.9, 0.9, 3.0, 2.0))
