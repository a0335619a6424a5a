"""A search of hyperparameters, told: its MLflow run and its folder, with a table and pictures of the trials."""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib
import numpy as np
import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from footprint_pipeline.files import atomic_path
from footprint_pipeline.handover import SearchedRecipe
from footprint_pipeline.model.search_space import OBJECTIVES, SearchSpec, recipe_at
from footprint_pipeline.model.spec_files import to_yaml
from footprint_pipeline.registry import experiment_id  # sets MLflow up before it is imported
from footprint_pipeline.settings import Settings

from mlflow import MlflowClient  # isort: skip
from mlflow.entities import Run  # isort: skip
from mlflow.exceptions import MlflowException  # isort: skip

matplotlib.use("Agg")
from matplotlib import pyplot as plt

BEST_SPEC = "best_spec.yaml"
METRIC = "objective"
"""How the runs of the trials, and of the search, call the objective in MLflow."""
_ENOUGH_TO_COMPARE = 4
"""Trials that tell something of what mattered."""


@dataclass(frozen=True)
class SearchResult:
    """Where a search stands.

    Attributes:
        recipe: the best one, and whose it is; beside its file lie the table and the pictures.
        trials: a row a trial that has ended, the best first and those that failed last.
        pictures: name → PNG.
    """

    recipe: SearchedRecipe
    trials: pd.DataFrame
    pictures: dict[str, bytes]


class SearchRun:
    """The MLflow run of a search, and the folder of its study: both hold the same files."""

    def __init__(self, settings: Settings, study: optuna.Study, spec: SearchSpec, tags: dict[str, str]) -> None:
        self.study, self.spec, self.folder = study, spec, settings.lake.home / "search" / study.study_name
        self.client = MlflowClient(settings.mlflow_uri)
        run = self._known(study.user_attrs.get("mlflow_run"))
        if run is None:
            made_in = experiment_id(self.client, settings.experiment, artifacts=settings.mlflow_artifacts)
            run = self.client.create_run(made_in, run_name=study.study_name, tags={**tags, "stage": "search"})
            for name, axis in {"objective": spec.objective, **{f"space.{n}": a for n, a in spec.space.items()}}.items():
                self.client.log_param(run.info.run_id, name, axis)
            self.client.log_text(run.info.run_id, to_yaml(spec.base), "base_spec.yaml")
            study.set_user_attr("mlflow_run", run.info.run_id)
        self.run_id: str = run.info.run_id
        self.experiment_id: str = run.info.experiment_id

    def _known(self, run_id: str | None) -> Run | None:
        """The run of an earlier call, unless somebody has deleted it."""
        try:
            run = self.client.get_run(run_id) if run_id else None
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return run if run and run.info.lifecycle_stage == "active" else None

    @contextmanager
    def going(self) -> Iterator[None]:
        """Under way in MLflow until the block ends, by itself or not."""
        self.client.update_run(self.run_id, status="RUNNING")
        try:
            yield
        except Exception:
            self.client.set_terminated(self.run_id, "FAILED")
            raise
        except BaseException:  # Ctrl-C, or Dagster ending the run
            self.client.set_terminated(self.run_id, "KILLED")
            raise
        self.client.set_terminated(self.run_id, "FINISHED")

    def report(self) -> SearchResult | None:
        """Write down where the search stands; None before the first trial that succeeds."""
        trials = ended(self.study)
        if not any(trial.state == TrialState.COMPLETE for trial in trials):
            return None
        best = self.study.best_trial
        recipe = SearchedRecipe(
            study=self.study.study_name,
            run_id=self.run_id,
            experiment_id=self.experiment_id,
            best_spec=self.folder / BEST_SPEC,
            best_trial=best.number,
            best_value=self.study.best_value,
            objective=self.spec.objective,
            trials=len(trials),
            failed=sum(trial.state == TrialState.FAIL for trial in trials),
        )
        rows = table(trials, objective=self.spec.objective, direction=OBJECTIVES[self.spec.objective])
        result = SearchResult(recipe, rows, pictures(self.study))
        files = {
            BEST_SPEC: to_yaml(recipe_at(self.spec, best.params, limited=False)).encode(),
            "trials.csv": rows.to_csv(index=False).encode(),
            **{f"{name}.png": png for name, png in result.pictures.items()},
        }
        for name, content in files.items():
            with atomic_path(self.folder / name) as temporary:
                temporary.write_bytes(content)
            self.client.log_artifact(self.run_id, str(self.folder / name))
        self.client.log_metric(self.run_id, METRIC, recipe.best_value, step=len(trials))
        return result


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that succeeded, and those that failed by themselves; not those that were interrupted."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL))
    return [trial for trial in trials if trial.state == TrialState.COMPLETE or "error" in trial.user_attrs]


def table(trials: Sequence[FrozenTrial], *, objective: str, direction: str) -> pd.DataFrame:
    """A row a trial: its number, objective and varied fields; the best first, those that failed last."""
    rows = [
        {
            "trial": trial.number,
            objective: trial.value if trial.state == TrialState.COMPLETE else np.nan,
            **trial.params,
            "parameters": trial.user_attrs.get("parameters"),
            "minutes": trial.user_attrs.get("minutes"),
            "run_id": trial.user_attrs.get("run_id"),
            "error": trial.user_attrs.get("error", ""),
        }
        for trial in trials
    ]
    return pd.DataFrame(rows).sort_values(objective, ascending=direction == "minimize", kind="stable")


def pictures(study: optuna.Study) -> dict[str, bytes]:
    """The objective trial by trial, and, when there is enough to tell from, what mattered for it. PNG by name."""
    with warnings.catch_warnings(), plt.rc_context():  # Optuna sets a style for good
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        found = {"history": _png(optuna.visualization.matplotlib.plot_optimization_history(study))}
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(complete) >= _ENOUGH_TO_COMPARE and len({trial.value for trial in complete}) > 1:
            found["importance"] = _png(optuna.visualization.matplotlib.plot_param_importances(study))
    return found


def _png(axes: plt.Axes) -> bytes:
    buffer = io.BytesIO()
    axes.figure.savefig(buffer, format="png", dpi=90, bbox_inches="tight")
    plt.close(axes.figure)
    return buffer.getvalue()
