"""A run that failed half-way, started once more as Dagster's daemon does: from where it failed."""

from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from footprint_pipeline.dataset.splits import read_manifests
from footprint_pipeline.definitions import build_definitions
from footprint_pipeline.lake import Lake
from footprint_pipeline.orchestration.local import prepare_home
from footprint_pipeline.settings import Settings
from footprint_pipeline.spacenet.own_areas import add_aoi
from footprint_pipeline.spacenet.synthetic.city import CitySpec, write_city

AOI = "AOI_7_Town"


def dataset_job() -> dg.JobDefinition:
    return build_definitions().resolve_job_def("dataset")


def done(result: dg.JobExecutionResult) -> set[str]:
    return {event.step_key for event in result.get_step_success_events()}


def test_what_is_made_already_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOOTPRINT_HOME", str(tmp_path))
    town = write_city(tmp_path / "town", CitySpec(rows=1, columns=4, tile_height=96, tile_width=96)).folder
    add_aoi(tmp_path, AOI, str(town))
    split = tmp_path / "split.csv"
    config = {"ops": {"split_manifests": {"config": {"assigned": str(split)}}}}
    job = dg.reconstructable(dataset_job)
    with dg.DagsterInstance.from_config(str(prepare_home(Settings(home=tmp_path)))) as instance:
        failed = dg.execute_job(job, instance, run_config=config, tags={"dagster/partition": AOI}, raise_on_error=False)
        assert not failed.success
        assert {"image_tiles", "building_polygons", "mask_tiles"} <= done(failed)
        masks = {path: path.stat().st_mtime_ns for path in Lake(tmp_path).aoi(AOI).masks.rglob("*.tif")}
        assert len(masks) == 4

        tiles = sorted(path.stem for path in masks)
        pd.DataFrame({"tile_id": tiles, "split": ["train", "train", "validation", "test"]}).to_csv(split, index=False)
        again = dg.execute_job(
            job, instance, run_config=config, tags={"dagster/partition": AOI},
            reexecution_options=dg.ReexecutionOptions.from_failure(failed.run_id, instance),
        )  # fmt: skip
        assert again.success
        assert "split_manifests" in done(again)
        assert not {"image_tiles", "building_polygons", "mask_tiles"} & done(again)
    assert {path: path.stat().st_mtime_ns for path in masks} == masks
    assert len(read_manifests([Lake(tmp_path).aoi(AOI).manifest])) == 4
