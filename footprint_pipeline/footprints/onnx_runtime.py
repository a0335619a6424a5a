"""The exported model on ONNX Runtime, for a GPU. Neither it nor a GPU is needed: without them OpenVINO serves."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from footprint_pipeline.errors import ModelError, first_line
from footprint_pipeline.footprints.runtime import Runtime
from footprint_pipeline.footprints.spec import ONNX_FILE, ModelSpec

CUDA = "CUDAExecutionProvider"


def open_runtime(folder: Path, *, threads: int | None = None) -> Runtime:
    """The fastest way to run an exported model for many callers here: a GPU if there is one, else the CPU in streams.

    Args:
        folder: of the exported model; on a GPU it must hold `model.onnx` too.
        threads: CPU threads, as `Runtime`.

    Raises:
        ModelError: the model cannot be loaded.
    """
    if has_cuda() and (folder / ONNX_FILE).exists():
        return OnnxRuntime(folder)
    return Runtime(folder, threads=threads, streams=True)


@cache
def has_cuda() -> bool:
    """Whether ONNX Runtime is installed with CUDA."""
    if find_spec("onnxruntime") is None:
        return False
    import onnxruntime  # type: ignore[import-untyped]

    return CUDA in onnxruntime.get_available_providers()


class OnnxRuntime(Runtime):
    """An exported model on ONNX Runtime. Safe to call from several threads.

    Args:
        folder: holds `model.onnx` and `spec.json`.
        provider: of ONNX Runtime's, what computes.

    Raises:
        ModelError: a file is missing, ONNX Runtime refuses it, or the provider does not work here.
    """

    def __init__(self, folder: Path, *, provider: str = CUDA) -> None:
        import onnxruntime

        self.spec = ModelSpec.read(folder)
        self.precision, self.streams = "f32", 1
        try:
            self._session = onnxruntime.InferenceSession(folder / ONNX_FILE, providers=[provider])
        except Exception as error:  # its own kinds have no common parent
            raise ModelError(
                f"{folder}: ONNX Runtime cannot load {ONNX_FILE} ({first_line(error)}).",
                fix="Export the model again: footprint export --format onnx.",
            ) from None
        if provider not in self._session.get_providers():  # it falls back without an error
            raise ModelError(
                f"ONNX Runtime's {provider} does not work here.",
                fix="Check the GPU's driver and libraries, or uninstall onnxruntime-gpu: OpenVINO serves then.",
            )
        self._input = self._session.get_inputs()[0].name

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """What the network tells of every pixel; as `Runtime`."""
        answer = self._session.run(None, {self._input: np.ascontiguousarray(batch, np.float32)})[0]
        return np.asarray(answer, np.float32)
