from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from pyproj import Geod
from rasterio.transform import from_origin

from footprint_pipeline.errors import ImageryError, ModelError, NoImageryError, RequestError
from footprint_pipeline.footprints import extract as extracting
from footprint_pipeline.footprints.domain import LEVELS, DomainReference, InputProfile, brightness_counts
from footprint_pipeline.footprints.extract import (
    HALOS_PX,
    AreaTooLargeError,
    Extraction,
    Raster,
    Stages,
    extract,
    predict_patch,
    predict_raster,
)
from footprint_pipeline.footprints.geotiff import GeoTiffImagery
from footprint_pipeline.footprints.mercator import Bounds, Tile, project, tile_at, to_wgs84
from footprint_pipeline.footprints.normalization import Normalization
from footprint_pipeline.footprints.patch import TooCoarseError
from footprint_pipeline.footprints.regularize import Regularized
from footprint_pipeline.footprints.runtime import Runtime
from footprint_pipeline.footprints.xyz import XyzImagery
from footprint_pipeline_tests.footprints.red_city import (
    DEGREE_M,
    GSD_M,
    TileServer,
    http_server,
    roof,
    write_city,
    write_model,
    write_raster,
)
from footprint_pipeline_tests.overheard import overhear

PLACE = (-43.2, -22.9)
TILE = tile_at(*PLACE, 18)
NEXT = Tile(18, TILE.x + 1, TILE.y)
BELOW = Tile(18, TILE.x, TILE.y + 1)
AREA = to_wgs84(TILE.bounds_3857)
CITY = Bounds(AREA.left - 0.0008, AREA.bottom - 0.0025, AREA.right + 0.0025, AREA.top + 0.0008)
MIDDLE = AREA.centre
PIXEL_M = GSD_M * 1.5


def city(folder: Path, *roofs: Bounds, **options: object) -> GeoTiffImagery:
    return GeoTiffImagery(write_city(folder / "city.tif", CITY, list(roofs), **options))


def box(bounds: Bounds) -> shapely.Polygon:
    return shapely.box(*bounds)


def area_m2(polygon: shapely.Polygon) -> float:
    return abs(Geod(ellps="WGS84").geometry_area_perimeter(polygon)[0])


def distance_m(found: shapely.Polygon, painted: Bounds) -> float:
    """How far the two outlines are apart at most, metres (longitudes shrunk to metres too)."""
    return found.hausdorff_distance(box(painted)) * DEGREE_M


def only(extraction: Extraction) -> shapely.Polygon:
    assert len(extraction) == 1
    return extraction.polygons_wgs84[0]


def test_a_building_comes_back_where_it_stands_and_as_large_as_it_is(runtime: Runtime, tmp_path: Path) -> None:
    painted = roof(*MIDDLE, 24, 15)
    found = extract(runtime, city(tmp_path, painted), TILE.bounds_3857)
    assert distance_m(only(found), painted) < PIXEL_M
    assert found.area_m2[0] == pytest.approx(24 * 15, rel=0.03)
    assert found.area_m2[0] == pytest.approx(area_m2(only(found)))
    assert found.confidence[0] > 0.95
    assert found.tolerance == 0.5
    assert only(found).exterior.is_ccw
    assert set(found.raster.stages) == {"imagery", "predict", "vectorize"}
    assert found.raster.source == "city.tif"


def test_the_grid_is_the_models_own_resolution(runtime: Runtime, tmp_path: Path) -> None:
    raster = predict_raster(runtime, city(tmp_path, roof(*MIDDLE, 10, 10)), TILE.bounds_3857, halo_px=32)
    ground_m = (TILE.bounds_3857.right - TILE.bounds_3857.left) * np.cos(np.radians(MIDDLE[1]))
    left, top, right, bottom = raster.inside
    assert [right - left, bottom - top] == pytest.approx([ground_m / GSD_M] * 2, rel=2e-3)
    covered, (height, width, _) = raster.padded_3857, raster.padded.shape
    assert (covered.right - covered.left) / width == pytest.approx((covered.top - covered.bottom) / height)


