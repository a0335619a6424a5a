import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from footprint_pipeline.dataset.augmentation import ARTICLE, NONE, AugmentationSpec
from footprint_pipeline.dataset.batches import FixedChips, TrainingChips, stream
from footprint_pipeline.dataset.cache import BORDER, BUILDING, CONTACT, VALID, TileCache
from footprint_pipeline.dataset.caching import build_cache
from footprint_pipeline.errors import DatasetError
from footprint_pipeline_tests.dataset.conftest import City


def memory_cache(*tiles: tuple[str, np.ndarray, np.ndarray]) -> TileCache:
    """A cache of arrays: (split, image, labels)."""
    splits, images, labels = zip(*tiles, strict=True)
    heights, widths = np.array([raster.shape for raster in labels]).T
    return TileCache(
        np.concatenate([image.reshape(-1, 3) for image in images]),
        np.concatenate([raster.ravel() for raster in labels]),
        0.5,
        tile_ids=np.array([f"t{number}" for number in range(len(tiles))]),
        aois=np.full(len(tiles), "Town"),
        splits=np.array(splits),
        heights=heights,
        widths=widths,
        offsets=np.cumsum(heights * widths) - heights * widths,
        valid_share=np.array([(raster & VALID > 0).mean() for raster in labels]),
    )


def plain(split: str, colour: int, *, height: int = 50, width: int = 60) -> tuple[str, np.ndarray, np.ndarray]:
    return split, np.full((height, width, 3), colour, np.uint8), np.full((height, width), VALID, np.uint8)


def noisy(split: str, seed: int, *, height: int = 50, width: int = 60) -> tuple[str, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random((height, width)) > 0.7, BUILDING | VALID, VALID).astype(np.uint8)
    return split, rng.integers(1, 256, (height, width, 3), np.uint8), labels


def fails(chips: TrainingChips, step: int) -> bool:
    try:
        chips.batch(0, step)
    except ValueError:
        return True
    return False


def test_reading_batches_needs_neither_pandas_nor_gdal() -> None:
    """So a training can run where only NumPy, OpenCV and Keras are installed."""
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, footprint_pipeline.dataset.batches as b; print(*sys.modules)"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert {"numpy", "cv2", "footprint_pipeline.dataset.batches"} <= set(loaded)
    assert {"pandas", "rasterio", "geopandas", "shapely", "pyarrow", "pyproj"}.isdisjoint(loaded)


def test_batches_are_floats_in_range_with_labels_of_zero_and_one(city: City, tmp_path: Path) -> None:
    cache = build_cache(city.manifest.assign(split="train"), tmp_path, gsd_m=0.5)
    images, truth = TrainingChips(cache, 32, 6, AugmentationSpec(), seed=1).batch(0, 0)
    assert (images.shape, images.dtype) == ((6, 32, 32, 3), np.float32)
    assert (truth.shape, truth.dtype) == ((6, 32, 32, 1), np.uint8)
    assert 0.0 <= images.min() < 0.5 < images.max() <= 1.0
    assert set(np.unique(truth)) == {0, 1}
    bright = images.mean(-1, keepdims=True) > 0.55
    assert (bright == truth).mean() > 0.97  # roofs are bright


def test_chips_are_the_same_for_the_same_seed_epoch_and_step_and_differ_otherwise() -> None:
    cache = memory_cache(*(noisy("train", seed) for seed in range(3)))

    def batch(seed: int, epoch: int, step: int) -> bytes:
        images, truth = TrainingChips(cache, 32, 4, AugmentationSpec(), seed).batch(epoch, step)
        return images.tobytes() + truth.tobytes()

    assert batch(1, 2, 3) == batch(1, 2, 3)
    assert len({batch(*key) for key in [(1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4), (1, 3, 2), (3, 2, 1)]}) == 6


def test_chips_of_one_batch_differ() -> None:
    images, _ = TrainingChips(memory_cache(noisy("train", 0)), 32, 8, AugmentationSpec(), 0).batch(0, 0)
    assert len({image.tobytes() for image in images}) == 8


def test_training_never_sees_tiles_of_other_splits() -> None:
    cache = memory_cache(
        plain("validation", 20), plain("train", 200), plain("test", 20), plain("train", 220), plain("validation", 20),
        plain("guard", 20),
    )  # fmt: skip
    unlit = ARTICLE
    chips = TrainingChips(cache, 32, 8, unlit, seed=0)
    seen = np.concatenate([chips.batch(0, step)[0].ravel() for step in range(20)])
    assert set(np.rint(np.unique(seen) * 255)) == {200, 220}
    fixed = FixedChips(cache, 32, 8)
    assert {position for position, _, _ in fixed.windows} == {0, 4}
    assert np.rint(fixed.batch(0)[0].max() * 255) == 20


def test_without_a_training_tile_there_is_no_batch() -> None:
    with pytest.raises(DatasetError, match="No tile is in the train split"):
        TrainingChips(memory_cache(plain("test", 20)), 32, 8, NONE, seed=0).batch(0, 0)


