"""A run that failed half-way, started once more from where it failed: by hand, and by Dagster's daemon."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from footprint_pipeline.dataset.splits import read_manifests
from footprint_pipeline.definitions import build_definitions
from footprint_pipeline.lake import Lake
from footprint_pipeline.orchestration.local import ROOT, prepare_home
from footprint_pipeline.orchestration.retraining import RETRIES
from footprint_pipeline.settings import Settings
from footprint_pipeline.spacenet.synthetic.city import CitySpec, write_city
from footprint_pipeline_tests.areas import add_aoi

AOI = "AOI_7_Town"


def dataset_job() -> dg.JobDefinition:
    return build_definitions().resolve_job_def("dataset")


def done(result: dg.JobExecutionResult) -> set[str]:
    return {event.step_key for event in result.get_step_success_events()}


@contextmanager
def daemon(environment: dict[str, str], log: Path) -> Iterator[None]:
    """Dagster's daemon on the home of the environment, as the UI and the containers run it."""
    program = [Path(sys.executable).parent / "dagster-daemon", "run", "-w", ROOT / "workspace.yaml"]
    with log.open("w") as lines, subprocess.Popen(program, env=environment, cwd=ROOT, stderr=lines, stdout=lines) as it:
        try:
            yield
        finally:
            it.terminate()


def ended(instance: dg.DagsterInstance, run_id: str, *, patience_s: float = 240) -> dg.DagsterRun:
    until = time.monotonic() + patience_s
    while not (run := instance.get_run_by_id(run_id)).is_finished:
        assert time.monotonic() < until, f"{run_id} is {run.status} after {patience_s} s"
        time.sleep(0.2)
    return run


def steps_done(instance: dg.DagsterInstance, run_id: str) -> set[str]:
    return {entry.step_key for entry in instance.all_logs(run_id, dg.DagsterEventType.STEP_SUCCESS)}


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


@pytest.mark.slow
def test_the_daemon_starts_a_failed_run_once_more_from_where_it_failed(tmp_path: Path) -> None:
    town = write_city(tmp_path / "town", CitySpec(rows=1, columns=4, tile_height=96, tile_width=96)).folder
    add_aoi(tmp_path, AOI, str(town))
    split = tmp_path / "split.csv"
    folder = prepare_home(Settings(home=tmp_path))
    environment = {
        **os.environ, "DAGSTER_HOME": str(folder), "FOOTPRINT_HOME": str(tmp_path), "PYTHONWARNINGS": "ignore",
        "DAGSTER_EVENT_LOG_CONSUMER_DAEMON_INTERVAL_SECONDS": "1", "DAGSTER_GRPC_TIMEOUT_SECONDS": "300",
    }  # fmt: skip
    config = {"ops": {"split_manifests": {"config": {"assigned": str(split)}}}}
    launch = [
        Path(sys.executable).parent / "dagster", "job", "launch", "-w", ROOT / "workspace.yaml", "-j", "dataset",
        "--tags", json.dumps({"dagster/partition": AOI, **RETRIES}), "--config-json", json.dumps(config),
    ]  # fmt: skip
    with dg.DagsterInstance.from_config(str(folder)) as instance, daemon(environment, tmp_path / "daemon.log"):
        subprocess.run(launch, env=environment, cwd=ROOT, check=True, capture_output=True)
        (asked,) = instance.get_runs()
        failed = ended(instance, asked.run_id)
        assert failed.status == dg.DagsterRunStatus.FAILURE
        assert {"image_tiles", "building_polygons", "mask_tiles"} <= steps_done(instance, failed.run_id)
        tiles = sorted(path.stem for path in Lake(tmp_path).aoi(AOI).masks.rglob("*.tif"))
        pd.DataFrame({"tile_id": tiles, "split": ["train", "train", "validation", "test"]}).to_csv(split, index=False)

        until = time.monotonic() + 60
        while not (retried := instance.get_run_by_id(asked.run_id).tags.get("dagster/auto_retry_run_id")):
            assert time.monotonic() < until, (tmp_path / "daemon.log").read_text()
            time.sleep(0.2)
        again = ended(instance, retried)
        assert again.status == dg.DagsterRunStatus.SUCCESS
        assert again.parent_run_id == failed.run_id
        assert "split_manifests" in steps_done(instance, retried)
        assert not {"image_tiles", "building_polygons", "mask_tiles"} & steps_done(instance, retried)
    assert len(read_manifests([Lake(tmp_path).aoi(AOI).manifest])) == 4
