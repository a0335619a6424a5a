from dataclasses import replace

import cv2
import numpy as np
import pytest

from footprint_pipeline.dataset.augmentation import (
    ARTICLE,
    NONE,
    AugmentationSpec,
    draw_warp,
    jitter_look,
    mirrored_window,
    warp,
)

SIZE = 64
CENTRE = (75.0, 60.0)
WILD = AugmentationSpec(translate_px=20, rotate_deg=45, scale=(0.7, 1.8))


def pattern() -> np.ndarray:
    """Roofs of several sizes on a tile, uint8 0/1."""
    mask = np.zeros((120, 150), np.uint8)
    for top, left, height, width in ((10, 10, 25, 30), (50, 60, 30, 12), (70, 90, 40, 40), (20, 100, 9, 9)):
        mask[top : top + height, left : left + width] = 1
    mask[80:95, 100:115] = 0
    return mask


def picture(mask: np.ndarray) -> np.ndarray:
    return np.repeat(mask[..., None] * np.uint8(255), 3, axis=2)


@pytest.mark.parametrize("spec", [AugmentationSpec(), ARTICLE, WILD], ids=["default", "article", "wild"])
def test_image_and_mask_stay_aligned(spec: AugmentationSpec) -> None:
    mask = pattern()
    rng = np.random.default_rng(5)
    apart = []
    for _ in range(60):
        chip, truth = warp(picture(mask), mask, draw_warp(rng, spec, centre=CENTRE, size=SIZE), SIZE)
        seen = (chip[..., 0] > 127).astype(np.uint8)
        border = cv2.dilate(truth, np.ones((3, 3))) != cv2.erode(truth, np.ones((3, 3)))
        assert np.array_equal(seen[~border], truth[~border])
        assert set(np.unique(truth)) <= {0, 1}
        y, x = np.mgrid[:SIZE, :SIZE]
        if truth.any():
            apart.append([(seen * axis).sum() / seen.sum() - (truth * axis).sum() / truth.sum() for axis in (x, y)])
    assert len(apart) > 50
    assert np.abs(np.mean(apart, axis=0)).max() < 0.05  # no shift of a fraction of a pixel, either way


def test_no_change_is_a_plain_window_of_the_tile() -> None:
    tile = np.random.default_rng(0).integers(0, 256, (120, 150, 3), np.uint8)
    matrix = draw_warp(np.random.default_rng(1), NONE, centre=(20 + SIZE / 2, 30 + SIZE / 2), size=SIZE)
    chip, truth = warp(tile, pattern(), matrix, SIZE)
    assert np.array_equal(chip, tile[30 : 30 + SIZE, 20 : 20 + SIZE])
    assert np.array_equal(truth, pattern()[30 : 30 + SIZE, 20 : 20 + SIZE])
    assert np.array_equal(jitter_look(np.random.default_rng(1), NONE, chip), chip)


def test_the_articles_flips_are_off_and_its_bounds_hold() -> None:
    rng = np.random.default_rng(2)
    middle = np.full(2, (SIZE - 1) / 2)
    angles, scales, shifts = [], [], []
    for _ in range(500):
        matrix = draw_warp(rng, ARTICLE, centre=CENTRE, size=SIZE)
        linear = matrix[:, :2]
        scales.append(1 / np.sqrt(np.linalg.det(linear)))  # a mirrored draw would have a negative determinant
        angles.append(np.rad2deg(np.arctan2(linear[1, 0], linear[0, 0])))
        shifts.append(linear @ middle + matrix[:, 2] - (np.array(CENTRE) - 0.5))
    for values, low, high in ((angles, -30, 30), (scales, 1.0, 1.5), (shifts, -40, 40)):
        assert low <= np.min(values) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < np.max(values) <= high
    assert np.mean(angles) == pytest.approx(0, abs=3)


def test_magnification_makes_buildings_larger() -> None:
    mask = np.zeros((120, 150), np.uint8)
    mask[50:70, 65:85] = 1
    twice = AugmentationSpec(0, 0, (2.0, 2.0), False, 0, 0, 0)
    _, truth = warp(picture(mask), mask, draw_warp(np.random.default_rng(0), twice, centre=CENTRE, size=SIZE), SIZE)
    assert truth.sum() == 1600


def test_flips_reach_all_eight_orientations() -> None:
    turns = AugmentationSpec(0, 0, (1.0, 1.0), True, 0, 0, 0)
    tile = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    rng = np.random.default_rng(3)
    centre = (SIZE / 2, SIZE / 2)
    seen = {
        warp(tile, tile[..., 0], draw_warp(rng, turns, centre=centre, size=SIZE), SIZE)[0].tobytes() for _ in range(80)
    }
    turned = [np.rot90(side, quarter) for side in (tile, tile[:, ::-1]) for quarter in range(4)]
    assert seen == {np.ascontiguousarray(image).tobytes() for image in turned}


