"""The exported model on OpenVINO: arrays in, probabilities out. No TensorFlow, no Flask."""

from pathlib import Path

import numpy as np
import openvino as ov

from footprint_pipeline.errors import ModelError
from footprint_pipeline.footprints.spec import ModelSpec

MODEL_FILE = "model.xml"


class Runtime:
    """An exported model, compiled for this machine's CPU. Safe to call from several threads.

    Args:
        folder: holds `model.xml`, `model.bin` and `spec.json`.
        threads: CPU threads to use; all that the process may use when None.
        precision: "f32", or "auto" for bf16 where the hardware has it.

    Raises:
        ModelError: a file is missing or OpenVINO refuses it; names the folder.
    """

    def __init__(self, folder: Path, *, threads: int | None = None, precision: str = "auto") -> None:
        self.spec = ModelSpec.read(folder)
        config: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            config["INFERENCE_NUM_THREADS"] = threads
        if precision == "f32":
            config["INFERENCE_PRECISION_HINT"] = "f32"
        try:
            self._model = ov.Core().compile_model(folder / MODEL_FILE, "CPU", config)
        except RuntimeError as error:
            raise ModelError(
                f"{folder}: OpenVINO cannot load {MODEL_FILE} ({str(error).splitlines()[0]}).",
                fix="Export the model again: footprint export.",
            ) from None

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Building probability of every pixel.

        Args:
            batch: float32 in [0, 1], shape (B, H, W, 3); H and W multiples of the spec's stride.

        Returns:
            float32 in [0, 1], shape (B, H, W).
        """
        request = self._model.create_infer_request()
        result = request.infer([np.ascontiguousarray(batch, np.float32)])
        return np.array(result[0][..., 0], np.float32)
