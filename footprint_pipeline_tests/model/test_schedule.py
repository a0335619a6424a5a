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


def test_who_looks_when_time_does_not_press_changes_no_rate() -> None:
    spec = TrainingSpec(schedule="hold", learning_rate=0.01, warm_up=0.1)
    rates = []
    for looks in ((), (1, 7, 33, 34, 71, 99)):
        _, rate = build_optimizer(spec, total_steps=120)
        told = []
        for step in range(120):
            if step in looks:
                rate.bend(step, steps_left=120 - step + 0.1 * step)
            told.append(float(keras.ops.convert_to_numpy(rate(step))))
        rates.append(told)
    assert rates[0] == rates[1]


def test_the_rate_ends_with_the_time_and_goes_back_when_there_is_more_of_it() -> None:
    spec = TrainingSpec(schedule="hold", learning_rate=0.01, warm_up=0.0)
    _, rate = build_optimizer(spec, total_steps=1000)

    def at(step: int) -> float:
        return float(keras.ops.convert_to_numpy(rate(step))) / 0.01

    rate.bend(100, steps_left=50)
    assert [at(100), at(150)] == pytest.approx([1, 0.01], abs=1e-4)
    rate.bend(110, steps_left=2000)
    assert [at(150), at(1000)] == pytest.approx([1, 0.01], abs=1e-4)


def test_adamw_takes_the_steps_of_kerass_own() -> None:
    rng = np.random.default_rng(0)
    start = [rng.normal(size=shape).astype(np.float32) for shape in ((3, 3, 4, 8), (8,))]
    gradients = [[rng.normal(size=value.shape).astype(np.float32) for value in start] for _ in range(5)]
    spec = TrainingSpec(learning_rate=0.1, weight_decay=0.2, clip_norm=1.0)
    ours, rate = build_optimizer(spec, total_steps=10)
    theirs = keras.optimizers.AdamW(rate, weight_decay=0.2, global_clipnorm=1.0)
    reached = []
    for optimizer in (ours, theirs):
        weights = [keras.Variable(value) for value in start]
        optimizer.build(weights)
        optimizer.exclude_from_weight_decay(weights[1:])
        for gradient in gradients:
            optimizer.apply([keras.ops.convert_to_tensor(value) for value in gradient], weights)
        reached.append([keras.ops.convert_to_numpy(weight) for weight in weights])
    for one, other, before in zip(*reached, start, strict=True):
        np.testing.assert_array_equal(one, other)
        assert not np.allclose(one, before)
