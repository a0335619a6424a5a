import dataclasses
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from footprint_pipeline.errors import SettingsError
from footprint_pipeline.model.encoders import as_it_knows_images
from footprint_pipeline.model.spec import ARTICLE, DEFAULT, HEADS, UNetSpec
from footprint_pipeline.model.unet import as_kept, build_unet, describe, gflop

SMALL = UNetSpec(width=2, depth=2, norm="batch")


@pytest.fixture(autouse=True)
def the_same_weights_in_every_run() -> None:
    keras.utils.set_random_seed(0)


def answer(model: keras.Model, *shape: int) -> np.ndarray:
    image = np.random.default_rng(0).random(shape, np.float32)
    return keras.ops.convert_to_numpy(model(image, training=False))


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


def test_the_default_costs_at_most_a_tenth_of_the_articles_network() -> None:
    article = gflop(ARTICLE, 512)
    assert article == pytest.approx(438, abs=1)  # measured by a profiler
    assert gflop(DEFAULT, 512) <= article / 10
    assert gflop(dataclasses.replace(ARTICLE, width=16), 512) == pytest.approx(article / 16, rel=0.02)


def test_operations_are_those_of_each_convolution() -> None:
    spec = UNetSpec(width=2, depth=1)
    # By hand, in multiply-adds a pixel of the full resolution: two blocks down (the second at a quarter of the pixels),
    # the 2x2 and the block on the way up, the two last layers.
    down = 9 * (3 * 2 + 2 * 2) + 9 * (2 * 4 + 4 * 4) / 4
    up = 4 * 4 * 2 + 9 * (4 * 2 + 2 * 2)
    last = 9 * 2 * 2 + 2 * 1
    assert gflop(spec, 64) == pytest.approx(2 * 64 * 64 * (down + up + last) / 1e9)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"norm": "group"},
        {"residual": True, "upsampling": "bilinear"},
        {"stem": 2, "upsampling": "transpose", "heads": HEADS},
        {"norm": "none", "heads": ("building", "contact")},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(16, 16), (48, 32)])
def test_any_multiple_of_the_stride_gives_probabilities_a_pixel(changes: dict, size: tuple[int, int]) -> None:
    spec = dataclasses.replace(SMALL, **changes)
    probability = answer(build_unet(spec), 2, *size, 3)
    assert probability.shape == (2, *size, len(spec.heads))
    assert probability.dtype == np.float32
    assert 0 <= probability.min() < probability.max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize(("encoder", "skips"), [("MobileNetV2", 4), ("ResNet50V2", 4), ("ConvNeXtTiny", 3)])
def test_a_named_encoder_takes_the_place_of_the_way_down(encoder: str, skips: int) -> None:
    spec = UNetSpec(width=4, norm="batch", encoder=encoder, encoder_weights="random", heads=HEADS)
    model = build_unet(spec)
    assert spec.stride == 32
    assert answer(model, 1, 64, 96, 3).shape == (1, 64, 96, 3)
    assert sum(isinstance(layer, keras.layers.Concatenate) for layer in model.layers[-60:]) == skips
    assert encoder in describe(spec, 1)


@pytest.mark.parametrize("encoder", ["MobileNet", "ResNet50", "DenseNet121", "EfficientNetV2B0"])
def test_an_encoder_is_handed_images_as_it_was_trained_on_them(encoder: str) -> None:
    """From -1 to 1; blue first, less a mean; standardised; and as bytes."""
    application = sys.modules[getattr(keras.applications, encoder).__module__]
    images = np.random.default_rng(0).random((2, 4, 6, 3), np.float32)
    image = keras.Input((None, None, 3))
    handed = keras.Model(image, as_it_knows_images(application, image))(images)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(handed), application.preprocess_input(255 * images), rtol=1e-5, atol=1e-4
    )


