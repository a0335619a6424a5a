"""Pixels of one grid as those of another."""

import numpy as np
import pytest

from footprint_pipeline.footprints import warp as warping
from footprint_pipeline.footprints.warp import footsteps, spread_out, warp


def grid(width: int, height: int, *, step: float = 1.0, start: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Places of the centres of pixels that are `step` of the given ones wide."""
    x, y = (start + (np.arange(side, dtype=np.float32) + 0.5) * np.float32(step) for side in (width, height))
    return tuple(np.meshgrid(x, y))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.int32, np.float32, np.float64])
def test_the_same_grid_gives_the_same_pixels_of_any_kind(kind: type) -> None:
    image = np.random.default_rng(0).integers(0, 120, (20, 30, 3)).astype(kind)
    pixels, valid = warp(image, np.ones((20, 30), bool), *grid(30, 20))
    assert pixels.dtype == kind
    assert np.array_equal(pixels, image)
    assert valid.all()
    holed = np.ones((20, 30), bool)
    holed[5:8, 5:8] = False
    pixels, valid = warp(image, holed, *grid(30, 20))
    assert np.array_equal(valid, holed)
    assert np.array_equal(pixels[holed], image[holed])


def test_a_ramp_stays_one_between_pixels() -> None:
    image = np.repeat(np.arange(40, dtype=np.float32)[None, :, None], 3, axis=2).repeat(10, axis=0)
    pixels, _ = warp(image, np.ones((10, 40), bool), *grid(60, 20, step=0.5, start=2.0))
    assert pixels[3, :, 0] == pytest.approx(2.0 + (np.arange(60) + 0.5) * 0.5 - 0.5, abs=0.05)


@pytest.mark.parametrize("step", [2.0, 3.0, 1.5])
def test_a_coarser_grid_averages_and_so_shows_no_stripes(step: float) -> None:
    stripes = np.zeros((60, 60, 3), np.uint8)
    stripes[:, ::2] = 200
    pixels, valid = warp(stripes, np.ones((60, 60), bool), *grid(int(60 / step), int(60 / step), step=step))
    assert valid.all()
    assert np.abs(pixels.astype(int) - 100).max() <= (1 if step == 2.0 else 40)
    assert pixels.mean() == pytest.approx(100, abs=2)


def test_what_is_not_valid_colours_nothing_beside_it() -> None:
    image = np.full((32, 32, 3), 150, np.uint8)
    image[:, 16:] = 0
    there = np.zeros((32, 32), bool)
    there[:, :16] = True
    for step in (0.4, 1.0, 1.7):
        side = int(32 / step)
        pixels, valid = warp(image, there, *grid(side, side, step=step))
        x, _ = grid(side, side, step=step)
        assert np.array_equal(valid, x < 16)
        assert (pixels[valid] == 150).all()


def test_what_lies_beyond_the_pixels_is_not_valid() -> None:
    pixels, valid = warp(np.full((8, 8, 3), 9, np.uint8), np.ones((8, 8), bool), *grid(16, 8, start=-4.0))
    expected = np.zeros((8, 16), bool)
    expected[:4, 4:12] = True
    assert np.array_equal(valid, np.roll(expected, 4, axis=0))
    assert pixels.shape == (8, 16, 3)


def test_beyond_their_edges_pixels_and_what_is_missing_are_mirrored() -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)[..., None].repeat(3, axis=2) + 1
    for missing in (False, True):
        valid = np.ones((8, 8), bool)
        valid[:, 6] = not missing
        expected = np.where(valid[..., None], pixels, 0)
        told, _ = warp(pixels, valid, *grid(16, 8, start=-4.0))
        assert np.array_equal(told[:4, 4:12], expected[4:0:-1])
        assert np.array_equal(told[4:, :4], expected[:4, 4:0:-1])
        assert np.array_equal(told[4:, 12:], expected[:4, 6:2:-1])


def test_steps_are_told_of_a_turned_grid_too() -> None:
    x, y = grid(30, 20, step=2.0)
    assert footsteps(x, y) == pytest.approx((2.0, 2.0))
    angle = np.radians(30)
    turned = np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y
    assert footsteps(*(along.astype(np.float32) for along in turned)) == pytest.approx((2.0, 2.0), rel=1e-5)


def test_knots_are_joined_by_straight_lines() -> None:
    knots = np.array([[0.0, 10.0, 40.0], [100.0, 110.0, 140.0]])
    spread = spread_out(knots, 11, 21)
    assert spread.dtype == np.float32
    assert spread[0] == pytest.approx(np.interp(np.arange(21), [0, 10, 20], knots[0]))
    assert spread[:, 0] == pytest.approx(np.linspace(0, 100, 11))


@pytest.mark.parametrize("axis", [0, 1])
def test_more_pixels_than_opencv_can_count_are_looked_between_too(axis: int) -> None:
    wide, high = 40_000, 5
    image = np.random.default_rng(0).integers(0, 255, (high, wide, 3), np.uint8)
    x, y = grid(wide, high, step=1.0, start=0.25)
    if axis == 0:
        image, x, y = np.ascontiguousarray(image.transpose(1, 0, 2)), y.T, x.T
    whole, there = warp(image, np.ones(image.shape[:2], bool), x, y)
    cut = slice(30_000, 30_100)
    if axis == 0:
        part, _ = warp(image[29_900:30_200], np.ones((300, high), bool), x[cut], y[cut] - 29_900)
        assert np.array_equal(whole[cut], part)
    else:
        part, _ = warp(image[:, 29_900:30_200], np.ones((high, 300), bool), x[:, cut] - 29_900, y[:, cut])
        assert np.array_equal(whole[:, cut], part)
    assert there.mean() > 0.7


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32])
def test_beside_what_is_missing_whole_numbers_are_rounded_and_not_cut_off(kind: type) -> None:
    image = np.full((20, 20, 3), 7, kind)
    there = np.ones((20, 20), bool)
    there[::3, ::2] = False
    pixels, valid = warp(image, there, *grid(33, 33, step=0.6))
    assert (pixels[valid] == 7).all()


def test_in_parts_the_last_columns_are_what_they_are_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).integers(0, 255, (12, 80, 3)).astype(np.uint8)
    places = grid(150, 20, step=0.5, start=1.3)
    whole, _ = warp(image, np.ones((12, 80), bool), *places)
    monkeypatch.setattr(warping, "_MOST_COUNTED", 40)
    parts, _ = warp(image, np.ones((12, 80), bool), *places)
    assert np.abs(whole.astype(int) - parts).max() <= 1


def test_what_is_averaged_across_is_not_averaged_down() -> None:
    rows = np.zeros((60, 60, 3), np.uint8)
    rows[::2] = 200
    x, y = np.meshgrid((np.arange(20, dtype=np.float32) + 0.5) * 3, np.arange(60, dtype=np.float32) + 0.5)
    told, _ = warp(rows, np.ones((60, 60), bool), x, y)
    assert np.array_equal(told, rows[:, :20])
    told, _ = warp(rows.transpose(1, 0, 2).copy(), np.ones((60, 60), bool), y.T.copy(), x.T.copy())
    assert np.array_equal(told, rows[:, :20].transpose(1, 0, 2))


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.float32])
def test_what_is_missing_is_as_dark_as_can_be(kind: type) -> None:
    image, there = np.full((8, 8, 3), -5, kind), np.ones((8, 8), bool)
    there[:, 4:] = False
    pixels, _ = warp(image, there, *grid(8, 8))
    lowest = np.iinfo(kind).min if np.issubdtype(kind, np.integer) else np.finfo(kind).min
    assert (pixels[:, :4] == -5).all()
    assert (pixels[:, 4:] == lowest).all()


@pytest.mark.parametrize("holed", [False, True])
def test_a_place_on_the_far_edges_lies_beyond(holed: bool) -> None:
    there = np.ones((6, 8), bool)
    there[2, 2] = not holed
    x, y = np.array([[0.0, 7.9, 8.0, 3.0]], np.float32), np.array([[0.0, 5.9, 3.0, 6.0]], np.float32)
    _, valid = warp(np.zeros((6, 8, 3), np.uint8), there, x, y)
    assert valid.tolist() == [[True, True, False, False]]
