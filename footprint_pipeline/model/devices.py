"""What a training computes on: which devices, several of them at once, and in which arithmetic.

What belongs here: every difference between the backends that Keras does not hide. No backend is imported unless it
is the one in force.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import keras

from footprint_pipeline.errors import SettingsError

_CPU = Path("/proc/cpuinfo")
_BFLOAT16 = {"amx_bf16", "avx512_bf16"}
"""Of a CPU's flags those that mean it multiplies bfloat16 faster than float32."""


def choose_devices(gpus: int, *, batch_size: int) -> tuple[str, ...]:
    """The devices to train on, all of the best kind there is.

    Args:
        gpus: how many; 0 takes all that can share a batch evenly, or the CPU where there is none.
        batch_size: chips a step, of all devices together.

    Returns:
        Their names, such as `gpu:0`.

    Raises:
        SettingsError: there are not so many, or they cannot share a batch evenly.
    """
    found = _devices()
    if gpus > (0 if found[0].startswith("cpu") else len(found)):
        raise SettingsError(
            f"{gpus} GPU{'s' * (gpus > 1)} asked for; {keras.config.backend()} sees {', '.join(found)}.",
            fix="Set gpus to 0 to take what there is; for NVIDIA's GPUs install requirements/gpu.lock (make gpu).",
        )
    if gpus and batch_size % gpus:
        raise SettingsError(
            f"{gpus} GPUs cannot share batches of {batch_size} chips evenly.",
            fix=f"Set batch_size to {max(1, batch_size // gpus) * gpus}, for example.",
        )
    return found[: gpus or max(count for count in range(1, len(found) + 1) if batch_size % count == 0)]


@contextmanager
def spread_over(devices: tuple[str, ...]) -> Iterator[None]:
    """What is built and trained within the block is copied to all devices, which share every batch.

    One device changes nothing.
    """
    if len(devices) < 2:
        yield
    elif keras.config.backend() == "jax":
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=list(devices)))
        try:
            yield
        finally:
            keras.distribution.set_distribution(None)
    else:
        with _mirrored(devices).scope():
            yield


@cache
def _mirrored(devices: tuple[str, ...]) -> Any:
    """TensorFlow's strategy for these devices: of two in one process the second's sums meet the first's."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(list(devices))


def fed(begin: Callable[[], Iterator[Any]], *, size: int, heads: int) -> Any:
    """What Keras's `fit` reads endless batches from: uint8 (B, size, size, 3) and (B, size, size, heads).

    They are begun anew when they are read anew: with several devices Keras looks at the first ones before it trains.

    TensorFlow watches what Keras makes of a generator, to tune it, from a thread that at times misses the end and
    sleeps on while the training waits for it. Batches that are made ahead leave nothing to tune.
    """
    if keras.config.backend() != "tensorflow":
        return begin()
    import tensorflow as tf

    signature = tuple(tf.TensorSpec((None, size, size, count), tf.uint8) for count in (3, heads))
    untuned = tf.data.Options()
    untuned.autotune.enabled = False
    return tf.data.Dataset.from_generator(begin, output_signature=signature).prefetch(1).with_options(untuned)


def compile_step(*, xla: bool, devices: tuple[str, ...]) -> bool:
    """Whether the step is compiled as one: always by JAX, on demand by the others unless devices share it."""
    return keras.config.backend() == "jax" or (xla and len(devices) < 2)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of tensors, compiled as one."""
    backend = keras.config.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)
    if backend == "jax":
        import jax

        return jax.jit(function)
    import torch  # type: ignore[import-not-found,unused-ignore]

    return torch.compile(function)


def accelerated() -> bool:
    """Whether there is anything better to compute on than a CPU."""
    return not _devices()[0].startswith("cpu")


def choose_precision(wanted: str, devices: tuple[str, ...]) -> str:
    """The Keras dtype policy; `auto` is bfloat16 on an accelerator, and where TensorFlow has a CPU's units for it."""
    if wanted != "auto":
        return wanted
    if not devices[0].startswith("cpu"):
        return "mixed_bfloat16"
    units = (
        keras.config.backend() == "tensorflow" and _CPU.exists() and _BFLOAT16 & set(_CPU.read_text("utf-8").split())
    )
    return "mixed_bfloat16" if units else "float32"


def _devices() -> tuple[str, ...]:
    if keras.config.backend() != "torch":
        return tuple(keras.distribution.list_devices())
    import torch  # type: ignore[import-not-found,unused-ignore]  # Keras trains on one device with it

    return ("gpu:0",) if torch.cuda.is_available() else ("cpu:0",)
