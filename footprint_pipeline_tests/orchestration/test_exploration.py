from pathlib import Path

import dagster as dg
import mlflow
import pytest

from footprint_pipeline.orchestration.assets.exploration import exploration_assets
from footprint_pipeline.orchestration.resources import Workplace
from footprint_pipeline.settings import Settings
from footprint_pipeline_tests.stages.prepared import AOI, TILES, prepare_city


@pytest.mark.slow
def test_the_asset_writes_the_page_shows_it_in_the_ui_and_logs_it_to_mlflow(tmp_path: Path) -> None:
    folder = prepare_city(tmp_path)
    assets = exploration_assets(dg.StaticPartitionsDefinition([AOI]))
    upstream = {"image_tiles", "building_polygons", "mask_tiles", "split_manifests"}
    assert {key.to_user_string() for key in assets[0].asset_deps[assets[0].key]} == upstream
    result = dg.materialize(assets, partition_key=AOI, resources={"workplace": Workplace(home=str(tmp_path))})
    (shown,) = result.asset_materializations_for_node("dataset_report")
    assert shown.metadata["report"].value == str(folder.folder / "report.html")
    assert shown.metadata["tiles"].value == TILES
    for name in ("colours", "building_sizes", "map", "buildings_per_tile", "examples", "labels_x_small"):
        assert shown.metadata[name].value.startswith("![](data:image/png;base64,")

    experiment_id, run_id = shown.metadata["mlflow_run"].value.split("/experiments/")[1].split("/runs/")
    settings = Settings(home=tmp_path)
    client = mlflow.MlflowClient(tracking_uri=settings.mlflow_uri)
    assert client.get_experiment(experiment_id).name == f"{settings.experiment}-data"
    run = client.get_run(run_id)
    assert (run.info.run_name, run.info.status) == (f"dataset {AOI}", "FINISHED")
    assert run.data.metrics["tiles"] == TILES
    assert run.data.metrics["area_m2_median"] == pytest.approx(shown.metadata["area_m2_median"].value)
    tags = {"stage": "dataset_report", "aoi": AOI, "split_digest": shown.metadata["split_digest"].value}
    assert tags.items() <= run.data.tags.items()
    artifacts = {file.path for path in ("", "plots") for file in client.list_artifacts(run_id, path)}
    assert {"report.html", "plots/map.png", "plots/examples.png", "plots/colours.png"} <= artifacts
