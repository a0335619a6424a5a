"""The exported model on OpenVINO: arrays in, probabilities out. No TensorFlow, no Flask."""

import threading
from pathlib import Path
from typing import Literal

import numpy as np
import openvino as ov

from footprint_pipeline.errors import ModelError
from footprint_pipeline.footprints.cpu_quota import cpu_quota
from footprint_pipeline.footprints.spec import ModelSpec, Precision

MODEL_FILE = "model.xml"
INT8_FILE = "model_int8.xml"
"""The same network in 8-bit integers, where it could be made."""


class Runtime:
    """An exported model, compiled for this machine's CPU. Safe to call from several threads.

    Args:
        folder: holds `model.xml`, `model.bin` and `spec.json`, and perhaps `model_int8.xml` and `model_int8.bin`.
        threads: CPU threads to use; all that the process may use, by its binding and its control group, when None.
        precision: "f32", "bf16", "int8", or "auto" for what the spec says.
        streams: whether the threads are divided among images, of one batch or of several callers, while there are as
            many as that, which is faster then; otherwise all work on one batch at a time, as they do for one alone.

    Attributes:
        spec: what the model says about itself.
        precision: what it runs in; f32 instead of bf16 on a CPU that has no bfloat16.
        streams: how many images are computed at a time, if there are as many.

    Raises:
        ModelError: a file is missing or OpenVINO refuses it; names the folder.
    """

    spec: ModelSpec
    precision: Precision
    streams: int

    def __init__(
        self,
        folder: Path,
        *,
        threads: int | None = None,
        precision: Precision | Literal["auto"] = "auto",
        streams: bool = False,
    ) -> None:
        self.spec = ModelSpec.read(folder)
        core = ov.Core()
        floats: Precision = "bf16" if has_bfloat16(core) else "f32"
        self.precision = self.spec.precision if precision == "auto" else precision
        if self.precision == "bf16":
            self.precision = floats
        # What int8 leaves in floating point is computed in the fastest that the CPU has.
        config: dict[str, object] = {
            "INFERENCE_PRECISION_HINT": floats if self.precision == "int8" else self.precision,
        }
        if threads := threads or cpu_quota():
            config["INFERENCE_NUM_THREADS"] = threads
        name = INT8_FILE if self.precision == "int8" else MODEL_FILE
        try:
            network = core.read_model(folder / name)
            self._whole = core.compile_model(network, "CPU", config | {"PERFORMANCE_HINT": "LATENCY"})
            self._divided, self.streams = self._whole, 1
            if streams:
                self._divided = core.compile_model(network, "CPU", config | {"PERFORMANCE_HINT": "THROUGHPUT"})
                self.streams = int(self._divided.get_property("NUM_STREAMS"))
        except RuntimeError as error:
            raise ModelError(
                f"{folder}: OpenVINO cannot load {name} ({_reason(error)}).",
                fix="Export the model again: footprint export.",
            ) from None
        self._calls, self._counting = 0, threading.Lock()

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """What the network tells of every pixel.

        Args:
            batch: float32 in [0, 1], shape (B, H, W, 3); H and W multiples of the spec's stride.

        Returns:
            float32 in [0, 1], shape (B, H, W, heads), in the order of the spec's heads.
        """
        batch = np.ascontiguousarray(batch, np.float32)
        with self._counting:
            alone = self._calls == 0 and len(batch) < self.streams
            self._calls += 1
        try:
            if alone or self.streams == 1:
                return _answers(self._whole, [batch])
            return _answers(self._divided, [batch[number : number + 1] for number in range(len(batch))])
        finally:
            with self._counting:
                self._calls -= 1


def _reason(error: RuntimeError) -> str:
    """What an error of OpenVINO's says at its end, after the places in its source that it came by."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


def _answers(network: ov.CompiledModel, parts: list[np.ndarray]) -> np.ndarray:
    requests = [network.create_infer_request() for _ in parts]  # they wait for a stream in this order
    for request, part in zip(requests, parts, strict=True):
        request.start_async([part], share_inputs=True)
    for request in requests:
        request.wait()
    answers = [request.get_output_tensor(0).data for request in requests]  # which they keep, and nobody else writes to
    return np.asarray(answers[0] if len(answers) == 1 else np.concatenate(answers), np.float32)


def has_bfloat16(core: ov.Core | None = None) -> bool:
    """Whether this machine's CPU computes in bfloat16."""
    return "BF16" in (core or ov.Core()).get_property("CPU", "OPTIMIZATION_CAPABILITIES")