@pytest.mark.parametrize("metres", range(100, 118, 3))
@pytest.mark.parametrize(("halo_px", "least"), [(32, 16), (16, 0), (0, 0)])
def test_the_halo_ends_where_a_multiple_of_the_networks_stride_does(
    runtime: Runtime, tmp_path: Path, metres: int, halo_px: int, least: int
) -> None:
    left, top = TILE.bounds_3857.left + metres, TILE.bounds_3857.top - metres
    area, imagery = Bounds(left, top - metres, left + metres, top), city(tmp_path, roof(*MIDDLE, 10, 10))
    raster = predict_raster(runtime, imagery, area, halo_px=halo_px)
    height, width, _ = raster.padded.shape
    west, north, east, south = raster.inside
    assert all(least <= halo < least + runtime.spec.stride for halo in (west, north, width - east, height - south))
    assert height % runtime.spec.stride == width % runtime.spec.stride == 0


def test_a_building_looks_the_same_whatever_area_is_asked_for(runtime: Runtime, tmp_path: Path) -> None:
    imagery = city(tmp_path, roof(*MIDDLE, 21.3, 14.7))
    known, (x, y) = extract(runtime, imagery, TILE.bounds_3857), project(np.array([MIDDLE]))[0]
    for west, south, east, north in np.random.default_rng(0).uniform(10, 25, (10, 4)).tolist():
        found = extract(runtime, imagery, Bounds(x - west, y - south, x + east, y + north))
        assert np.abs(shapely.get_coordinates(only(found)) - shapely.get_coordinates(only(known))).max() < 1e-10
        assert found.confidence == known.confidence


