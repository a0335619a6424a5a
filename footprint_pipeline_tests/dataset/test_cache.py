import logging
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import rasterio

from footprint_pipeline.dataset import caching
from footprint_pipeline.dataset.cache import BORDER, BUILDING, CONTACT, VALID
from footprint_pipeline.dataset.caching import build_cache, grid_size, model_gsd, resample
from footprint_pipeline.dataset.masks import read_mask
from footprint_pipeline.dataset.spec import GUARD, SPLITS, MaskSpec
from footprint_pipeline.dataset.splits import digest
from footprint_pipeline.dataset.tiles import read_tile
from footprint_pipeline.errors import DatasetError, TileError
from footprint_pipeline.files import locked
from footprint_pipeline_tests.dataset.conftest import City, build_city, write_image


@pytest.fixture
def manifest(city: City) -> pd.DataFrame:
    """Eight tiles, shared out by hand; a test only reads their files."""
    return shared_out(city)


def shared_out(city: City) -> pd.DataFrame:
    return city.manifest.assign(split=["train"] * 5 + ["validation"] * 2 + ["test"])


def folders(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_the_model_works_at_the_tiles_median_resolution(manifest: pd.DataFrame) -> None:
    assert model_gsd(manifest) == pytest.approx(0.5, rel=1e-3)
    spread = pd.DataFrame({"gsd_x_m": [0.2, 0.2, 4.0], "gsd_y_m": [0.2, 0.45, 1.0]})
    assert model_gsd(spread) == pytest.approx(0.3)
    oblong = SimpleNamespace(height=100, width=200, gsd_y_m=0.3, gsd_x_m=0.5)
    assert grid_size(oblong, 0.3) == (100, 333)
    assert grid_size(oblong, 300.0) == (1, 1)


def test_at_their_own_resolution_tiles_are_cached_as_they_are(manifest: pd.DataFrame, tmp_path: Path) -> None:
    cache = build_cache(manifest, tmp_path, gsd_m=model_gsd(manifest))
    assert cache.tile_ids.tolist() == manifest["tile_id"].tolist()
    assert (cache.aois.tolist(), cache.splits.tolist()) == (["Town"] * 8, manifest["split"].tolist())
    assert [cache.members(split).tolist() for split in SPLITS] == [[0, 1, 2, 3, 4], [5, 6], [7]]
    assert cache.ground_px.tolist() == [40.0 * 48] * 8
    for position, row in enumerate(manifest.itertuples()):
        image, labels = cache.tile(position)
        assert np.array_equal(image, read_tile(Path(row.path))[0])
        assert np.array_equal(labels, read_mask(Path(row.mask_path)) * BUILDING | VALID)
        assert not image.flags.writeable


def test_another_resolution_averages_the_pixels(manifest: pd.DataFrame, tmp_path: Path) -> None:
    cache = build_cache(manifest, tmp_path, gsd_m=4 * model_gsd(manifest))
    image, labels = cache.tile(0)
    assert image.shape == (10, 12, 3)
    original = read_tile(Path(manifest["path"][0]))[0].astype(float)
    means = original.reshape(10, 4, 12, 4, 3).mean((1, 3))
    assert np.abs(image - means).max() <= 0.5
    shares = read_mask(Path(manifest["mask_path"][0])).reshape(10, 4, 12, 4).mean((1, 3))
    assert ((labels & BUILDING) == BUILDING)[shares > 0.5].all()
    assert ((labels & BUILDING) == 0)[shares < 0.5].all()
    assert cache.images.shape[0] == 8 * 10 * 12


def test_resampling_keeps_size_when_it_is_right_and_grows_smoothly() -> None:
    image = np.random.default_rng(0).integers(0, 256, (10, 12, 3), np.uint8)
    assert resample(image, (10, 12)) is image
    assert np.array_equal(resample(image, (20, 24)), cv2.resize(image, (24, 20), interpolation=cv2.INTER_LINEAR))


def test_the_cache_is_made_once(manifest: pd.DataFrame, tmp_path: Path) -> None:
    first = build_cache(manifest, tmp_path, gsd_m=0.5)
    (name,) = folders(tmp_path)
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (tmp_path / name).iterdir()}
    second = build_cache(manifest, tmp_path, gsd_m=0.5)
    assert folders(tmp_path) == [name]
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (tmp_path / name).iterdir()} == before
    assert np.array_equal(first.images, second.images)
    assert np.array_equal(first.offsets, second.offsets)


