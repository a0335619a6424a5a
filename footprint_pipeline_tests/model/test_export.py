import inspect
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import onnxruntime
import pytest

from footprint_pipeline.errors import ModelError, SettingsError
from footprint_pipeline.footprints.normalization import UINT8
from footprint_pipeline.footprints.runtime import Runtime
from footprint_pipeline.footprints.spec import ModelSpec
from footprint_pipeline.model import export
from footprint_pipeline.model.export import export_onnx, export_openvino, load_keras
from footprint_pipeline.model.onnx_graph import UnknownLayerError, onnx_model
from footprint_pipeline.model.quantization import quantize
from footprint_pipeline.model.spec import HEADS, UNetSpec
from footprint_pipeline.model.unet import build_unet

FAMILY = {
    "article-shaped": UNetSpec(width=3, depth=3),
    "narrow": UNetSpec(width=3, depth=3, norm="batch"),
    "three heads at half the resolution": UNetSpec(width=4, depth=2, norm="batch", residual=True, stem=2, heads=HEADS),
    "group norm": UNetSpec(width=16, depth=1, norm="group", upsampling="transpose"),
    "bilinear": UNetSpec(width=2, depth=1, upsampling="bilinear"),
}
ENCODERS = (
    "ConvNeXtTiny", "DenseNet121", "EfficientNetB0", "EfficientNetV2B0", "MobileNet", "MobileNetV2", "MobileNetV3Small",
    "ResNet50", "ResNet50V2", "VGG16", "VGG19", "Xception",
)  # fmt: skip
FAMILY |= {name: UNetSpec(width=16, norm="batch", encoder=name, encoder_weights="random") for name in ENCODERS}


def build(spec: UNetSpec) -> keras.Model:
    """A network whose answers are spread, and whose statistics are not those of a new one."""
    keras.utils.set_random_seed(1)
    model = build_unet(spec)
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(rng.normal(0, 0.1, layer.moving_mean.shape))
            layer.moving_variance.assign(rng.uniform(0.5, 1.5, layer.moving_variance.shape))
    return model


def answer(model: keras.Model, batch: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(batch, training=False))


def write_spec(folder: Path, **changes: object) -> None:
    ModelSpec(
        **{
            "model_name": "m", "network": "n", "tolerance": 0.5, "gsd_m": 0.5, "chip_size": 64, "stride": 8,
            "aois": ("Town",), "normalization": {"Town": UINT8}, **changes,
        }
    ).write(folder)  # fmt: skip


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return build(FAMILY["narrow"])


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in ENCODERS else name for name in FAMILY]
)
def test_the_exported_networks_answer_as_keras_does(name: str, tmp_path: Path) -> None:
    network = build(FAMILY[name])
    assert export_openvino(network, tmp_path, chip_size=64) == tmp_path / "model.xml"
    assert export_onnx(network, tmp_path, chip_size=64) == tmp_path / "model.onnx"
    write_spec(tmp_path, stride=FAMILY[name].stride, heads=FAMILY[name].heads)
    openvino = Runtime(tmp_path, threads=1, precision="f32")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for shape in ((1, 64, 64, 3), (3, 32, 96, 3)):
        batch = np.random.default_rng(0).random(shape, np.float32)
        ours = answer(network, batch)
        assert ours.shape == (*shape[:3], len(FAMILY[name].heads))
        assert ours.std() > 1e-3
        assert np.abs(openvino(batch) - ours).max() < 1e-4
        assert np.abs(session.run(None, {"image": batch})[0] - ours).max() < 1e-4


@pytest.mark.slow
def test_every_family_of_encoders_is_among_them_or_refused() -> None:
    applications = dict(inspect.getmembers(keras.applications, inspect.isfunction))
    first_of = {build.__module__: name for name, build in reversed(applications.items())}
    for family in {applications[name].__module__ for name in ENCODERS}:
        first_of.pop(family)
    assert set(first_of.values()) == {"InceptionResNetV2", "InceptionV3", "NASNetLarge"}
    for name in first_of.values():
        with pytest.raises(SettingsError, match=rf"{name} (has no layer at a stride of 32|is not the same network)"):
            build_unet(UNetSpec(width=4, encoder=name, encoder_weights="random"))


