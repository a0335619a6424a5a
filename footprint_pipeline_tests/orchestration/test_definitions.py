"""The Dagster code location: what it holds, and how light it is to load."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from footprint_pipeline.dataset.spec import MaskSpec, PolygonSpec, SplitSpec
from footprint_pipeline.definitions import build_definitions
from footprint_pipeline.errors import DatasetError, SettingsError
from footprint_pipeline.evaluation.spec import PromotionSpec, SweepSpec
from footprint_pipeline.handover import ToleranceSweep
from footprint_pipeline.model.search_space import SearchSpec
from footprint_pipeline.model.spec import TrainingSpec
from footprint_pipeline.model.spec_fields import fields_of
from footprint_pipeline.model.spec_files import read_spec
from footprint_pipeline.orchestration.assets.dataset import MaskConfig, PolygonsConfig, SplitConfig
from footprint_pipeline.orchestration.assets.drift import DriftConfig
from footprint_pipeline.orchestration.assets.evaluation import SweepConfig
from footprint_pipeline.orchestration.assets.promotion import PromotionConfig
from footprint_pipeline.orchestration.assets.search import SearchConfig
from footprint_pipeline.orchestration.assets.training import TrainingConfig
from footprint_pipeline.orchestration.checks import MaskLimits
from footprint_pipeline.orchestration.io_managers import JsonRecords
from footprint_pipeline.orchestration.local import ROOT, prepare_home
from footprint_pipeline.settings import Settings
from footprint_pipeline.spacenet.catalog import BUILT_IN
from footprint_pipeline.stages.drift import DriftSpec
from footprint_pipeline_tests.areas import add_aoi

JOBS = ("dataset", "model", "whole_chain", "search", "drift")
PARTITIONED = ("image_tiles", "building_polygons", "mask_tiles", "split_manifests", "dataset_report")
UNPARTITIONED = (
    "hyperparameter_search", "trained_unet", "tolerance_sweep", "test_evaluation", "registered_model",
    "footprint_drift",
)  # fmt: skip


def test_the_graph_is_a_line_from_tiles_to_the_registry(tmp_path: Path) -> None:
    graph = build_definitions(Settings(home=tmp_path)).resolve_asset_graph()
    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == {*PARTITIONED, *UNPARTITIONED}
    for name in PARTITIONED:
        assert set(graph.get(dg.AssetKey(name)).partitions_def.get_partition_keys()) == set(BUILT_IN)
    for name in UNPARTITIONED:
        assert graph.get(dg.AssetKey(name)).partitions_def is None
    assert graph.get(dg.AssetKey("trained_unet")).parent_keys == {dg.AssetKey("split_manifests")}
    for node in graph.asset_nodes:
        assert node.description
        assert node.kinds


def test_an_area_that_the_user_added_is_a_partition(tmp_path: Path) -> None:
    add_aoi(tmp_path, "AOI_9_Mine", str(tmp_path))
    graph = build_definitions(Settings(home=tmp_path)).resolve_asset_graph()
    assert "AOI_9_Mine" in graph.get(dg.AssetKey("image_tiles")).partitions_def.get_partition_keys()


@pytest.mark.parametrize("module", ["definitions", "commands.pipeline"])
def test_loading_the_definitions_imports_neither_keras_nor_tensorflow_nor_mlflow(module: str) -> None:
    heavy = ("keras", "tensorflow", "mlflow", "openvino", "optuna")
    code = f"import sys, footprint_pipeline.{module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_workspace_validates_as_a_user_would_do_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("dagster"), "definitions", "validate", "-w", "workspace.yaml"],
        env={"DAGSTER_HOME": str(prepare_home(Settings(home=tmp_path)))},
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Validation successful for code location footprint_pipeline" in done.stderr + done.stdout


def test_the_instance_file_is_valid_and_keeps_one_training_at_a_time(tmp_path: Path) -> None:
    with dg.DagsterInstance.from_config(str(prepare_home(Settings(home=tmp_path)))) as instance:
        assert instance.telemetry_enabled is False
        assert instance.get_settings("concurrency")["pools"]["default_limit"] == 1
        assert instance.managed_python_loggers == ["footprint_pipeline"]


def test_jobs_hold_what_they_say(tmp_path: Path) -> None:
    repository = build_definitions(Settings(home=tmp_path)).get_repository_def()
    jobs = {name: {node.name for node in repository.get_job(name).nodes} for name in JOBS}
    assert jobs["search"] == {"hyperparameter_search"}
    assert jobs["drift"] == {"footprint_drift"}
    assert jobs["model"] == set(UNPARTITIONED) - jobs["search"] - jobs["drift"]
    assert jobs["whole_chain"] == jobs["dataset"] | jobs["model"]


def test_whatever_wants_the_gpu_waits_its_turn(tmp_path: Path) -> None:
    graph = build_definitions(Settings(home=tmp_path)).resolve_asset_graph()
    pooled = {node.key.to_user_string() for node in graph.asset_nodes if node.pools == {"gpu"}}
    assert pooled == {"hyperparameter_search", "trained_unet", "tolerance_sweep", "test_evaluation"}


def test_config_says_what_the_core_says(tmp_path: Path) -> None:
    assert TrainingConfig().spec() == TrainingSpec()
    changed = TrainingConfig(network={"width": 64, "norm": "none"}, augmentation={"scale": [1, 2]}, learning_rate=0.02)
    default = TrainingSpec()
    assert changed.spec() == replace(
        default,
        network=replace(default.network, width=64, norm="none"),
        augmentation=replace(default.augmentation, scale=(1.0, 2.0)),
        learning_rate=0.02,
    )
    with pytest.raises(SettingsError, match="trained_unet: epochs is 0"):
        TrainingConfig(epochs=0).spec()

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("epochs: 3\nbatch_size: 2\nnetwork: {width: 4}\n")
    based = TrainingConfig(spec_file=str(recipe), batch_size=5, network={"depth": 2}).spec()
    assert (based.epochs, based.batch_size, based.network.width, based.network.depth) == (3, 5, 4, 2)
    space = tmp_path / "space.yaml"
    space.write_text("learning_rate: {low: 1e-4, high: 1e-3}\n")
    searched = SearchConfig(spec_file=str(recipe), space_file=str(space), max_minutes_per_trial=2).spec()
    assert (searched.base, searched.max_minutes_per_trial) == (read_spec(recipe), 2)
    assert set(searched.space) == {"learning_rate"}
    assert SearchConfig().spec() == SearchSpec()


@pytest.mark.parametrize(
    ("job", "node", "spec", "beside"),
    [
        ("model", "trained_unet", TrainingSpec(), {"aois", "spec_file", "weights", "resume"}),
        ("model", "tolerance_sweep", SweepSpec(), set()),
        ("model", "registered_model", PromotionSpec(), set()),
        ("drift", "footprint_drift", DriftSpec(), {"version"}),
        ("dataset", "building_polygons", PolygonSpec(), {"skip_bad_labels"}),
        ("dataset", "mask_tiles", MaskSpec(), set()),
        ("dataset", "split_manifests", SplitSpec(), {"assigned"}),
    ],
)
def test_people_see_in_the_ui_what_every_field_means_and_is(
    tmp_path: Path, job: str, node: str, spec: Any, beside: set[str]
) -> None:
    told = build_definitions(Settings(home=tmp_path)).get_repository_def().get_job(job).get_node_named(node)
    shown = told.definition.config_schema.config_type.fields
    known = fields_of(spec)
    assert shown.keys() == {each.name.split(".")[0] for each in known} | beside
    for each in known:
        *above, leaf = each.name.split(".")
        inner = shown[above[0]].config_type.fields if above else shown
        assert inner[leaf].description == each.description != ""
        assert inner[leaf].default_value == (list(each.default) if isinstance(each.default, tuple) else each.default)
    assert all(shown[name].description for name in beside)


def test_records_are_json_and_come_back_as_they_went(tmp_path: Path) -> None:
    record = ToleranceSweep(
        run_id="r", model_id="m", tolerance=0.7, median_tile_f1=0.69, std_tile_f1=0.17, pooled_pixel_f1=0.7, tiles=431,
        rule="building_f1", article_tolerance=0.8, building_f1=0.5,
    )  # fmt: skip

    @dg.asset
    def swept() -> ToleranceSweep:
        return record

    @dg.asset
    def reader(swept: ToleranceSweep) -> None:
        assert swept == record

    manager = JsonRecords(folder=str(tmp_path))
    result = dg.materialize([swept, reader], resources={"io_manager": manager}, selection=[swept])
    assert result.success
    assert '"tolerance": 0.7' in (tmp_path / "swept.json").read_text()
    assert dg.materialize([swept, reader], resources={"io_manager": manager}, selection=[reader]).success


def test_a_record_that_is_not_there_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    @dg.asset
    def swept() -> ToleranceSweep:
        raise NotImplementedError

    @dg.asset
    def reader(swept: ToleranceSweep) -> None:
        pass

    with pytest.raises(Exception, match="swept has not been materialized yet"):
        dg.materialize([swept, reader], resources={"io_manager": JsonRecords(folder=str(tmp_path))}, selection=[reader])


def test_configs_make_the_cores_specs_of_what_is_chosen_and_refuse_what_these_refuse() -> None:
    assert SweepConfig().spec() == SweepSpec()
    assert PromotionConfig().spec() == PromotionSpec()
    assert DriftConfig(version="3", days=7).spec() == DriftSpec(days=7)
    assert PolygonsConfig(skip_bad_labels=True, min_area_m2=2).spec() == PolygonSpec(min_area_m2=2.0)
    assert MaskConfig(border_m=0).spec() == MaskSpec(border_m=0.0)
    assert SplitConfig(assigned="split.csv", by="tile").spec() == SplitSpec(by="tile")
    for wrong in (
        PolygonsConfig(min_area_m2=-1), MaskConfig(border_m=-1), SplitConfig(block_m=0), MaskLimits(sample_tiles=0),
    ):  # fmt: skip
        with pytest.raises(DatasetError, match=r"-1\.0 is no|0\.0 m are no|0 masks cannot"):
            wrong.spec()
    with pytest.raises(SettingsError, match="footprint_drift: days is 0"):
        DriftConfig(days=0).spec()
