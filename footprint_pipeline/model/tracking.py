"""A training as an MLflow run: parameters, metrics by epoch, pictures, the model with its signature."""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path, PurePosixPath

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # a password may be in it

import keras
import mlflow
import numpy as np
from mlflow.entities import RunData
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from footprint_pipeline.errors import RegistryError
from footprint_pipeline.registry import experiment_id, safe_line, unanswered

log = logging.getLogger(__name__)

_KEPT = "Check that it runs, then start the same again: what was finished is kept."
MODEL_NAME = "unet"
"""Name of the logged model within its run."""
PACKAGES = ("keras", "tensorflow-cpu", "tensorflow", "jax", "torch", "numpy", "opencv-python-headless", "mlflow")


class TrainingRun:
    """An MLflow run that is under way."""

    def __init__(self, run: mlflow.ActiveRun) -> None:
        self.run_id: str = run.info.run_id
        self.experiment_id: str = run.info.experiment_id
        self._logged: dict[int, float] | None = None
        self._due: dict[int, dict[str, float]] = {}

    def log_epochs(self, entries: dict[int, dict[str, float]]) -> None:
        """Metrics by epoch, as they come; an epoch that is there already is not logged again.

        A server that is away for a while does not end a training: what it missed is logged with a later epoch.
        """
        self._due |= entries
        try:
            if self._logged is None:
                history = mlflow.MlflowClient().get_metric_history(self.run_id, "loss")
                self._logged = {metric.step: metric.value for metric in history}
            for epoch in sorted(self._due):
                loss = self._due[epoch]["loss"]
                if self._logged.get(epoch) != loss:  # another one is that of a training which began anew
                    finite = {name: value for name, value in self._due[epoch].items() if np.isfinite(value)}
                    mlflow.log_metrics(finite, step=epoch, run_id=self.run_id)
                    self._logged[epoch] = loss
                del self._due[epoch]
        except MlflowException as error:
            log.warning("MLflow lacks %d epochs for now: %s", len(self._due), safe_line(error))

    def try_picture(self, name: str, png: bytes) -> None:
        """A PNG as an artifact, or a line in the log when it cannot be had there."""
        try:
            self.log_picture(name, png)
        except (RegistryError, OSError) as error:
            log.warning("%s is missing in MLflow: %s", name, safe_line(error))

    def log_picture(self, name: str, png: bytes) -> None:
        """A PNG as an artifact."""
        log_files(self.run_id, {name: png})

    def log_model(self, model: keras.Model, *, stride: int, heads: tuple[str, ...] = ("building",)) -> str:
        """Log the network with its signature, without running it, and return the logged model's id."""
        signature = ModelSignature(
            inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, -1, -1, 3), "image")]),
            outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, -1, -1, len(heads)), "probability")]),
        )
        logged = mlflow.keras.log_model(
            model,
            name=MODEL_NAME,
            signature=signature,
            pip_requirements=[f"{name}=={number}" for name, number in package_versions().items()],
            metadata={"stride": stride, "input": "RGB in [0, 1]", "heads": list(heads)},
        )
        return str(logged.model_id)


@contextmanager
def start_run(
    tracking_uri: str,
    experiment: str,
    *,
    artifacts: Path | None,
    params: dict[str, object],
    tags: dict[str, str],
    name: str | None = None,
    run_id: str | None = None,
    parent_run_id: str | None = None,
) -> Iterator[TrainingRun]:
    """Open an MLflow run; it ends as FAILED when the block raises, as KILLED when it is interrupted.

    What the machine does meanwhile is logged with it.

    Args:
        tracking_uri: MLflow server or database.
        experiment: made when it is not there.
        artifacts: folder for artifacts when the URI is a database; None leaves it to the server.
        params: what to log at once.
        tags: the same.
        name: what the run is called, made up by MLflow when empty; one that goes on keeps its own.
        run_id: go on with this run, unless it is gone or finished.
        parent_run_id: run that it is a child of.

    Raises:
        RegistryError: MLflow cannot be reached.
    """
    try:
        mlflow.set_tracking_uri(tracking_uri)
        made_in = experiment_id(mlflow.MlflowClient(), experiment, artifacts=artifacts)
        unfinished = run_id if run_id and _is_unfinished(run_id, made_in) else None
        run = mlflow.start_run(
            run_id=unfinished,
            run_name=None if unfinished else name,
            experiment_id=made_in,
            nested=parent_run_id is not None,
            parent_run_id=parent_run_id,
            tags={**tags, **_environment()},
            log_system_metrics=True,
        )
    except (MlflowException, ImportError) as error:
        raise unanswered(tracking_uri, error) from None
    try:
        if unfinished is None:
            mlflow.log_params(params)
        yield TrainingRun(run)
    except MlflowException as error:
        _end("FAILED")
        raise unanswered(tracking_uri, error, fix=_KEPT) from None
    except Exception:
        _end("FAILED")
        raise
    except BaseException:  # Ctrl-C, or Dagster ending the run
        _end("KILLED")
        raise
    else:
        _end("FINISHED")