def test_a_change_of_mask_resolution_split_or_scale_makes_another(
    make_city: Callable[..., City], tmp_path: Path
) -> None:
    manifest = shared_out(make_city())
    folder = tmp_path / "cache"
    build_cache(manifest, folder, gsd_m=0.5)
    build_cache(manifest, folder, gsd_m=0.6)
    assert len(folders(folder)) == 2
    other_split = manifest.assign(split=np.roll(manifest["split"], 1))
    assert digest(other_split) != digest(manifest)
    assert build_cache(other_split, folder, gsd_m=0.5).splits.tolist() == other_split["split"].tolist()
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
    before = build_cache(manifest, folder, gsd_m=0.5).tile(0)[0]
    assert (build_cache(manifest.assign(gamma=2.0), folder, gsd_m=0.5).tile(0)[0] != before).any()
    darker = manifest.assign(low=[[64.0] * 3] * len(manifest))
    assert build_cache(darker, folder, gsd_m=0.5).tile(0)[0].mean() < before.mean()
    finer, coarser = (build_cache(manifest, folder, gsd_m=gsd_m).images.filename for gsd_m in (0.5, 0.501))
    assert finer != coarser
    path = Path(manifest["path"][0])
    with rasterio.open(path, "r+") as image:
        image.write(255 - image.read())
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))
    assert np.array_equal(build_cache(manifest, folder, gsd_m=0.5).tile(0)[0], read_tile(path)[0])


def test_the_caches_used_last_are_kept(manifest: pd.DataFrame, tmp_path: Path) -> None:
    def use(gsd_m: float) -> str:
        return Path(str(build_cache(manifest, tmp_path, gsd_m=gsd_m).images.filename)).parent.name

    a, b, c = use(0.5), use(0.6), use(0.7)
    for age, name in enumerate((a, b, c)):
        os.utime(tmp_path / name, (age, age))
    assert use(0.5) == a
    d = use(0.8)
    assert folders(tmp_path) == sorted([a, c, d])


def test_rows_in_another_order_are_not_mixed_up(manifest: pd.DataFrame, tmp_path: Path) -> None:
    build_cache(manifest, tmp_path, gsd_m=model_gsd(manifest))
    turned = manifest.iloc[::-1]
    cache = build_cache(turned, tmp_path, gsd_m=model_gsd(manifest))
    assert np.array_equal(cache.tile(0)[0], read_tile(Path(turned["path"].iloc[0]))[0])


def test_a_mask_of_another_size_or_a_missing_file_stops_the_cache(
    make_city: Callable[..., City], tmp_path: Path
) -> None:
    manifest = shared_out(make_city())
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


def test_tiles_of_the_guard_are_left_out(manifest: pd.DataFrame, tmp_path: Path) -> None:
    Path(tmp_path / "none").mkdir()
    guarded = manifest.assign(split=[GUARD, "train", GUARD, "train", "validation", "test", "test", GUARD])
    cache = build_cache(guarded, tmp_path / "cache", gsd_m=model_gsd(manifest))
    kept = manifest.iloc[[1, 3, 4, 5, 6]]
    assert cache.tile_ids.tolist() == kept["tile_id"].tolist()
    assert len(cache.images) == len(cache.labels) == 5 * 40 * 48
    for position, path in enumerate(kept["path"]):
        assert np.array_equal(cache.tile(position)[0], read_tile(Path(path))[0])
    with pytest.raises(DatasetError, match="no tile to cache"):
        build_cache(manifest.assign(split=GUARD), tmp_path / "none", gsd_m=0.5)
    assert folders(tmp_path / "none") == []


