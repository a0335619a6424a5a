"""Training: images a second, and how much of the machine's matrix multiplication that is.

The engine's step is measured on the article's network and on the default one, with its input pipeline; the peer is
one batch that is there already. On a CPU `train` is put beside `model.fit` on batches held in memory, and a killed
training is started again. NumPy, OpenCV and Keras are all this needs, with any backend:
`KERAS_BACKEND=jax python -m benchmarks.training`.
"""

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import keras
import numpy as np
from keras import ops

from benchmarks.form import Figure, main
from benchmarks.noise_tiles import write_tiles
from benchmarks.whole_training import WHOLE, against_fit, resuming
from footprint_pipeline.dataset.batches import TrainingChips
from footprint_pipeline.dataset.cache import TileCache
from footprint_pipeline.model.conductor import LOOK_EVERY_S
from footprint_pipeline.model.devices import choose_devices
from footprint_pipeline.model.learner import build_learner
from footprint_pipeline.model.memory import freed_memory_kept
from footprint_pipeline.model.spec import ARTICLE, DEFAULT, TrainingSpec, UNetSpec
from footprint_pipeline.model.training import batches_ahead
from footprint_pipeline.model.unet import gflop

SHARE_GOAL, INPUT_GOAL = 45, 0.95
PASSES = 3
"""A step costs as many forward passes: the way back is twice the way there."""
FOREVER = 1_000_000


@dataclass(frozen=True)
class Scale:
    """How much is run.

    Attributes:
        networks: what to build, and the batch sizes to choose from, ascending.
        chip_size: of the step, pixels.
        seconds: about how long each measurement takes.
        rounds: measurements of a kind; their median counts.
        patience_s: no other batch size of a network is tried after so long.
        warm_up: steps of an epoch that are not timed: the first ones compile, and use up what was made ahead.
        matrix: side of the largest matrices to multiply.
        whole: the training to put beside `model.fit`.
        tiles: to cut chips from.
    """

    networks: dict[str, tuple[UNetSpec, tuple[int, ...]]]
    chip_size: int
    seconds: float
    rounds: int
    patience_s: float
    warm_up: int
    matrix: int
    whole: TrainingSpec
    tiles: int


GPU = Scale(
    {"article's network": (ARTICLE, (8, 32, 64)), "default network": (DEFAULT, (16, 64, 128))},
    512, 3.0, 3, 50.0, 12, 16384, WHOLE, 64,
)  # fmt: skip
CPU = Scale(
    {"article's network": (ARTICLE, (1,)), "default network": (DEFAULT, (4,))},
    256, 5.0, 3, 0.0, 2, 4096, WHOLE, 64,
)  # fmt: skip
_TINY = UNetSpec(width=4, depth=1)
QUICK = Scale(
    {"tiny network": (_TINY, (2,))},
    224, 0.2, 1, 0.0, 2, 256, TrainingSpec(_TINY, chip_size=224, batch_size=2, chips_per_epoch=6), 2,
)  # fmt: skip


def measure(quick: bool) -> list[Figure]:
    """The engine's step; on a CPU what is around it, too."""
    on_gpu = not choose_devices(0, batch_size=1)[0].startswith("cpu")
    scale = QUICK if quick else GPU if on_gpu else CPU
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        cache = write_tiles(Path(folder), tiles=scale.tiles)
        with nullcontext() if on_gpu else freed_memory_kept():
            for name in scale.networks:
                figures += steps(name, cache, scale, judged=on_gpu)
        if not on_gpu:
            figures += [keeping(cache, scale), *arithmetic(cache, scale)]
        if quick or not on_gpu:
            figures += against_fit(scale.whole, Path(folder), rounds=scale.rounds)
            figures += resuming(scale.whole, Path(folder), in_process=quick)
    return figures