def test_beyond_the_tile_image_and_mask_are_mirrored_alike() -> None:
    mask = pattern()
    matrix = np.array([[1.0, 0, -20], [0, 1.0, -10]])
    chip, truth = warp(picture(mask), mask, matrix, SIZE)
    assert np.array_equal(chip[..., 0] > 127, truth == 1)
    assert np.array_equal(truth[:, 19], truth[:, 21])
    assert np.array_equal(truth[10:, 20:], mask[:54, :44])


def test_black_stays_black_in_any_light() -> None:
    image = np.random.default_rng(0).integers(1, 256, (40, 40, 3), np.uint8)
    image[:10] = 0
    image[20, 20] = (0, 0, 1)
    rng = np.random.default_rng(4)
    lifted = 0
    for _ in range(50):
        lit = jitter_look(rng, AugmentationSpec(brightness=0.5, blur_share=0.5), image)
        assert not lit[:10].any()
        lifted += bool(lit[20, 20].min() > 10)
        assert (lit.dtype, lit.shape) == (np.uint8, image.shape)
    assert lifted > 15  # nearly black is imagery


def test_light_stays_within_its_bounds() -> None:
    grey = np.full((8, 8, 3), 100, np.uint8)
    rng = np.random.default_rng(5)
    levels = [jitter_look(rng, replace(NONE, brightness=0.1, contrast=0.2), grey) for _ in range(400)]
    values = np.array([level[0, 0] for level in levels], int)
    assert (values == values[:, :1]).all()  # contrast pivots on the mean, so a grey chip is only lifted
    assert 75 - 1 <= values.min() < 78
    assert 122 < values.max() <= 125 + 1


def test_light_does_not_darken_on_average() -> None:
    image = np.full((4, 4, 3), 120, np.uint8)
    faint = replace(NONE, brightness=1e-6)
    rng = np.random.default_rng(6)
    assert all(np.array_equal(jitter_look(rng, faint, image), image) for _ in range(50))


def test_the_same_draw_makes_the_same_chip() -> None:
    def chip(seed: int) -> bytes:
        rng = np.random.default_rng(seed)
        image, truth = warp(picture(pattern()), pattern(), draw_warp(rng, WILD, centre=CENTRE, size=SIZE), SIZE)
        return jitter_look(rng, WILD, image).tobytes() + truth.tobytes()

    assert chip(1) == chip(1)
    assert chip(1) != chip(2)


@pytest.mark.parametrize("first", [-700, -130, -31, -5, 0, 3, 20, 49, 60, 170])
@pytest.mark.parametrize("length", [1, 8, 50, 64, 300])
def test_a_window_is_mirrored_about_the_outermost_pixels(first: int, length: int) -> None:
    raster = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)

    def source(start: int, count: int, size: int) -> np.ndarray:
        """There and back again: 0, 1 … size - 1, size - 2 … 1, 0, 1 …"""
        place = np.arange(start, start + count) % (2 * size - 2)
        return np.minimum(place, 2 * size - 2 - place)

    rows, columns = source(first, length, 50), source(2 * first + 7, length + 3, 60)
    window = mirrored_window(raster, (first, first + length), (2 * first + 7, 2 * first + 10 + length))
    assert np.array_equal(window, raster[np.ix_(rows, columns)])
    labels = mirrored_window(raster[..., 0], (first, first + length), (2 * first + 7, 2 * first + 10 + length))
    assert np.array_equal(labels, window[..., 0])


@pytest.mark.parametrize("spec", [AugmentationSpec(), ARTICLE, replace(WILD, translate_px=400)])
def test_a_chip_is_what_opencvs_plain_warp_gives(spec: AugmentationSpec) -> None:
    rng = np.random.default_rng(8)
    tile = cv2.GaussianBlur(rng.integers(0, 256, (120, 150, 3), np.uint8), (0, 0), 2)
    labels = rng.integers(0, 16, (120, 150), np.uint8)
    for _ in range(40):
        matrix = draw_warp(rng, spec, centre=CENTRE, size=SIZE)
        chip, truth = warp(tile, labels, matrix, SIZE)
        plain, expected = (
            cv2.warpAffine(raster, matrix, (SIZE, SIZE), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
            for raster, flags in (
                (tile, cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP),
                (labels, cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP),
            )
        )
        assert cv2.absdiff(chip, plain).max() <= 2  # OpenCV's fixed-point weights
        assert (truth != expected).mean() < 0.002  # halves are rounded either way


def hue_deg(pixels: np.ndarray) -> np.ndarray:
    """Angle about the grey axis, degrees."""
    red, green, blue = np.moveaxis(pixels.astype(float), -1, 0)
    return np.rad2deg(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue))


