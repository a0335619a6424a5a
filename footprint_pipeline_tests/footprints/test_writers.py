import json
from dataclasses import replace

import numpy as np
import pytest
import shapely
from shapely.geometry import shape

from footprint_pipeline.footprints.area import geodesic_area_m2
from footprint_pipeline.footprints.domain import LEVELS, InputProfile
from footprint_pipeline.footprints.extract import Extraction, Raster, Stages
from footprint_pipeline.footprints.mercator import Bounds
from footprint_pipeline.footprints.runtime import Runtime
from footprint_pipeline.footprints.unplaced import UnplacedExtraction
from footprint_pipeline.footprints.writers import feature_collection, multipolygon, pixel_collection

COURT = shapely.Polygon(
    shapely.box(10.12345678912, 50.0, 10.2, 50.1, ccw=False).exterior,
    [shapely.box(10.15, 50.02, 10.16, 50.03).exterior],
)


def extraction(*polygons: shapely.Polygon, out_of_domain: float | None = None) -> Extraction:
    profile = InputProfile(np.zeros((3, LEVELS), int), out_of_domain=out_of_domain)
    area = Bounds(0, 0, 1, 1)
    raster = Raster(np.zeros((4, 4, 1), np.float32), area, area, "tiles.example.com, zoom 18", Stages(), profile)
    count = len(polygons)
    return Extraction(
        raster,
        np.array(polygons, object),
        np.full(count, 0.87654321, np.float32),
        np.full(count, 123.456),
        0.7,
        np.zeros(count, bool),
    )


def test_a_feature_tells_what_it_was_made_from(runtime: Runtime) -> None:
    answer = feature_collection(extraction(COURT), runtime.spec, model_version="7", attribution="© the sky")
    (feature,) = json.loads(json.dumps(answer))["features"]
    assert feature["properties"] == {
        "confidence": 0.8765,
        "area_m2": 123.46,
        "outline": "raw",
        "model": "red-roofs",
        "model_version": "7",
        "tolerance": 0.7,
        "gsd_m": 0.5,
        "imagery": "tiles.example.com, zoom 18",
    }
    assert answer["attribution"] == "© the sky"
    assert "crs" not in answer


def test_how_far_out_of_domain_the_imagery_is_stands_on_the_collection_and_on_every_feature(runtime: Runtime) -> None:
    known = extraction(COURT, COURT, out_of_domain=0.98765)
    answer = json.loads(json.dumps(feature_collection(known, runtime.spec, model_version="7")))
    assert answer["out_of_domain"] == 0.988
    assert [feature["properties"]["out_of_domain"] for feature in answer["features"]] == [0.988, 0.988]
    assert "out_of_domain" not in feature_collection(extraction(COURT), runtime.spec, model_version="7")


def test_when_and_how_fine_the_imagery_is_stands_on_features_where_it_is_known(runtime: Runtime) -> None:
    known = extraction(COURT)
    profile = InputProfile(known.raster.profile.brightness, gsd_m=0.298765)
    dated = replace(known, raster=replace(known.raster, date="2024-05", profile=profile))
    (feature,) = feature_collection(dated, runtime.spec, model_version="7")["features"]
    assert (feature["properties"]["imagery_date"], feature["properties"]["imagery_gsd_m"]) == ("2024-05", 0.2988)


def test_geometry_is_as_rfc_7946_wants_it(runtime: Runtime) -> None:
    answer = feature_collection(extraction(COURT), runtime.spec, model_version="7")
    exterior, hole = json.loads(json.dumps(answer))["features"][0]["geometry"]["coordinates"]
    assert shapely.LinearRing(exterior).is_ccw
    assert not shapely.LinearRing(hole).is_ccw
    assert exterior[0] == exterior[-1]
    assert [10.1234568, 50.0] in exterior
    assert all(value == round(value, 7) for ring in (exterior, hole) for point in ring for value in point)


def test_ids_follow_place_and_version(runtime: Runtime) -> None:
    def ids(version: str, *polygons: shapely.Polygon) -> list[str]:
        answer = feature_collection(extraction(*polygons), runtime.spec, model_version=version)
        return [feature["id"] for feature in answer["features"]]

    other = shapely.box(0, 0, 1e-4, 1e-4)
    assert ids("7", COURT, other) == ids("7", COURT) + ids("7", other)
    assert len({*ids("7", COURT, other), *ids("8", COURT)}) == 3
    seen_anew = shapely.box(1e-6, -2e-6, 1.05e-4, 1.01e-4)
    assert ids("7", seen_anew) == ids("7", other) != ids("7", shapely.box(2e-5, 0, 1.2e-4, 1e-4))
    within = shapely.box(4e-5, 4e-5, 6e-5, 6e-5)  # a shed in the middle of another's yard
    assert len(set(ids("7", other, within, shapely.Polygon()))) == 2
    assert ids("7", within, other) == ids("7", other, within)[::-1]
    assert ids("7", other) == ids("7", within, other)[1:]  # as when small ones are left out


