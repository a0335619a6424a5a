import numpy as np
import pytest

from footprint_pipeline.evaluation.calibration import LEAST, fit_curve, reliability
from footprint_pipeline.footprints.spec import calibrated


def test_bins_count_what_was_said_and_what_came_true() -> None:
    told = reliability(np.array([[0.0, 0.04], [0.5, 1.0]], np.float32), np.array([[0, 1], [1, 1]]), bins=10)
    assert told.count.tolist() == [2, 0, 0, 0, 0, 1, 0, 0, 0, 1]
    assert told.true.tolist() == [1, 0, 0, 0, 0, 1, 0, 0, 0, 1]
    assert told.said == pytest.approx([0.04, 0, 0, 0, 0, 0.5, 0, 0, 0, 1.0])
    assert told.expected_error == pytest.approx((abs(0.04 - 1) + 0.5 + 0) / 4)
    assert told.table()[["count", "true"]].to_numpy().tolist() == [[2, 0.5], [1, 1], [1, 1]]


def test_parts_add_up_to_the_whole() -> None:
    rng = np.random.default_rng(0)
    said, true = rng.random(1000, np.float32), rng.random(1000) > 0.5
    whole, parts = reliability(said, true), reliability(said[:300], true[:300]) + reliability(said[300:], true[300:])
    assert np.array_equal(whole.count, parts.count)
    assert whole.expected_error == pytest.approx(parts.expected_error)


def test_who_says_what_comes_true_makes_no_error() -> None:
    rng = np.random.default_rng(1)
    said = rng.random(200_000)
    assert reliability(said, rng.random(200_000) < said).expected_error < 0.01
    assert reliability(said, rng.random(200_000) < said**3).expected_error > 0.15


def test_the_curve_makes_shares_of_what_is_said_and_keeps_its_order() -> None:
    rng = np.random.default_rng(2)
    said = rng.uniform(0.4, 1.0, 4000)
    true = rng.random(4000) < said**3

    curve = fit_curve(said, true)

    shares = calibrated(said, curve)
    assert reliability(shares, true).expected_error < 0.01 < reliability(said, true).expected_error
    assert (np.diff(shares[np.argsort(said)]) >= 0).all()
    assert calibrated(np.array([0.0, 2.0]), curve).tolist() == [curve[0][1], curve[-1][1]]


def test_nothing_is_certain() -> None:
    said = np.linspace(0, 1, 98)
    curve = fit_curve(said, said > 0.5)
    assert calibrated(np.array([0.0, 1.0]), curve).tolist() == pytest.approx([0.01, 0.99])


@pytest.mark.parametrize("true", [np.ones(100, bool), np.zeros(100, bool), np.ones(5, bool)])
def test_what_teaches_nothing_changes_nothing(true: np.ndarray) -> None:
    said = np.linspace(0, 1, len(true))
    assert fit_curve(said, true) == ()
    assert calibrated(said, ()) is said


def test_errors_of_two_bins_do_not_make_up_for_each_other() -> None:
    said, true = np.array([0.2, 0.2, 0.8, 0.8]), np.array([1, 1, 0, 0])
    assert reliability(said, true).expected_error == pytest.approx(0.8)


def test_so_few_examples_teach_and_one_less_does_not() -> None:
    said = np.linspace(0, 1, LEAST)
    assert fit_curve(said, said > 0.5)
    assert fit_curve(said[1:], said[1:] > 0.5) == ()