def test_bands_of_the_mask_become_bits(make_city: Callable[..., City], tmp_path: Path) -> None:
    manifest = shared_out(make_city())
    rng = np.random.default_rng(3)
    rim, gap = (rng.integers(0, 2, (40, 48), np.uint8) for _ in range(2))
    for position, names in ((0, ("building", "border", "contact")), (1, ("building", "contact"))):
        path = Path(manifest["mask_path"][position])
        bands = {"building": read_mask(path), "border": rim, "contact": gap}
        write_image(path, np.dstack([bands[name] for name in names]))
        with rasterio.open(path, "r+") as mask:
            mask.descriptions = names
    cache = build_cache(manifest, tmp_path / "cache", gsd_m=model_gsd(manifest))
    building = [read_mask(Path(path)) * BUILDING | VALID for path in manifest["mask_path"]]
    assert np.array_equal(cache.tile(0)[1], building[0] | rim * BORDER | gap * CONTACT)
    assert np.array_equal(cache.tile(1)[1], building[1] | gap * CONTACT)
    assert np.array_equal(cache.tile(2)[1], building[2])
    with pytest.raises(DatasetError, match="its masks have no band contact"):  # that some tiles have it is not enough
        build_cache(manifest, tmp_path / "cache", gsd_m=model_gsd(manifest), channels=("building", "contact"))


def test_masks_that_lack_a_band_asked_for_are_named_before_and_after_they_are_cached(
    make_city: Callable[..., City], tmp_path: Path
) -> None:
    three = ("building", "border", "contact")
    plain = shared_out(make_city()).assign(aoi="Plain")
    drawn = shared_out(build_city(tmp_path / "drawn", masks=MaskSpec(contact_m=6.0)))
    folder = tmp_path / "cache"
    for cached in (0, 1):
        with pytest.raises(DatasetError, match="Plain: its masks have no band border and none contact") as caught:
            build_cache(pd.concat([drawn, plain]), folder, gsd_m=0.5, channels=three)
        assert "footprint prepare --border 0.6 --contact 1.5" in caught.value.fix
        assert len(folders(folder)) == cached
        build_cache(pd.concat([drawn, plain]), folder, gsd_m=0.5)
    cache = build_cache(drawn, folder, gsd_m=0.5, channels=three)
    assert all((cache.labels & bit).any() for bit in (BUILDING, BORDER, CONTACT))


def test_where_there_is_no_imagery_there_is_no_label(make_city: Callable[..., City], tmp_path: Path) -> None:
    manifest = shared_out(make_city(masks=MaskSpec()))
    with rasterio.open(manifest["path"][0], "r+") as image:
        image.write(image.read() * (np.arange(48) >= 20).astype(np.uint8))
    manifest = manifest.assign(valid_share=[28 / 48] + [1.0] * 7)
    cache = build_cache(manifest, tmp_path / "cache", gsd_m=model_gsd(manifest))
    assert cache.ground_px.tolist() == pytest.approx([40 * 28] + [40 * 48] * 7)
    labels = cache.tile(0)[1]
    building = read_mask(Path(manifest["mask_path"][0]))
    assert building[:, :20].any()
    assert not labels[:, :20].any()
    assert np.array_equal(labels[:, 20:] & BUILDING, building[:, 20:])


def test_what_a_file_calls_no_imagery_is_black_as_in_the_service(
    make_city: Callable[..., City], tmp_path: Path
) -> None:
    manifest = shared_out(make_city(masks=MaskSpec()))
    with rasterio.open(manifest["path"][0]) as image:
        pixels, profile = image.read(), image.profile
    pixels[:, :, :20] = 255
    with rasterio.open(manifest["path"][0], "w", **{**profile, "nodata": 255}) as image:
        image.write(pixels)
    seen, labels = build_cache(manifest, tmp_path / "cache", gsd_m=model_gsd(manifest)).tile(0)
    assert not seen[:, :20].any()
    assert not labels[:, :20].any()
    assert seen[:, 20:].all(axis=2).mean() > 0.9


