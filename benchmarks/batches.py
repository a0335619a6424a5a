"""Batches: augmented pairs a second, with what each step costs, against the same without the cache.

The peer reads image and mask with rasterio for every chip, resamples them and augments them in the same way. The
steps are put beside their plain forms: OpenCV's warp of three channels with a mirrored border, and a shift of hue
by way of HSV with a table for the rest. Files are in the page cache for both.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import rasterio

from benchmarks.form import CORES, Figure, in_turn, main
from footprint_pipeline.dataset.augmentation import NONE, AugmentationSpec, draw_warp, jitter_look, warp
from footprint_pipeline.dataset.batches import TrainingChips, stream
from footprint_pipeline.dataset.cache import BUILDING, VALID, TileCache
from footprint_pipeline.dataset.caching import build_cache, resample

HEIGHT, WIDTH = 406, 438  # SpaceNet 1
GSD_M, MODEL_GSD_M = 0.5, 0.45
SIZE, BATCH = 512, 8
EVERYTHING = AugmentationSpec()
GOAL = 200


@dataclass(frozen=True, eq=False)
class Files(TileCache):
    """The same without a cache: every tile is read from its files when a chip is cut from it."""

    manifest: pd.DataFrame

    def tile(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        """As `TileCache.tile`."""
        row = self.manifest.iloc[position]
        size = int(self.heights[position]), int(self.widths[position])
        with rasterio.open(row["path"]) as source:
            image = np.ascontiguousarray(np.moveaxis(source.read(), 0, -1))
        with rasterio.open(row["mask_path"]) as source:
            mask = source.read(1)
        return resample(image, size), (resample(mask * np.uint8(255), size) > 127) * np.uint8(BUILDING) | VALID


def measure(quick: bool) -> list[Figure]:
    """Whole batches, then their steps, then the cache itself."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = write_tiles(Path(folder), count=24 if quick else 400)
        cache = build_cache(manifest, Path(folder) / "cache", gsd_m=MODEL_GSD_M)
        return [
            *whole(cache, manifest, batches=2 if quick else 20, rounds=1 if quick else 3),
            *steps(cache, chips=8 if quick else 60, rounds=2 if quick else 5),
            building(manifest, Path(folder), rounds=1 if quick else 3),
        ]


def write_tiles(folder: Path, *, count: int) -> pd.DataFrame:
    """Tiles of soft noise with bright roofs, and their masks; the manifest that names them."""
    rng = np.random.default_rng(1337)
    ground = cv2.GaussianBlur(rng.integers(1, 200, (2 * HEIGHT, 2 * WIDTH, 3), np.uint8), (0, 0), 1.5)
    rows = []
    for number in range(count):
        top, left = rng.integers(0, HEIGHT), rng.integers(0, WIDTH)
        image = ground[top : top + HEIGHT, left : left + WIDTH].copy()
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        for y, x, height, width in rng.integers((0, 0, 8, 8), (380, 410, 26, 26), (60, 4)):
            mask[y : y + height, x : x + width] = 1
        image[mask == 1] += 55
        paths = folder / f"{number}.tif", folder / f"{number}_mask.tif"
        rasters = (np.moveaxis(image, -1, 0), None), (mask[None], "deflate")
        for path, (bands, compress) in zip(paths, rasters, strict=True):
            profile = {"driver": "GTiff", "height": HEIGHT, "width": WIDTH, "count": len(bands), "dtype": "uint8"}
            place = rasterio.Affine(GSD_M, 0, 6e5 + number * WIDTH * GSD_M, 0, -GSD_M, 7e6)
            with rasterio.open(path, "w", crs="EPSG:32723", transform=place, compress=compress, **profile) as target:
                target.write(bands)
        rows.append((str(number), "Noise", "train", str(paths[0]), str(paths[1])))
    manifest = pd.DataFrame(rows, columns=["tile_id", "aoi", "split", "path", "mask_path"])
    return manifest.assign(
        height=HEIGHT, width=WIDTH, gsd_x_m=GSD_M, gsd_y_m=GSD_M, valid_share=1.0,
        low=[[0.0] * 3] * count, high=[[255.0] * 3] * count, gamma=1.0,
    )  # fmt: skip


