import cv2
import numpy as np
import pytest

from footprint_pipeline.dataset.augmentation import ARTICLE, NONE, AugmentationSpec, draw_warp, jitter_look, warp

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
    rng = np.random.default_rng(4)
    for _ in range(50):
        lit = jitter_look(rng, AugmentationSpec(brightness=0.5), image)
        assert not lit[:10].any()
        assert (lit.dtype, lit.shape) == (np.uint8, image.shape)


def test_light_stays_within_its_bounds() -> None:
    grey = np.full((8, 8, 3), 100, np.uint8)
    rng = np.random.default_rng(5)
    levels = [jitter_look(rng, AugmentationSpec(brightness=0.1, contrast=0.2, tint=0.0), grey) for _ in range(400)]
    values = np.array([level[0, 0] for level in levels], int)
    assert (values == values[:, :1]).all()  # contrast pivots on the mean, so a grey chip is only lifted
    assert 75 - 1 <= values.min() < 78
    assert 122 < values.max() <= 125 + 1


def test_light_does_not_darken_on_average() -> None:
    image = np.full((4, 4, 3), 120, np.uint8)
    faint = AugmentationSpec(brightness=1e-6, contrast=0.0, tint=0.0)
    rng = np.random.default_rng(6)
    assert all(np.array_equal(jitter_look(rng, faint, image), image) for _ in range(50))


def test_the_same_draw_makes_the_same_chip() -> None:
    def chip(seed: int) -> bytes:
        rng = np.random.default_rng(seed)
        image, truth = warp(picture(pattern()), pattern(), draw_warp(rng, WILD, centre=CENTRE, size=SIZE), SIZE)
        return jitter_look(rng, WILD, image).tobytes() + truth.tobytes()

    assert chip(1) == chip(1)
    assert chip(1) != chip(2)
