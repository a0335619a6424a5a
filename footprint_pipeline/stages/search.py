"""Search of hyperparameters: trainings side by side under one MLflow run, chosen by Optuna.

A study lies in `<home>/search/<study>`, so the same search goes on where it was interrupted. What is searched says
`model.search_space`; what is told of it, `search_report`.
"""

import hashlib
import json
import logging
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from footprint_pipeline.errors import FootprintError, SettingsError, TrainingError
from footprint_pipeline.model.checkpoints import alone_in
from footprint_pipeline.model.search_space import OBJECTIVES, Choices, Range, SearchSpec, own_point, recipe_at
from footprint_pipeline.model.spec_fields import plain
from footprint_pipeline.registry import safe_line, unanswered  # sets MLflow up before it is imported
from footprint_pipeline.settings import Settings
from footprint_pipeline.stages.data import data_digest
from footprint_pipeline.stages.scoring import load_manifest
from footprint_pipeline.stages.search_report import METRIC, SearchResult, SearchRun, ended
from footprint_pipeline.stages.training import train_unet

from mlflow import MlflowClient  # isort: skip
from mlflow.exceptions import MlflowException  # isort: skip

log = logging.getLogger(__name__)


def search(
    settings: Settings,
    spec: SearchSpec,
    aois: list[str],
    *,
    trials: int,
    tags: dict[str, str],
    study: str | None = None,
) -> SearchResult:
    """Train until a study holds so many trials, and say which recipe was best.

    Args:
        settings: where state lives.
        spec: what to search.
        aois: AOIs to train on; every prepared one when empty.
        trials: how many the study holds at the end, those of earlier calls included. One that fails for want of
            memory, or because its loss is not a number, counts.
        tags: put on the MLflow runs.
        study: its name; made from what is searched, and on what, when None.

    Raises:
        DatasetError: an AOI is not prepared.
        SettingsError: the study of that name searches something else.
        TrainingError: not one trial has succeeded, or the study is under way in another process.
        RegistryError: MLflow cannot be reached.
    """
    lake = settings.lake
    manifest = load_manifest(lake, aois)
    aois = sorted(set(manifest["aoi"]))  # what is prepared meanwhile is not searched on
    made_from = _digest(spec, data_digest(lake, manifest))
    study = study or f"search-{made_from[:8]}"
    if not re.fullmatch(r"\w[\w.-]*", study):
        raise SettingsError(f"A study cannot be called {study!r}.", fix="Use letters, digits, '_', '-' and '.'.")
    try:
        folder = lake.home / "search" / study
        with alone_in(folder, what=f"The study {study}"):
            opened = _opened(folder, study, spec, made_from)
            tags = {**tags, "search.study": study}
            run = SearchRun(settings, opened, spec, {**tags, "aois": ",".join(aois)})
            with run.going():
                result = run.report()
                while len(ended(opened)) < trials:
                    now = _digest(spec, data_digest(lake, load_manifest(lake, aois)))
                    _check_made_from(study, known=made_from, now=now, folder=folder)
                    _one_trial(settings, spec, aois, opened, total=trials, run_id=run.run_id, tags=tags)
                    result = run.report()
                if result is None:
                    reason = ended(opened)[0].user_attrs["error"]
                    raise TrainingError(
                        f"No trial of {study} has succeeded: {reason}", fix="Change the recipe or space."
                    )
                return result
    except MlflowException as error:
        raise unanswered(
            settings.mlflow_uri,
            error,
            fix="Check that it runs and that MLFLOW_TRACKING_URI names it, then start the same search again.",
        ) from None


def _one_trial(
    settings: Settings,
    spec: SearchSpec,
    aois: list[str],
    study: optuna.Study,
    *,
    total: int,
    run_id: str,
    tags: dict[str, str],
) -> None:
    done = len(ended(study))
    # A sampler anew for each trial: what it proposes depends on the trials that have ended, not on interruptions.
    study.sampler = optuna.samplers.TPESampler(seed=(spec.seed + done) % 2**32)
    trial = study.ask()
    point = {name: _suggest(trial, name, axis) for name, axis in spec.space.items()}
    told = ", ".join(f"{name} {value}" for name, value in point.items())
    log.info("%s: trial %d (%d of %d): %s", study.study_name, trial.number, done + 1, total, told)
    named = {"search.trial": str(trial.number), "mlflow.runName": f"{study.study_name} {trial.number}"}
    try:
        recipe = recipe_at(spec, point, limited=True)
        trained, history = train_unet(
            settings, recipe, aois, tags={**tags, **named}, parent_run_id=run_id,
            handed_on=lambda made: made in {each.user_attrs.get("run_id") for each in ended(study)},
        )  # fmt: skip
    except Exception as error:
        of_the_point = isinstance(error, TrainingError | SettingsError)
        if not of_the_point and isinstance(error, FootprintError | MlflowException | OSError):
            raise  # the same trial is begun again when the search goes on
        log.warning("Trial %d failed: %s", trial.number, safe_line(error))
        trial.set_user_attr("error", safe_line(error))
        study.tell(trial, state=TrialState.FAIL)
        if not of_the_point:
            raise
        return
    value = history[trained.best_epoch][spec.objective]
    for name, fact in (
        ("run_id", trained.run_id), ("parameters", trained.parameters), ("minutes", trained.seconds / 60),
    ):  # fmt: skip
        trial.set_user_attr(name, fact)
    MlflowClient(settings.mlflow_uri).log_metric(trained.run_id, METRIC, value)
    study.tell(trial, value)


def _suggest(trial: optuna.Trial, name: str, axis: Range | Choices) -> Any:
    if isinstance(axis, Choices):
        return trial.suggest_categorical(name, list(axis.by_text))
    if axis.whole:
        return trial.suggest_int(name, int(axis.low), int(axis.high), log=axis.log)
    return trial.suggest_float(name, axis.low, axis.high, log=axis.log)


def _digest(spec: SearchSpec, data: str) -> str:
    told = {
        "base": plain(spec.limited_base), "space": {name: asdict(axis) for name, axis in spec.space.items()},
        "objective": spec.objective, "seed": spec.seed, "data": data,
    }  # fmt: skip
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _check_made_from(study: str, *, known: str, now: str, folder: Path) -> None:
    if known != now:
        raise SettingsError(
            f"The study {study} searches with another recipe, space or objective, or on other data.",
            fix=f"Give another name, or delete {folder} to begin it anew.",
        )


def open_journal(folder: Path) -> JournalStorage:
    """Where the study in a folder is written down: a file that every trial adds to.

    Not one of Optuna's databases: opening one switches off the loggers of the whole process.
    """
    return JournalStorage(JournalFileBackend(str(folder / "study.journal")))


def _opened(folder: Path, name: str, spec: SearchSpec, made_from: str) -> optuna.Study:
    """The study, begun or gone on with; trials that were interrupted are lined up again."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=open_journal(folder), study_name=name, direction=OBJECTIVES[spec.objective], load_if_exists=True
    )
    _check_made_from(name, known=study.user_attrs.get("made_from", made_from), now=made_from, folder=folder)
    study.set_user_attr("made_from", made_from)
    if not study.trials:
        study.enqueue_trial(own_point(spec))
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)  # its training goes on where it was
    return study