def test_the_order_can_be_taken_up_anywhere_with_any_number_of_threads() -> None:
    chips = TrainingChips(memory_cache(*(noisy("train", seed) for seed in range(3))), 32, 2, AugmentationSpec(), 7)

    def taken(start: tuple[int, int], batches: int, threads: int) -> list[bytes]:
        running = stream(chips, steps_per_epoch=5, start=start, threads=threads, ahead=threads)
        return [images.tobytes() + truth.tobytes() for images, truth in islice(running, batches)]

    through = taken((0, 0), 20, threads=1)
    assert through == [
        images.tobytes() + truth.tobytes()
        for epoch in range(4)
        for images, truth in (chips.batch(epoch, step) for step in range(5))
    ]
    assert len(set(through)) == 20
    for epoch, step in ((0, 0), (1, 3), (2, 4), (3, 0)):
        done = 5 * epoch + step
        assert taken((epoch, step), 20 - done, threads=3) == through[done:]


def test_closing_a_stream_stops_its_threads() -> None:
    def threads() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("chips")]

    chips = TrainingChips(memory_cache(noisy("train", 0)), 32, 2, NONE, 0)
    running = stream(chips, steps_per_epoch=5, threads=2)
    next(running)
    assert len(threads()) == 2
    running.close()
    assert threads() == []


def test_what_fails_in_a_thread_is_raised_where_its_batch_was_due() -> None:
    whole = memory_cache(noisy("train", 0), noisy("train", 1))
    broken = replace(whole, images=whole.images[:3000])  # the second tile is cut off
    chips = TrainingChips(broken, 32, 1, NONE, seed=3)

    first = next(step for step in range(50) if fails(chips, step))
    assert first > 0
    running = stream(chips, steps_per_epoch=50, threads=2)
    assert len(list(islice(running, first))) == first
    with pytest.raises(ValueError, match="reshape"):
        next(running)


def test_the_target_tells_of_the_channels_asked_for() -> None:
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 16, (50, 60), np.uint8) | np.uint8(VALID)
    cache = memory_cache(
        *((split, rng.integers(1, 256, (50, 60, 3), np.uint8), labels) for split in ("train", "validation"))
    )
    options: dict = {"channels": ("contact", "building", "border")}
    _, truth = FixedChips(cache, 32, 4, **options).batch(0)
    assert (truth.shape, truth.dtype) == ((4, 32, 32, 3), np.uint8)
    for channel, bit in enumerate((CONTACT, BUILDING, BORDER)):
        assert np.array_equal(truth[0, ..., channel], (labels[:32, :32] & bit > 0).astype(np.uint8))
    images, truth = TrainingChips(cache, 32, 4, AugmentationSpec(), 1, **options).batch(0, 0)
    same_images, building = TrainingChips(cache, 32, 4, AugmentationSpec(), 1).batch(0, 0)
    assert np.array_equal(images, same_images)
    assert np.array_equal(truth[..., 1:2], building)
    for bad in ((), ("building", "roof")):
        with pytest.raises(DatasetError, match=r"empty|roof"):
            FixedChips(cache, 32, 4, channels=bad)


@pytest.mark.parametrize(
    "chips",
    [
        lambda *a, **k: TrainingChips(*a, AugmentationSpec(), 1, **k).batch(0, 0),
        lambda *a, **k: FixedChips(*a, **k).batch(0),
    ],
    ids=["training", "fixed"],
)
def test_bytes_are_the_floats_before_division(chips: Callable[..., tuple[np.ndarray, np.ndarray]]) -> None:
    cache = memory_cache(noisy("train", 0), noisy("validation", 0))
    (floats, truth), (pixels, same_truth) = chips(cache, 32, 4), chips(cache, 32, 4, dtype=np.uint8)
    assert (pixels.dtype, floats.dtype) == (np.uint8, np.float32)
    assert np.array_equal(pixels, np.rint(floats * 255))
    assert np.allclose(floats, pixels / 255, atol=1e-7)
    assert np.array_equal(truth, same_truth)


def test_tiles_are_drawn_by_their_ground_with_imagery() -> None:
    half = plain("train", 100)
    half[2][:, :30] = 0
    none = plain("train", 250)
    none[2][:] = 0
    cache = memory_cache(plain("train", 50, height=100), half, none)
    chips = TrainingChips(cache, 16, 50, NONE, seed=0)
    seen = np.rint(np.concatenate([chips.batch(0, step)[0][:, 0, 0, 0] for step in range(20)]) * 255)
    assert np.mean(seen == 50) == pytest.approx(0.8, abs=0.04)
    assert np.mean(seen == 100) == pytest.approx(0.2, abs=0.04)


