"""A search for real: tiny trainings on a tiny prepared city, a study on disk, runs in MLflow's SQLite."""

from pathlib import Path

import mlflow
import optuna
import pandas as pd
import pytest

from footprint_pipeline.dataset.spec import PolygonSpec, SplitSpec
from footprint_pipeline.errors import SettingsError, TrainingError
from footprint_pipeline.model.checkpoints import alone_in
from footprint_pipeline.model.search_space import Choices, Range, SearchSpec
from footprint_pipeline.model.spec import TrainingSpec, UNetSpec
from footprint_pipeline.model.spec_files import read_spec
from footprint_pipeline.settings import Settings
from footprint_pipeline.stages import search as search_module
from footprint_pipeline.stages.data import collect_polygons, draw_masks, split_tiles
from footprint_pipeline.stages.search import open_journal, search
from footprint_pipeline_tests.stages.prepared import AOI, prepare_city

BASE = TrainingSpec(
    network=UNetSpec(width=2, depth=1), chip_size=32, batch_size=4, epochs=1, chips_per_epoch=8, optimizer="sgd",
    clip_norm=0.0, ema=0.0, loss="bce", precision="float32", learning_rate=0.01, gsd_m=0.5,
)  # fmt: skip
SPACE = {
    "learning_rate": Choices((0.01, 1e38)),  # with the second the loss is soon no number
    "network.width": Range(2, 4),
    "network.heads": Choices((("building",), ("building", "border"))),
}


def say(spec: SearchSpec, home: Path, trials: int, **options: object) -> object:
    return search(Settings(home=home), spec, [AOI], trials=trials, tags={"who": "test"}, **options)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*inferred as AnyType:UserWarning")  # MLflow, of its own functions
def test_trials_stand_side_by_side_and_the_same_search_goes_on(tmp_path: Path) -> None:
    prepare_city(tmp_path)
    spec = SearchSpec(base=BASE, space=SPACE, max_minutes_per_trial=5.0, seed=2)
    first = say(spec, tmp_path, 1)
    assert (first.recipe.best_trial, first.recipe.trials, len(first.trials)) == (0, 1, 1)
    assert read_spec(first.recipe.best_spec) == BASE  # the first trial is the base; its limit of time was the trial's

    # A process that is killed leaves a trial under way: it is begun again, and counts once.
    study = optuna.load_study(study_name=first.recipe.study, storage=open_journal(first.recipe.best_spec.parent))
    study.enqueue_trial({"learning_rate": 1e38})
    assert study.ask().suggest_categorical("learning_rate", [0.01, 1e38]) == 1e38

    last = say(spec, tmp_path, 2)
    assert (last.recipe.study, last.recipe.run_id, len(last.trials)) == (first.recipe.study, first.recipe.run_id, 2)
    complete, failed = last.trials.iloc[0], last.trials.iloc[1]
    assert (complete["trial"], complete["val_f1"], complete["error"]) == (0, last.recipe.best_value, "")
    assert (failed["learning_rate"], failed["val_f1"]) == (1e38, pytest.approx(float("nan"), nan_ok=True))
    assert "not a number" in failed["error"]
    assert (last.recipe.trials, last.recipe.failed) == (2, 1)

    client = mlflow.MlflowClient(Settings(home=tmp_path).mlflow_uri)
    parent = client.get_run(last.recipe.run_id)
    assert (parent.info.status, parent.data.params["objective"]) == ("FINISHED", "val_f1")
    assert parent.data.metrics["objective"] == pytest.approx(last.recipe.best_value)
    children = client.search_runs([last.recipe.experiment_id], f"tags.mlflow.parentRunId = '{last.recipe.run_id}'")
    assert sorted(run.info.status for run in children) == ["FAILED", "FINISHED"]
    run = client.get_run(complete["run_id"])
    assert run.data.metrics["objective"] == pytest.approx(last.recipe.best_value)
    limited = BASE.flat() | {"max_minutes": 5.0}
    assert {name: str(value) for name, value in limited.items()}.items() <= run.data.params.items()
    assert {"who": "test", "search.study": last.recipe.study, "search.trial": "0"}.items() <= run.data.tags.items()
    artifacts = {file.path for file in client.list_artifacts(last.recipe.run_id)}
    assert {"best_spec.yaml", "trials.csv", "history.png", "base_spec.yaml"} <= artifacts
    assert list(pd.read_csv(last.recipe.best_spec.parent / "trials.csv")["trial"]) == list(last.trials["trial"])
    assert last.pictures["history"].startswith(b"\x89PNG")

    with (
        alone_in(last.recipe.best_spec.parent),
        pytest.raises(TrainingError, match="running already, in another process"),
    ):
        say(spec, tmp_path, 3)
    again = say(spec, tmp_path, 1)  # nothing is left to do
    assert again.trials.equals(last.trials)
    with pytest.raises(SettingsError, match="searches with another recipe, space or objective"):
        say(SearchSpec(base=BASE, space=SPACE, seed=3), tmp_path, 1, study=last.recipe.study)
    with pytest.raises(SettingsError, match="cannot be called"):
        say(spec, tmp_path, 1, study="../elsewhere")


def test_a_trial_that_nobody_foresaw_does_not_hold_up_the_search_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_city(tmp_path)
    spec = SearchSpec(base=BASE, space=SPACE, seed=2)

    def fail(error: Exception) -> None:
        def train(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(search_module, "train_unet", train)

    fail(OSError("the disk is full"))  # nothing that another point would mend
    for _ in range(2):
        with pytest.raises(OSError, match="the disk is full"):
            say(spec, tmp_path, 1)
    fail(ValueError("these shapes do not go together"))
    with pytest.raises(ValueError, match="shapes"):
        say(spec, tmp_path, 1)
    with pytest.raises(TrainingError, match=r"No trial of .* has succeeded: these shapes do not go together"):
        say(spec, tmp_path, 1)


def test_what_is_prepared_meanwhile_is_not_searched_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = prepare_city(tmp_path)
    tried_on: list[list[str]] = []

    def train(_: Settings, recipe: TrainingSpec, aois: list[str], **__: object) -> None:
        tried_on.append(aois)
        collect_polygons(folder, skip_bad_labels=False, spec=PolygonSpec(min_area_m2=30.0))
        draw_masks(folder)
        split_tiles(folder, SplitSpec())
        raise TrainingError("it learns nothing")

    monkeypatch.setattr(search_module, "train_unet", train)
    with pytest.raises(SettingsError, match="or on other data"):
        search(Settings(home=tmp_path), SearchSpec(base=BASE, space=SPACE), [], trials=2, tags={})
    assert tried_on == [[AOI]]


@pytest.mark.slow
def test_a_trial_that_was_trained_but_not_told_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    prepare_city(tmp_path)
    spec = SearchSpec(base=BASE, space=SPACE)
    monkeypatch.setattr(optuna.Study, "tell", interrupted)
    with pytest.raises(KeyboardInterrupt):
        say(spec, tmp_path, 1)
    monkeypatch.undo()
    done = say(spec, tmp_path, 1)
    client = mlflow.MlflowClient(Settings(home=tmp_path).mlflow_uri)
    (run,) = client.search_runs([done.recipe.experiment_id], f"tags.mlflow.parentRunId = '{done.recipe.run_id}'")
    assert (run.info.status, run.info.run_id) == ("FINISHED", done.trials.iloc[0]["run_id"])
    assert run.data.metrics["objective"] == done.recipe.best_value
