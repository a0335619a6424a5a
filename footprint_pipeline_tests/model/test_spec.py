import pytest

from footprint_pipeline.dataset.augmentation import AugmentationSpec
from footprint_pipeline.errors import SettingsError
from footprint_pipeline.model.spec import ARTICLE, TrainingSpec, UNetSpec
from footprint_pipeline.model.unet import describe


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
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**32}, "It must be below 4294967296"),
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


@pytest.mark.parametrize(
    "options",
    [
        {"translate_px": -5.0}, {"scale": (1.5, 0.75)}, {"scale": (0.0, 1.0)}, {"scale": (1.0,)}, {"blur": -1.0},
        {"gamma": -0.1}, {"brightness": float("nan")}, {"grey_share": 1.5}, {"blur_share": -0.1},
    ],
)  # fmt: skip
def test_an_augmentation_that_cannot_be_drawn_is_named(options: dict) -> None:
    (name,) = options
    with pytest.raises(SettingsError, match=f"augmentation.{name} is"):
        AugmentationSpec(**options)


def test_what_a_network_with_an_encoder_does_not_have_is_not_told() -> None:
    spec = UNetSpec(width=16, depth=4, stem=2, dropout=0.3, encoder="MobileNet")
    flat = TrainingSpec(network=spec).flat()
    assert not {"network.depth", "network.stem", "network.dropout"} & set(flat)
    assert flat["network.width"] == 16
    assert describe(spec, 7) == "U-Net, MobileNet, width 16, 7 parameters"


def test_a_network_shrinks_a_tile_by_no_more_than_makes_sense() -> None:
    assert UNetSpec(depth=6, stem=2).stride == 128
    with pytest.raises(SettingsError, match="stride of 256 pixels"):
        UNetSpec(depth=7, stem=2)


def test_the_stride_doubles_with_every_level() -> None:
    assert (ARTICLE.stride, UNetSpec(depth=2).stride) == (16, 4)
