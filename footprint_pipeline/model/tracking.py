"""A training as an MLflow run: parameters, metrics by epoch, pictures, the model with its signature."""

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import keras
import mlflow
import numpy as np
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from footprint_pipeline.errors import RegistryError
from footprint_pipeline.registry import first_line, without_credentials

log = logging.getLogger(__name__)

MODEL_NAME = "unet"
"""Name of the logged model within its run."""
PACKAGES = ("keras", "tensorflow-cpu", "tensorflow", "numpy", "opencv-python-headless", "mlflow")


class TrainingRun:
    """An MLflow run that is under way."""

    def __init__(self, run: mlflow.ActiveRun) -> None:
        self.run_id: str = run.info.run_id
        self.experiment_id: str = run.info.experiment_id

    def log_epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        """Metrics of an epoch, as they come. A server that is away for a while does not end a training."""
        try:
            mlflow.log_metrics({name: value for name, value in metrics.items() if np.isfinite(value)}, step=epoch)
        except MlflowException as error:
            log.warning("Epoch %d is missing in MLflow: %s", epoch + 1, without_credentials(first_line(error)))

    def log_picture(self, name: str, png: bytes) -> None:
        """A PNG as an artifact."""
        log_files(self.run_id, {name: png})

    def log_model(self, model: keras.Model, *, stride: int) -> str:
        """Log the network with its signature, without running it, and return the logged model's id."""
        signature = ModelSignature(
            inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, -1, -1, 3), "image")]),
            outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, -1, -1, 1), "building")]),
        )
        logged = mlflow.keras.log_model(
            model,
            name=MODEL_NAME,
            signature=signature,
            pip_requirements=[f"{name}=={number}" for name, number in package_versions().items()],
            metadata={"stride": stride, "input": "RGB in [0, 1]"},
        )
        return str(logged.model_id)


@contextmanager
def start_run(
    tracking_uri: str, experiment: str, *, artifacts: Path | None, params: dict[str, object], tags: dict[str, str]
) -> Iterator[TrainingRun]:
    """Open an MLflow run; it ends as FAILED when the block raises, as KILLED when it is interrupted.

    Args:
        tracking_uri: MLflow server or database.
        experiment: made when it is not there.
        artifacts: folder for artifacts when the URI is a database; None leaves it to the server.
        params: what to log at once.
        tags: the same.

    Raises:
        RegistryError: MLflow cannot be reached.
    """
    try:
        mlflow.set_tracking_uri(tracking_uri)
        found = _experiment(experiment, artifacts)
        run = mlflow.start_run(experiment_id=found.experiment_id, tags={**tags, **_environment()})
    except MlflowException as error:
        raise RegistryError(
            f"MLflow at {without_credentials(tracking_uri)} does not answer as it should ({first_line(error)}).",
            fix="Check that it runs and that MLFLOW_TRACKING_URI names it.",
        ) from None
    try:
        mlflow.log_params(params)
        yield TrainingRun(run)
    except Exception:
        mlflow.end_run("FAILED")
        raise
    except BaseException:  # Ctrl-C, or Dagster ending the run
        mlflow.end_run("KILLED")
        raise
    else:
        mlflow.end_run("FINISHED")


def log_files(run_id: str, files: dict[str, bytes]) -> None:
    """Add artifacts to a run, finished or not: artifact path → bytes."""
    client = mlflow.MlflowClient()
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            local = Path(folder) / Path(name).name
            local.write_bytes(content)
            client.log_artifact(run_id, str(local), str(Path(name).parent) if "/" in name else None)


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
            f"Logged model {model_id} cannot be fetched ({first_line(error)}).",
            fix="Train again, or check MLFLOW_TRACKING_URI.",
        ) from None


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


def _experiment(name: str, artifacts: Path | None) -> Experiment:
    found = mlflow.get_experiment_by_name(name)
    if found is not None:
        return found
    location = artifacts.absolute().as_uri() if artifacts is not None else None
    return mlflow.get_experiment(mlflow.create_experiment(name, artifact_location=location))


def _environment() -> dict[str, str]:
    return {
        "python": ".".join(map(str, sys.version_info[:3])),
        "keras_backend": keras.config.backend(),
        **{f"version.{name}": number for name, number in package_versions().items()},
    }
