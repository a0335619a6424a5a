"""A stored input and what the network must answer to it: whether an exported model works on this machine.

Written at export (`model.export`), run before a model serves. What is stored is a drawn picture with edges and
patches, for on plain noise a network may be as flat as a broken one. The mean difference judges, not the largest: in
bfloat16 and int8 single pixels at an edge move far, while another network's weights change the picture as a whole.
"""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from footprint_pipeline.errors import ModelError, first_line
from footprint_pipeline.files import atomic_path
from footprint_pipeline.footprints.runtime import Runtime
from footprint_pipeline.footprints.spec import Precision

SELFTEST_FILE = "selftest.npz"
LARGEST_DIFFERENCE: dict[Precision, float] = {"f32": 0.001, "bf16": 0.02, "int8": 0.1}
"""By how much the answer may differ from what was stored, mean of all pixels and heads, in probability."""
_SIDE = 128
_ROUNDING = 1e-3


def write_selftest(folder: Path, answer: Callable[[np.ndarray], np.ndarray]) -> Path:
    """Store an input and its answer beside the exported model, as `selftest.npz`.

    Args:
        folder: of the exported model.
        answer: the network that was exported, float32 (1, 128, 128, 3) in [0, 1] → (1, 128, 128, heads).
    """
    path = folder / SELFTEST_FILE
    image = _picture()
    expected = np.asarray(answer(_as_floats(image)), np.float32)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, image=image, expected=expected)
    return path


def run_selftest(runtime: Runtime, folder: Path) -> None:
    """Ask a loaded model the stored question, or the same picture where none was stored.

    Raises:
        ModelError: its answer is not what it must be; says in what.
    """
    image, expected = _stored(folder)
    try:
        answer = runtime(_as_floats(image))
    except RuntimeError as error:
        raise _failed(folder, f"it cannot compute ({first_line(error)})") from None
    shape = (*image.shape[:3], len(runtime.spec.heads))
    if answer.shape != shape:
        raise _failed(folder, f"its answer has shape {answer.shape}, not {shape}")
    if not (np.isfinite(answer).all() and answer.min() >= -_ROUNDING and answer.max() <= 1 + _ROUNDING):
        raise _failed(folder, "its answer is not made of probabilities")
    if expected is None:
        return
    allowed = LARGEST_DIFFERENCE[runtime.precision]
    if expected.shape != shape or not (difference := float(np.abs(answer - expected).mean())) <= allowed:
        what = f"differs by {difference:.1e}" if expected.shape == shape else f"has shape {expected.shape}"
        raise _failed(folder, f"what was stored {what} ({allowed} is allowed in {runtime.precision})")


def _failed(folder: Path, reason: str) -> ModelError:
    return ModelError(f"{folder.name}: the model fails its self-test: {reason}.", fix="Register the model again.")


def _stored(folder: Path) -> tuple[np.ndarray, np.ndarray | None]:
    path = folder / SELFTEST_FILE
    if not path.exists():  # a version from before there were self-tests
        return _picture(), None
    try:
        with path.open("rb") as file, np.load(file) as stored:
            return stored["image"], stored["expected"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        raise _failed(folder, f"{SELFTEST_FILE} cannot be read") from None


def _picture() -> np.ndarray:
    """Waves, patches and some noise, uint8, shape (1, 128, 128, 3)."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:_SIDE, :_SIDE][..., None] / _SIDE
    channel = np.arange(3)
    image = 0.35 + 0.15 * np.sin(6 * x + channel) + 0.1 * np.cos(5 * y + 2 * channel)
    for _ in range(24):
        top, left = rng.integers(0, _SIDE - 8, 2)
        height, width = rng.integers(6, 28, 2)
        image[top : top + height, left : left + width] = 0.2 + 0.6 * rng.random() + 0.2 * rng.random(3)
    image += rng.normal(0, 0.03, image.shape)
    return np.rint(255 * image.clip(0, 1)).astype(np.uint8)[None]


def _as_floats(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32) / np.float32(255)
