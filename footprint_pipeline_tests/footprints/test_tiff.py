"""TIFF images whose place does not matter: their numbers come as they are, and what hides them counts."""

import io

import numpy as np
import pytest
import rasterio
from PIL import Image, ImageOps

from footprint_pipeline.footprints.tiff import decode_tiff

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

NOISE = np.random.default_rng(3).integers(1, 255, (20, 30, 4), np.uint8)


def encode(image: np.ndarray, colours: dict[int, tuple[int, ...]] | None = None, **profile: object) -> bytes:
    """An array, shape (H, W, bands), as GDAL writes it."""
    size = dict(zip(("height", "width", "count"), image.shape, strict=True))
    with rasterio.MemoryFile() as memory:
        with memory.open(driver="GTiff", dtype=image.dtype, **size, **profile) as target:
            if colours:
                target.write_colormap(1, colours)
            target.write(np.moveaxis(image, -1, 0))
        return memory.read()


def decoded(encoded: bytes) -> tuple[np.ndarray, np.ndarray]:
    told = decode_tiff(encoded)
    assert told is not None
    return told


@pytest.mark.parametrize("photometric", ["RGB", "MINISBLACK"])
@pytest.mark.parametrize("bands", [3, 4])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_bands_of_any_name_and_depth_come_as_they_are(photometric: str, bands: int, bits: int) -> None:
    image = NOISE[..., :bands].astype(np.uint8 if bits == 8 else np.uint16) << max(bits - 8, 0)
    pixels, valid = decoded(encode(image, photometric=photometric, alpha="NO", nbits=bits))
    assert pixels.dtype == image.dtype
    assert np.array_equal(pixels, image[..., :3])
    assert valid.all()


def test_what_is_transparent_or_nodata_is_not_valid_and_the_rest_keeps_its_colours() -> None:
    image = NOISE.copy()
    image[:5, :, 3] = 0
    pixels, valid = decoded(encode(image, photometric="RGB", alpha="YES"))
    assert np.array_equal(pixels, np.where(image[..., 3:] > 0, image[..., :3], 0))
    assert np.array_equal(valid, image[..., 3] > 0)
    image[:, :5] = 255
    _, valid = decoded(encode(image[..., :3], nodata=255))
    assert np.array_equal(valid, np.arange(30) >= np.full((20, 1), 5))


def test_one_band_is_grey_and_a_palette_is_looked_up() -> None:
    grey = NOISE[..., :1]
    assert np.array_equal(decoded(encode(grey))[0], grey.repeat(3, axis=2))
    assert np.array_equal(decoded(encode(grey, photometric="MINISWHITE"))[0], 255 - grey.repeat(3, axis=2))
    deep = grey.astype(np.uint16)
    for image in (grey, deep):
        pixels, _ = decoded(encode(image % 2, {0: (9, 8, 7), 1: (1, 2, 3)}))
        assert np.array_equal(pixels, np.where(grey % 2, (1, 2, 3), (9, 8, 7)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_turned_as_it_says(orientation: int) -> None:
    exif, encoded = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(NOISE).save(encoded, "TIFF", exif=exif)
    upright = np.array(ImageOps.exif_transpose(Image.open(encoded)))
    pixels, valid = decoded(encoded.getvalue())
    assert np.array_equal(pixels, upright[..., :3])
    assert valid.shape == upright.shape[:2]


def test_what_is_broken_or_no_picture_is_none() -> None:
    whole = encode(NOISE[..., :3])
    for encoded in (b"II*\0", whole[:9], whole[: len(whole) // 2], encode(NOISE[..., :2], alpha="NO")):
        assert decode_tiff(encoded) is None