def test_a_layer_that_is_not_known_is_named(tmp_path: Path) -> None:
    image = keras.Input((None, None, 3), name="image")
    x = keras.layers.SpatialDropout2D(0.5, name="odd_one")(image)
    network = keras.Model(image, keras.layers.Conv2D(1, 1, activation="sigmoid")(x))
    for write in (export_openvino, export_onnx):
        with pytest.raises(UnknownLayerError, match=r"Layer 'odd_one' \(SpatialDropout2D\) cannot be exported"):
            write(network, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_layer_that_is_called_twice_is_named(tmp_path: Path) -> None:
    image = keras.Input((None, None, 3), name="image")
    again = keras.layers.Conv2D(3, 3, padding="same", name="again_and_again")
    network = keras.Model(image, keras.layers.Conv2D(1, 1, activation="sigmoid")(again(again(image))))
    with pytest.raises(UnknownLayerError, match=r"Layer 'again_and_again' \(Conv2D\) cannot be exported"):
        export_onnx(network, tmp_path)


def test_an_export_that_answers_otherwise_is_refused(
    network: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = onnx_model(build_unet(FAMILY["narrow"]))
    monkeypatch.setattr(export, "onnx_model", lambda model: other)
    for write in (export_openvino, export_onnx):
        with pytest.raises(ModelError, match=r"differs from the Keras model by \d\.\de[-+]\d\d"):
            write(network, tmp_path, chip_size=64)
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.slow  # a process of its own on another backend
@pytest.mark.parametrize("encoder", [None, "VGG16"])
def test_a_network_on_jax_is_exported_too(tmp_path: Path, encoder: str | None) -> None:
    network = build(UNetSpec(width=2, depth=1, encoder=encoder, encoder_weights="random"))
    network.save(tmp_path / "m.keras")
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "footprint_pipeline.model.export", tmp_path / "m.keras", tmp_path],
        env={**os.environ, "KERAS_BACKEND": "jax"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == [str(tmp_path / name) for name in ("model.xml", "model.onnx")]
    assert re.search(r"\|\s+jax\n", done.stderr)
    assert not re.search(r"\|\s+tensorflow\n", done.stderr)
    write_spec(tmp_path)
    batch = np.random.default_rng(0).random((1, 32, 32, 3), np.float32)
    assert np.abs(Runtime(tmp_path, threads=1, precision="f32")(batch) - answer(network, batch)).max() < 1e-4


def test_int8_lies_beside_f32_and_answers_nearly_the_same(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    network = build(UNetSpec(width=8, depth=1, norm="batch"))
    export_openvino(network, tmp_path, chip_size=64)
    rng = np.random.default_rng(0)
    chips = [rng.random((1, 32, 32, 3), np.float32) for _ in range(4)]
    assert quantize(tmp_path, chips) == tmp_path / "model_int8.xml"
    assert capfd.readouterr().out == ""  # whoever asked for JSON gets JSON
    write_spec(tmp_path, precision="int8")
    ours, theirs = Runtime(tmp_path, threads=1), Runtime(tmp_path, threads=1, precision="f32")
    assert (ours.precision, theirs.precision) == ("int8", "f32")
    batch = rng.random((2, 48, 32, 3), np.float32)
    difference = np.abs(ours(batch) - theirs(batch)).max()
    assert 1e-5 < difference < 0.05
    assert (tmp_path / "model_int8.bin").stat().st_size < (tmp_path / "model.bin").stat().st_size


def test_what_cannot_be_quantised_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="no chips to calibrate on"):
        quantize(tmp_path, [])
    with pytest.raises(ModelError, match="NNCF cannot quantise the network"):
        quantize(tmp_path, [np.zeros((1, 8, 8, 3), np.float32)])
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(ModelError, match="NNCF cannot be imported"):
        quantize(tmp_path, [np.zeros((1, 8, 8, 3), np.float32)])


def test_a_saved_network_comes_back(network: keras.Model, tmp_path: Path) -> None:
    network.save(tmp_path / "m.keras")
    again = load_keras(tmp_path / "m.keras")
    batch = np.random.default_rng(0).random((1, 32, 32, 3), np.float32)
    assert np.allclose(again(batch), network(batch), atol=1e-6)


@pytest.mark.parametrize("kind", ["missing", "garbage", "truncated", "other-zip", "damaged"])
def test_a_broken_file_is_named(network: keras.Model, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"{kind}.keras"
    if kind == "garbage":
        path.write_bytes(b"no model" * 100)
    elif kind == "other-zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "hello")
    elif kind != "missing":
        network.save(path)
        content = bytearray(path.read_bytes())
        if kind == "truncated":
            content = content[: len(content) // 2]
        else:
            content[len(content) // 4 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 4)
        path.write_bytes(content)
    with pytest.raises(ModelError, match=rf"{kind}\.keras: cannot be loaded"):
        load_keras(path)


def test_code_in_a_model_file_is_not_run(tmp_path: Path) -> None:
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, keras.layers.Lambda(lambda x: x * 2)(image))
    model.save(tmp_path / "lambda.keras")
    with pytest.raises(ModelError, match=r"lambda\.keras: cannot be loaded"):
        load_keras(tmp_path / "lambda.keras")


def test_a_network_that_answers_no_numbers_is_not_exported(tmp_path: Path) -> None:
    network = build(FAMILY["narrow"])
    head = network.layers[-1] if network.layers[-1].weights else [each for each in network.layers if each.weights][-1]
    head.set_weights([np.full_like(each, np.nan) for each in head.get_weights()])
    with pytest.raises(ModelError, match="differs from the Keras model by nan"):
        export_onnx(network, tmp_path, chip_size=64)
