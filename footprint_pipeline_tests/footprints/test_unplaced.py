import json
from dataclasses import replace

import numpy as np
import pytest
import shapely
from shapely.geometry import shape

from footprint_pipeline.errors import RequestError
from footprint_pipeline.footprints.patch import Patch, TooCoarseError
from footprint_pipeline.footprints.runtime import Runtime
from footprint_pipeline.footprints.unplaced import extract_unplaced
from footprint_pipeline.footprints.writers import pixel_collection
from footprint_pipeline_tests.footprints.red_city import GREY, RED

ROOF = shapely.box(30, 20, 70, 50)


def picture(scale: int = 1) -> Patch:
    image = np.full((100, 120, 3), GREY, np.uint8)
    image[20:50, 30:70] = RED
    image = image.repeat(scale, 0).repeat(scale, 1)
    return Patch(image, np.ones(image.shape[:2], bool), "a picture")


def test_footprints_come_in_the_images_own_pixels(runtime: Runtime) -> None:
    found = extract_unplaced(runtime, picture())
    assert found.polygons_px[0].hausdorff_distance(ROOF) < 1
    assert len(found) == len(found.area_px) == 1
    assert found.area_px[0] == pytest.approx(40 * 30, rel=0.03)
    (feature,) = json.loads(json.dumps(pixel_collection(found, runtime.spec, model_version="7")))["features"]
    assert shape(feature["geometry"]).hausdorff_distance(ROOF) < 1
    assert "area_m2" not in feature["properties"]
    assert feature["properties"]["imagery"] == "a picture"


def test_outlines_may_be_regularised_and_end_where_the_image_does(runtime: Runtime) -> None:
    cut = picture()
    cut = replace(cut, pixels=cut.pixels[:, 40:], valid=cut.valid[:, 40:])
    raw = extract_unplaced(runtime, cut)
    drawn = extract_unplaced(runtime, cut, outline="regularised")
    assert (raw.regularised.tolist(), drawn.regularised.tolist()) == ([False], [True])
    assert shapely.get_num_coordinates(drawn.polygons_px[0]) <= 6 < shapely.get_num_coordinates(raw.polygons_px[0])
    assert drawn.polygons_px[0].bounds[0] == 0
    assert drawn.area_px[0] == drawn.polygons_px[0].area
    answers = [pixel_collection(each, runtime.spec, model_version="7")["features"][0] for each in (raw, drawn)]
    assert [answer["properties"]["outline"] for answer in answers] == ["raw", "regularised"]
    assert raw.area_px[0] < drawn.area_px[0]  # its corners are not blunt
    between_m2 = (raw.area_px[0] + drawn.area_px[0]) / 2 * runtime.spec.gsd_m**2
    assert len(extract_unplaced(runtime, cut, min_area_m2=between_m2)) == 0
    assert len(extract_unplaced(runtime, cut, min_area_m2=between_m2, outline="regularised")) == 1


def test_an_image_is_seen_at_the_models_resolution_and_told_in_its_own(runtime: Runtime) -> None:
    found = extract_unplaced(runtime, picture(4), gsd_m=0.125)
    assert found.profile.gsd_m == 0.125
    assert found.profile.brightness[0].sum() == 100 * 120
    assert found.polygons_px[0].hausdorff_distance(shapely.box(120, 80, 280, 200)) < 4
    answer = pixel_collection(found, runtime.spec, model_version="7")
    assert answer["features"][0]["properties"]["area_m2"] == pytest.approx(20 * 15, rel=0.03)


def test_small_ones_go(runtime: Runtime) -> None:
    assert len(extract_unplaced(runtime, picture(), min_area_m2=20 * 15 * 1.1)) == 0


def test_what_the_model_cannot_see_is_refused(runtime: Runtime) -> None:
    with pytest.raises(TooCoarseError, match=r"a picture: pixels of 3\.00 m"):
        extract_unplaced(runtime, picture(), gsd_m=3)
    with pytest.raises(RequestError, match="the most that one request may ask for"):
        extract_unplaced(runtime, Patch(np.zeros((5000, 5000, 3), np.uint8), np.ones((5000, 5000), bool), "x"), gsd_m=1)


def test_rounding_leaves_valid_shapes_in_pixels_too(runtime: Runtime) -> None:
    found = extract_unplaced(runtime, picture())
    neck = shapely.union_all([shapely.box(0, 0, 9, 9), shapely.box(9, 4, 12, 4.001), shapely.box(12, 0, 30, 9)])
    assert not shapely.is_valid(shapely.transform(neck, lambda points: np.round(points, 2)))
    found = replace(found, polygons_px=np.array([neck], object))
    features = pixel_collection(found, runtime.spec, model_version="7")["features"]
    areas = {feature["properties"]["area_px"]: shape(feature["geometry"]) for feature in features}
    assert sorted(areas) == [81.0, 162.0]
    assert areas[81.0].equals(shapely.box(0, 0, 9, 9))
    assert areas[162.0].equals(shapely.box(12, 0, 30, 9))