def test_an_encoder_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SettingsError, match="no network called 'ResNet1'"):
        build_unet(UNetSpec(encoder="ResNet1"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoder", "reason"),
    [("NASNetMobile", "not the same network for images"), ("InceptionV3", "no layer at a stride")],
)
def test_an_encoder_that_does_not_fit_is_refused(encoder: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        build_unet(UNetSpec(encoder=encoder, encoder_weights="random"))


@pytest.mark.parametrize("encoder", ["MobileNet", "EfficientNetB0"])
def test_weights_that_are_fetched_are_those_of_the_way_down(
    encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = getattr(keras.applications, encoder)
    taught = build(include_top=False, weights=None)
    taught.save_weights(tmp_path / "taught.weights.h5")
    module = sys.modules[build.__module__]
    monkeypatch.setattr(module.file_utils, "get_file", lambda *_, **__: str(tmp_path / "taught.weights.h5"))
    model = build_unet(UNetSpec(width=2, encoder=encoder, encoder_weights="imagenet"))
    convolutions = [
        [layer for layer in network.layers if isinstance(layer, keras.layers.DepthwiseConv2D)]
        for network in (taught, model)
    ]
    assert len(convolutions[0]) == len(convolutions[1]) > 10
    for one, other in zip(*convolutions, strict=True):
        np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(layer.kernel) for layer in (one, other)))
    kept = as_kept(model)
    kept.set_weights(model.get_weights())
    np.testing.assert_array_equal(answer(kept, 1, 32, 64, 3), answer(model, 1, 32, 64, 3))


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["ResNet50", "ConvNeXtTiny"])
def test_a_network_that_was_trained_in_bfloat16_is_kept_in_float32_to_its_last_constant(encoder: str) -> None:
    """The one takes means off its images, the other has layers within layers."""
    spec = UNetSpec(width=2, encoder=encoder, encoder_weights="random")
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        trained = build_unet(spec, for_training=True)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    kept, plain = as_kept(trained), build_unet(spec)
    for network in (kept, plain):
        network.set_weights(trained.get_weights())
    np.testing.assert_allclose(answer(kept, 1, 32, 32, 3), answer(plain, 1, 32, 32, 3), atol=1e-6)


def test_weights_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: object, **kwargs: object) -> str:
        raise Exception("URL fetch failure: Name or service not known")

    module = sys.modules[keras.applications.MobileNetV2.__module__]
    monkeypatch.setattr(module.file_utils, "get_file", no_network)
    with pytest.raises(SettingsError, match=r"ImageNet weights cannot be fetched \(URL fetch failure") as caught:
        build_unet(UNetSpec(width=2, encoder="MobileNetV2"))
    assert "encoder_weights: random" in caught.value.fix


def test_the_last_layer_computes_in_float32_whatever_the_rest_does() -> None:
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        models = [build_unet(SMALL), build_unet(dataclasses.replace(SMALL, stem=2, heads=HEADS))]
    finally:
        keras.mixed_precision.set_global_policy("float32")
    for model in models:
        assert model.get_layer("building").compute_dtype == "float32"
        assert model.layers[1].compute_dtype == "bfloat16"


def test_a_network_for_training_takes_and_gives_the_same_weights() -> None:
    spec = dataclasses.replace(SMALL, residual=True)
    trained, kept = build_unet(spec, for_training=True), build_unet(spec)
    kept.set_weights(trained.get_weights())
    assert np.allclose(answer(trained, 1, 16, 16, 3), answer(kept, 1, 16, 16, 3), atol=1e-6)
    assert {type(layer).__module__.partition(".")[0] for layer in kept.layers} == {"keras"}


@pytest.mark.parametrize(("size", "instead"), [(500, "Choose 496"), (7, "Choose 16")])
def test_a_chip_that_is_no_multiple_of_the_stride_is_refused(size: int, instead: str) -> None:
    with pytest.raises(
        SettingsError, match=f"Chip size {size} is no multiple of the network's stride 16.\n.*{instead}"
    ):
        build_unet(UNetSpec(width=2), chip_size=size)


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 0}, {"depth": 0}, {"dropout": 1.0}, {"dropout": -0.1}, {"stem": 3}, {"norm": "layer"},
        {"upsampling": "cubic"}, {"encoder_weights": "mine"}, {"heads": ()}, {"heads": ("border",)},
        {"heads": ("border", "building")}, {"heads": ("building", "roof")},
    ],
    ids=str,
)  # fmt: skip
def test_a_spec_that_makes_no_network_is_refused(wrong: dict) -> None:
    with pytest.raises(SettingsError, match=r"network|called"):
        dataclasses.replace(SMALL, **wrong)


def test_normalisation_and_heads_show_in_the_description() -> None:
    model = build_unet(SMALL)
    norms = sum(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers)
    assert norms == 2 * (2 + 1 + 2)
    assert describe(SMALL, 1234) == "U-Net, width 2, depth 2, batch norm, 1,234 parameters"
    assert describe(DEFAULT, 5).endswith("stem 2, residual, batch norm, heads building+border+contact, 5 parameters")
