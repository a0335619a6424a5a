import dataclasses

import keras
import numpy as np
import pytest

from footprint_pipeline.errors import SettingsError
from footprint_pipeline.model.spec import ARTICLE, UNetSpec
from footprint_pipeline.model.unet import build_unet, describe

SMALL = UNetSpec(width=2, batch_norm=True)


def test_the_articles_network_has_its_parameters() -> None:
    model = build_unet(ARTICLE, chip_size=512)
    assert model.count_params() == 31_032_837
    assert model.input_shape == (None, 512, 512, 3)
    assert model.output_shape == (None, 512, 512, 1)
    assert describe(ARTICLE, model.count_params()) == "U-Net, width 64, depth 4, 31,032,837 parameters"
    drops = [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert drops == [0.25] * 4
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert convolutions[-2].filters == 2
    assert all(isinstance(layer.kernel_initializer, keras.initializers.HeNormal) for layer in convolutions[:-1])


@pytest.mark.parametrize("size", [(16, 16), (48, 32), (32, 80)])
def test_any_multiple_of_the_stride_gives_a_probability_a_pixel(size: tuple[int, int]) -> None:
    model = build_unet(SMALL)
    image = np.random.default_rng(0).random((2, *size, 3), np.float32)
    probability = keras.ops.convert_to_numpy(model(image))
    assert probability.shape == (2, *size, 1)
    assert probability.dtype == np.float32
    assert 0 <= probability.min() < probability.max() <= 1


def test_the_last_layer_computes_in_float32_whatever_the_rest_does() -> None:
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = build_unet(SMALL)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert model.get_layer("building").compute_dtype == "float32"
    assert model.layers[1].compute_dtype == "bfloat16"


@pytest.mark.parametrize(("size", "instead"), [(500, "Choose 496"), (7, "Choose 16")])
def test_a_chip_that_is_no_multiple_of_the_stride_is_refused(size: int, instead: str) -> None:
    with pytest.raises(
        SettingsError, match=f"Chip size {size} is no multiple of the network's stride 16.\n.*{instead}"
    ):
        build_unet(SMALL, chip_size=size)


@pytest.mark.parametrize("wrong", [{"width": 0}, {"depth": 0}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_a_spec_that_makes_no_network_is_refused(wrong: dict) -> None:
    with pytest.raises(SettingsError, match="No network can be built"):
        build_unet(dataclasses.replace(SMALL, **wrong))


def test_batch_normalisation_shows_in_the_description() -> None:
    model = build_unet(SMALL)
    norms = sum(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers)
    assert norms == 2 * (4 + 1 + 4)
    assert describe(SMALL, 1234) == "U-Net, width 2, depth 4, batch norm, 1,234 parameters"
