"""The world of the service's benchmark: a town of red roofs, and models that find them, registered.

The network is the shipped one, untrained: it computes all that it computes, but the answer is drawn from colours, so
that there are as many buildings as in a town.
"""

import shutil
from pathlib import Path

import numpy as np
import openvino as ov
import rasterio
from openvino import opset13 as ops
from rasterio.transform import from_origin
from rasterio.windows import Window

NAME = "building-footprints"
PLACES = 40
_GSD_M = 0.5
_DEGREE_M = 111_319.5
_ORIGIN = (-43.2, -22.9)
"""Longitude and latitude of the town's north-western corner."""
_CHIP = 256


def places() -> list[tuple[float, float]]:
    """Longitudes and latitudes in the town, well within it."""
    rng = np.random.default_rng(0)
    shift = rng.uniform(350, 950, (PLACES, 2)) / _DEGREE_M
    return [(_ORIGIN[0] + float(x), _ORIGIN[1] - float(y)) for x, y in shift]


def write_town(path: Path, side_m: float = 1300) -> Path:
    """Red roofs of many sizes on grey ground, as a tiled GeoTIFF."""
    rng = np.random.default_rng(1)
    side, block = round(side_m / _GSD_M), 44
    image = rng.integers(90, 150, (3, side, side), np.uint8)
    for top in range(8, side - block, block):
        for left in range(8, side - block, block):
            height, width = rng.integers(14, 36, 2)
            image[:, top : top + height, left : left + width] = np.array([230, 20, 20], np.uint8)[:, None, None]
    pixel = _GSD_M / _DEGREE_M
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=side, width=side, dtype="uint8", photometric="RGB", tiled=True,
        crs="EPSG:4326", transform=from_origin(*_ORIGIN, pixel, pixel),
    ) as target:  # fmt: skip
        target.write(image)
    return path


def write_models(folder: Path, town: Path, quick: bool) -> tuple[Path, Path, Path]:
    """The shipped network that answers by colour, the same in INT8, and the rule of colours alone; when quick, that."""
    parameter = ops.parameter(ov.PartialShape([-1, -1, -1, 3]), np.float32, name="image")
    rule = write_model(folder / "rule", ov.Model([_by_colour(parameter.output(0))], [parameter], "colours"))
    if quick:
        return rule, rule, rule
    from footprint_pipeline.model.export import export_openvino
    from footprint_pipeline.model.spec import DEFAULT
    from footprint_pipeline.model.unet import build_unet

    network = ov.Core().read_model(export_openvino(build_unet(DEFAULT), folder / "keras"))
    share = ops.constant(np.float32(1e-4))
    told = ops.multiply(network.output(0).get_node().input_value(0), share)
    drawn = ops.multiply(_by_colour(network.input(0)), ops.subtract(ops.constant(np.float32(1)), share))
    coloured = write_model(folder / "network", ov.Model([ops.add(drawn, told)], network.get_parameters(), "coloured"))
    return coloured, in_int8(coloured, folder / "int8", town), rule


def in_int8(model: Path, folder: Path, town: Path) -> Path:
    """A model that is served in INT8, calibrated on the town."""
    from footprint_pipeline.footprints.spec import ModelSpec
    from footprint_pipeline.model.quantization import quantize

    shutil.copytree(model, folder)
    with rasterio.open(town) as source:
        chips = [
            source.read(window=Window(left, top, _CHIP, _CHIP)).transpose(1, 2, 0)[None].astype(np.float32) / 255
            for top, left in np.random.default_rng(2).integers(0, min(source.shape) - _CHIP, (20, 2)).tolist()
        ]
    quantize(folder, chips)
    ModelSpec.read(folder).model_copy(update={"precision": "int8"}).write(folder)
    return folder


def write_model(folder: Path, model: ov.Model) -> Path:
    """An exported model as the registry keeps it."""
    from footprint_pipeline.footprints.normalization import UINT8
    from footprint_pipeline.footprints.runtime import Runtime
    from footprint_pipeline.footprints.selftest import write_selftest
    from footprint_pipeline.footprints.spec import ModelSpec
    from footprint_pipeline.model.spec import DEFAULT

    folder.mkdir()
    ov.save_model(model, folder / "model.xml", compress_to_fp16=False)
    ModelSpec(
        model_name=NAME, network=folder.name, tolerance=0.5, gsd_m=_GSD_M, chip_size=_CHIP, stride=DEFAULT.stride,
        heads=DEFAULT.heads, seed_level=0.5, min_area_m2=4.0, aois=("Town",), normalization={"Town": UINT8},
    ).write(folder)  # fmt: skip
    write_selftest(folder, Runtime(folder, precision="f32"))
    return folder


def _by_colour(image: ov.Output) -> ov.Output:
    """Near 1 in the first of three heads where red exceeds green by more than a half."""
    weights = np.zeros((3, 3), np.float32)
    weights[:2, 0] = 20.0, -20.0
    score = ops.matmul(image, ops.constant(weights), False, False)
    return ops.sigmoid(ops.subtract(score, ops.constant(np.float32([10.0, 20.0, 20.0])))).output(0)


def register(uri: str, artifacts: Path, models: list[Path]) -> None:
    """A version of each model."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.create_experiment("benchmark", artifact_location=artifacts.as_uri())
    client.create_registered_model(NAME)
    for model in models:
        run = client.create_run(experiment)
        client.log_artifacts(run.info.run_id, str(model), "serving")
        client.create_model_version(NAME, run.info.artifact_uri, run_id=run.info.run_id)
