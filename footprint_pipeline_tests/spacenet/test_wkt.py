from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import shapely

from footprint_pipeline.spacenet.wkt import polygons_from_wkt

ODD_NUMBERS = [
    *("-0", "-0.0", "007.50", "1e5", "8.5e+1", "-2.5E-07", "1e-05", "1e0000000001", "1e999", "-1e-999", "5e-324"),
    *("0.1000000000000000055511151231257827", "9007199254740993", "123456789012345678901234567890.5", "9" * 400),
    *("2.4703282292062328e-324", "1.7976931348623159e308", "0." + "0" * 99),
    *("nan", "NaN", "inf", "-Infinity", "+1", "1.", ".5", "1e", "0x1f", "--1", "1,5", "", "one", "१", "1_0"),
]
ODD_TEXTS = [
    "",
    " ",
    "\0",
    "POLYGON ((0 0,1 0,1 1,0 0))\nPOLYGON ((0 0,1 0,1 1,0 0))",
    *"""
POLYGON
POLYGON EMPTY
POLYGON Z EMPTY
POLYGON ()
POLYGON (())
POLYGON ((0 0))
;
POLYGON ((0 0, 0 0, 0 0, 0 0))
POLYGON ((0 0,1 0,0 0))
POLYGON ((0 0,1 0,1 1))
POLYGON ((0 0,1 0,1 1,0 1))
POLYGON Z ((0 0 1,1 0 2,1 1 3,0 0 4))
POLYGON ((0 0 1,1 0 2,1 1 3,0 0 4))
POLYGON Z ((0 0,1 0,1 1,0 0))
POLYGON M ((0 0 1,1 0 2,1 1 3,0 0 1))
POLYGON ((0 0 1 2,1 0 1 2,1 1 1 2,0 0 1 2))
POLYGON ((0 0,1 0 5,1 1,0 0))
POLYGON ((0 0,1 0,1 1,-0 0))
POLYGON ((0 0,1 0,1 1,0 0)))
POLYGON ((0 0,1 0,1 1,0 0)
POLYGON (0 0,1 0,1 1,0 0)
POLYGON ((0 0,1 0,1 1,0 0)) ;
POLYGN ((0 0,1 0,1 1,0 0))
POLYGON ((0 0;1 0;1 1;0 0))
POLYGON ((0 0,1 0,1 1,0 0))POLYGON ((0 0,1 0,1 1,0 0))
POINT (1 2)
LINESTRING (0 0,1 0,1 1,0 0)
GEOMETRYCOLLECTION (POLYGON ((0 0,1 0,1 1,0 0)))
SRID=4326;POLYGON ((0 0,1 0,1 1,0 0))
""".splitlines(),
]


def as_shapely_reads(texts: list[str]) -> np.ndarray:
    with np.errstate(all="ignore"):
        return shapely.force_2d(shapely.from_wkt(np.array(texts, object), on_invalid="ignore"))


def assert_same(texts: list[str]) -> np.ndarray:
    found, expected = polygons_from_wkt(pd.Series(texts, dtype=str)), as_shapely_reads(texts)
    assert found.shape == expected.shape
    differ = [
        text
        for text, one, other in zip(texts, shapely.to_wkb(found), shapely.to_wkb(expected), strict=True)
        if one != other
    ]
    assert differ == []
    return found


def ring_text(rng: np.random.Generator, ordinates: int, comma: str) -> str:
    """A ring that is mostly closed and long enough, of numbers as Python writes them, from tiny to huge."""
    points = rng.normal(size=(rng.integers(3, 9), ordinates)) * 10.0 ** rng.integers(-12, 6)
    if rng.random() < 0.9:
        points[-1] = points[0]
    return "(" + comma.join(" ".join(repr(float(value)) for value in point) for point in points) + ")"


def polygon_text(rng: np.random.Generator) -> str:
    ordinates = int(rng.integers(2, 4))
    comma = str(rng.choice([",", ", ", " , ", ",  "], p=[0.45, 0.45, 0.05, 0.05]))
    rings = comma.join(ring_text(rng, ordinates, comma) for _ in range(rng.choice([1, 2, 3], p=[0.8, 0.1, 0.1])))
    name = rng.choice(
        ["POLYGON ", "POLYGON Z ", "POLYGON", "polygon ", "POLYGON  ", " POLYGON "], p=[0.6, 0.2, *[0.05] * 4]
    )
    return f"{name}({rings})" if rng.random() < 0.95 else f"MULTI{name}(({rings}))"


def broken(rng: np.random.Generator, text: str) -> str:
    """The text with a character left out, doubled, or another in its place."""
    at = int(rng.integers(len(text)))
    return text[:at] + str(rng.choice(["", text[at] * 2, *' ,.()-eZ;\t\n0"'])) + text[at + 1 :]


def test_thousands_of_texts_are_read_as_shapely_reads_them() -> None:
    rng = np.random.default_rng(5)
    texts = [polygon_text(rng) for _ in range(20_000)]
    found = assert_same(texts)
    assert not shapely.has_z(found).any()
    kinds = shapely.get_type_id(found)
    assert (kinds == -1).sum() > 1000
    assert (kinds == 3).sum() > 10_000
    assert_same([broken(rng, text) for text in texts])


@pytest.mark.parametrize("point", ["{} 1", "1 {}", "{} 1 2", "1 2 {}"])
@pytest.mark.parametrize("ring", ["(({0},4 4,5 9,{0}))", "((4 4,{0},5 9,4 4))"])
def test_numbers_are_the_same_to_the_last_bit(point: str, ring: str) -> None:
    pad = " 7" if point.count(" ") == 2 else ""
    shape = ring.replace("4 4", f"4 4{pad}").replace("5 9", f"5 9{pad}")
    assert_same(["POLYGON " + shape.format(point.format(number)) for number in ODD_NUMBERS])


@pytest.mark.parametrize(
    "change", [str, str.lower, str.title, lambda text: f" {text}\t", lambda text: text.replace(" ", "  ")]
)
def test_odd_texts(change: Callable[[str], str]) -> None:
    assert_same([change(text) for text in ODD_TEXTS])


def test_nothing_and_no_text() -> None:
    assert polygons_from_wkt(pd.Series([], dtype=object)).shape == (0,)
    square = "POLYGON ((0 0,1 0,1 1,0 0))"
    found = polygons_from_wkt(pd.Series([None, square, None], index=[7, 7, 1], dtype=str))
    assert [shape is None for shape in found] == [True, False, True]
