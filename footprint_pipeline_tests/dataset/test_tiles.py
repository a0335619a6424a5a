import math
import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from footprint_pipeline.dataset import stretch
from footprint_pipeline.dataset.tiles import index_tiles, normalization, read_tile, read_tile_index, write_tile_index
from footprint_pipeline.errors import DatasetError, TileError
from footprint_pipeline.footprints.geotiff import GeoTiffImagery
from footprint_pipeline.footprints.mercator import Bounds
from footprint_pipeline.footprints.normalization import UINT8
from footprint_pipeline_tests.dataset.conftest import GSD_DEG, NORTH, UTM, WEST, degrees, metres, write_image

A, E2 = 6378137.0, 0.0066943799901413165  # WGS 84: semi-major axis, first eccentricity squared


def grey(height: int = 30, width: int = 40, value: int = 90, dtype: str = "uint8") -> np.ndarray:
    return np.full((height, width, 3), value, dtype)


def test_a_geographic_tile_is_described(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.tif", grey())
    row = index_tiles([("a", path)], aoi="Rio").table.iloc[0]
    assert (row["tile_id"], row["aoi"], row["path"]) == ("a", "Rio", str(path))
    assert (row["width"], row["height"], row["dtype"], row["crs"]) == (40, 30, "uint8", "EPSG:4326")
    assert list(row["transform"]) == list(degrees())[:6]
    assert row["valid_share"] == 1.0
    assert normalization(row) == UINT8
    assert row["geometry"].bounds == pytest.approx((WEST, NORTH - 30 * GSD_DEG, WEST + 40 * GSD_DEG, NORTH), abs=1e-12)


def test_ground_sample_distance_follows_the_ellipsoid(tmp_path: Path) -> None:
    row = index_tiles([("a", write_image(tmp_path / "a.tif", grey()))], aoi="Rio").table.iloc[0]
    sine, cosine = math.sin(math.radians(NORTH)), math.cos(math.radians(NORTH))
    step = math.radians(GSD_DEG)
    assert row["gsd_x_m"] == pytest.approx(step * A * cosine / math.sqrt(1 - E2 * sine**2), rel=1e-5)
    assert row["gsd_y_m"] == pytest.approx(step * A * (1 - E2) / (1 - E2 * sine**2) ** 1.5, rel=1e-5)


def test_a_projected_tile_is_measured_on_the_ground(tmp_path: Path) -> None:
    on_the_central_meridian = rasterio.Affine(0.3, 0, 500_000 - 6, 0, -0.3, 7_467_000)
    path = write_image(tmp_path / "a.tif", grey(40, 40), crs=UTM, transform=on_the_central_meridian)
    row = index_tiles([("a", path)], aoi="Rio").table.iloc[0]
    assert (row["gsd_x_m"], row["gsd_y_m"]) == pytest.approx((0.3 / 0.9996, 0.3 / 0.9996), rel=1e-6)
    west, _, east, _ = row["geometry"].bounds
    assert (west + east) / 2 == pytest.approx(-45.0, abs=1e-9)
    assert row["crs"] == UTM


def test_the_index_is_sorted_and_comes_back_from_disk(tmp_path: Path) -> None:
    pairs = [
        (name, write_image(tmp_path / f"{name}.tif", grey(), transform=degrees(i))) for i, name in enumerate("cab")
    ]
    index = index_tiles(pairs, aoi="Rio")
    assert index.table["tile_id"].tolist() == ["a", "b", "c"]
    write_tile_index(index, tmp_path / "lake" / "tiles.parquet")
    again = read_tile_index(tmp_path / "lake" / "tiles.parquet")
    assert again.crs == index.table.crs
    for name in index.table.columns:
        assert [np.asarray(value).tolist() for value in again[name]] == [
            np.asarray(value).tolist() for value in index.table[name]
        ], name
    assert normalization(next(again.itertuples())) == UINT8
    assert [path.name for path in (tmp_path / "lake").iterdir()] == ["tiles.parquet"]


def test_no_index_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="Materialize image_tiles"):
        read_tile_index(tmp_path / "none.parquet")
    index = index_tiles([("a", write_image(tmp_path / "a.tif", grey()))], aoi="Rio")
    index.table.drop(columns="gamma").to_parquet(tmp_path / "old.parquet")
    with pytest.raises(DatasetError, match=r"(?s)old\.parquet: is of an older form.*Materialize image_tiles"):
        read_tile_index(tmp_path / "old.parquet")


