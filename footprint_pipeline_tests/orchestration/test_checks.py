"""The asset checks in Dagster: they pass on good data, stop what comes after bad data, and know their partition."""

import shutil
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from footprint_pipeline.dataset.checks.run import CHECKS
from footprint_pipeline.dataset.checks.spec import CheckSpec
from footprint_pipeline.definitions import build_definitions
from footprint_pipeline.errors import DatasetError
from footprint_pipeline.files import locked
from footprint_pipeline.lake import Lake
from footprint_pipeline.orchestration.checks import LabelLimits, MaskLimits, SplitLimits, TileLimits
from footprint_pipeline.orchestration.local import run_job
from footprint_pipeline.settings import Settings
from footprint_pipeline_tests.areas import add_aoi
from footprint_pipeline_tests.dataset.conftest import build_city
from footprint_pipeline_tests.serving.conftest import wait_for

AOI = "AOI_9_Town"
KEYS = {dg.AssetCheckKey(dg.AssetKey(check.asset), check.name) for check in CHECKS}
SKIP_BAD = {"building_polygons": {"skip_bad_labels": True}}


def write_source(folder: Path, *, bad_rows: int = 0) -> Path:
    """Twelve tiles in the older layout of SpaceNet 1; the first `bad_rows` of their 33 labels are no polygons."""
    city = build_city(folder / "plain", count=12, aoi=AOI)
    root = folder / "source" / "processedBuildingLabels"
    (root / "3band").mkdir(parents=True)
    (root / "vectordata" / "summarydata").mkdir(parents=True)
    for path in (folder / "plain").glob("*.tif"):
        shutil.move(path, root / "3band" / f"3band_{path.name}")
    rows = [(row.tile_id, row.building_id, row.geometry.wkt) for row in city.polygons.itertuples()]
    rows = [(tile, building, "POLYGN" if i < bad_rows else wkt) for i, (tile, building, wkt) in enumerate(rows)]
    table = pd.DataFrame([*rows, (f"{AOI}_img11", -1, "POLYGON EMPTY")])
    table.columns = ["ImageId", "BuildingId", "PolygonWKT_Geo"]
    table.to_csv(root / "vectordata" / "summarydata" / f"{AOI}_polygons_solution_3band.csv", index=False)
    return folder / "source"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A home of the test's own; what running a job writes to the environment goes with it."""
    for name in ("DAGSTER_HOME", "FOOTPRINT_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    return Settings(home=tmp_path / "home")


def execute(
    job: str, settings: Settings, instance: dg.DagsterInstance, config: Mapping[str, Mapping[str, object]]
) -> dg.ExecuteInProcessResult:
    return (
        build_definitions(settings)
        .resolve_job_def(job)
        .execute_in_process(
            instance=instance,
            partition_key=AOI,
            raise_on_error=False,
            run_config={"ops": {name: {"config": dict(values)} for name, values in config.items()}},
        )
    )


def materialized(result: dg.ExecuteInProcessResult) -> set[str]:
    return {event.asset_key.to_user_string() for event in result.get_asset_materialization_events()}


def test_good_data_goes_through_and_the_instance_knows_each_check_of_the_partition(
    tmp_path: Path, settings: Settings
) -> None:
    add_aoi(settings.home, AOI, str(write_source(tmp_path)))
    with dg.DagsterInstance.ephemeral() as instance:
        result = execute("dataset", settings, instance, {})
        assert result.success
        entries = instance.all_logs(result.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        found = {(data := entry.dagster_event.asset_check_evaluation_data).asset_check_key: data for entry in entries}
        assert set(found) == KEYS
        assert {evaluation.partition for evaluation in found.values()} == {AOI}
        blocking = {check.name for check in CHECKS if check.blocking}
        for key, evaluation in found.items():
            assert evaluation.passed or key.name not in blocking or evaluation.severity == dg.AssetCheckSeverity.WARN
            assert evaluation.target_materialization_data.run_id == result.run_id
            assert ("fix" in evaluation.metadata) is not evaluation.passed
        (polygons,) = result.asset_materializations_for_node("building_polygons")
        assert polygons.metadata["within_another"].value == 0
        masks = found[dg.AssetCheckKey(dg.AssetKey("mask_tiles"), "masks_agree_with_polygons")]
        assert masks.metadata["tiles_compared"].value == 12
        assert "m² of building in 12 masks" in masks.description
        kept = instance.get_latest_asset_check_evaluation_record(masks.asset_check_key)
        assert kept.event.dagster_event.asset_check_evaluation_data.partition == AOI


def test_a_blocking_check_that_fails_stops_the_assets_that_come_after(tmp_path: Path, settings: Settings) -> None:
    add_aoi(settings.home, AOI, str(write_source(tmp_path, bad_rows=8)))
    with dg.DagsterInstance.ephemeral() as instance:
        result = execute("whole_chain", settings, instance, SKIP_BAD)
        assert not result.success
        assert materialized(result) == {"image_tiles", "building_polygons"}
        failed = {event.check_name for event in result.get_asset_check_evaluations() if not event.passed}
        assert failed == {"few_labels_are_lost"}
        # The limit is the user's to move.
        config = {**SKIP_BAD, "building_polygons_checks": {"max_lost_share": 0.5}}
        result = execute("dataset", settings, instance, config)
        assert result.success
        assert "split_manifests" in materialized(result)


def test_the_command_line_names_the_check_the_area_and_the_way_out(tmp_path: Path, settings: Settings) -> None:
    add_aoi(settings.home, AOI, str(write_source(tmp_path, bad_rows=8)))
    with pytest.raises(DatasetError) as caught:
        run_job("dataset", settings, partition=AOI, config=SKIP_BAD)
    assert caught.value.problem.startswith(
        f"{AOI}: the check few_labels_are_lost of building_polygons failed. 8 of 33 labels are lost, more than 5%"
    )
    assert "labels_rejected.csv" in caught.value.fix
    assert (settings.home / "lake" / AOI / "building_polygons.parquet").exists()


def test_every_check_is_of_one_partition_and_only_the_grave_ones_block(tmp_path: Path) -> None:
    graph = build_definitions(Settings(home=tmp_path)).resolve_asset_graph()
    serves = dg.AssetCheckKey(dg.AssetKey("registered_model"), "serves")
    assert graph.asset_check_keys == KEYS | {serves}
    assert not graph.get(serves).blocking
    for check in CHECKS:
        node = graph.get(dg.AssetCheckKey(dg.AssetKey(check.asset), check.name))
        assert node.partitions_def == graph.get(dg.AssetKey(check.asset)).partitions_def
        assert node.blocking is check.blocking
        assert node.description == check.question


def test_every_limit_of_the_core_can_be_set_once_and_has_its_default() -> None:
    limits = {}
    for config in (TileLimits(), LabelLimits(), MaskLimits(), SplitLimits()):
        assert not limits.keys() & config.model_dump().keys()
        assert all(field.description for field in type(config).model_fields.values())
        limits |= config.model_dump()
    assert CheckSpec(**limits) == CheckSpec()
    assert limits.keys() == {field.name for field in fields(CheckSpec)}


def test_a_run_of_an_area_waits_for_another_one_of_the_same(
    tmp_path: Path, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    add_aoi(settings.home, AOI, str(write_source(tmp_path)))
    caplog.set_level("INFO")
    with dg.DagsterInstance.ephemeral() as instance, ThreadPoolExecutor() as pool:
        with locked(Lake(settings.home).aoi(AOI).lock, waiting=""):
            run = pool.submit(execute, "dataset", settings, instance, {})
            wait_for(lambda: f"{AOI}: waiting for another run that prepares it" in caplog.text)
            time.sleep(0.2)
            assert not Lake(settings.home).aoi(AOI).tiles.exists()
        assert run.result().success
    assert Lake(settings.home).prepared() == [AOI]
