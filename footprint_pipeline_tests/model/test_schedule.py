import keras
import numpy as np
import pytest

from footprint_pipeline.model.schedule import build_optimizer
from footprint_pipeline.model.spec import TrainingSpec


def rates(schedule: str, **changes: float) -> np.ndarray:
    """The rate of each of a hundred steps, as shares of the largest."""
    spec = TrainingSpec(schedule=schedule, learning_rate=0.01, **changes)
    _, rate = build_optimizer(spec, total_steps=100)
    return np.array([float(keras.ops.convert_to_numpy(rate(step))) for step in range(101)]) / 0.01


@pytest.mark.parametrize("schedule", ["cosine", "hold", "constant"])
def test_the_rate_rises_along_a_line(schedule: str) -> None:
    warm = rates(schedule, warm_up=0.2)
    rest = rates(schedule, warm_up=0.0)
    assert warm[:20] == pytest.approx(rest[:20] * np.arange(1, 21) / 20, rel=1e-5)
    assert np.array_equal(warm[20:], rest[20:])


def test_each_schedule_falls_as_it_says() -> None:
    cosine, hold, constant = (rates(schedule, warm_up=0.0) for schedule in ("cosine", "hold", "constant"))
    assert cosine[[0, 50, 100]] == pytest.approx([1, 0.5, 0.01], abs=1e-6)
    assert (np.diff(cosine) <= 0).all()
    assert hold[[0, 70, 85, 100]] == pytest.approx([1, 1, 0.5, 0.01], abs=1e-5)
    assert constant == pytest.approx(np.ones(101))
