import pytest

from footprint_pipeline.errors import SettingsError
from footprint_pipeline.model.spec import ARTICLE, TrainingSpec, UNetSpec


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"loss": "mse"}, "No loss is called 'mse'.\n  Choose one of bce, bce_dice, bce_chip_dice, focal_dice."),
        ({"optimizer": "adam"}, "Choose one of adamw, sgd."),
        ({"precision": "int8"}, "No precision is called 'int8'"),
        ({"epochs": 0}, "epochs is 0"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"chip_size": 0}, "chip_size is 0"),
        ({"max_minutes": 0}, "max_minutes is 0"),
        ({"chips_per_epoch": -5}, "chips_per_epoch is -5"),
        ({"gsd_m": 0.0}, "gsd_m is 0.0"),
        ({"max_batches": 0}, "max_batches is 0"),
        ({"ema": 1.0}, "ema is 1.0"),
        ({"momentum": -0.1}, "momentum is -0.1"),
        ({"warm_up": 1.5}, "warm_up is 1.5"),
        ({"balance": 2.0}, "balance is 2.0"),
        ({"clip_norm": float("nan")}, "clip_norm is nan"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"gpus": -1}, "gpus is -1"),
        ({"schedule": "step"}, "Choose one of cosine, hold, constant."),
        ({"head_weights": (0.0, 1.0)}, "head_weights are [0.0, 1.0]"),
        ({"head_weights": ()}, "head_weights are []"),
    ],
)
def test_what_makes_no_sense_is_named(options: dict, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        TrainingSpec(**options)
    assert said in str(caught.value)


def test_a_flat_spec_names_every_choice_once() -> None:
    flat = TrainingSpec(network=UNetSpec(width=16)).flat()
    assert (flat["network.width"], flat["augmentation.rotate_deg"], flat["loss"]) == (16, 30.0, "bce_dice")
    assert not any(isinstance(value, dict) for value in flat.values())
    assert {"seed", "chip_size", "network.norm", "augmentation.scale"} <= set(flat)


def test_the_stride_doubles_with_every_level() -> None:
    assert (ARTICLE.stride, UNetSpec(depth=2).stride) == (16, 4)