def test_rounding_leaves_valid_shapes_and_no_empty_ones(runtime: Runtime) -> None:
    pinched = shapely.Polygon([(0, 0), (1e-4, 0), (1e-4, 1e-4), (5e-5, 1e-8), (0, 1e-4)])
    sliver = shapely.box(0, 0, 1e-4, 1e-9)
    answer = feature_collection(extraction(pinched, sliver), runtime.spec, model_version="7")
    assert [shape(feature["geometry"]).is_valid for feature in answer["features"]] == [True, True]  # of `pinched`
    assert shape(multipolygon(extraction(pinched, sliver))).is_valid


def test_multipolygon_is_bare_and_can_be_empty() -> None:
    found = multipolygon(extraction(COURT, shapely.box(0, 0, 1, 1)), attribution="©")
    assert set(found) == {"type", "attribution", "coordinates"}
    assert shape(found).geom_type == "MultiPolygon"
    assert shape(found).area == pytest.approx(COURT.area + 1, rel=1e-4)
    assert multipolygon(extraction()) == {"type": "MultiPolygon", "coordinates": []}


def test_a_footprint_that_rounding_splits_is_several_with_an_area_each(runtime: Runtime) -> None:
    neck = 2e-9  # degrees: far narrower than the grid
    dumbbell = shapely.union_all(
        [
            shapely.box(10.0, 50.0, 10.0001, 50.0001),
            shapely.box(10.0001, 50.00005, 10.0002, 50.00005 + neck),
            shapely.box(10.0002, 50.0, 10.0004, 50.0001),
        ]
    )
    assert dumbbell.geom_type == "Polygon"
    assert shapely.set_precision(dumbbell, 1e-7).geom_type == "MultiPolygon"
    features = feature_collection(extraction(COURT, dumbbell, COURT), runtime.spec, model_version="1")["features"]
    assert len({feature["id"] for feature in features}) == 4
    assert [feature["properties"]["area_m2"] for feature in features[::3]] == [123.46, 123.46]
    halves = [shapely.box(10.0, 50.0, 10.0001, 50.0001), shapely.box(10.0002, 50.0, 10.0004, 50.0001)]
    for half, feature in zip(halves, features[1:3], strict=True):
        assert shape(feature["geometry"]).equals(half)
        area_m2 = geodesic_area_m2(np.array([half]))[0]
        assert feature["properties"] == features[0]["properties"] | {"area_m2": pytest.approx(area_m2, abs=0.01)}
    in_pixels = UnplacedExtraction(
        shapely.transform(np.array([dumbbell]), lambda at: (at - (10, 50)) * 1e5), np.ones(1, np.float32),
        np.full(1, 9.0), None, 0.5, "a picture", Stages(), extraction().raster.profile, np.zeros(1, bool),
    )  # fmt: skip
    found = pixel_collection(in_pixels, runtime.spec, model_version="1")["features"]
    assert [each["properties"]["area_px"] for each in found] == pytest.approx([100.0, 200.0])


def test_a_splinter_that_rounding_breaks_off_is_no_building(runtime: Runtime) -> None:
    splintered = shapely.union_all(
        [
            shapely.box(10.0, 50.0, 10.0001, 50.0001),
            shapely.box(10.0001, 50.00005, 10.0002, 50.00005 + 2e-9),  # a neck far narrower than the grid
            shapely.box(10.0002, 50.00004, 10.000204, 50.00006),
        ]
    )
    assert len(shapely.get_parts(shapely.set_precision(splintered, 1e-7))) == 2
    features = feature_collection(extraction(splintered), runtime.spec, model_version="1")["features"]
    (feature,) = features
    assert shape(feature["geometry"]).equals(shapely.box(10.0, 50.0, 10.0001, 50.0001))


def test_a_hole_that_shrinks_to_a_point_is_closed(runtime: Runtime) -> None:
    speck = [(10.05, 50.05), (10.05 + 1e-9, 50.05), (10.05, 50.05 + 1e-9)]
    house = shapely.Polygon(shapely.box(10, 50, 10.1, 50.1).exterior, [speck])
    assert house.is_valid
    (feature,) = feature_collection(extraction(house), runtime.spec, model_version="1")["features"]
    assert shape(feature["geometry"]).equals(shapely.box(10, 50, 10.1, 50.1))
    assert shape(multipolygon(extraction(house))).is_valid


def test_what_shrinks_to_a_point_is_not_written(runtime: Runtime) -> None:
    speck = shapely.Polygon([(10, 50), (10 + 1e-8, 50), (10, 50 + 1e-8)])
    assert feature_collection(extraction(speck), runtime.spec, model_version="1")["features"] == []