def test_any_number_of_threads_makes_the_same_cache(manifest: pd.DataFrame, tmp_path: Path) -> None:
    one, many = (build_cache(manifest, tmp_path / str(n), gsd_m=0.7, threads=n) for n in (1, 5))
    assert np.array_equal(one.images, many.images)
    assert np.array_equal(one.labels, many.labels)


def test_building_says_how_far_it_is(
    manifest: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("footprint_pipeline.many.SAY_EVERY_S", 0.0)
    with caplog.at_level(logging.INFO, logger="footprint_pipeline"):
        build_cache(manifest, tmp_path, gsd_m=0.5)
    assert "Caching 8 tiles at 0.50 m a pixel" in caplog.text
    assert "Tiles cached: 3 of 8" in caplog.text
    assert "0 s left" in caplog.messages[-1]


def test_a_full_disk_leaves_nothing_behind(manifest: pd.DataFrame, tmp_path: Path) -> None:
    with largest_file(20_000), pytest.raises(DatasetError, match=r"cache, 0\.0 GB, cannot be written") as caught:
        build_cache(manifest, tmp_path, gsd_m=0.5)
    assert "Free space" in caught.value.fix
    assert folders(tmp_path) == []
    assert len(build_cache(manifest, tmp_path, gsd_m=0.5)) == 8


def test_what_a_killed_building_left_is_cleared_away_and_one_under_way_is_waited_for(
    manifest: pd.DataFrame, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    folder = tmp_path / "cache"
    left = folder / ".deadbeef-0123456789abcdef"
    left.mkdir(parents=True)
    (left / "images.u8").write_bytes(b"half")
    with ThreadPoolExecutor() as pool:
        with locked(tmp_path / ".cache.lock", waiting=""):
            building = pool.submit(build_cache, manifest, folder, gsd_m=0.5)
            with pytest.raises(TimeoutError):
                building.result(0.5)
            assert folders(folder) == [left.name]
        assert len(building.result()) == 8
    assert "waiting for another process that caches tiles" in caplog.text
    assert f"{left}: removing what an interrupted run left" in caplog.text
    assert len(folders(folder)) == 1
    assert left.name not in folders(folder)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: the nearest that a test comes to a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_cache_is_not_forgotten_between_being_found_and_being_opened(
    manifest: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_cache(manifest, tmp_path, gsd_m=0.5)
    found, read_bands = threading.Event(), caching._require_bands

    def look_at_bands(*given: Any) -> None:
        if not found.is_set():
            found.set()
            time.sleep(0.5)  # for the others to push it out
        read_bands(*given)

    monkeypatch.setattr(caching, "_require_bands", look_at_bands)
    with ThreadPoolExecutor(1) as other:
        again = other.submit(build_cache, manifest, tmp_path, gsd_m=0.5)
        assert found.wait(10)
        for gsd_m in (1.0, 1.5, 2.0):
            build_cache(manifest, tmp_path, gsd_m=gsd_m)
    assert len(again.result().tile_ids) == 8
    assert len(list(tmp_path.glob("*"))) == 3


def test_a_band_is_there_only_when_all_masks_of_an_area_have_it(make_city, tmp_path: Path) -> None:  # test_cache.py
    city = make_city(masks=MaskSpec(border_m=0.6, contact_m=0))
    manifest = city.manifest.assign(split="train")
    first = Path(manifest["mask_path"].iloc[0])
    write_image(first, read_mask(first)[..., None])  # unnamed, so the band of buildings
    build_cache(manifest, tmp_path / "cache", gsd_m=0.5, threads=1)
    with pytest.raises(DatasetError, match="its masks have no band border"):
        build_cache(manifest, tmp_path / "cache", gsd_m=0.5, channels=("building", "border"))
