import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from footprint_pipeline.errors import ModelError
from footprint_pipeline.footprints.normalization import UINT8
from footprint_pipeline.footprints.runtime import Runtime
from footprint_pipeline.footprints.spec import ModelSpec
from footprint_pipeline.model.export import export_openvino, load_keras
from footprint_pipeline.model.spec import UNetSpec
from footprint_pipeline.model.unet import build_unet


@pytest.fixture(scope="module")
def network() -> keras.Model:
    keras.utils.set_random_seed(1)
    return build_unet(UNetSpec(width=3, depth=3, batch_norm=True))


def test_the_exported_network_answers_as_keras_does(network: keras.Model, tmp_path: Path) -> None:
    path = export_openvino(network, tmp_path / "serving", chip_size=64)
    assert path == tmp_path / "serving" / "model.xml"
    ModelSpec(
        model_name="m", network="n", tolerance=0.5, gsd_m=0.5, chip_size=64, stride=8, aois=("Town",),
        normalization={"Town": UINT8},
    ).write(tmp_path / "serving")  # fmt: skip
    runtime = Runtime(tmp_path / "serving", threads=1, precision="f32")
    for shape in ((1, 64, 64, 3), (3, 40, 72, 3)):
        batch = np.random.default_rng(0).random(shape, np.float32)
        ours = keras.ops.convert_to_numpy(network(batch, training=False))[..., 0]
        assert np.abs(runtime(batch) - ours).max() < 1e-4
        assert ours.std() > 1e-4


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
