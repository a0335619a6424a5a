"""What an MLflow run holds, read back for those who show it."""

import logging
import tempfile
from pathlib import Path

from footprint_pipeline.registry import safe_line  # sets MLflow up before it is imported
from footprint_pipeline.settings import Settings

from mlflow import MlflowClient  # isort: skip
from mlflow.exceptions import MlflowException  # isort: skip

log = logging.getLogger(__name__)

VALIDATION_PICTURES = "validation"
"""Artifact folder of a training's run: a PNG every few epochs, named in their order."""


def last_validation_picture(settings: Settings, run_id: str) -> bytes | None:
    """The newest picture of validation chips as PNG; None where there is none, or MLflow is away."""
    try:
        client = MlflowClient(settings.mlflow_uri)
        found = [file.path for file in client.list_artifacts(run_id, VALIDATION_PICTURES) if not file.is_dir]
        if not found:
            return None
        with tempfile.TemporaryDirectory() as scratch:
            return Path(client.download_artifacts(run_id, max(found), scratch)).read_bytes()
    except (MlflowException, OSError) as error:
        log.warning("No picture of run %s can be shown: %s", run_id, safe_line(error))
        return None
