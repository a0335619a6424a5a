"""The trained network as files: Keras for those who train on, OpenVINO IR for those who serve, ONNX for everybody else.

Both exports come from one graph (`onnx_graph`), whatever backend Keras runs on.

`python -m footprint_pipeline.model.export IN.keras FOLDER` writes both from a file.
"""

import argparse
import contextlib
import logging
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import onnx
import openvino as ov

from footprint_pipeline.errors import FootprintError, ModelError, first_line
from footprint_pipeline.files import atomic_path
from footprint_pipeline.footprints.runtime import MODEL_FILE
from footprint_pipeline.footprints.selftest import write_selftest
from footprint_pipeline.footprints.spec import ONNX_FILE
from footprint_pipeline.model.onnx_graph import onnx_model

log = logging.getLogger(__name__)

LARGEST_DIFFERENCE = 1e-4
"""By how much an exported network may differ from Keras, in probability, in f32."""
_PROBE = 256


def load_keras(path: Path) -> keras.Model:
    """A `.keras` file as a model, without running code that it may hold.

    Raises:
        ModelError: it cannot be loaded.
    """
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"{path.name}: cannot be loaded ({first_line(error)}).", fix="Fetch it again, or train again."
        ) from None


def export_openvino(model: keras.Model, folder: Path, *, chip_size: int = _PROBE) -> Path:
    """Write the network as OpenVINO IR, `model.xml` and `model.bin`, and compare it with Keras.

    What Keras answers to a stored picture goes beside it, for the service to see that the network works there.

    Args:
        model: float32 (B, H, W, 3) → float32 (B, H, W, heads).
        folder: where to; made when it is not there.
        chip_size: side of the probe that Keras and the exported network are compared on, pixels.

    Returns:
        The path of `model.xml`.

    Raises:
        UnknownLayerError: it has a layer that cannot be exported; names it.
        ModelError: the network cannot be exported, or the exported one answers something else than Keras does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / MODEL_FILE
    try:
        ov.save_model(ov.Core().read_model(onnx_model(model).SerializeToString()), path, compress_to_fp16=False)
        _check(model, path, chip_size)
    except (FootprintError, OSError):
        raise
    except Exception as error:  # OpenVINO's own are of many kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise ModelError(
            f"The network cannot be exported to OpenVINO ({type(error).__name__}: {reason[:200]}).",
            fix="Train another network, or the same in float32 (precision: float32).",
        ) from error
    write_selftest(folder, lambda image: _keras_answer(model, image))
    return path


def export_onnx(model: keras.Model, folder: Path, *, chip_size: int = _PROBE) -> Path:
    """Write the network as ONNX, `model.onnx`, and compare it with Keras; arguments as of `export_openvino`.

    Returns:
        The path of `model.onnx`.

    Raises:
        UnknownLayerError: it has a layer that cannot be exported; names it.
        ModelError: the exported network answers something else than Keras does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ONNX_FILE
    with atomic_path(path) as temporary:
        onnx.save(onnx_model(model), temporary)
        _check(model, temporary, chip_size)
    return path


def _check(model: keras.Model, path: Path, chip_size: int) -> None:
    probe = np.random.default_rng(0).random((1, chip_size, chip_size, 3), np.float32)
    compiled = ov.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    run: Callable[[list[np.ndarray]], dict] = compiled
    largest = float(np.abs(run([probe])[0] - _keras_answer(model, probe)).max())
    log.info("%s and Keras differ by at most %.1e", path.suffix[1:], largest)
    if not largest <= LARGEST_DIFFERENCE:
        raise ModelError(
            f"{path.name}: differs from the Keras model by {largest:.1e} (at most {LARGEST_DIFFERENCE} is allowed).",
            fix="Report it: the export is wrong.",
        )


def _keras_answer(model: keras.Model, batch: np.ndarray) -> np.ndarray:
    with _full_precision():
        return np.asarray(keras.ops.convert_to_numpy(model(batch, training=False)))


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """Keras in all of f32's bits; GPUs leave out some by default."""
    backend = keras.config.backend()
    if backend == "tensorflow":
        from tensorflow.config import experimental

        before = experimental.tensor_float_32_execution_enabled()
        experimental.enable_tensor_float_32_execution(False)
        try:
            yield
        finally:
            experimental.enable_tensor_float_32_execution(before)
    elif backend == "jax":
        import jax

        with jax.default_matmul_precision("highest"):
            yield
    else:
        yield


def main() -> None:
    """Both exports of a `.keras` file."""
    parser = argparse.ArgumentParser(description="Export a .keras file to OpenVINO and ONNX.")
    parser.add_argument("keras_file", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    try:
        model = load_keras(options.keras_file)
        print(export_openvino(model, options.folder))
        print(export_onnx(model, options.folder))
    except ModelError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
