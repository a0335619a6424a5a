import logging
from pathlib import Path

import geopandas as gpd
import pandas as pd
import pytest
import shapely

from footprint_pipeline.dataset.shared_ground import warn_of_shared_ground
from footprint_pipeline.dataset.tiles import TileIndex, write_tile_index
from footprint_pipeline.lake import Lake
from footprint_pipeline_tests.dataset import test_shared_ground

SIDE = 0.002


def prepare(lake: Lake, aoi: str, splits: list[str], *, west: float) -> pd.DataFrame:
    """An AOI whose tiles lie side by side; its manifest."""
    rows = {"tile_id": [f"t{number}" for number in range(len(splits))], "aoi": aoi}
    outlines = [shapely.box(west + n * SIDE, 0, west + (n + 1) * SIDE, SIDE) for n in range(len(splits))]
    others = dict.fromkeys(("path", "width", "height", "gsd_x_m", "gsd_y_m", "low", "high", "gamma"), 0)
    table = gpd.GeoDataFrame({**rows, **others}, geometry=outlines, crs="EPSG:4326")
    write_tile_index(TileIndex(table), lake.aoi(aoi).tiles)
    return pd.DataFrame({**rows, "split": splits})


@pytest.mark.parametrize(
    ("west", "north_splits", "told"),
    [
        (0.0, ["train", "validation", "train"], ["South/t1 (train) on North/t1 (validation)", "1 tiles"]),
        (0.0, ["test"] * 3, ["South/t0 (train) on North/t0 (test)", "3 tiles"]),
        (0.0, ["train"] * 3, []),
        (0.0, ["guard"] * 3, []),
        (2.995 * SIDE, ["test"] * 3, []),
        (2.9 * SIDE, ["test"] * 3, ["South/t2 (train) on North/t0 (test)", "1 tiles"]),
        (9.0, ["test"] * 3, []),
    ],
)
def test_ground_that_one_area_teaches_and_another_judges_on_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, west: float, north_splits: list[str], told: list[str]
) -> None:
    lake = Lake(tmp_path)
    south = prepare(lake, "South", ["train"] * 3, west=0.0)
    north = prepare(lake, "North", north_splits, west=west)
    far = prepare(lake, "Far", ["train", "test"], west=50.0)
    with caplog.at_level(logging.WARNING):
        warn_of_shared_ground(lake, pd.concat([south, north, far]))
    assert len(caplog.messages) == bool(told)
    for words in [*told, *(["North and South share ground", "--assign"] if told else [])]:
        assert words in caplog.text
    caplog.clear()
    warn_of_shared_ground(lake, pd.concat([far]))
    assert caplog.messages == []


def test_a_small_tile_on_a_large_one_of_another_area_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(tmp_path)
    south = prepare(lake, "South", ["train"], west=0.0)
    monkeypatch.setattr(test_shared_ground, "SIDE", SIDE / 15)
    north = prepare(lake, "North", ["test"], west=SIDE / 2)
    with caplog.at_level(logging.WARNING):
        warn_of_shared_ground(lake, pd.concat([south, north]))
    assert "South/t0 (train) on North/t0 (test)" in caplog.text