class Stopwatch(keras.callbacks.CallbackList):
    """Times the steps of an epoch, by what the device has done and not by what it was told to do.

    A list, and one that looks at the loss once a second, because the engine's own callback is.

    Attributes:
        seconds: that the steps took, without those that warm up.
    """

    def __init__(self, model: keras.Model, *, warm_up: int, steps: int) -> None:
        super().__init__(add_history=True, model=model)
        self._turns = warm_up, warm_up + steps
        self.seconds, self._started, self._looked = math.nan, math.nan, time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Look, if it is time."""
        if batch + 1 in self._turns or time.perf_counter() - self._looked > LOOK_EVERY_S:
            float(ops.convert_to_numpy(logs["loss"]))  # waits for the device
            self._looked = time.perf_counter()
            if batch + 1 == self._turns[0]:
                self._started = self._looked
            self.seconds = self._looked - self._started


class Step:
    """The engine's step of one network on batches of one size.

    Attributes:
        batch_size: images.
        dtype: that the network computes in.
        rate: images a second, at a first glance.
    """

    def __init__(
        self, network: UNetSpec, cache: TileCache, scale: Scale, *, batch_size: int, precision: str = "auto"
    ) -> None:
        spec = TrainingSpec(network, chip_size=scale.chip_size, batch_size=batch_size, precision=precision)
        self._learner, _ = build_learner(spec, devices=choose_devices(0, batch_size=1), total_steps=FOREVER)
        self._chips = TrainingChips(
            cache, spec.chip_size, batch_size, spec.augmentation, spec.seed, network.heads, np.uint8
        )
        self.batch_size, self.dtype = batch_size, self._learner.compute_dtype
        self._batch = self._chips.batch(0, 0)
        if keras.config.backend() != "tensorflow":  # whose `fit` takes batches from the host alone
            self._batch = tuple(ops.convert_to_tensor(part) for part in self._batch)
        self._warm_up, self._steps = scale.warm_up, 1
        self.resident()  # compiles
        while self._steps * batch_size / (rate := self.resident()) < scale.seconds / 2:
            self._steps = math.ceil(rate * scale.seconds / batch_size)
        self.rate = rate

    def resident(self) -> float:
        """Images a second, of one batch again and again."""
        return self._fit(self._batch for _ in repeat(None))

    def fed(self) -> float:
        """Images a second, with augmented chips."""
        with batches_ahead(self._chips, steps=FOREVER, epoch=0) as batches:
            return self._fit(batches)

    def _fit(self, batches: Iterable) -> float:
        stopwatch = Stopwatch(self._learner, warm_up=self._warm_up, steps=self._steps)
        self._learner.fit(
            batches, steps_per_epoch=self._warm_up + self._steps, callbacks=stopwatch, verbose=0, shuffle=False
        )
        return self._steps * self.batch_size / stopwatch.seconds


def keeping(cache: TileCache, scale: Scale) -> Figure:
    """What it is worth to keep freed memory, on the last of the networks."""
    name, (network, batch_sizes) = list(scale.networks.items())[-1]
    step = Step(network, cache, scale, batch_size=batch_sizes[-1])

    def kept() -> float:
        with freed_memory_kept():
            return step.resident()

    ours, peer = median_in_turn(kept, step.resident, rounds=scale.rounds)
    return Figure(
        f"{name}, {scale.chip_size}×{scale.chip_size}; peer: freed memory is not kept",
        ours, "images/s", peer, ours / peer,
    )  # fmt: skip


def arithmetic(cache: TileCache, scale: Scale) -> list[Figure]:
    """What bfloat16 is worth, on the last of the networks; nothing where a CPU is not trained in it."""
    name, (network, batch_sizes) = list(scale.networks.items())[-1]
    steps = [Step(network, cache, scale, batch_size=batch_sizes[-1], precision=each) for each in ("auto", "float32")]
    if steps[0].dtype == "float32":
        return []
    with freed_memory_kept():
        ours, peer = median_in_turn(*(step.resident for step in steps), rounds=scale.rounds)
    what = f"{name}, {scale.chip_size}×{scale.chip_size}, {steps[0].dtype}; peer: float32"
    return [Figure(what, ours, "images/s", peer, ours / peer)]


def best_step(network: UNetSpec, cache: TileCache, scale: Scale, batch_sizes: tuple[int, ...]) -> Step:
    """The step with the batch size of the highest rate, of those that memory and patience allow."""
    started, best = time.monotonic(), None
    for batch_size in batch_sizes:
        if best is not None and time.monotonic() - started > scale.patience_s:
            break
        try:
            step = Step(network, cache, scale, batch_size=batch_size)
        except Exception as error:  # each backend has its own for full memory
            if best is None or not any(sign in str(error).lower() for sign in ("resource", "out of memory", "oom")):
                raise
            break
        best = step if best is None or step.rate > best.rate else best
    assert best is not None
    return best


def steps(name: str, cache: TileCache, scale: Scale, *, judged: bool) -> list[Figure]:
    """A network's rate at the best batch size, and its share of the rate of matrix multiplication."""
    network, batch_sizes = scale.networks[name]
    step = best_step(network, cache, scale, batch_sizes)
    multiply = multiplication(step.dtype, side=scale.matrix, seconds=scale.seconds)
    fed, resident, most = median_in_turn(step.fed, step.resident, multiply, rounds=scale.rounds)
    share = 100 * PASSES * gflop(network, scale.chip_size) / 1000 / most
    what = f"{name}, {scale.chip_size}×{scale.chip_size}"
    goal = SHARE_GOAL if judged and network == ARTICLE else None
    return [
        Figure(
            f"{what}, batches of {step.batch_size}, {step.dtype}; peer: without the input pipeline",
            fed, "images/s", resident, fed / resident,
            f"≥ {INPUT_GOAL} of the peer" if judged else "", fed / resident >= INPUT_GOAL if judged else None,
        ),
        Figure(
            f"{what}, share of the rate of matrix multiplication",
            fed * share, "%", resident * share, None,
            f"≥ {goal}" if goal else "", fed * share >= goal if goal else None,
        ),
        Figure(f"matrix multiplication beside it, {step.dtype}", most, "TFLOP/s"),
    ]  # fmt: skip


def multiplication(dtype: str, *, side: int, seconds: float) -> Callable[[], float]:
    """Measures 10¹² floating-point operations a second, on square matrices of this side or as large as time allows."""
    size = 256
    while True:
        left, right = (keras.random.normal((size, size), dtype=dtype, seed=seed) for seed in (1, 2))

        def rate(
            times: int, left: keras.KerasTensor = left, right: keras.KerasTensor = right, size: int = size
        ) -> float:
            started = time.perf_counter()
            for _ in range(times):
                product = ops.matmul(left, right)
            float(ops.convert_to_numpy(ops.cast(product[0, 0], "float32")))  # waits for the last one
            return times * 2 * size**3 / 1e12 / (time.perf_counter() - started)

        rate(1)
        once = 2 * size**3 / 1e12 / rate(1)
        if size >= side or once > seconds / 20:
            return lambda: rate(max(1, math.ceil(seconds / once)))
        size *= 2


def median_in_turn(*works: Callable[[], float], rounds: int) -> list[float]:
    """What each work measures, the median of `rounds`, run A B A B … so that noise meets all alike."""
    measured = [[work() for work in works] for _ in range(rounds)]
    return [statistics.median(values) for values in zip(*measured, strict=True)]


if __name__ == "__main__":
    main(measure, description=__doc__)
