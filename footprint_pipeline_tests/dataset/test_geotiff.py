from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from rasterio.io import MemoryFile

from footprint_pipeline.dataset.geotiff import encode
from footprint_pipeline_tests.dataset.conftest import UTM, degrees, metres

NORTH_UP = {"EPSG:4326": degrees(3), UTM: metres(5)}
TURNED = rasterio.Affine(0.5, 0.1, 643_000.25, 0.1, -0.5, 7_467_000.75)
SOUTH_UP = rasterio.Affine(0.5, 0, 643_000.25, 0, 0.5, 7_467_000.75)


def blobs(count: int, height: int = 37, width: int = 53) -> np.ndarray:
    rng = np.random.default_rng(count)
    return (rng.random((count, height, width)) < 0.3).repeat(2, axis=2)[:, :, :width].astype(np.uint8)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    ("crs", "transform"), [*NORTH_UP.items(), (UTM, TURNED), (UTM, SOUTH_UP)], ids=["degrees", "metres", "turned", "up"]
)
def test_a_file_is_the_one_that_rasterio_writes(crs: str, transform: rasterio.Affine, count: int) -> None:
    bands, names, tags = blobs(count), ("building", "border", "contact")[:count], {"border_m": 0.5, "contact_m": 2.0}
    file = encode(bands, crs=crs, transform=list(transform)[:6], names=names, tags=tags)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": count, "height": 37, "width": 53, "interleave": "band"}
    options = {"crs": crs, "transform": transform, "compress": "deflate", "blockysize": 37}
    with MemoryFile() as memory:
        with memory.open(**profile, **options) as target:
            target.write(bands)
            target.descriptions = names
            target.update_tags(**tags)
        with memory.open() as expected, MemoryFile(file) as ours, ours.open() as source:
            assert np.array_equal(source.read(), bands)
            assert source.profile == expected.profile
            assert source.transform == transform
            assert source.descriptions == expected.descriptions == names
            assert source.tags() == expected.tags()
            assert source.tags(ns="IMAGE_STRUCTURE") == expected.tags(ns="IMAGE_STRUCTURE")


def test_files_of_a_kind_have_their_own_place_and_content() -> None:
    for number, bands in enumerate([blobs(1), np.zeros((1, 37, 53), np.uint8), np.ones((1, 37, 53), np.uint8)]):
        grid = degrees(number)
        file = encode(bands, crs="EPSG:4326", transform=list(grid)[:6], names=["building"], tags={})
        with MemoryFile(file) as memory, memory.open() as source:
            assert np.array_equal(source.read(), bands)
            assert source.transform == grid


def test_readers_without_gdal_read_it(tmp_path: Path) -> None:
    bands = blobs(1)
    file = encode(bands, crs="EPSG:4326", transform=list(degrees())[:6], names=["building"], tags={"border_m": 0.0})
    (tmp_path / "mask.tif").write_bytes(file)
    assert np.array_equal(cv2.imread(str(tmp_path / "mask.tif"), cv2.IMREAD_UNCHANGED), bands[0])


def test_the_smallest_grid_and_one_of_noise_come_back() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2, 300, 200), np.uint8)
    for bands in (np.ones((1, 1, 1), np.uint8), noise):
        file = encode(bands, crs=UTM, transform=list(metres())[:6], names=["a", "b"][: len(bands)], tags={})
        with MemoryFile(file) as memory, memory.open() as source:
            assert np.array_equal(source.read(), bands)
