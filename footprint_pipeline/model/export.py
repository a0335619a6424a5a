"""The trained network as files: Keras for those who train on, OpenVINO IR for those who serve."""

import logging
import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import openvino as ov

from footprint_pipeline.errors import ModelError
from footprint_pipeline.footprints.runtime import MODEL_FILE

log = logging.getLogger(__name__)

LARGEST_DIFFERENCE = 1e-4
"""By how much the exported network may differ from Keras, in probability, in f32."""


def load_keras(path: Path) -> keras.Model:
    """A `.keras` file as a model, without running code that it may hold.

    Raises:
        ModelError: it cannot be loaded.
    """
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{path.name}: cannot be loaded ({reason}).", fix="Fetch it again, or train again.") from None


def export_openvino(model: keras.Model, folder: Path, *, chip_size: int) -> Path:
    """Write the network as OpenVINO IR, `model.xml` and `model.bin`, and compare it with Keras.

    Args:
        model: float32 (B, H, W, 3) → float32 (B, H, W, 1).
        folder: where to; made when it is not there.
        chip_size: side of the probe that Keras and the exported network are compared on, pixels.

    Returns:
        The path of `model.xml`.

    Raises:
        ModelError: the exported network answers something else than Keras does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / MODEL_FILE
    model.export(str(path), format="openvino", verbose=False)
    largest = _difference(model, path, chip_size)
    log.info("OpenVINO and Keras differ by at most %.1e", largest)
    if not largest <= LARGEST_DIFFERENCE:
        raise ModelError(
            f"{path.name}: differs from the Keras model by {largest:.1e} (at most {LARGEST_DIFFERENCE} is allowed).",
            fix="Report it: the export is wrong.",
        )
    return path


def _difference(model: keras.Model, path: Path, chip_size: int) -> float:
    probe = np.random.default_rng(0).random((1, chip_size, chip_size, 3), np.float32)
    compiled = ov.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    run: Callable[[list[np.ndarray]], dict] = compiled
    return float(np.abs(run([probe])[0] - keras.ops.convert_to_numpy(model(probe, training=False))).max())
