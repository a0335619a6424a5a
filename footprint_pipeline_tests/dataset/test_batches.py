import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import rasterio

from footprint_pipeline.dataset.augmentation import NONE, AugmentationSpec
from footprint_pipeline.dataset.batches import (
    BUILDING,
    VALID,
    FixedChips,
    TileCache,
    TrainingChips,
    build_cache,
    model_gsd,
    resample,
)
from footprint_pipeline.dataset.masks import read_mask
from footprint_pipeline.dataset.splits import digest
from footprint_pipeline.dataset.tiles import read_tile
from footprint_pipeline.errors import DatasetError, TileError
from footprint_pipeline_tests.dataset.conftest import City, write_image


def memory_cache(*tiles: tuple[str, np.ndarray, np.ndarray]) -> TileCache:
    """A cache of arrays: (split, image, labels)."""
    rows, start = [], 0
    for number, (split, _, labels) in enumerate(tiles):
        height, width = labels.shape
        share = float((labels & VALID).astype(bool).mean())
        rows.append((f"t{number}", split, height, width, start, share))
        start += height * width
    table = pd.DataFrame(rows, columns=["tile_id", "split", "height", "width", "offset", "valid_share"])
    images = np.concatenate([image.reshape(-1, 3) for _, image, _ in tiles])
    return TileCache(images, np.concatenate([labels.ravel() for _, _, labels in tiles]), table, 0.5)


def plain(split: str, colour: int, *, height: int = 50, width: int = 60) -> tuple[str, np.ndarray, np.ndarray]:
    return split, np.full((height, width, 3), colour, np.uint8), np.full((height, width), VALID, np.uint8)


def noisy(split: str, seed: int, *, height: int = 50, width: int = 60) -> tuple[str, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random((height, width)) > 0.7, BUILDING | VALID, VALID).astype(np.uint8)
    return split, rng.integers(1, 256, (height, width, 3), np.uint8), labels


def folders(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_the_model_works_at_the_tiles_median_resolution(city: City) -> None:
    assert model_gsd(city.manifest) == pytest.approx(0.5, rel=1e-3)
    spread = pd.DataFrame({"gsd_x_m": [0.2, 0.3, 4.0], "gsd_y_m": [0.2, 0.3, 1.0]})
    assert model_gsd(spread) == pytest.approx(0.3)


def test_at_their_own_resolution_tiles_are_cached_as_they_are(city: City, tmp_path: Path) -> None:
    cache = build_cache(city.manifest, tmp_path, gsd_m=model_gsd(city.manifest))
    assert cache.table["tile_id"].tolist() == city.manifest["tile_id"].tolist()
    for position, row in enumerate(city.manifest.itertuples()):
        image, labels = cache.tile(position)
        assert np.array_equal(image, read_tile(Path(row.path))[0])
        assert np.array_equal(labels, read_mask(Path(row.mask_path)) * BUILDING | VALID)
        assert not image.flags.writeable


def test_another_resolution_averages_the_pixels(city: City, tmp_path: Path) -> None:
    cache = build_cache(city.manifest, tmp_path, gsd_m=4 * model_gsd(city.manifest))
    image, labels = cache.tile(0)
    assert image.shape == (10, 12, 3)
    original = read_tile(Path(city.manifest["path"][0]))[0].astype(float)
    means = original.reshape(10, 4, 12, 4, 3).mean((1, 3))
    assert np.abs(image - means).max() <= 0.5
    shares = read_mask(Path(city.manifest["mask_path"][0])).reshape(10, 4, 12, 4).mean((1, 3))
    assert ((labels & BUILDING) == BUILDING)[shares > 0.5].all()
    assert ((labels & BUILDING) == 0)[shares < 0.5].all()
    assert cache.images.shape[0] == 8 * 10 * 12


def test_resampling_keeps_size_when_it_is_right_and_grows_smoothly() -> None:
    image = np.random.default_rng(0).integers(0, 256, (10, 12, 3), np.uint8)
    assert resample(image, (10, 12)) is image
    assert np.array_equal(resample(image, (20, 24)), cv2.resize(image, (24, 20), interpolation=cv2.INTER_LINEAR))


def test_the_cache_is_made_once(city: City, tmp_path: Path) -> None:
    first = build_cache(city.manifest, tmp_path, gsd_m=0.5)
    (name,) = folders(tmp_path)
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (tmp_path / name).iterdir()}
    second = build_cache(city.manifest, tmp_path, gsd_m=0.5)
    assert folders(tmp_path) == [name]
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (tmp_path / name).iterdir()} == before
    assert np.array_equal(first.images, second.images)
    pd.testing.assert_frame_equal(first.table, second.table)


