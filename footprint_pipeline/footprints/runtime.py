"""The exported model on OpenVINO: arrays in, probabilities out. No TensorFlow, no Flask."""

from pathlib import Path
from typing import Literal

import numpy as np
import openvino as ov

from footprint_pipeline.errors import ModelError
from footprint_pipeline.footprints.spec import ModelSpec, Precision

MODEL_FILE = "model.xml"
INT8_FILE = "model_int8.xml"
"""The same network in 8-bit integers, where it could be made."""


class Runtime:
    """An exported model, compiled for this machine's CPU. Safe to call from several threads.

    Args:
        folder: holds `model.xml`, `model.bin` and `spec.json`, and perhaps `model_int8.xml` and `model_int8.bin`.
        threads: CPU threads to use; all that the process may use when None.
        precision: "f32", "bf16", "int8", or "auto" for what the spec says.

    Attributes:
        spec: what the model says about itself.
        precision: what it runs in; f32 instead of bf16 on a CPU that has no bfloat16.

    Raises:
        ModelError: a file is missing or OpenVINO refuses it; names the folder.
    """

    def __init__(
        self, folder: Path, *, threads: int | None = None, precision: Precision | Literal["auto"] = "auto"
    ) -> None:
        self.spec = ModelSpec.read(folder)
        core = ov.Core()
        floats: Precision = "bf16" if has_bfloat16(core) else "f32"
        self.precision: Precision = self.spec.precision if precision == "auto" else precision
        if self.precision == "bf16":
            self.precision = floats
        # What int8 leaves in floating point is computed in the fastest that the CPU has.
        config: dict[str, object] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": floats if self.precision == "int8" else self.precision,
        }
        if threads is not None:
            config["INFERENCE_NUM_THREADS"] = threads
        name = INT8_FILE if self.precision == "int8" else MODEL_FILE
        try:
            self._model = core.compile_model(folder / name, "CPU", config)
        except RuntimeError as error:
            raise ModelError(
                f"{folder}: OpenVINO cannot load {name} ({str(error).splitlines()[0]}).",
                fix="Export the model again: footprint export.",
            ) from None

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """What the network tells of every pixel.

        Args:
            batch: float32 in [0, 1], shape (B, H, W, 3); H and W multiples of the spec's stride.

        Returns:
            float32 in [0, 1], shape (B, H, W, heads), in the order of the spec's heads.
        """
        request = self._model.create_infer_request()
        result = request.infer([np.ascontiguousarray(batch, np.float32)])
        return np.array(result[0], np.float32)


def has_bfloat16(core: ov.Core | None = None) -> bool:
    """Whether this machine's CPU computes in bfloat16."""
    return "BF16" in (core or ov.Core()).get_property("CPU", "OPTIMIZATION_CAPABILITIES")