@pytest.mark.parametrize(("balance", "shares"), [(1.0, (0.8, 0.2)), (0.5, (2 / 3, 1 / 3)), (0.0, (0.5, 0.5))])
def test_areas_are_drawn_by_a_power_of_their_ground(balance: float, shares: tuple[float, float]) -> None:
    tiles = (noisy("train", 0, height=100), noisy("train", 1, height=100), noisy("train", 2), noisy("validation", 3))
    cache = replace(memory_cache(*tiles), aois=np.array(["Large", "Large", "Small", "Small"]))
    chips = TrainingChips(cache, 16, 50, NONE, seed=0, balance=balance)
    drawn = np.concatenate([chips.tiles_of(0, step) for step in range(40)])
    assert set(drawn) == {"t0", "t1", "t2"}
    assert np.mean(drawn == "t2") == pytest.approx(shares[1], abs=0.03)
    assert np.mean(drawn == "t0") == pytest.approx(shares[0] / 2, abs=0.03)


def test_areas_cannot_be_balanced_beyond_all_alike() -> None:
    for balance in (-0.1, 1.5, float("nan")):
        with pytest.raises(DatasetError, match="cannot be balanced by"):
            TrainingChips(memory_cache(noisy("train", 0)), 16, 4, NONE, seed=0, balance=balance)


def test_the_tiles_of_a_batch_are_those_that_it_is_cut_from() -> None:
    cache = memory_cache(*(plain("train", colour) for colour in (50, 100, 150, 200)))
    chips = TrainingChips(cache, 16, 6, NONE, seed=5)
    for step in range(10):
        colours = np.rint(chips.batch(1, step)[0][:, 0, 0, 0] * 255)
        assert chips.tiles_of(1, step) == [f"t{int(colour) // 50 - 1}" for colour in colours]


def test_chips_look_at_imagery() -> None:
    split, image, labels = plain("train", 200, height=60, width=200)
    image[:, :150] = 0
    labels[:, :150] = 0
    images, _ = TrainingChips(memory_cache((split, image, labels)), 8, 64, NONE, seed=0).batch(0, 0)
    assert np.mean(images[:, 4, 4, 0] > 0.7) > 0.85  # a plain draw would hit one in four


def test_chips_find_the_little_imagery_there_is_at_a_tiles_edge() -> None:
    split, image, labels = plain("train", 200, height=60, width=200)
    image[:, 6:] = 0
    labels[:, 6:] = 0
    images, _ = TrainingChips(memory_cache((split, image, labels)), 32, 64, NONE, seed=0).batch(0, 0)
    assert (images.max(axis=(1, 2, 3)) > 0.7).all()
    assert np.allclose((images[..., 0] > 0).mean(), 6 / 32, atol=0.01)  # and stay on the tile


@pytest.mark.parametrize(("height", "width"), [(50, 60), (64, 64), (65, 200), (20, 30), (32, 32), (33, 97)])
def test_validation_windows_cover_every_pixel(height: int, width: int) -> None:
    tile = noisy("validation", 1, height=height, width=width)
    cache = memory_cache(noisy("train", 0), tile, noisy("validation", 2))
    chips = FixedChips(cache, 32, 3, limit=1000)
    covered = {1: np.zeros((height, width), int), 2: np.zeros((50, 60), int)}
    for position, top, left in chips.windows:
        covered[position][top : top + 32, left : left + 32] += 1
        tile_height, tile_width = covered[position].shape
        assert 0 <= top <= max(tile_height - 32, 0)
        assert 0 <= left <= max(tile_width - 32, 0)
    assert all(count.min() >= 1 for count in covered.values())
    batches = [chips.batch(step) for step in range(len(chips))]
    assert sum(len(images) for images, _ in batches) == len(chips.windows)
    images, truth = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    for number, (position, top, left) in enumerate(chips.windows):
        tile_image, tile_labels = cache.tile(position)
        window = np.s_[top : top + 32, left : left + 32]
        rows, columns = tile_labels[window].shape
        assert np.array_equal(np.rint(images[number, :rows, :columns] * 255), tile_image[window])
        assert np.array_equal(truth[number, :rows, :columns, 0], tile_labels[window] & BUILDING)


def test_validation_is_thinned_evenly() -> None:
    cache = memory_cache(noisy("train", 0), *(noisy("validation", seed) for seed in range(1, 9)))
    assert len(FixedChips(cache, 32, 3, limit=1000).windows) == 32
    chips = FixedChips(cache, 32, 3, limit=8)
    assert len(chips.windows) == len(set(chips.windows)) == 8
    assert len({position for position, _, _ in chips.windows}) >= 7
    assert len(chips) == 3
    assert [len(chips.batch(step)[0]) for step in range(3)] == [3, 3, 2]


def test_validation_is_shared_evenly_however_few_its_chips_are() -> None:
    cache = memory_cache(noisy("train", 0), noisy("validation", 1), noisy("validation", 2))
    every = FixedChips(cache, 32, 8).windows
    assert len(every) == 8
    for multiple in (1, 3, 5, 8, 12, 20):
        windows = FixedChips(cache, 32, 8, multiple=multiple).windows
        assert len(windows) == max(8 // multiple, 1) * multiple
        assert set(windows) <= set(every)
    assert set(windows) == set(every)
    assert FixedChips(memory_cache(noisy("train", 0)), 32, 8, multiple=4).windows == []
