import math

import keras
import numpy as np
import pytest

from footprint_pipeline.errors import SettingsError
from footprint_pipeline.model.losses import build_loss
from footprint_pipeline.model.metrics import PixelF1

TRUTH = np.array([1, 0], np.uint8).reshape(1, 1, 2, 1)
PROBABILITY = np.array([0.8, 0.4], np.float32).reshape(1, 1, 2, 1)
CROSS_ENTROPY = -(math.log(0.8) + math.log(0.6)) / 2
DICE = 1 - (2 * 0.8 + 1) / (1 + 1.2 + 1)


def value(loss: object) -> float:
    return float(keras.ops.convert_to_numpy(loss))


@pytest.mark.parametrize(("name", "expected"), [("bce", CROSS_ENTROPY), ("bce_dice", CROSS_ENTROPY + DICE)])
def test_losses_by_hand(name: str, expected: float) -> None:
    assert value(build_loss(name)(TRUTH, PROBABILITY)) == pytest.approx(expected, abs=1e-6)


def test_chips_of_few_buildings_have_their_own_dice() -> None:
    truth, said = np.zeros((2, 10, 10, 1), np.uint8), np.zeros((2, 10, 10, 1), np.float32)
    truth[0, :, :9], said[0, :, :9], truth[1, 0, 0] = 1, 1, 1  # one that is full and right, one small building missed
    cross_entropy = value(build_loss("bce")(truth, said))
    of_batch, of_chips = (
        value(build_loss(name)(truth, said)) - cross_entropy for name in ("bce_dice", "bce_chip_dice")
    )
    assert of_batch == pytest.approx(1 - 181 / 182, abs=1e-4)
    assert of_chips == pytest.approx((0 + (1 - 1 / 2)) / 2, abs=1e-4)


@pytest.mark.parametrize("name", ["bce", "bce_dice", "bce_chip_dice"])
def test_a_right_answer_costs_nothing_also_where_there_is_no_building(name: str) -> None:
    loss = build_loss(name)
    right = TRUTH.astype(np.float32)
    assert value(loss(TRUTH, right)) == pytest.approx(0, abs=1e-5)
    assert value(loss(0 * TRUTH, 0 * right)) == pytest.approx(0, abs=1e-5)
    assert value(loss(TRUTH, 1 - right)) > 10


def test_the_focal_loss_looks_away_from_what_is_nearly_right() -> None:
    focal = -(0.2**2 * math.log(0.8) + 0.4**2 * math.log(0.6)) / 2
    assert value(build_loss("focal_dice")(TRUTH, PROBABILITY)) == pytest.approx(4 * focal + DICE, abs=1e-6)


def test_heads_count_by_weight_the_last_weight_for_all_that_are_left() -> None:
    truth, said = np.repeat(TRUTH, 3, axis=-1), np.repeat(PROBABILITY, 3, axis=-1)
    assert value(build_loss("bce")(truth, said)) == pytest.approx(3 * CROSS_ENTROPY, abs=1e-6)
    weighted = build_loss("bce", head_weights=(1.0, 0.5))(truth, said)
    assert value(weighted) == pytest.approx(2 * CROSS_ENTROPY, abs=1e-6)
    spoilt = np.concatenate([PROBABILITY, 1 - PROBABILITY], axis=-1)
    assert value(build_loss("bce", head_weights=(1.0, 0.0))(np.repeat(TRUTH, 2, axis=-1), spoilt)) == pytest.approx(
        CROSS_ENTROPY, abs=1e-6
    )


def test_an_unknown_loss_is_named() -> None:
    with pytest.raises(SettingsError, match="No loss is called 'mse'"):
        build_loss("mse")


def test_pixel_f1_pools_what_it_has_seen_until_it_is_reset() -> None:
    metric = PixelF1()
    assert value(metric.result()) == 0.0
    truth = np.array([1, 1, 1, 0, 0, 0], np.uint8).reshape(1, 2, 3, 1)
    said = np.array([0.9, 0.5, 0.51, 0.6, 0.1, 0.2], np.float32).reshape(1, 2, 3, 1)
    metric.update_state(truth, said)  # 2 found, 1 missed (one half is not enough), 1 wrong
    assert value(metric.result()) == pytest.approx(4 / 6)
    metric.update_state(1 - truth, 1 - truth.astype(np.float32))
    assert value(metric.result()) == pytest.approx(10 / 12)
    metric.reset_state()
    metric.update_state(truth, truth.astype(np.float32))
    assert value(metric.result()) == pytest.approx(1.0)


def test_pixel_f1_is_that_of_the_first_head() -> None:
    metric = PixelF1()
    truth = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.uint8).reshape(1, 2, 2, 2)
    said = np.array([[0.9, 0.9], [0.1, 0.9], [0.1, 0.1], [0.1, 0.1]], np.float32).reshape(1, 2, 2, 2)
    metric.update_state(truth, said)
    assert float(keras.ops.convert_to_numpy(metric.result())) == pytest.approx(2 / 3)
