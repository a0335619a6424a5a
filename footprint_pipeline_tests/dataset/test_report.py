import cv2
import geopandas as gpd
import numpy as np
import pytest
import shapely

from footprint_pipeline.dataset.exploration import Colours
from footprint_pipeline.dataset.report import content, crops, figures, maps
from footprint_pipeline.dataset.report.page import Part, Picture, Section, Table, render_page

GREY = [crops.NO_IMAGERY] * 3


def decoded(png: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def cropped(shape: shapely.Geometry, *, size: int = 96, gsd_m: float = 0.5, **options: object) -> crops.Crop:
    image = np.full((96, 120, 3), 90, np.uint8)
    others = [shapely.box(60, 60, 70, 70)]
    valid = options.get("valid", np.ones((96, 120), bool))
    return crops.crop_building(image, valid, np.array([*others, shape]), 1, gsd_m=gsd_m, title="t", size=size)


def test_a_crop_has_its_building_in_the_middle_outlined_and_the_neighbour_thin() -> None:
    crop = cropped(shapely.box(50, 40, 60, 50))
    assert crop.width_m == 24.0  # 48 pixels: a small building is shown with its surroundings
    assert crop.image.shape == (96, 96, 3)
    own = (crop.image == crops.OWN).all(axis=2)
    rows, columns = np.nonzero(own)
    assert abs(rows.mean() - 48) < 1.5
    assert abs(columns.mean() - 48) < 1.5
    assert np.ptp(rows) == pytest.approx(20, abs=2)  # ten pixels of the tile, twice as large
    assert crop.image[48, 48].tolist() == [90, 90, 90]
    assert crop.image.min(axis=2).max() > 120  # the neighbour's white line, thin


def test_a_large_building_is_shown_whole() -> None:
    crop = cropped(shapely.box(20, 20, 60, 45))
    assert crop.width_m == 96 * 0.5
    assert np.ptp(np.nonzero((crop.image == crops.OWN).all(axis=2))[1]) == pytest.approx(40, abs=2)


def test_what_has_no_imagery_is_grey_also_beyond_the_tile() -> None:
    valid = np.ones((96, 120), bool)
    valid[:, :10] = False
    crop = cropped(shapely.box(0, 0, 8, 8), valid=valid)
    assert crop.image[2, 50].tolist() == GREY  # above the tile
    assert crop.image[60, 30].tolist() == GREY  # within, but not valid
    assert crop.image[60, 80].tolist() == [90, 90, 90]


def test_a_building_too_small_to_see_has_a_ring_around_it() -> None:
    own = (cropped(shapely.box(50, 40, 51, 41)).image == crops.OWN).all(axis=2)
    assert np.ptp(np.nonzero(own)[1]) == pytest.approx(32, abs=3)


def test_holes_are_outlined_too() -> None:
    yard = shapely.Polygon(shapely.box(40, 30, 70, 60).exterior, [shapely.box(50, 40, 60, 50).exterior])
    crop = cropped(yard)
    assert (crop.image == crops.OWN).all(axis=2)[40:60].sum() > 4 * 20


def test_a_tile_smaller_than_a_crop_is_framed() -> None:
    image, valid = np.full((12, 10, 3), 90, np.uint8), np.ones((12, 10), bool)
    crop = crops.crop_building(image, valid, np.array([shapely.box(2, 2, 9, 11)]), 0, gsd_m=0.5, title="t", size=120)
    assert crop.width_m == 6.0
    assert (crop.image[:, :3] > 200).all()  # ten columns of twelve are the tile
    assert crop.image[60, 60].tolist() == [90, 90, 90]


def test_a_row_of_crops_is_a_light_png_of_full_width() -> None:
    rng = np.random.default_rng(0)
    size = crops.crop_size(3)
    noise = [crops.Crop(rng.integers(0, 256, (size, size, 3), np.uint8), f"{i}", 24.0) for i in range(3)]
    png = crops.crop_row(noise, columns=3)
    assert decoded(png).shape[1] == figures.WIDEST
    assert len(png) < 450_000  # pure noise: no photograph is heavier
    assert decoded(crops.crop_row(noise[:1], columns=3)).shape[1] == figures.WIDEST


def tiles(rows: int, columns: int, *, apart: float = 1.0, block: bool = False) -> gpd.GeoDataFrame:
    size = 0.002
    places = [(row, column) for row in range(rows) for column in range(columns)]
    outlines = [
        shapely.box(c * size * apart, r * size * apart, c * size * apart + size, r * size * apart + size)
        for r, c in places
    ]
    numbers = np.arange(len(places))
    table = gpd.GeoDataFrame(
        {
            "coverage": numbers / max(len(numbers), 1),
            "buildings": numbers,
            "split": [("train", "validation", "test", "guard", "left out")[n % 5] for n in numbers],
        },
        geometry=outlines,
        crs="EPSG:4326",
    )
    return table.assign(block=[f"r{r // 2}c{c // 2}" for r, c in places]) if block else table


@pytest.mark.parametrize(
    "options",
    [
        {"rows": 1, "columns": 1},
        {"rows": 1, "columns": 20, "block": True},
        {"rows": 3, "columns": 2, "apart": 40.0},
    ],
)
def test_maps_of_any_shape_of_area_fit_the_page(options: dict[str, object]) -> None:
    picture = decoded(maps.maps(tiles(**options)))
    assert picture.shape[1] == figures.WIDEST
    assert 150 < picture.shape[0] < 1200
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


def test_an_area_on_both_sides_of_the_antimeridian_is_drawn_as_one() -> None:
    anywhere = tiles(3, 4, block=True)
    across = anywhere.set_geometry(anywhere.translate(179.996))
    across = across.set_geometry(
        [shapely.box(west - 360 * (west >= 180), south, east - 360 * (west >= 180), north)
         for west, south, east, north in across.bounds.to_numpy().round(6)], crs=across.crs
    )  # fmt: skip
    assert across.total_bounds[2] - across.total_bounds[0] > 359
    picture, expected = decoded(maps.maps(across)), decoded(maps.maps(anywhere))
    assert picture.shape == expected.shape
    assert np.abs(picture.astype(int) - expected).mean() < 1
    assert maps.side_by_side(across).total_bounds == pytest.approx([179.996, 0, 180.004, 0.006])
    assert maps.side_by_side(anywhere) is anywhere
    assert content._place(-17.0, 180.25) == "17.0000° S 179.7500° W"


def test_blocks_are_drawn_as_far_as_the_manifest_tells() -> None:
    assert maps.blocks(tiles(4, 4)) == []
    assert maps.blocks(tiles(4, 4).assign(block=[f"{i}@tile" for i in range(16)])) == []
    found = maps.blocks(tiles(4, 4, apart=1.05, block=True))  # tiles that do not quite touch
    assert len(found) == 4
    assert all(isinstance(block, shapely.Polygon) and not block.interiors for block in found)
    assert found[0].bounds == pytest.approx((0, 0, 0.0041, 0.0041))


@pytest.mark.parametrize("areas", [[], [5, 50, 500, 5e3, 5e4, 5e5]])
def test_sizes_are_drawn_whatever_there_is(areas: list[float]) -> None:
    assert decoded(figures.size_distribution(np.array(areas, float))).shape[1] == figures.WIDEST


def test_the_other_plots_are_drawn_for_one_and_for_many() -> None:
    for counts in ([0], list(range(300))):
        assert decoded(figures.buildings_per_tile(np.array(counts))).shape[1] == figures.WIDEST
    colours = Colours(np.ones((3, 256), np.int64), 1, 256, 255, 0, 0)
    nothing = Colours(np.zeros((3, 256), np.int64), 0, 0, 0, 0, 0)
    for many in ({"a": nothing}, {str(i): colours for i in range(5)}):
        assert decoded(figures.colour_histograms(many)).shape[1] == figures.WIDEST


def test_a_page_escapes_what_it_is_given_and_knows_its_pictures_sizes() -> None:
    png = crops.crop_row([], columns=6)
    picture = Picture("p", png, 'a "quoted" <alt>', "caption", "heading")
    table = Table(["<head>", "n"], [["row & name", "1 < 2"]], "folded table", folded=True)
    page = render_page(
        "<title>", "sub", [Section("key", "Section", [Part([picture], table, beside=True)], [("3", "t")])]
    )
    assert "<title>&lt;title&gt;</title>" in page
    assert 'alt="a &#34;quoted&#34; &lt;alt&gt;"' in page
    assert "row &amp; name" in page
    assert f'width="{figures.WIDEST}" height="{decoded(png).shape[0]}"' in page
    assert '<a href="#key">' in page
