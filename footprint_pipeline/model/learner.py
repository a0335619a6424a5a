"""A network while it learns: its averaged weights, and how many steps were sound.

What belongs here: what happens within a step beyond the network itself. Written in Keras's own operations, so that
every backend compiles it into the step.
"""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from footprint_pipeline.model.devices import choose_precision, compile_step
from footprint_pipeline.model.losses import Loss, build_loss
from footprint_pipeline.model.metrics import PixelF1
from footprint_pipeline.model.schedule import Schedule, build_optimizer
from footprint_pipeline.model.spec import TrainingSpec
from footprint_pipeline.model.unet import build_unet


class Learner(keras.Model):  # type: ignore[misc]  # keras has no types
    """A network in training: uint8 (B, H, W, 3) → float32 (B, H, W, heads).

    Attributes:
        network: what learns.
        average: moving average of the network's weights and of its normalisations' statistics, all in one vector,
            which costs the graph few operations; None without.
        steps: steps taken.
        sound_steps: steps before the first whose loss was not a number.
    """

    def __init__(self, network: keras.Model, *, ema: float, precision: str) -> None:
        super().__init__(name="learner", dtype=precision)
        self.network, self._ema = network, ema
        self.steps = self._counter("steps")
        self.sound_steps = self._counter("sound_steps")
        self.average: keras.Variable | None = None
        if ema:
            size = sum(math.prod(weight.shape) for weight in network.weights)
            self.average = self._variable((size,), "average")
            self.restart_average()

    def _counter(self, name: str) -> keras.Variable:
        """A float, for some kernels know nothing else; it counts to sixteen million."""
        return self._variable((), name)

    def _variable(self, shape: tuple[int, ...], name: str) -> keras.Variable:
        return self.add_weight(shape, initializer="zeros", trainable=False, aggregation="only_first_replica", name=name)

    def restart_average(self) -> None:
        """Let the average be the weights that there are."""
        if self.average is not None:
            self.average.assign(np.concatenate([value.ravel() for value in arrays(self.network.weights)]))

    def call(self, images: Any, training: bool | None = None) -> Any:
        """What the network says of uint8 images; divided by 255 where it computes, for bytes travel faster."""
        return self.network(ops.cast(images, "float32") * (1.0 / 255.0), training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True) -> Any:  # type: ignore[no-untyped-def]
        """The loss; in training the step is counted and the average moves on."""
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        if training:
            sound = ops.logical_and(ops.isfinite(loss), ops.equal(self.sound_steps, self.steps))
            self.sound_steps.assign(self.sound_steps + ops.cast(sound, "float32"))
            self.steps.assign(self.steps + 1.0)
            self._move_average()
        return loss

    def _move_average(self) -> None:
        """The decay is lower at first, so that the random start is soon forgotten."""
        if self.average is None:
            return
        keep = ops.minimum(self._ema, (1.0 + self.steps) / (10.0 + self.steps))
        now = ops.concatenate([ops.reshape(ops.cast(weight, "float32"), (-1,)) for weight in self.network.weights])
        self.average.assign(self.average + (1.0 - keep) * (ops.stop_gradient(now) - self.average))

    def swap_average(self) -> None:
        """Put the average in the place of the weights, or back.

        Without one, too, what is kept is put in its place: several devices have statistics of their own until then.
        """
        kept = self.kept_weights()
        if self.average is not None:
            self.restart_average()
        self.network.set_weights(kept)

    def kept_weights(self) -> list[np.ndarray]:
        """The weights that a training is for, in the network's order."""
        weights = self.network.weights
        if self.average is None:
            return arrays(weights)
        (flat,) = arrays([self.average])
        parts = np.split(flat, np.cumsum([math.prod(weight.shape) for weight in weights])[:-1])
        return [part.reshape(weight.shape).astype(weight.dtype) for part, weight in zip(parts, weights, strict=True)]


class _OfBatch(keras.losses.Loss):  # type: ignore[misc]  # keras has no types
    """A loss of a batch as one number a chip: a lone number is not shared out among devices."""

    def __init__(self, loss: Loss, *, name: str) -> None:
        super().__init__(name=name, dtype="float32")
        self._loss = loss

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self._loss(y_true, y_pred) * ops.ones_like(y_pred[:, 0, 0, 0])


def build_learner(spec: TrainingSpec, *, devices: tuple[str, ...], total_steps: int) -> tuple[Learner, Schedule]:
    """A compiled learner from a random start, and the schedule of its rate.

    Its `fit` takes batches of uint8 images (B, H, W, 3) and uint8 truth (B, H, W, heads). Call it within
    `spread_over(devices)` when there are several.

    Args:
        spec: what to build and how to train it.
        devices: what it will be trained on.
        total_steps: of the whole training; the rate falls over them.
    """
    precision = choose_precision(spec.precision, devices)
    former = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        network = build_unet(spec.network, for_training=True)
    finally:
        keras.config.set_dtype_policy(former)
    learner = Learner(network, ema=spec.ema, precision=precision)
    optimizer, schedule = build_optimizer(spec, total_steps=total_steps)
    optimizer.exclude_from_weight_decay([weight for weight in learner.trainable_variables if len(weight.shape) < 2])
    learner.compile(
        optimizer,
        _OfBatch(build_loss(spec.loss, head_weights=spec.head_weights), name=spec.loss),
        metrics=[PixelF1()],
        jit_compile=compile_step(xla=spec.xla, devices=devices),
    )
    learner.optimizer.build(learner.trainable_variables)  # so that its state can be restored before the first step
    return learner, schedule


def arrays(variables: list[keras.Variable]) -> list[np.ndarray]:
    """The values of variables, copied to the host."""
    return [np.array(ops.convert_to_numpy(variable)) for variable in variables]
