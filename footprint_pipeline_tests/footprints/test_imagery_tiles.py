"""Map tiles of imagery with more than eight bits: seen, and alike in every tile."""

import io

import numpy as np
import pytest
import rasterio
from PIL import Image

from footprint_pipeline.errors import RequestError
from footprint_pipeline.footprints.geotiff import GeoTiffImagery
from footprint_pipeline.footprints.imagery_tiles import ImageryTiles
from footprint_pipeline.footprints.mercator import Bounds, Tile, tile_at
from footprint_pipeline.footprints.patch import decode_image
from footprint_pipeline_tests.footprints.red_city import write_city

CITY = Bounds(-43.202, -22.902, -43.198, -22.898)


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> GeoTiffImagery:
    """Brighter from west to east, from 300 to 1500 of 65535; its western edge has no imagery."""
    path = write_city(tmp_path_factory.mktemp("deep") / "deep.tif", CITY, [], dtype=np.uint16, nodata=0)
    with rasterio.open(path, "r+") as raster:
        ramp = np.linspace(300, 1500, raster.width).astype(np.uint16)
        ramp[:40] = 0
        raster.write(np.broadcast_to(ramp, (3, raster.height, raster.width)))
    return GeoTiffImagery(path)


def test_deep_imagery_is_stretched_and_neighbours_fit(deep: GeoTiffImagery) -> None:
    tiles = ImageryTiles(deep)
    middle = tile_at(*CITY.centre, 18)
    west, east = (
        decode_image(tiles.read(Tile(18, middle.x + step, middle.y)).content)[0].astype(int) for step in (-1, 0)
    )
    assert np.abs(west[:, -1] - east[:, 0]).max() < 8, "no seam"
    assert east.mean() - west.mean() > 40, "the ramp is seen"
    first = ImageryTiles(deep).read(Tile(18, middle.x - 1, middle.y)).content
    assert first == ImageryTiles(deep).read(Tile(18, middle.x - 1, middle.y)).content


def test_what_has_no_imagery_is_transparent(deep: GeoTiffImagery) -> None:
    tile = ImageryTiles(deep).read(tile_at(CITY.left + 1e-4, CITY.centre[1], 18))
    assert tile.media_type == "image/png"
    _, opaque = decode_image(tile.content)
    assert 0 < opaque.mean() < 1


def test_what_is_no_tile_is_an_error(deep: GeoTiffImagery) -> None:
    with pytest.raises(RequestError, match="no tile 1/2/0"):
        ImageryTiles(deep).read(Tile(1, 2, 0))


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_a_picture_is_turned_as_its_orientation_says(form: str) -> None:
    upright = np.full((40, 60, 3), 30, np.uint8)
    upright[:10, :20] = 220
    stored, encoded = np.rot90(upright), io.BytesIO()  # as a camera does that is held on its side
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored).save(encoded, form, exif=exif, **({"quality": 95} if form == "JPEG" else {}))
    pixels, valid = decode_image(encoded.getvalue())
    assert pixels.shape == upright.shape
    assert valid.all()
    assert np.abs(pixels.astype(int) - upright).mean() < 3
