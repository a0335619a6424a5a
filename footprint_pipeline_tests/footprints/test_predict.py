import numpy as np
import pytest

from footprint_pipeline.footprints.predict import predict_probability


def red(batch: np.ndarray) -> np.ndarray:
    assert batch.shape[1] % 16 == 0
    assert batch.shape[2] % 16 == 0
    return batch[..., :1]


@pytest.mark.parametrize("shape", [(1, 1), (5, 40), (64, 64), (65, 64), (100, 30), (200, 333)])
def test_a_network_that_sees_one_pixel_answers_the_same_in_windows(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(1).random((*shape, 3), np.float32)
    probability = predict_probability(image, red, window=64, overlap=16, stride=16, batch_size=3)
    assert probability.dtype == np.float32
    assert probability == pytest.approx(image[..., :1], abs=1e-6)


def test_windows_are_blended_without_a_step() -> None:
    calls = iter(range(100))

    def each_window_differs(batch: np.ndarray) -> np.ndarray:
        return np.stack([np.full((*batch.shape[1:3], 1), next(calls) % 2, np.float32) for _ in batch])

    image = np.zeros((64, 112, 3), np.float32)
    probability = predict_probability(image, each_window_differs, window=64, overlap=16)
    assert probability[:, 0] == pytest.approx(0.0)
    assert probability[:, -1] == pytest.approx(1.0)
    assert np.abs(np.diff(probability, axis=1)).max() < 0.15


def test_answers_are_kept_within_zero_and_one() -> None:
    image = np.zeros((16, 16, 3), np.float32)
    assert predict_probability(image, lambda batch: batch[..., :1] + 7).max() == 1.0
