"""From answers of the service to a training that is asked for: its counters, the asset, the sensor, on real parts."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import mlflow
import pytest
from mlflow import MlflowClient

from footprint_pipeline.errors import ModelError, RegistryError
from footprint_pipeline.orchestration.local import prepare_home, run_job
from footprint_pipeline.orchestration.retraining import RETRIES, prepared_digest
from footprint_pipeline.registry import Registry
from footprint_pipeline.settings import Settings
from footprint_pipeline.stages.drift import report_drift
from footprint_pipeline_tests.footprints.red_city import write_model
from footprint_pipeline_tests.orchestration.test_retraining import look, start_training
from footprint_pipeline_tests.stages.prepared import prepare_city
from footprint_pipeline_tests.stages.test_drift import DOMAIN, NAME, ask

DOMAINS = {"knowing": DOMAIN, "of before": None}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A home that commands and assets find, without a model."""
    given = {
        "FOOTPRINT_HOME": str(tmp_path),
        "FOOTPRINT_MODEL_NAME": NAME,
        "FOOTPRINT_COUNTERS": str(tmp_path / "counters"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
        "DAGSTER_HOME": str(tmp_path / "dagster"),
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    before = mlflow.get_tracking_uri()
    yield Settings()
    mlflow.set_tracking_uri(before)


@pytest.fixture
def instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(prepare_home(settings))) as instance:
        yield instance


def register(settings: Settings, *models: Path) -> None:
    """A version of each exported model; the first is the champion."""
    client = MlflowClient(tracking_uri=settings.mlflow_uri, registry_uri=settings.mlflow_uri)
    experiment = client.create_experiment("test", artifact_location=(settings.home / "artifacts").as_uri())
    client.create_registered_model(NAME)
    for model in models:
        run = client.create_run(experiment)
        client.log_artifacts(run.info.run_id, str(model), "serving")
        client.create_model_version(NAME, run.info.artifact_uri, run_id=run.info.run_id)
    Registry(settings.mlflow_uri, NAME).point("champion", "1")


def materialize(settings: Settings, instance: dg.DagsterInstance, **config: object) -> dict[str, object]:
    """Run the job, and return what the UI shows of the report."""
    run_job("drift", settings, config={"footprint_drift": config})
    event = instance.get_latest_materialization_event(dg.AssetKey("footprint_drift"))
    return {name: entry.value for name, entry in event.asset_materialization.metadata.items()}


@pytest.mark.slow
def test_what_was_asked_is_reported_and_a_training_asked_for_once(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    with pytest.raises(RegistryError, match="no alias 'champion'") as error:
        run_job("drift", settings)
    assert "footprint run" in error.value.fix
    models = [write_model(settings.home / name, model_name=NAME, domain=domain) for name, domain in DOMAINS.items()]
    register(settings, *models)
    with pytest.raises(ModelError, match="version 2 was registered before") as error:
        report_drift(settings, version="2")
    assert "footprint register" in error.value.fix
    assert look(settings, instance, "drifted_inputs")[0] == []  # there is no report

    shown = materialize(settings, instance)
    assert (shown["answers"], shown["drifted"]) == (0, False)
    assert shown["verdict"] == "Nothing was asked in 28 days."

    ask(settings.counters_folder, 13, times=30, day=datetime.now(UTC).date())
    assert not materialize(settings, instance)["drifted"]
    prepare_city(settings.home)
    assert look(settings, instance, "drifted_inputs")[0] == []

    shown = materialize(settings, instance, min_answers=30)
    assert shown["drifted"]
    assert shown["psi_red"] > 0.25
    assert shown["out_of_domain_answers"] == 1
    assert shown["colours"].startswith("![](data:image/png;base64,")
    assert "| 0.297 | 0.500 | 1.000 |" in shown["gsd"]
    (asked,), _ = look(settings, instance, "drifted_inputs")
    assert RETRIES.items() <= asked.tags.items()
    materialize(settings, instance, min_answers=30)
    (again,), _ = look(settings, instance, "drifted_inputs")
    assert again.run_key == asked.run_key == f"1-{prepared_digest(settings.home)}"  # of which Dagster starts one
    run_id = start_training(instance, settings)
    assert look(settings, instance, "drifted_inputs")[0] == []
    instance.report_run_failed(instance.get_run_by_id(run_id))
    assert look(settings, instance, "drifted_inputs")[0]

    Registry(settings.mlflow_uri, NAME).point("champion", "2")
    assert look(settings, instance, "drifted_inputs")[0] == []  # the report is about the former champion
    Registry(settings.mlflow_uri, NAME).point("champion", "1")  # which is back again
    assert look(settings, instance, "drifted_inputs")[0]
