from pathlib import Path

import numpy as np
import pytest
import shapely
from rasterio.transform import from_bounds

from footprint_pipeline.footprints.geotiff import GeoTiffImagery
from footprint_pipeline.footprints.mercator import tile_at, to_wgs84
from footprint_pipeline.footprints.picture import draw
from footprint_pipeline_tests.footprints.red_city import write_raster

AREA = tile_at(-43.2, -22.9, 18).bounds_3857


@pytest.mark.parametrize(("kind", "most"), [(np.uint8, 255), (np.uint16, 2000), (np.float32, 0.5)])
def test_imagery_of_any_depth_is_shown(tmp_path: Path, kind: type, most: float) -> None:
    """From dark on the left to bright on the right."""
    ramp = np.broadcast_to(np.linspace(most / 50, most, 100), (3, 100, 100)).astype(kind)
    write_raster(tmp_path / "ramp.tif", ramp, from_bounds(*AREA, 100, 100), "EPSG:3857", photometric="MINISBLACK")
    shown = draw(GeoTiffImagery(tmp_path / "ramp.tif"), AREA, np.empty(0, object), np.empty(0), height=100, width=100)
    assert shown.dtype == np.uint8
    line = shown[50, :, 1].astype(int)
    assert (np.diff(line) >= 0).all()
    assert line[0] < 40
    assert line[-1] > 240


def test_sure_footprints_are_green_and_others_orange(tmp_path: Path) -> None:
    grey = np.full((3, 100, 100), 90, np.uint8)
    write_raster(tmp_path / "grey.tif", grey, from_bounds(*AREA, 100, 100), "EPSG:3857")
    west, south, east, north = to_wgs84(AREA)
    middle = (west + east) / 2
    halves = np.array([shapely.box(west, south, middle, north), shapely.box(middle, south, east, north)])
    drawn = [shapely.buffer(half, -1e-4, join_style="mitre") for half in halves]
    shown = draw(
        GeoTiffImagery(tmp_path / "grey.tif"), AREA, np.array(drawn), np.array([0.99, 0.4]), height=100, width=100
    ).astype(int)
    outlined = (shown != 90).any(axis=2)
    red, green, _ = np.moveaxis(shown, -1, 0)
    left, right = outlined[:, :50], outlined[:, 50:]
    assert left.sum() > 100
    assert right.sum() > 100
    assert (green > red)[:, :50][left].all()
    assert (red > green)[:, 50:][right].all()


def test_where_there_is_no_imagery_it_is_black(tmp_path: Path) -> None:
    left, bottom, _, top = AREA
    grey = np.full((3, 100, 50), 90, np.uint8)
    write_raster(tmp_path / "half.tif", grey, from_bounds(left, bottom, AREA.centre[0], top, 50, 100), "EPSG:3857")
    shown = draw(GeoTiffImagery(tmp_path / "half.tif"), AREA, np.empty(0, object), np.empty(0), height=100, width=100)
    assert (shown[:, :49] == 90).all()
    assert not shown[:, 51:].any()
