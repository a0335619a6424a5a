"""The exported network in 8-bit integers: post-training quantisation by NNCF, calibrated on chips of real imagery.

What belongs here: making the file. Whether its answers are good enough to serve is measured in
`stages.precisions`. No Keras.
"""

import contextlib
import io
import logging
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import openvino as ov

from footprint_pipeline.errors import ModelError, first_line
from footprint_pipeline.footprints.runtime import INT8_FILE, MODEL_FILE

log = logging.getLogger(__name__)


def quantize(folder: Path, chips: Sequence[np.ndarray]) -> Path:
    """Write the network in 8-bit integers, `model_int8.xml` and `model_int8.bin`, beside `model.xml`.

    Args:
        folder: holds the exported network.
        chips: imagery to calibrate on, float32 in [0, 1], shape (1, H, W, 3) each; H and W multiples of the stride.

    Returns:
        The path of `model_int8.xml`.

    Raises:
        ModelError: there are no chips, NNCF is not installed, or it cannot do it.
    """
    if not chips:
        raise ModelError("There are no chips to calibrate on.", fix="Prepare tiles of the validation split.")
    try:
        import nncf  # type: ignore[import-untyped]
    except ImportError as error:
        raise ModelError(f"NNCF cannot be imported ({error}).", fix="Install the package nncf.") from None
    logging.getLogger("nncf").setLevel(logging.ERROR)  # its own way sets the level of whatever handlers there are
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
            network = ov.Core().read_model(folder / MODEL_FILE)
            quantized = nncf.quantize(
                network,
                nncf.Dataset(list(chips)),
                subset_size=len(chips),
                ignored_scope=nncf.IgnoredScope(names=_first_convolution(network)),
            )
    except Exception as error:  # NNCF's own kinds, OpenVINO's, and any of Python's from deep inside
        log.debug("NNCF failed", exc_info=True)
        raise ModelError(f"NNCF cannot quantise the network ({first_line(error)}).", fix="Serve it in f32.") from None
    path = folder / INT8_FILE
    ov.save_model(quantized, path, compress_to_fp16=False)
    return path


def _first_convolution(network: ov.Model) -> list[str]:
    """The name of the layer that sees the image. It stays as it is: most of what int8 loses is lost there."""
    convolutions = (op.get_friendly_name() for op in network.get_ordered_ops() if op.get_type_name() == "Convolution")
    return list(islice(convolutions, 1))