def test_hue_turns_colours_about_grey_within_its_bounds() -> None:
    image = np.array([[[200, 60, 60], [60, 60, 200], [90, 160, 110], [128, 128, 128]]], np.uint8)
    rng = np.random.default_rng(9)
    turns = []
    for _ in range(300):
        turned = jitter_look(rng, replace(NONE, hue=25.0), image)
        assert np.abs(turned.sum(-1, dtype=int) - image.sum(-1, dtype=int)).max() <= 2  # as light as before
        assert np.abs(turned[0, 3].astype(int) - 128).max() <= 1
        apart = (hue_deg(turned[0, :3]) - hue_deg(image[0, :3]) + 180) % 360 - 180
        assert np.ptp(apart) < 2.5  # all colours by the same angle, up to the rounding of pixels
        turns.append(apart[0])
    assert -26 < min(turns) < -23
    assert 23 < max(turns) < 26


def test_a_third_of_a_circle_turns_red_into_green() -> None:
    image = np.random.default_rng(0).integers(1, 256, (20, 20, 3), np.uint8)
    ways = set()
    for seed in range(200):
        turned = jitter_look(np.random.default_rng(seed), replace(NONE, hue=120.5), image).astype(int)
        for bands in ((2, 0, 1), (1, 2, 0)):
            if np.abs(turned - image[..., bands]).max() <= 2:
                ways.add(bands)
    assert ways == {(2, 0, 1), (1, 2, 0)}


def test_blur_softens_its_share_of_the_chips_without_moving_them() -> None:
    dot = np.ones((31, 31, 3), np.uint8)
    dot[15, 15] = 255
    rng = np.random.default_rng(10)
    spec = replace(NONE, blur=1.5, blur_share=0.4)
    offsets = np.arange(31) - 15
    sigmas = []
    for _ in range(300):
        soft = jitter_look(rng, spec, dot)
        light = soft[..., 1].astype(float) - 1
        assert np.array_equal(soft, soft[::-1, ::-1])  # nothing moved
        sigmas.append(np.sqrt((light * offsets**2).sum() / light.sum()))
    softened = np.array(sigmas) > 0
    assert np.mean(softened) == pytest.approx(0.4 * (1 - 0.3 / 1.5), abs=0.1)  # below 0.3 px no pixel changes
    assert 1.2 < np.max(sigmas) < 1.6
    assert jitter_look(rng, replace(spec, blur_share=0.0), dot) is dot


def test_gamma_bends_the_tone_curve_and_leaves_its_ends() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    rng = np.random.default_rng(11)
    middles = []
    for _ in range(300):
        bent = jitter_look(rng, replace(NONE, gamma=0.5), ramp)
        assert (bent == bent[..., :1]).all()
        assert (bent[0, 0, 0], bent[-1, -1, 0]) == (0, 255)
        assert (np.diff(bent[..., 0].ravel().astype(int)) >= 0).all()
        middles.append(bent[8, 0, 0] / 255)
    powers = np.log(middles) / np.log(128 / 255)
    assert 1 / 1.5 - 0.01 < powers.min() < 0.7
    assert 1.4 < powers.max() < 1.51
    assert np.mean(powers > 1) == pytest.approx(0.5, abs=0.1)  # as often darker as brighter


def test_some_chips_lose_their_colours() -> None:
    image = np.random.default_rng(1).integers(1, 256, (20, 20, 3), np.uint8)
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(int)
    rng = np.random.default_rng(12)
    grey = 0
    for _ in range(300):
        seen = jitter_look(rng, replace(NONE, grey_share=0.3), image)
        if (seen == seen[..., :1]).all():
            grey += 1
            assert np.abs(seen[..., 0] - luma).max() <= 1
        else:
            assert np.array_equal(seen, image)
    assert grey / 300 == pytest.approx(0.3, abs=0.08)


def test_what_is_off_draws_nothing_so_the_chips_of_a_seed_stay_what_they_were() -> None:
    image = np.random.default_rng(1).integers(0, 256, (20, 20, 3), np.uint8)
    rng, same = np.random.default_rng(13), np.random.default_rng(13)
    jitter_look(rng, AugmentationSpec(blur=0.0, gamma=0.0, grey_share=0.0), image)
    same.random(6)  # contrast, tint of three bands, brightness, hue
    assert rng.random() == same.random()


def test_the_articles_chips_keep_their_look() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    assert all(jitter_look(np.random.default_rng(seed), ARTICLE, image) is image for seed in range(20))


def test_a_look_leaves_its_input_alone() -> None:
    image = np.random.default_rng(0).integers(0, 2, (20, 20, 3), np.uint8) * np.uint8(200)
    before = image.copy()
    for seed in range(20):
        jitter_look(np.random.default_rng(seed), replace(AugmentationSpec(), blur_share=0.5), image)
    assert np.array_equal(image, before)


def test_chips_are_softened_by_more_or_less() -> None:
    rng, image = np.random.default_rng(0), np.full((33, 33, 3), 1, np.uint8)
    image[16, 16] = 255
    spec = replace(NONE, blur=2.0, blur_share=1.0)
    peaks = {int(jitter_look(rng, spec, image.copy())[16, 16, 0]) for _ in range(40)}
    assert min(peaks) < 20
    assert max(peaks) > 150