def test_sixteen_bits_are_stretched_between_their_own_percentiles(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    images = [rng.integers(100, 2048, (60, 70, 3)).astype(np.uint16) for _ in range(3)]
    images[0][:20, :30] = 0  # off the scene: must not pull the percentile down
    images[1][5, 5] = 60_000  # a glint
    pairs = [
        (str(i), write_image(tmp_path / f"{i}.tif", image, transform=degrees(i))) for i, image in enumerate(images)
    ]
    table = index_tiles(pairs, aoi="Vegas").table
    images[0] = images[0].astype(float)
    images[0][:20, :30] = np.nan
    pixels = np.concatenate([image.reshape(-1, 3) for image in images])
    for band in range(3):
        low, high = np.nanpercentile(pixels[:, band], [1, 99])
        for row in table.itertuples():
            assert normalization(row).low[band] == pytest.approx(low, abs=2)
            assert normalization(row).high[band] == pytest.approx(high, abs=2)


def test_eight_and_sixteen_bits_in_one_aoi_keep_their_own_scale(tmp_path: Path) -> None:
    wide = np.random.default_rng(1).integers(1, 2000, (30, 40, 3)).astype(np.uint16)
    pairs = [
        ("a", write_image(tmp_path / "a.tif", grey())),
        ("b", write_image(tmp_path / "b.tif", wide, transform=degrees(1))),
    ]
    eight, sixteen = (normalization(row) for row in index_tiles(pairs, aoi="X").table.itertuples())
    assert eight == UINT8
    assert min(sixteen.high) > 1900


def test_black_areas_are_no_imagery_but_black_pixels_are(tmp_path: Path) -> None:
    image = grey(50, 60)
    image[:, :12] = 0  # beyond the edge of the scene
    image[20, 30] = image[30:34, 40:44] = 0  # shadows
    image[40:46, 20:26] = 0  # large enough to be a hole in the imagery
    image[10, 50] = (0, 0, 80)
    expected = np.ones((50, 60), bool)
    expected[:, :12] = expected[40:46, 20:26] = False
    pixels, valid = read_tile(write_image(tmp_path / "a.tif", image))
    assert np.array_equal(pixels, image)
    assert np.array_equal(valid, expected)
    row = index_tiles([("a", tmp_path / "a.tif")], aoi="X").table.iloc[0]
    assert row["valid_share"] == pytest.approx(expected.mean())


def test_the_files_own_nodata_value_counts_at_every_pixel(tmp_path: Path) -> None:
    image = grey()
    image[7, 9] = 255
    image[8, 9] = (255, 10, 10)
    _, valid = read_tile(write_image(tmp_path / "a.tif", image, nodata=255))
    assert not valid[7, 9]
    assert valid.sum() == valid.size - 1


def test_only_the_first_three_bands_are_read(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(1, 255, (20, 20, 8), np.uint8)
    pixels, _ = read_tile(write_image(tmp_path / "a.tif", image))
    assert np.array_equal(pixels, image[..., :3])
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize(
    ("told", "rgb"),
    [
        (("blue", "green", "red", "undefined"), [2, 1, 0]),
        (("undefined", "undefined", "undefined", "undefined"), [0, 1, 2]),
        (("alpha", "undefined", "undefined", "undefined"), [1, 2, 3]),
    ],
)
def test_red_is_found_wherever_it_is_as_in_the_service(tmp_path: Path, told: tuple[str, ...], rgb: list[int]) -> None:
    image = np.full((20, 20, 4), (50, 100, 150, 200), np.uint8)
    path = write_image(tmp_path / "a.tif", image, crs="EPSG:3857", transform=rasterio.Affine(1, 0, 0, 0, -1, 20))
    with rasterio.open(path, "r+") as source:
        source.colorinterp = [ColorInterp[name] for name in told]
    assert np.array_equal(read_tile(path)[0], image[..., rgb])
    assert np.array_equal(GeoTiffImagery(path).read(Bounds(0, 0, 20, 20), 20, 20).pixels, image[..., rgb])


def broken(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.tif"
    if kind == "garbage":
        path.write_bytes(b"this is no image" * 40)
    elif kind == "empty":
        path.touch()
    elif kind == "truncated":
        whole = write_image(folder / "whole.tif", np.random.default_rng(0).integers(1, 255, (90, 90, 3), np.uint8))
        path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    elif kind == "one-band":
        write_image(path, grey()[..., :1])
    elif kind == "without-crs":
        write_image(path, grey(), crs=None)
    return path


@pytest.mark.parametrize("kind", ["garbage", "empty", "truncated", "missing", "one-band", "without-crs"])
def test_a_bad_tile_is_skipped_or_fatal_and_named_either_way(tmp_path: Path, kind: str) -> None:
    good = write_image(tmp_path / "good.tif", grey())
    pairs = [("bad", broken(tmp_path, kind)), ("good", good)]
    index = index_tiles(pairs, aoi="Rio")
    assert index.table["tile_id"].tolist() == ["good"]
    ((tile_id, reason),) = index.skipped
    assert tile_id == "bad"
    assert f"{kind}.tif" in reason
    with pytest.raises(TileError, match=f"{kind}.tif") as caught:
        index_tiles(pairs, aoi="Rio", on_bad_tile="fail")
    assert caught.value.fix
    with pytest.raises(DatasetError, match=f"none of its 1 tiles can be read.*{kind}.tif"):
        index_tiles(pairs[:1], aoi="Rio")


def test_a_tile_that_is_too_small_is_a_bad_tile(tmp_path: Path) -> None:
    shapes = {"good": (32, 40), "low": (31, 40), "narrow": (40, 3)}
    pairs = [(name, write_image(tmp_path / f"{name}.tif", grey(*shape))) for name, shape in shapes.items()]
    index = index_tiles(pairs, aoi="Rio", least_side_px=32)
    assert index.table["tile_id"].tolist() == ["good"]
    assert index.skipped == (
        ("low", "low.tif: has 40 × 31 pixels, 32 each way are needed."),
        ("narrow", "narrow.tif: has 3 × 40 pixels, 32 each way are needed."),
    )
    with pytest.raises(TileError, match=r"low\.tif: has 40 × 31 pixels"):
        index_tiles(pairs, aoi="Rio", least_side_px=32, on_bad_tile="fail")


def test_no_tile_at_all_is_an_error() -> None:
    with pytest.raises(DatasetError, match="none of its 0 tiles"):
        index_tiles([], aoi="Rio")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_an_identity_transform_is_no_georeference(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.tif", grey(), transform=rasterio.Affine.identity())
    with pytest.raises(TileError, match="no georeference"):
        index_tiles([("a", path)], aoi="Rio", on_bad_tile="fail")


def deep_tiles(folder: Path, dtype: str, scale: float, offset: float) -> list[tuple[str, Path]]:
    """Three tiles of a deep type: uniform in [offset, offset + scale), the third twice as large."""
    rng = np.random.default_rng(1)
    pairs = []
    for number, height in enumerate((60, 60, 120)):
        image = (rng.random((height, 70, 3)) * [scale, scale / 2, scale] + offset).astype(dtype)
        path = write_image(folder / f"{number}.tif", image, transform=degrees(number, 70))
        pairs.append((f"img{number}", path))
    return pairs


@pytest.mark.parametrize(
    ("dtype", "scale", "offset"),
    [
        ("int16", 3000, -1000),
        ("int8", 200, -100),
        ("uint32", 90_000, 70_000),
        ("float32", 0.4, 0.1),
        ("float64", 9, -3),
    ],
)
def test_every_type_is_stretched_between_its_percentiles(
    tmp_path: Path, dtype: str, scale: float, offset: float
) -> None:
    pairs = deep_tiles(tmp_path, dtype, scale, offset)
    pixels = np.concatenate([read_tile(path)[0].reshape(-1, 3) for _, path in pairs])
    assert pixels.dtype == dtype
    for row in index_tiles(pairs, aoi="X").table.itertuples():
        low, high = np.percentile(pixels, [1, 99], axis=0, method="inverted_cdf")
        assert normalization(row).low == pytest.approx(low.tolist())
        assert normalization(row).high == pytest.approx(high.tolist())
        scaled = normalization(row).to_uint8(read_tile(Path(row.path))[0])
        assert 122 < scaled.mean() < 133


def test_a_sample_stands_for_all_pixels_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stretch, "SAMPLE", 4000)  # of 16,800: gathered, and thinned more than once
    pairs = deep_tiles(tmp_path, "float32", 1.0, 0.0)
    row = index_tiles(pairs, aoi="X").table.iloc[0]
    assert normalization(row).low == pytest.approx((0.01, 0.005, 0.01), abs=0.006)
    assert normalization(row).high == pytest.approx((0.99, 0.495, 0.99), abs=0.006)
    assert normalization(row) != normalization(index_tiles(pairs[1:], aoi="X").table.iloc[0])


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_neither_threads_nor_order_change_the_index(
    tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stretch, "SAMPLE", 3000)
    rng = np.random.default_rng(3)
    pairs = []
    for number in range(20):
        image = (rng.random((30 + number, 40, 3)) * 900 + 50 * number).astype(dtype)
        pairs.append((f"img{number}", write_image(tmp_path / f"{number}.tif", image, transform=degrees(number))))
    bad = ("img5x", tmp_path / "none.tif")
    one = index_tiles([*pairs, bad], aoi="X", threads=1)
    many = index_tiles([bad, *reversed(pairs)], aoi="X", threads=7)
    assert one.skipped == many.skipped
    assert one.table.to_json() == many.table.to_json()
    assert [row.tile_id for row in one.table.itertuples()] == sorted(tile_id for tile_id, _ in pairs)


def test_what_is_not_finite_is_no_imagery_and_does_not_spoil_the_stretch(tmp_path: Path) -> None:
    image = np.random.default_rng(0).uniform(1, 2, (40, 50, 3)).astype(np.float32)
    image[:10] = np.nan
    image[10, 3] = (1.5, np.inf, 1.5)
    image[11, 3] = -np.inf
    path = write_image(tmp_path / "a.tif", image)
    expected = np.isfinite(image).all(axis=-1)
    assert np.array_equal(read_tile(path)[1], expected)
    row = index_tiles([("a", path)], aoi="X").table.iloc[0]
    assert row["valid_share"] == expected.mean()
    low, high = np.percentile(image[expected], [1, 99], axis=0, method="inverted_cdf")
    assert normalization(row).low == pytest.approx(low.tolist())
    assert normalization(row).high == pytest.approx(high.tolist())
    scaled = normalization(row).to_uint8(read_tile(path)[0])
    assert (scaled[:10] == 0).all()
    assert scaled[10, 3, 1] == 255
    assert (scaled[11, 3] == 0).all()


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_imagery_of_one_value_or_none_becomes_black(tmp_path: Path, dtype: str) -> None:
    flat = write_image(tmp_path / "flat.tif", grey(value=7, dtype=dtype))
    none = write_image(tmp_path / "none.tif", grey(value=7, dtype=dtype), nodata=7)
    for path, low in ((flat, 7.0), (none, 0.0)):
        row = index_tiles([("a", path)], aoi="X").table.iloc[0]
        assert (normalization(row).low, normalization(row).high) == ((low,) * 3, (low + 1,) * 3)
    row = index_tiles([("a", flat)], aoi="X").table.iloc[0]
    assert not normalization(row).to_uint8(read_tile(flat)[0]).any()


def test_an_alpha_band_says_where_imagery_is(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.tif", np.full((20, 30, 4), 90, np.uint8))
    with rasterio.open(path, "r+") as source:
        source.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
        source.write(np.repeat([[0], [255]], 10, axis=0).repeat(30, axis=1).astype(np.uint8), 4)
    assert np.array_equal(read_tile(path)[1], np.arange(20)[:, None].repeat(30, axis=1) >= 10)


def test_bands_of_several_types_or_of_complex_numbers_are_refused(tmp_path: Path) -> None:
    complex_path = write_image(tmp_path / "complex.tif", grey().astype(np.complex64))
    with pytest.raises(TileError, match=r"complex\.tif: holds complex numbers"):
        read_tile(complex_path)
    eight = write_image(tmp_path / "eight.tif", grey())
    bands = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{band}"><SimpleSource><SourceFilename>{eight}</SourceFilename>'
        f"<SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
        for band, kind in enumerate(("Byte", "UInt16", "Byte"), start=1)
    )
    mixed = tmp_path / "mixed.vrt"
    mixed.write_text(
        f'<VRTDataset rasterXSize="40" rasterYSize="30"><GeoTransform>1,1,0,1,0,-1</GeoTransform>{bands}</VRTDataset>'
    )
    with pytest.raises(TileError, match=r"mixed\.vrt: cannot be read as an image \(more than one 'dtype'"):
        read_tile(mixed)


def test_a_tile_outside_its_crs_is_a_bad_tile(tmp_path: Path) -> None:
    nowhere = write_image(tmp_path / "a.tif", grey(), crs=UTM, transform=rasterio.Affine(1, 0, 1e12, 0, -1, 1e12))
    local = 'LOCAL_CS["yard",UNIT["metre",1]]'
    yard = write_image(tmp_path / "b.tif", grey(), crs=local, transform=rasterio.Affine(1, 0, 5, 0, -1, 5))
    good = write_image(tmp_path / "c.tif", grey())
    index = index_tiles([("a", nowhere), ("b", yard), ("c", good)], aoi="X")
    assert index.table["tile_id"].tolist() == ["c"]
    assert "outside the range of its own CRS" in index.skipped[0][1]
    assert "its CRS leads nowhere" in index.skipped[1][1]


def test_a_tile_across_the_antimeridian_is_a_bad_tile(tmp_path: Path) -> None:
    fiji, metres = "EPSG:3832", rasterio.Affine(1, 0, 3339584.7 - 20, 0, -1, -2e6)  # 180° lies 3,339,584.7 m east
    across = write_image(tmp_path / "a.tif", grey(), crs=fiji, transform=metres)
    beside = write_image(tmp_path / "b.tif", grey(), crs=fiji, transform=rasterio.Affine.translation(-100, 0) * metres)
    index = index_tiles([("a", across), ("b", beside)], aoi="X")
    assert index.table["tile_id"].tolist() == ["b"]
    assert "lies across the antimeridian" in index.skipped[0][1]


def test_progress_says_how_many_and_how_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("footprint_pipeline.many.SAY_EVERY_S", -1.0)
    path = write_image(tmp_path / "a.tif", grey())
    with caplog.at_level("INFO"):
        index_tiles([("a", path), ("bad", tmp_path / "none.tif"), ("c", path)], aoi="Rio")
    said = [record.getMessage() for record in caplog.records if record.message.startswith("Rio")]
    assert [text.partition(",")[0] for text in said] == [f"Rio tiles: {done} of 3" for done in (1, 2, 3)]
    assert re.fullmatch(r"Rio tiles: 3 of 3, [\d,.]+ a second, 0 s left", said[-1])


def test_a_utm_tile_lies_where_it_is(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.tif", grey(), crs=UTM, transform=metres())
    outline = index_tiles([("a", path)], aoi="Rio").table.to_crs(UTM).geometry.iloc[0]
    assert outline.bounds == pytest.approx((643_000, 7_467_000 - 15, 643_020, 7_467_000), abs=1e-5)


def test_a_tile_that_is_gone_is_told_from_one_that_is_broken(tmp_path: Path) -> None:
    with pytest.raises(TileError, match=r"a\.tif: is not there any more\.\n.*footprint prepare --source"):
        read_tile(tmp_path / "a.tif")
