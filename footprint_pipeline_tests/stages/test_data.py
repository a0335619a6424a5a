"""The data stages, as a user with files of their own meets them."""

import shutil
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from rasterio.enums import ColorInterp

from footprint_pipeline.dataset.polygons import read_polygon_table
from footprint_pipeline.footprints.area import geodesic_area_m2
from footprint_pipeline.lake import AoiFolder, Lake
from footprint_pipeline.settings import Settings
from footprint_pipeline.spacenet.areas import Aoi, Part, Patterns, Source
from footprint_pipeline.spacenet.catalog import load_catalog
from footprint_pipeline.spacenet.sources import resolve_source
from footprint_pipeline.spacenet.synthetic.city import CitySpec, write_city
from footprint_pipeline.stages.data import collect_polygons, draw_masks, fetch_tiles, fetched
from footprint_pipeline_tests.stages.prepared import TILES, prepare_city


def test_one_geopackage_of_all_buildings_makes_the_masks_of_a_table(tmp_path: Path) -> None:
    of_table = prepare_city(tmp_path)
    own = tmp_path / "own"
    shutil.copytree(next((tmp_path / "source").rglob("3band")), own / "imagery")
    buildings = read_polygon_table(of_table.polygons)[["geometry"]].to_crs("EPSG:32723")
    buildings.to_file(own / "buildings.gpkg")

    aoi = Aoi("Mine", "Mine", (Source((Part(str(own)),)),), patterns=Patterns("3band_{tile}.tif", summary="*.gpkg"))
    folder = Lake(tmp_path).aoi("Mine")
    fetch_tiles(Settings(home=tmp_path), aoi, folder, tiles=None, on_bad_tile="fail")
    collected = collect_polygons(folder, skip_bad_labels=False)
    draw_masks(folder)

    assert len(collected.polygons.table) == len(buildings)
    assert (collected.counts.outside, collected.counts.unlabelled) == (0, ())
    for mine, its in zip(masks(folder), masks(of_table), strict=True):
        assert (mine != its).sum() <= 2  # centres of pixels that lie on an outline, there and back between two systems


def test_buildings_listed_twice_and_parts_of_them_change_nothing_but_a_count(tmp_path: Path) -> None:
    once = prepare_city(tmp_path)
    own = tmp_path / "own"
    shutil.copytree(next((tmp_path / "source").rglob("3band")), own / "3band")
    (own / "geojson").mkdir()
    buildings = read_polygon_table(once.polygons)
    for path in (own / "3band").iterdir():
        name = path.stem.removeprefix("3band_")
        of_tile = buildings[buildings["tile_id"] == name].sort_values("building_id")[["geometry"]]
        parts = of_tile.scale(0.8, 0.8).to_frame("geometry") if len(of_tile) else of_tile
        both = pd.concat([of_tile, of_tile, parts.iloc[::3]])
        (own / f"geojson/Geo_{name}.geojson").write_text(both.to_json())
    folder = Lake(tmp_path / "home").aoi("AOI_0_Synthetic")
    fetch_tiles(Settings(home=tmp_path), resolve_source(str(own), tmp_path), folder, tiles=None, on_bad_tile="fail")
    collected = collect_polygons(folder, skip_bad_labels=False)
    draw_masks(folder)
    assert len(collected.polygons.table) == len(buildings)
    assert collected.counts.covered == collected.polygons.covered > len(buildings)
    assert collected.counts.rows == len(buildings) + collected.counts.covered
    for mine, its in zip(masks(folder), masks(once), strict=True):
        assert np.array_equal(mine, its)


def masks(folder: AoiFolder) -> list[np.ndarray]:
    found = []
    for path in sorted(folder.masks.rglob("*.tif")):
        with rasterio.open(path) as mask:
            found.append(mask.read())
    assert len(found) == TILES
    return found


def test_tiles_fetched_before_the_summary_had_its_name_are_still_known(tmp_path: Path) -> None:
    folder = prepare_city(tmp_path)
    now = fetched(folder)
    assert now is not None
    assert now.summary is not None
    folder.layout.write_text(folder.layout.read_text().replace('"summary":', '"summary_csv":'))
    assert fetched(folder) == now


def test_a_large_image_is_cut_and_read_as_documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    code, _, rest = text.partition("### One large image")[2].partition("```python\n")[2].partition("```")
    entry = rest.partition("```yaml\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    city = write_city(tmp_path / "city", CitySpec(rows=3, columns=3, tile_height=347, tile_width=360))
    with rasterio.open(city.mosaic) as mosaic:
        rgb, profile = mosaic.read([1, 2, 3]), mosaic.profile
    assert rgb.shape == (3, 1041, 1080)  # of which 17 rows are left below
    with rasterio.open("orthophoto.tif", "w", **{**profile, "driver": "GTiff", "count": 4, "nodata": None}) as photo:
        photo.colorinterp = ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha
        opaque = np.full_like(rgb[:1], 255)
        opaque[:, :30, :40] = 0
        whole = np.concatenate([rgb, opaque])
        photo.write(whole)

    exec(compile(code, "data.md", "exec"), {})  # noqa: S102
    buildings = gpd.read_file(city.folder / "buildings.geojson")
    buildings.to_file(tmp_path / "town" / "buildings.gpkg")
    (tmp_path / "aois.yaml").write_text(entry.replace("/data/town", "town"))
    folder = Lake(tmp_path).aoi("Town")
    _, index = fetch_tiles(
        Settings(home=tmp_path), load_catalog(tmp_path)["Town"], folder, tiles=None, on_bad_tile="skip"
    )
    assert {tile_id for tile_id, _ in index.skipped} == {"1024_0", "1024_512", "1024_1024"}
    assert sorted(index.table["tile_id"]) == ["0_0", "0_1024", "0_512", "512_0", "512_1024", "512_512"]
    for tile in index.table.itertuples():
        y, x = map(int, tile.tile_id.split("_"))
        with rasterio.open(tile.path) as cut:
            assert np.array_equal(cut.read(), whole[:, y : y + 512, x : x + 512])
            assert cut.colorinterp[3] == ColorInterp.alpha
    collected = collect_polygons(folder, skip_bad_labels=False)
    assert collected.counts.outside == 0
    drawn_m2 = geodesic_area_m2(buildings.geometry.to_numpy()).sum()
    on_tiles_m2 = shapely.area(collected.polygons.table["geometry_px"]).sum() * index.table["gsd_x_m"].iloc[0] ** 2
    assert on_tiles_m2 == pytest.approx(drawn_m2, rel=0.02)