def test_a_network_that_pools_answers_the_same_whatever_area_is_asked_for(runtime: Runtime, tmp_path: Path) -> None:
    class Pooling:
        spec = runtime.spec

        def __call__(self, batch: np.ndarray) -> np.ndarray:
            side = self.spec.stride
            count, height, width, _ = batch.shape
            blocks = batch[..., :1].reshape(count, height // side, side, width // side, side, 1).mean(axis=(2, 4))
            return blocks.repeat(side, axis=1).repeat(side, axis=2)

    imagery = city(tmp_path, *(roof(MIDDLE[0] + dx, MIDDLE[1] + dx / 2, 7, 9) for dx in (-4e-4, -1e-4, 0, 3e-4)))
    known, (x, y) = predict_raster(Pooling(), imagery, TILE.bounds_3857), project(np.array([MIDDLE]))[0]
    for west, south, east, north in np.random.default_rng(0).uniform(10, 60, (10, 4)).tolist():
        asked = predict_raster(Pooling(), imagery, Bounds(x - west, y - south, x + east, y + north), halo_px=16)
        left, top, right, bottom = (round(side) for side in known.to_pixels(asked.padded_3857))
        assert np.abs(known.padded[top:bottom, left:right] - asked.padded)[1:-1, 1:-1].max() < 0.01


@pytest.mark.parametrize(("neighbour", "axis"), [(NEXT, 0), (BELOW, 1)])
@pytest.mark.parametrize("off_m", [-4.0, 4.0])
@pytest.mark.parametrize("length_m", [30.0, 130.0])
def test_a_building_on_a_seam_comes_back_whole_and_once(
    runtime: Runtime, tmp_path: Path, neighbour: Tile, axis: int, off_m: float, length_m: float
) -> None:
    """The longer one reaches beyond the first halo on both sides."""
    off = off_m / DEGREE_M
    if axis == 0:
        painted = roof(AREA.right + off, MIDDLE[1], length_m, 12)
    else:
        painted = roof(MIDDLE[0], AREA.bottom + off, 12, length_m)
    imagery = city(tmp_path, painted)
    answers = [extract(runtime, imagery, tile.bounds_3857) for tile in (TILE, neighbour)]
    assert [len(answer) for answer in answers] == ([1, 0] if (off_m < 0) == (axis == 0) else [0, 1])
    whole = only(next(answer for answer in answers if len(answer)))
    assert distance_m(whole, painted) < PIXEL_M
    assert area_m2(whole) == pytest.approx(length_m * 12, rel=0.06)


def test_a_building_beyond_the_last_halo_is_cut_there(runtime: Runtime, tmp_path: Path) -> None:
    painted = roof(AREA.right - 1 / DEGREE_M, MIDDLE[1], 100, 12)
    found = extract(runtime, city(tmp_path, painted), TILE.bounds_3857, halos_px=(16,))
    assert only(found).bounds[2] < painted.right - 10 / DEGREE_M


def test_courtyards_stay_open(runtime: Runtime, tmp_path: Path) -> None:
    longitude, latitude = MIDDLE
    wings = [roof(longitude, latitude + dy / DEGREE_M, 40, 10) for dy in (-15, 15)]
    wings += [roof(longitude + dx / DEGREE_M, latitude, 10, 40) for dx in (-16, 16)]
    imagery = city(tmp_path, *wings)
    found = extract(runtime, imagery, TILE.bounds_3857)
    assert len(only(found).interiors) == 1
    assert not only(found).interiors[0].is_ccw
    assert found.area_m2[0] == pytest.approx(area_m2(only(found)))
    assert found.area_m2[0] < 0.8 * area_m2(shapely.Polygon(only(found).exterior))


def test_what_the_imagery_looks_like_is_counted_in_the_area_without_its_surroundings(
    runtime: Runtime, tmp_path: Path
) -> None:
    imagery = city(tmp_path, roof(*MIDDLE, 24, 15))
    wide, narrow = (predict_raster(runtime, imagery, TILE.bounds_3857, halo_px=halo) for halo in (64, 16))
    counts = wide.profile.brightness
    left, top, right, bottom = (round(side) for side in wide.inside)
    assert counts.sum(axis=1).tolist() == [(right - left) * (bottom - top)] * 3
    assert {level for level in range(16) if counts[0, level]} >= {120 // 16, 255 // 16}  # the ground and the roof
    assert counts[0, 15] * GSD_M**2 == pytest.approx(24 * 15, rel=0.15)
    assert np.abs(counts - narrow.profile.brightness).max() < 0.01 * counts.max()
    assert wide.profile.out_of_domain is None  # this model does not say what it was trained on


def test_a_model_that_knows_what_it_was_trained_on_tells_what_is_unlike_it(tmp_path: Path) -> None:
    deep = Normalization(high=(512, 512, 512))
    ground = brightness_counts(np.full((8, 8, 3), 60, np.uint8), np.ones((8, 8), bool))
    darker = brightness_counts(np.full((8, 8, 3), 30, np.uint8), np.ones((8, 8), bool))
    domain = DomainReference.of([ground] * 19 + [darker])
    knowing = Runtime(write_model(tmp_path / "knowing", domain=domain, normalization={"AOI_1": deep}), threads=1)
    alike = predict_raster(knowing, city(tmp_path, dtype=np.uint16), TILE.bounds_3857)  # 120 of 512: 60 of 255
    unlike = predict_raster(knowing, city(tmp_path), TILE.bounds_3857)
    assert alike.profile.out_of_domain == 0
    assert unlike.profile.out_of_domain == 1


def test_tolerance_and_smallest_area_can_be_asked_for(runtime: Runtime, tmp_path: Path) -> None:
    imagery = city(tmp_path, roof(*MIDDLE, 10, 10), roof(MIDDLE[0] + 0.0003, MIDDLE[1], 4, 4))
    assert len(extract(runtime, imagery, TILE.bounds_3857)) == 2
    assert len(extract(runtime, imagery, TILE.bounds_3857, min_area_m2=40.0)) == 1
    everything = extract(runtime, imagery, TILE.bounds_3857, tolerance=1.0)
    assert everything.tolerance == 1.0
    assert everything.area_m2.max() > 10_000


def test_where_an_area_has_its_own_tolerance_that_is_the_models(tmp_path: Path) -> None:
    imagery, (x, y) = city(tmp_path, roof(*MIDDLE, 10, 10)), MIDDLE
    own = {"own_tolerances": {"Rio": 0.9}, "aois": ("Rio",)}
    for places, tolerance in (((x - 0.01, y - 0.01, x, y), 0.9), ((x + 1, y, x + 1.1, y + 0.1), 0.5)):
        spec = {**own, "places": {"Rio": (places,)}}
        runtime = Runtime(write_model(tmp_path / f"model_{tolerance}", **spec), threads=1)
        assert extract(runtime, imagery, TILE.bounds_3857).tolerance == tolerance
        assert extract(runtime, imagery, TILE.bounds_3857, tolerance=0.3).tolerance == 0.3


def test_the_models_own_smallest_area_counts(tmp_path: Path) -> None:
    strict = Runtime(write_model(tmp_path / "strict", min_area_m2=40.0), threads=1)
    imagery = city(tmp_path, roof(*MIDDLE, 10, 10), roof(MIDDLE[0] + 0.0003, MIDDLE[1], 4, 4))
    assert len(extract(strict, imagery, TILE.bounds_3857)) == 1


def test_nothing_there_is_an_empty_answer(runtime: Runtime, tmp_path: Path) -> None:
    found = extract(runtime, city(tmp_path), TILE.bounds_3857)
    assert len(found) == len(found.confidence) == len(found.area_m2) == 0


def test_no_imagery_in_the_area_is_an_error_even_if_the_halo_has_some(runtime: Runtime, tmp_path: Path) -> None:
    imagery = GeoTiffImagery(write_city(tmp_path / "left.tif", AREA._replace(right=AREA.right - 1e-6), []))
    with pytest.raises(NoImageryError, match=r"left\.tif: no imagery around latitude -22\.8"):
        extract(runtime, imagery, NEXT.bounds_3857)


def test_no_building_stands_where_there_is_no_imagery(tmp_path: Path) -> None:
    eager = Runtime(write_model(tmp_path / "eager", tolerance=1.0), threads=1)
    half = AREA._replace(right=MIDDLE[0])
    imagery = GeoTiffImagery(write_city(tmp_path / "half.tif", half, []))
    found = extract(eager, imagery, TILE.bounds_3857, halos_px=(0,))
    assert found.polygons_wgs84[0].bounds[2] == pytest.approx(MIDDLE[0], abs=1.5 * GSD_M / DEGREE_M)


@pytest.mark.parametrize(("missing", "nodata"), [(-9999.0, -9999.0), (0.0, None), (None, None)])
def test_what_is_no_imagery_is_black_to_the_network_and_edges_are_mirrored_as_in_training(
    runtime: Runtime, tmp_path: Path, missing: float | None, nodata: float | None
) -> None:
    seen: list[np.ndarray] = []

    class Recording:
        spec = runtime.spec.model_copy(
            update={"normalization": {"AOI_1": Normalization(low=(-2, -2, -2), high=(2, 2, 2))}}
        )

        def __call__(self, images: np.ndarray) -> np.ndarray:
            seen.append(images)
            return runtime(images)

    pixels = np.full((3, 64, 64), 1.0, np.float32)
    if missing is not None:
        pixels[:, :, 40:] = missing
    write_raster(tmp_path / "a.tif", pixels, from_origin(0, 32, 0.5, 0.5), "EPSG:3857", nodata=nodata)
    patch = GeoTiffImagery(tmp_path / "a.tif").read(Bounds(0, 0, 40, 32), 64, 80)
    predict_patch(Recording(), patch)
    assert np.array_equal(patch.valid.all(axis=0), np.arange(80) < (64 if missing is None else 40))
    assert (seen[0][0][patch.valid] == 0.75).all()
    assert (seen[0][0][~patch.valid] == (0.75 if missing is None else 0.0)).all()  # beyond column 64, too


def test_too_much_at_once_says_which_zoom_is_the_coarsest(runtime: Runtime, tmp_path: Path) -> None:
    imagery = city(tmp_path)
    with pytest.raises(RequestError, match="16,777,216 px at most") as error:
        extract(runtime, imagery, tile_at(*PLACE, 10).bounds_3857)
    assert error.value.fix == "Ask for zoom 15 or finer."
    tile = tile_at(*PLACE, 14).bounds_3857
    with pytest.raises(RequestError):
        extract(runtime, imagery, tile)
    with pytest.raises(RequestError) as error:  # whoever asks for this gave no zoom
        extract(runtime, imagery, tile._replace(right=tile.right + 1))
    assert error.value.fix == "Ask for a rectangle of 4.19 km² at most, 8.192 km to a side."


def test_deeper_imagery_is_stretched_as_in_training(runtime: Runtime, tmp_path: Path) -> None:
    painted = roof(*MIDDLE, 24, 15)
    imagery = city(tmp_path, painted, dtype=np.uint16)
    with pytest.raises(ImageryError, match="trained on 8-bit"):
        extract(runtime, imagery, TILE.bounds_3857)
    deep = Normalization(low=(0, 0, 0), high=(256, 256, 256))
    one = write_model(tmp_path / "one", normalization={"AOI_1": Normalization(), "AOI_2": deep, "AOI_3": deep})
    found = extract(Runtime(one, threads=1), imagery, TILE.bounds_3857)
    assert distance_m(only(found), painted) < PIXEL_M
    two = write_model(tmp_path / "two", normalization={"AOI_2": deep, "AOI_3": Normalization(high=(900, 900, 900))})
    with pytest.raises(ImageryError, match="2 different stretches"):
        extract(Runtime(two, threads=1), imagery, TILE.bounds_3857)


def test_a_model_that_answers_nonsense_is_named_as_such(tmp_path: Path, runtime: Runtime) -> None:
    class Broken:
        spec = runtime.spec

        def __call__(self, batch: np.ndarray) -> np.ndarray:
            return np.full((*batch.shape[:3], 1), np.nan, np.float32)

    with pytest.raises(ModelError, match="not numbers"):
        extract(Broken(), city(tmp_path), TILE.bounds_3857)


@pytest.mark.parametrize("side", [256, 512])
def test_slippy_tiles_serve_as_well_as_a_file(runtime: Runtime, side: int) -> None:
    painted = roof(*MIDDLE, 24, 15)
    with http_server(TileServer([painted], side=side)) as server:
        found = extract(runtime, XyzImagery(server.address + "/{z}/{x}/{y}.png"), TILE.bounds_3857)
    assert distance_m(only(found), painted) < PIXEL_M
    assert found.area_m2[0] == pytest.approx(24 * 15, rel=0.05)
    assert found.raster.source.startswith("127.0.0.1, zoom 1")


def test_projected_corners_are_those_of_the_tile() -> None:
    assert project(np.array([(AREA.left, AREA.top)]))[0] == pytest.approx(
        (TILE.bounds_3857.left, TILE.bounds_3857.top), abs=1e-6
    )


def test_a_long_strip_is_too_much_though_its_pixels_are_few(runtime: Runtime, tmp_path: Path) -> None:
    left, bottom, _, _ = TILE.bounds_3857
    strip = Bounds(left, bottom, left + 20_000, bottom + 2)
    with pytest.raises(AreaTooLargeError, match="16,384 px to a side"):
        extract(runtime, city(tmp_path), strip)


def test_only_buildings_whose_centre_lies_in_the_polygon_are_told(runtime: Runtime, tmp_path: Path) -> None:
    west, east = roof(MIDDLE[0] - 0.0003, MIDDLE[1], 16, 16), roof(MIDDLE[0] + 0.0003, MIDDLE[1], 12, 12)
    imagery = city(tmp_path, west, east)
    triangle = shapely.Polygon([(AREA.left, AREA.bottom), (MIDDLE[0] - 0.0002, AREA.bottom), (AREA.left, AREA.top + 1)])
    found = extract(runtime, imagery, TILE.bounds_3857, within_wgs84=triangle)
    assert distance_m(only(found), west) < PIXEL_M
    both = extract(runtime, imagery, TILE.bounds_3857)
    assert len(both) == 2


def test_outlines_may_be_regularised(runtime: Runtime, tmp_path: Path) -> None:
    roofs = [roof(*MIDDLE, 24, 15), roof(MIDDLE[0] + 0.0004, MIDDLE[1], 4, 4), roof(MIDDLE[0], MIDDLE[1] + 3e-4, 9, 30)]
    imagery = city(tmp_path, *roofs)
    raw = extract(runtime, imagery, TILE.bounds_3857)
    drawn = extract(runtime, imagery, TILE.bounds_3857, outline="regularised")
    assert not raw.regularised.any()
    assert drawn.regularised.tolist() == [True] * 3
    assert drawn.confidence.tolist() == raw.confidence.tolist()
    for before, after, area in zip(raw.polygons_wgs84, drawn.polygons_wgs84, drawn.area_m2, strict=True):
        assert shapely.get_num_coordinates(after) == 5 < shapely.get_num_coordinates(before)
        assert after.exterior.is_ccw
        assert area == pytest.approx(area_m2(after))
        assert after.intersection(before).area / after.union(before).area > 0.85
    assert "regularize" in drawn.raster.stages
    assert len(extract(runtime, city(tmp_path), TILE.bounds_3857, outline="regularised")) == 0


def test_what_is_too_small_is_told_by_the_outline_that_is_answered(runtime: Runtime, tmp_path: Path) -> None:
    imagery = city(tmp_path, roof(*MIDDLE, 24, 15))
    raw, drawn = (extract(runtime, imagery, TILE.bounds_3857, outline=outline) for outline in ("raw", "regularised"))
    assert drawn.area_m2[0] > raw.area_m2[0]  # its corners are not blunt
    between = (drawn.area_m2[0] + raw.area_m2[0]) / 2
    for outline, count in (("raw", 0), ("regularised", 1)):
        assert len(extract(runtime, imagery, TILE.bounds_3857, outline=outline, min_area_m2=between)) == count


def test_a_building_belongs_to_the_same_area_however_it_is_drawn(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told by outlines that lie somewhere else altogether."""

    def elsewhere(polygons: np.ndarray) -> Regularized:
        return Regularized(shapely.transform(polygons, lambda xy: xy + 400), np.ones(len(polygons), bool))

    monkeypatch.setattr("footprint_pipeline.footprints.extract.regularize", elsewhere)
    imagery = city(tmp_path, roof(*MIDDLE, 24, 15))
    around = shapely.box(*roof(*MIDDLE, 4, 4))
    for area, count in ((TILE, 1), (NEXT, 0), (BELOW, 0)):
        assert len(extract(runtime, imagery, area.bounds_3857, outline="regularised")) == count
    found = extract(runtime, imagery, TILE.bounds_3857, outline="regularised", within_wgs84=around)
    assert not only(found).intersects(around)


def test_imagery_that_is_too_coarse_is_refused(tmp_path: Path) -> None:
    fine = Runtime(write_model(tmp_path / "fine", gsd_m=0.2), threads=1)
    with pytest.raises(TooCoarseError, match=r"too coarse for this model, which works at 0\.2 m"):
        extract(fine, city(tmp_path), TILE.bounds_3857)


def test_imagery_of_fractions_is_stretched_as_in_training(runtime: Runtime, tmp_path: Path) -> None:
    reflectance = Normalization(low=(0.02, 0.02, 0.02), high=(0.4, 0.4, 0.4))
    folder = write_model(tmp_path / "light", normalization={"AOI_1": reflectance})
    painted = roof(*MIDDLE, 24, 15)
    city(tmp_path, painted)
    with rasterio.open(tmp_path / "city.tif") as source:
        pixels = 0.02 + 0.38 * source.read().astype(np.float32) / 255
        write_raster(tmp_path / "light.tif", pixels, source.transform, str(source.crs), photometric="MINISBLACK")
    found = extract(Runtime(folder, threads=1), GeoTiffImagery(tmp_path / "light.tif"), TILE.bounds_3857)
    assert distance_m(only(found), painted) < PIXEL_M


def test_footprints_beyond_the_antimeridian_are_on_the_maps_other_side(runtime: Runtime) -> None:
    last = Tile(18, 2**18 - 1, 2**17 - 1).bounds_3857
    side = last.right - last.left
    area = to_wgs84(Tile(18, 0, 2**17 - 1).bounds_3857)
    painted = Bounds(area.left + 2e-4, area.bottom + 3e-4, area.left + 4e-4, area.top - 3e-4)
    with http_server(TileServer([painted])) as server:
        imagery = XyzImagery(server.address + "/{z}/{x}/{y}.png")
        found = extract(runtime, imagery, Bounds(last.left + side / 2, last.bottom, last.right + side / 2, last.top))
    assert distance_m(only(found), painted) < PIXEL_M


def test_a_point_on_an_edge_belongs_to_one_of_the_two_areas() -> None:
    def raster(left: float, top: float) -> Raster:
        area = Bounds(left, top - 8.0, left + 8.0, top)
        padded = Bounds(-16.0, -16.0, 16.0, 16.0)
        return Raster(
            np.zeros((32, 32, 1), np.float32), padded, area, "", Stages(), InputProfile(np.zeros((3, LEVELS), int))
        )

    corner = np.array([shapely.Point(16.0, 16.0)])
    owners = [bool(extracting._owned(corner, raster(left, top))[0]) for left in (-8.0, 0.0) for top in (0.0, 8.0)]
    assert sum(owners) == 1


def test_no_one_looks_farther_around_than_it_takes(runtime: Runtime, tmp_path: Path) -> None:
    looked = []

    def predict(*asked: object, halo_px: int, **more: object) -> Raster:
        looked.append(halo_px)
        return predict_raster(*asked, halo_px=halo_px, **more)

    extract(runtime, city(tmp_path, roof(*MIDDLE, 24, 15)), TILE.bounds_3857, predict=predict)
    assert looked == [HALOS_PX[0]]


def test_a_regularised_outline_gives_way_to_neighbours_beyond_the_area_as_well(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = overhear(monkeypatch, extracting, "vectorize")
    shown = city(tmp_path, roof(*MIDDLE, 24, 15))
    extract(runtime, shown, TILE.bounds_3857, outline="regularised")
    assert told["reaching_into"] is None
    extract(runtime, shown, TILE.bounds_3857)
    assert told["reaching_into"] is not None


def test_confidence_is_what_comes_true_by_the_models_curve(tmp_path: Path) -> None:
    shown = city(tmp_path, roof(*MIDDLE, 24, 15))
    said, told = (
        extract(Runtime(write_model(tmp_path / name, **how), threads=1), shown, TILE.bounds_3857).confidence
        for name, how in (("plain", {}), ("curved", {"calibration": ((0.5, 0.2), (1.0, 0.6))}))
    )
    assert told == pytest.approx(0.2 + (said - 0.5) * 0.8)
    assert told[0] < 0.61 < said[0]