def is_finished(tracking_uri: str, run_id: str) -> bool:
    """Whether a run is there; it is FINISHED then, also where an interruption kept MLflow from being told.

    Raises:
        RegistryError: MLflow cannot be reached.
    """
    client = mlflow.MlflowClient(tracking_uri)
    try:
        info = client.get_run(run_id).info
        if info.lifecycle_stage == "active" and info.status != "FINISHED":
            client.set_terminated(run_id, "FINISHED")
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise unanswered(tracking_uri, error, fix=_KEPT) from None
    return bool(info.lifecycle_stage == "active")


def _end(status: str) -> None:
    """End the run, as far as MLflow can be told: that it cannot must not hide why the run ends."""
    try:
        mlflow.end_run(status)
    except MlflowException as error:
        log.warning("MLflow cannot be told that the run is %s: %s", status, safe_line(error))


def _is_unfinished(run_id: str, experiment_id: str) -> bool:
    try:
        info = mlflow.get_run(run_id).info
    except MlflowException:
        return False
    return bool(info.lifecycle_stage == "active" and info.experiment_id == experiment_id and info.status != "FINISHED")


@contextmanager
def _answering() -> Iterator[None]:
    """What MLflow says when it is away, without its password: it would be kept with Dagster's run otherwise."""
    try:
        yield
    except MlflowException as error:
        raise unanswered(mlflow.get_tracking_uri(), error, fix=_KEPT) from None


@_answering()
def log_files(run_id: str, files: dict[str, bytes]) -> None:
    """Add artifacts to a run, finished or not: artifact path → bytes."""
    client = mlflow.MlflowClient()
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            local = Path(folder) / Path(name).name
            local.write_bytes(content)
            client.log_artifact(run_id, str(local), str(Path(name).parent) if "/" in name else None)


@_answering()
def read_file(tracking_uri: str, run_id: str, name: str) -> bytes | None:
    """An artifact of a run; None when it has no such one."""
    mlflow.set_tracking_uri(tracking_uri)
    client = mlflow.MlflowClient()
    if name not in [each.path for each in client.list_artifacts(run_id, str(PurePosixPath(name).parent))]:
        return None
    with tempfile.TemporaryDirectory() as folder:
        return Path(client.download_artifacts(run_id, name, folder)).read_bytes()


@_answering()
def described(run_id: str) -> RunData:
    """Parameters, tags and metrics of a run."""
    return mlflow.MlflowClient().get_run(run_id).data


@_answering()
def log_metrics(run_id: str, metrics: dict[str, float]) -> None:
    """Add metrics to a run, finished or not."""
    client = mlflow.MlflowClient()
    for name, value in metrics.items():
        client.log_metric(run_id, name, value)


def download_keras(tracking_uri: str, model_id: str, into: Path) -> Path:
    """The `.keras` file of a logged model.

    Raises:
        RegistryError: it is not there.
    """
    mlflow.set_tracking_uri(tracking_uri)
    try:
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{model_id}", dst_path=str(into)))
        return next(folder.glob("data/*.keras"))
    except (MlflowException, OSError, StopIteration) as error:
        raise RegistryError(
            f"Logged model {model_id} cannot be fetched ({safe_line(error)}).",
            fix="Train again, or check MLFLOW_TRACKING_URI.",
        ) from None


@_answering()
def add_to_model(tracking_uri: str, model_id: str, folder: Path, artifact_path: str) -> None:
    """Put the files of a folder into a logged model, under `artifact_path`."""
    mlflow.set_tracking_uri(tracking_uri)
    with tempfile.TemporaryDirectory() as parent:
        shutil.copytree(folder, Path(parent) / artifact_path)
        mlflow.MlflowClient().log_model_artifacts(model_id, parent)


def package_versions() -> dict[str, str]:
    """Versions of what the network was trained with."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except ImportError:
            continue
    return found


def _environment() -> dict[str, str]:
    commit = git_commit()
    return {
        "python": ".".join(map(str, sys.version_info[:3])),
        "keras_backend": keras.config.backend(),
        **{f"version.{name}": number for name, number in package_versions().items()},
        **({"git_commit": commit} if commit else {}),
    }


def git_commit() -> str | None:
    """The commit that is checked out, with `-dirty` when files differ from it; None outside of a checkout."""
    here = Path(__file__)
    git = ["git", "-C", str(here.parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], check=True, capture_output=True, timeout=10)
        told = subprocess.run(
            [*git, "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
            check=True, capture_output=True, timeout=10, text=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip()