def test_a_change_of_mask_resolution_split_or_scale_makes_another(
    make_city: Callable[..., City], tmp_path: Path
) -> None:
    manifest = make_city().manifest
    folder = tmp_path / "cache"
    build_cache(manifest, folder, gsd_m=0.5)
    build_cache(manifest, folder, gsd_m=0.6)
    assert len(folders(folder)) == 2
    other_split = manifest.assign(split=np.roll(manifest["split"], 1))
    assert digest(other_split) != digest(manifest)
    assert build_cache(other_split, folder, gsd_m=0.5).table["split"].tolist() == other_split["split"].tolist()
    assert len(folders(folder)) == 3
    brighter = manifest.assign(high=[[128.0] * 3] * len(manifest))
    assert (
        build_cache(brighter, folder, gsd_m=0.5).tile(0)[0].mean()
        > build_cache(manifest, folder, gsd_m=0.5).tile(0)[0].mean()
    )
    assert len(folders(folder)) == 3  # the three used last are kept

    path = Path(manifest["mask_path"][0])
    with rasterio.open(path, "r+") as mask:
        mask.write(np.ones((1, 40, 48), np.uint8))
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))
    labels = build_cache(manifest, folder, gsd_m=0.5).tile(0)[1]
    assert (labels & BUILDING).all()


def test_rows_in_another_order_are_not_mixed_up(city: City, tmp_path: Path) -> None:
    build_cache(city.manifest, tmp_path, gsd_m=model_gsd(city.manifest))
    turned = city.manifest.iloc[::-1]
    cache = build_cache(turned, tmp_path, gsd_m=model_gsd(city.manifest))
    assert np.array_equal(cache.tile(0)[0], read_tile(Path(turned["path"].iloc[0]))[0])


def test_a_mask_of_another_size_or_a_missing_file_stops_the_cache(
    make_city: Callable[..., City], tmp_path: Path
) -> None:
    manifest = make_city().manifest
    write_image(Path(manifest["mask_path"][2]), np.zeros((9, 9, 1), np.uint8))
    with pytest.raises(DatasetError, match=rf"{manifest['tile_id'][2]}: image is \(40, 48\), mask is \(9, 9\)"):
        build_cache(manifest, tmp_path / "cache", gsd_m=0.5)
    Path(manifest["mask_path"][2]).unlink()
    with pytest.raises(DatasetError, match="no such mask"):
        build_cache(manifest, tmp_path / "cache", gsd_m=0.5)
    Path(manifest["path"][0]).unlink()
    with pytest.raises(TileError, match=r"Town_img0\.tif"):
        build_cache(manifest, tmp_path / "cache", gsd_m=0.5)
    assert folders(tmp_path / "cache") == []


def test_batches_are_floats_in_range_with_labels_of_zero_and_one(city: City, tmp_path: Path) -> None:
    cache = build_cache(city.manifest, tmp_path, gsd_m=0.5)
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
        plain("validation", 20), plain("train", 200), plain("test", 20), plain("train", 220), plain("validation", 20)
    )
    unlit = AugmentationSpec(brightness=0, contrast=0, tint=0)
    chips = TrainingChips(cache, 32, 8, unlit, seed=0)
    seen = np.concatenate([chips.batch(0, step)[0].ravel() for step in range(20)])
    assert set(np.rint(np.unique(seen) * 255)) == {200, 220}
    fixed = FixedChips(cache, 32, 8)
    assert {position for position, _, _ in fixed.windows} == {0, 4}
    assert np.rint(fixed.batch(0)[0].max() * 255) == 20


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


def test_chips_look_at_imagery() -> None:
    split, image, labels = plain("train", 200, height=60, width=200)
    image[:, :150] = 0
    labels[:, :150] = 0
    images, _ = TrainingChips(memory_cache((split, image, labels)), 8, 64, NONE, seed=0).batch(0, 0)
    assert np.mean(images[:, 4, 4, 0] > 0.7) > 0.85  # a plain draw would hit one in four


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