def whole(cache: TileCache, manifest: pd.DataFrame, *, batches: int, rounds: int) -> list[Figure]:
    """Pairs a second, everything on."""
    ours = TrainingChips(cache, SIZE, BATCH, EVERYTHING, seed=1)
    peer = replace(
        ours, cache=Files(**{field.name: getattr(cache, field.name) for field in fields(cache)}, manifest=manifest)
    )
    as_bytes = replace(ours, dtype=np.uint8)

    def all_cores(chips: TrainingChips) -> Callable[[], None]:
        def work() -> None:
            running = stream(chips, steps_per_epoch=batches, threads=CORES, ahead=CORES)
            for _ in islice(running, batches):
                pass
            running.close()

        return work

    def one_core(chips: TrainingChips) -> Callable[[], None]:
        def work() -> None:
            threads = cv2.getNumThreads()
            cv2.setNumThreads(1)
            for step in range(batches):
                chips.batch(0, step)
            cv2.setNumThreads(threads)

        return work

    works = [all_cores(ours), all_cores(peer), all_cores(as_bytes), one_core(ours), one_core(peer)]
    rates = [batches * BATCH / seconds for seconds in in_turn(*works, rounds=rounds)]
    name = f"pairs of {SIZE}×{SIZE}, everything on, {CORES} cores"
    return [
        Figure(name, rates[0], "pairs/s", rates[1], rates[0] / rates[1], f"≥ {GOAL}", rates[0] >= GOAL),
        Figure(f"{name}, as bytes", rates[2], "pairs/s"),
        Figure("the same on one core", rates[3], "pairs/s", rates[4], rates[3] / rates[4]),
    ]


def steps(cache: TileCache, *, chips: int, rounds: int) -> list[Figure]:
    """Milliseconds that each step takes for one pair, on one core."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    rng = np.random.default_rng(2)
    height, width = cache.tile(0)[1].shape
    warps = [draw_warp(rng, EVERYTHING, centre=(width / 2, height / 2), size=SIZE) for _ in range(chips)]
    tiles = [cache.tile(number % len(cache)) for number in range(chips)]
    images = [warp(*tile, matrix, SIZE)[0] for tile, matrix in zip(tiles, warps, strict=True)]
    light = replace(EVERYTHING, blur=0.0)
    blur = replace(NONE, blur=EVERYTHING.blur, blur_share=1.0)
    scale = np.float32(1 / 255)
    batch = np.empty((chips, SIZE, SIZE, 3), np.float32)

    def plain_warp(image: np.ndarray, labels: np.ndarray, matrix: np.ndarray) -> None:
        for raster, flags in ((image, cv2.INTER_LINEAR), (labels, cv2.INTER_NEAREST)):
            cv2.warpAffine(
                raster, matrix, (SIZE, SIZE), flags=flags | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT_101
            )

    def by_hsv(image: np.ndarray) -> None:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = cv2.LUT(hsv[..., 0], ((np.arange(256) + 4) % 180).astype(np.uint8))
        table = np.clip((np.arange(256)[:, None] - image.mean()) * (1.1, 1.0, 0.9) + 130, 0, 255)
        cv2.LUT(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), table.astype(np.uint8)[:, None])

    works: list[Callable[[], object]] = [
        lambda: [draw_warp(rng, EVERYTHING, centre=(width / 2, height / 2), size=SIZE) for _ in range(chips)],
        lambda: [warp(*tile, matrix, SIZE) for tile, matrix in zip(tiles, warps, strict=True)],
        lambda: [plain_warp(*tile, matrix) for tile, matrix in zip(tiles, warps, strict=True)],
        lambda: [jitter_look(rng, light, image) for image in images],
        lambda: [by_hsv(image) for image in images],
        lambda: [jitter_look(rng, blur, image) for image in images],
        lambda: [np.multiply(image, scale, out=to, dtype=np.float32) for image, to in zip(images, batch, strict=True)],
    ]
    draw, ours, plain, colour, hsv, soft, floats = (1000 * took / chips for took in in_turn(*works, rounds=rounds))
    cv2.setNumThreads(threads)
    return [
        Figure("drawing a warp", draw, "ms"),
        Figure("warp of image and labels", ours, "ms", plain, plain / ours),
        Figure("brightness, contrast, tint and hue", colour, "ms", hsv, hsv / colour),
        Figure(f"blur of a chip ({EVERYTHING.blur_share:.0%} of them)", soft, "ms"),
        Figure("bytes to floats", floats, "ms"),
    ]


def building(manifest: pd.DataFrame, folder: Path, *, rounds: int) -> Figure:
    """Milliseconds to cache a tile; the peer is one thread."""

    def build(threads: int) -> Callable[[], None]:
        def work() -> None:
            with tempfile.TemporaryDirectory(dir=folder) as fresh:
                build_cache(manifest, Path(fresh), gsd_m=MODEL_GSD_M, threads=threads)

        return work

    ours, peer = (1000 * seconds / len(manifest) for seconds in in_turn(build(CORES), build(1), rounds=rounds))
    return Figure(f"caching a tile, {CORES} threads (peer: one)", ours, "ms", peer, peer / ours)


if __name__ == "__main__":
    main(measure, description=__doc__)
