import numpy as np
import pytest

from footprint_pipeline.footprints.predict import predict_probability, window_sides


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


@pytest.mark.parametrize("shape", [(64, 64), (112, 200), (250, 333)])
def test_a_network_that_pools_sees_the_same_blocks_in_every_window(shape: tuple[int, int]) -> None:
    def pooled(batch: np.ndarray) -> np.ndarray:
        blocks = red(batch).reshape(len(batch), batch.shape[1] // 16, 16, batch.shape[2] // 16, 16, 1)
        return blocks.mean(axis=(2, 4)).repeat(16, axis=1).repeat(16, axis=2)

    image = np.random.default_rng(1).random((*shape, 3), np.float32)
    found = predict_probability(image, pooled, window=64, overlap=16, stride=16)
    height, width = (side // 16 * 16 for side in shape)  # what is whole of it
    assert found[:height, :width] == pytest.approx(pooled(image[None, :height, :width])[0], abs=1e-6)


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


@pytest.mark.parametrize(
    ("size", "sides", "windows"),
    [
        ((410, 410), (416, 416), 1),
        ((640, 640), (640, 640), 1),  # a tile of 512 with its halo
        ((100, 3000), (112, 3008), 1),
        ((739, 739), (416, 752), 2),
        ((1152, 1152), (608, 608), 4),
    ],
)
def test_windows_are_as_large_as_spares_the_network_pixels(
    size: tuple[int, int], sides: tuple[int, int], windows: int
) -> None:
    seen: list[tuple[int, ...]] = []

    def watched(batch: np.ndarray) -> np.ndarray:
        seen.extend(window.shape[:2] for window in batch)
        return red(batch)

    assert window_sides(*size, window=640, overlap=64, stride=16) == sides
    predict_probability(np.zeros((*size, 3), np.float32), watched)
    assert seen == [sides] * windows


@pytest.mark.parametrize("stride", [16, 32])
def test_no_window_is_larger_than_allowed_and_all_of_an_image_is_covered(stride: int) -> None:
    for height, width in np.random.default_rng(0).integers(1, 1500, (40, 2)).tolist():
        sides = window_sides(height, width, window=256, overlap=32, stride=stride)
        assert sides[0] * sides[1] <= 256**2
        assert all(side % stride == 0 for side in sides)
        covered = predict_probability(
            np.ones((height, width, 3), np.float32), lambda batch: batch[..., :1], window=256, overlap=32, stride=stride
        )
        assert covered.shape == (height, width, 1)
        assert covered.min() == 1.0


def nearness_to_the_right(batch: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.linspace(0, 1, batch.shape[2])[:, None], (*batch.shape[:3], 2)).astype(np.float32)


@pytest.mark.parametrize("flips", [1, 2, 4, 8])
@pytest.mark.parametrize("shape", [(64, 64), (32, 48), (100, 80)])
def test_orientations_are_turned_back_before_they_are_averaged(flips: int, shape: tuple[int, int]) -> None:
    seen: list[np.ndarray] = []

    def watched(batch: np.ndarray) -> np.ndarray:
        assert batch.flags.c_contiguous
        seen.extend(batch)
        return red(batch)

    image = np.random.default_rng(1).random((*shape, 3), np.float32)
    probability = predict_probability(image, watched, window=64, overlap=16, flips=flips)
    assert probability == pytest.approx(image[..., :1], abs=1e-6)
    windows = len(seen) // flips
    assert len({each.tobytes() for each in seen}) == flips * windows


def test_what_leans_to_one_side_is_evened_out() -> None:
    image = np.zeros((32, 32, 3), np.float32)
    once, twice, all_ways = (predict_probability(image, nearness_to_the_right, flips=flips) for flips in (1, 2, 8))
    assert once.shape == twice.shape == (32, 32, 2)
    assert once[0, -1, 0] == 1.0
    assert twice == pytest.approx(0.5)
    assert all_ways == pytest.approx(0.5)


@pytest.mark.parametrize("shape", [(7000, 60), (49, 6500)])
def test_long_narrow_images_are_predicted(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(1).random((*shape, 3), np.float32)
    assert predict_probability(image, red, stride=16) == pytest.approx(image[..., :1], abs=1e-6)


def test_what_an_image_lacks_to_a_multiple_of_the_stride_is_mirrored_about_its_outermost_pixels() -> None:
    image, seen = np.random.default_rng(0).random((20, 30, 3), np.float32), []

    def watched(batch: np.ndarray) -> np.ndarray:
        seen.extend(batch)
        return batch[..., :1]

    predict_probability(image, watched, stride=16)
    assert np.array_equal(seen[0], np.pad(image, ((0, 12), (0, 2), (0, 0)), mode="reflect"))
