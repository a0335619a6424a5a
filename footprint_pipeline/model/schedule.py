"""The learning rate by progress, and the optimizer that follows it.

What belongs here: how far a training is, of its steps or of its time when that runs out first, and what the rate is
there. The rate is computed within the step, on every backend; the host speaks up only when time presses.
"""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from footprint_pipeline.model.spec import TrainingSpec

_LOWEST = 0.01
"""The rate ends at this share of the largest."""
_FALL = 0.3
"""Share of the training over which a rate that was held falls."""


class Schedule(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]  # keras has no types
    """The rate of each step.

    Progress goes from 0 to 1 along a line: `(progress at a step, that step, progress a step)`. The line is a variable
    of the optimizer, so that it is saved with it and can be bent while training.
    """

    def __init__(self, spec: TrainingSpec, *, total_steps: int) -> None:
        super().__init__()
        self.spec, self.total_steps = spec, total_steps
        self._line: Any = None

    def attach(self, optimizer: keras.optimizers.Optimizer) -> None:
        """Keep the line with this optimizer."""
        self._line = optimizer.add_variable((3,), aggregation="only_first_replica", name="progress")
        self._line.assign(np.array([0.0, 0.0, 1.0 / self.total_steps], np.float32))

    def __call__(self, step: object) -> object:
        """The rate of a step, 0-based."""
        line = ops.convert_to_tensor(self._line)
        progress = ops.clip(line[0] + (ops.cast(step, "float32") - line[1]) * line[2], 0.0, 1.0)
        share = ops.ones_like(progress)
        if self.spec.schedule == "cosine":
            share = 0.5 * (1.0 + ops.cos(math.pi * progress))
        elif self.spec.schedule == "hold":
            share = ops.minimum(1.0, (1.0 - progress) / _FALL)
        if self.spec.warm_up:
            share = share * ops.minimum(1.0, (progress + line[2]) / self.spec.warm_up)
        return self.spec.learning_rate * ops.maximum(share, _LOWEST)

    def bend(self, step: int, *, steps_left: float) -> None:
        """From this step on, reach the end in so many steps, or with the last step if that comes first.

        Nothing is touched where that is the end anyway, so that what a training that has time learns does not depend,
        by its rounding, on when it was looked at.
        """
        progress, since, pace = (float(value) for value in keras.ops.convert_to_numpy(self._line))
        now = min(1.0, progress + (step - since) * pace)
        left = max(1.0, min(steps_left, self.total_steps - step))
        if pace > 0 and abs((1.0 - now) / pace - left) < 0.5:
            return
        self._line.assign(np.array([now, step, (1.0 - now) / left], np.float32))

    def get_config(self) -> dict[str, object]:
        """Nothing: a schedule is made from a spec."""
        return {}


class _AdamW(keras.optimizers.AdamW):  # type: ignore[misc]  # keras has no types
    """Keras's AdamW, to the bit, with the decay of a weight in the step of that weight.

    Keras goes over all weights for it first, and works the schedule out for each, all of which TensorFlow traces before
    it begins.
    """

    def __init__(self, rate: Schedule, *, weight_decay: float, **options: Any) -> None:
        super().__init__(rate, weight_decay=weight_decay, name="adamw", **options)
        self._decay, self.weight_decay = weight_decay, None

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One weight's step."""
        if self._decay and self._use_weight_decay(variable):
            self.assign_sub(variable, variable * self._decay * ops.cast(learning_rate, variable.dtype))
        super().update_step(gradient, variable, learning_rate)


def build_optimizer(spec: TrainingSpec, *, total_steps: int) -> tuple[keras.optimizers.Optimizer, Schedule]:
    """The optimizer as the spec says, and the schedule that it follows."""
    schedule = Schedule(spec, total_steps=total_steps)
    options: dict[str, Any] = {"weight_decay": spec.weight_decay, "global_clipnorm": spec.clip_norm or None}
    if spec.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(schedule, momentum=spec.momentum, nesterov=spec.momentum > 0, **options)
    else:
        adamw = keras.optimizers.AdamW if keras.config.backend() == "torch" else _AdamW  # PyTorch steps all at once
        optimizer = adamw(schedule, **options)
    schedule.attach(optimizer)
    return optimizer, schedule
