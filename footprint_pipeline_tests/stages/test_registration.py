"""From a logged network to the registry and out of it again: real MLflow, a small city, untrained networks."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import keras
import mlflow
import numpy as np
import onnxruntime
import openvino as ov
import pandas as pd
import pytest
from openvino import opset13 as ops

from footprint_pipeline import handover
from footprint_pipeline.commands.registered import export
from footprint_pipeline.dataset.caching import resample
from footprint_pipeline.dataset.splits import digest
from footprint_pipeline.dataset.tiles import read_tile, read_tile_index
from footprint_pipeline.errors import DatasetError
from footprint_pipeline.evaluation.spec import PromotionSpec
from footprint_pipeline.footprints.domain import gsd_step
from footprint_pipeline.footprints.normalization import UINT8, Normalization
from footprint_pipeline.footprints.runtime import Runtime, has_bfloat16
from footprint_pipeline.footprints.spec import ModelSpec
from footprint_pipeline.handover import RegisteredModel, ToleranceSweep, TrainedUnet
from footprint_pipeline.lake import Lake
from footprint_pipeline.model import tracking
from footprint_pipeline.model.export import load_keras
from footprint_pipeline.model.spec import HEADS, UNetSpec
from footprint_pipeline.model.unet import build_unet
from footprint_pipeline.registry import Registry, learned_beside
from footprint_pipeline.settings import Settings
from footprint_pipeline.spacenet.sources import resolve_source
from footprint_pipeline.stages import precisions
from footprint_pipeline.stages.card import CARD
from footprint_pipeline.stages.judging import of_split
from footprint_pipeline.stages.precisions import calibration_chips, choose, compare_precisions
from footprint_pipeline.stages.promotion import learned_by
from footprint_pipeline.stages.registration import register_model, training_domain
from footprint_pipeline.stages.scoring import load_manifest, load_polygons, score_on_sources
from footprint_pipeline.stages.weights import LEARNED_BEFORE, learned_by_weights
from footprint_pipeline_tests.footprints.red_city import write_model
from footprint_pipeline_tests.stages.prepared import AOI, prepare_city

# mlflow.pyfunc warns of its own type hints when it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:.*inferred as AnyType:UserWarning")

NETWORK = UNetSpec(width=4, depth=1, norm="batch", residual=True, stem=2, heads=HEADS)
SCORES = {"median_tile_f1": 0.5, "pooled_pixel_f1": 0.5, "building_f1": 0.5}


def register(settings: Settings, network: keras.Model, **changes: object) -> RegisteredModel:
    """Log a network as training does, and register it as if it had been judged."""
    return register_as(settings, log(settings, network, **changes))


def log(settings: Settings, network: keras.Model, **changes: object) -> TrainedUnet:
    """Log a network as training does."""
    with tracking.start_run(
        settings.mlflow_uri, "tests", artifacts=Lake(settings.home).artifacts, params={}, tags={}
    ) as run:
        model_id = run.log_model(network, stride=NETWORK.stride)
    return TrainedUnet(
        **{
            "run_id": run.run_id, "experiment_id": run.experiment_id, "model_id": model_id, "network": "tiny",
            "parameters": 1, "stride": NETWORK.stride, "chip_size": 64, "gsd_m": 0.5, "aois": (AOI,),
            "split_digest": digest(load_manifest(Lake(settings.home), [])), "normalization": {AOI: UINT8}, "tiles": {},
            "epochs": 1, "best_epoch": 0, "validation_loss": 1.0, "seconds": 1.0, "precision": "float32",
            "heads": HEADS, **changes,
        }
    )  # fmt: skip


CHOSEN = {
    "median_tile_f1": 0.5, "std_tile_f1": 0.1, "pooled_pixel_f1": 0.5, "building_f1": 0.5, "rule": "building_f1",
    "article_tolerance": 0.6, "calibration": ((0.2, 0.1), (0.9, 0.8)),
}  # fmt: skip


def register_as(
    settings: Settings, trained: TrainedUnet, rule: PromotionSpec | None = None, **chosen: object
) -> RegisteredModel:
    """Register a logged network as if this had been chosen for it."""
    judged = {
        "run_id": trained.run_id, "model_id": trained.model_id, "tiles": 1,
        "tolerance": 0.6, "seed_level": 0.4, "flips": 2, "min_area_m2": 4.0, **chosen,
    }  # fmt: skip
    swept = ToleranceSweep(**judged, **CHOSEN)
    evaluated = handover.TestEvaluation(**judged, metrics=SCORES, by_aoi=[])
    return register_model(settings, trained, swept, evaluated, rule or PromotionSpec())


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    home = tmp_path_factory.mktemp("home")
    prepare_city(home)
    before = mlflow.get_tracking_uri()
    yield Settings(home=home, tracking_uri=f"sqlite:///{home / 'mlflow.db'}")
    mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def network() -> keras.Model:
    keras.utils.set_random_seed(2)
    return build_unet(NETWORK)


@pytest.fixture(scope="module")
def first(settings: Settings, network: keras.Model) -> RegisteredModel:
    return register(settings, network)


def test_a_version_says_how_each_precision_does_and_serves_the_fastest_that_passes(
    settings: Settings, first: RegisteredModel
) -> None:
    found = Registry(settings.mlflow_uri, settings.model_name).resolve(version=first.version)
    measured = {"f32", "int8"} | ({"bf16"} if has_bfloat16() else set())
    assert set(first.precisions) == measured
    for precision in measured:
        figures = first.precisions[precision]
        assert set(figures) == {*SCORES, "f1_drop", "latency_ms"}
        assert figures["latency_ms"] > 0
        fall = first.precisions["f32"]["pooled_pixel_f1"] - figures["pooled_pixel_f1"]
        assert float(found.tags[f"f1_drop_{precision}"]) == pytest.approx(fall, abs=1e-4)
        assert float(found.tags[f"latency_ms_{precision}"]) == pytest.approx(figures["latency_ms"], rel=1e-3)
    assert (first.precision, found.tags["precision_reason"]) == choose(first.precisions)
    assert found.tags["precision"] == first.precision
    assert found.tags["heads"] == "building,border,contact"
    assert found.tags.get("git_commit") == first.commit
    assert (found.tags["seed_level"], found.tags["flips"]) == ("0.40", "2")
    assert not [name for name in found.tags if name.startswith("skipped_int8")]


def test_every_format_comes_out_complete(
    settings: Settings, first: RegisteredModel, network: keras.Model, tmp_path: Path
) -> None:
    def files(kind: str) -> list[str]:
        answer = export(settings, kind=kind, alias=None, version=first.version, out=tmp_path / kind)
        assert answer["version"] == first.version
        assert sorted(answer["files"]) == sorted(str(path) for path in (tmp_path / kind).iterdir())
        return sorted(path.name for path in (tmp_path / kind).iterdir())

    name = f"building-footprints-{first.version}"
    assert files("keras") == [f"{name}.keras", f"{name}.training_tiles.csv"]
    assert files("onnx") == ["model.onnx", "spec.json"]
    assert files("openvino") == [
        "model.bin", "model.xml", "model_int8.bin", "model_int8.xml", "selftest.npz", "spec.json", "training_tiles.csv",
    ]  # fmt: skip

    batch = np.random.default_rng(0).random((1, 64, 32, 3), np.float32)
    ours = keras.ops.convert_to_numpy(network(batch, training=False))
    theirs = keras.ops.convert_to_numpy(load_keras(tmp_path / "keras" / f"{name}.keras")(batch, training=False))
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    assert np.abs(theirs - ours).max() < 1e-6
    assert np.abs(session.run(None, {"image": batch})[0] - ours).max() < 1e-4
    assert np.abs(Runtime(tmp_path / "openvino", precision="f32")(batch) - ours).max() < 1e-4
    assert 1e-5 < np.abs(Runtime(tmp_path / "openvino", precision="int8")(batch) - ours).mean() < 0.05
    served = Runtime(tmp_path / "openvino")
    assert served.precision == first.precision
    split = load_manifest(Lake(settings.home), []).groupby("split")["tile_id"]
    learned = learned_by(settings, first.version)
    assert sorted(learned["tile_id"]) == sorted(split.get_group("train"))
    spec = ModelSpec.read(tmp_path / "onnx")
    assert spec == served.spec
    assert (spec.heads, spec.seed_level, spec.flips, spec.tolerance, spec.gsd_m) == (HEADS, 0.4, 2, 0.6, 0.5)
    assert (spec.min_area_m2, spec.calibration) == (4.0, CHOSEN["calibration"])
    assert spec.metrics == first.metrics == {name: first.precisions[first.precision][name] for name in SCORES}
    manifest = load_manifest(Lake(settings.home), [])
    assert spec.domain == training_domain(manifest[manifest["split"] == "train"], gsd_m=0.5)


def test_a_version_knows_what_its_training_tiles_look_like_to_the_network(settings: Settings) -> None:
    manifest = load_manifest(Lake(settings.home), [])
    row = next(manifest.itertuples())
    stretched = [[0.0] * 3, [510.0] * 3]
    half = manifest.iloc[:1].assign(low=[stretched[0]], high=[stretched[1]])
    image, _ = read_tile(Path(row.path))
    for gsd_m, size in ((row.gsd_x_m, image.shape[:2]), (2 * row.gsd_x_m, (80, 88))):
        seen = np.rint(resample(image, size) / 2).astype(np.uint8)
        told = training_domain(half, gsd_m=gsd_m)
        counts = np.stack([np.bincount((seen[..., band] >> 4).ravel(), minlength=16) for band in range(3)])
        assert np.allclose(told.shares, counts / counts.sum(axis=1, keepdims=True), atol=0.02)
        assert told.gsd_m == {gsd_step(row.gsd_x_m): 1}
    assert training_domain(manifest, gsd_m=1.0).tiles == len(manifest)
    assert training_domain(manifest.iloc[:0], gsd_m=1.0) is None


def test_what_cannot_be_had_is_said_and_the_version_is_made(
    settings: Settings, first: RegisteredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precisions, "has_bfloat16", lambda: False)
    monkeypatch.setattr(precisions, "CHIPS", 0)
    second = register(settings, build_unet(UNetSpec(width=2, depth=1)), heads=("building",))
    assert second.champion_metrics is not None
    assert list(second.precisions) == ["f32"]
    assert second.precision == "f32"
    tags = Registry(settings.mlflow_uri, settings.model_name).resolve(version=second.version).tags
    assert tags["skipped_int8"] == "There are no chips to calibrate on."
    assert "no bfloat16" in tags["skipped_bf16"]


def figures(**of: tuple[float, float]) -> dict[str, dict[str, float]]:
    return {precision: {"f1_drop": fall, "latency_ms": time} for precision, (fall, time) in of.items()}


@pytest.mark.parametrize(
    ("of", "chosen"),
    [
        ({"f32": (0, 90), "bf16": (0.0001, 30), "int8": (0.0019, 20)}, "int8"),
        ({"f32": (0, 90), "bf16": (0.0001, 30), "int8": (0.0021, 20)}, "bf16"),
        ({"f32": (0, 90), "bf16": (0.0030, 30), "int8": (0.0021, 20)}, "f32"),
        ({"f32": (0, 90), "bf16": (-0.003, 30), "int8": (-0.001, 31)}, "bf16"),
        ({"f32": (0, 10), "int8": (0.0, 11)}, "f32"),
        ({"f32": (0, 10)}, "f32"),
    ],
)
def test_the_fastest_precision_that_costs_next_to_nothing_is_chosen(
    of: dict[str, tuple[float, float]], chosen: str
) -> None:
    choice, reason = choose(figures(**of))
    assert choice == chosen
    assert all(precision in reason for precision in of)


def write_answer(path: Path, probability: float) -> Path:
    """A network that answers the same everywhere."""
    image = ops.parameter(ov.PartialShape([-1, -1, -1, 3]), np.float32, name="image")
    nothing = ops.matmul(image, ops.constant(np.zeros((3, 1), np.float32)), False, False)
    ov.save_model(ov.Model([ops.add(nothing, ops.constant(np.float32(probability)))], [image], "same"), path)
    return path


def test_a_precision_that_loses_is_not_served_and_many_tiles_are_sampled(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precisions, "quantize", lambda folder, chips: write_answer(folder / "model_int8.xml", 0.1))
    monkeypatch.setattr(precisions, "TEST_TILES", 3)
    monkeypatch.setattr(
        precisions, "_latencies", lambda runtimes: {precision: 9.0 - len(precision) for precision in runtimes}
    )
    write_answer(write_model(tmp_path, tolerance=0.5, stride=8) / "model.xml", 0.9)
    lake = Lake(settings.home)
    manifest = load_manifest(lake, [])
    report = compare_precisions(tmp_path, test=manifest, polygons=load_polygons(lake, manifest), validation=manifest)
    assert len(report.scores.tiles) == 3
    assert report.figures["int8"]["pooled_pixel_f1"] == 0
    assert report.figures["int8"]["f1_drop"] == report.figures["f32"]["pooled_pixel_f1"] > 0.1
    assert report.chosen == ("bf16" if has_bfloat16() else "f32")
    assert report.tags()["precision"] == report.chosen


def test_chips_to_calibrate_on_are_what_the_network_sees(settings: Settings, tmp_path: Path) -> None:
    manifest = load_manifest(Lake(settings.home), [])
    spec = ModelSpec.read(write_model(tmp_path, gsd_m=1.0, chip_size=128, stride=16))
    chips = calibration_chips(manifest, spec)
    assert len(chips) == len(manifest)
    assert {chip.shape for chip in chips} == {(1, 80, 96, 3)}  # tiles of 80 × 88 metres, filled up to the stride
    assert all(chip.dtype == np.float32 and 0 <= chip.min() < chip.max() <= 1 for chip in chips)
    small = ModelSpec.read(write_model(tmp_path, gsd_m=0.5, chip_size=64, stride=16))
    assert {chip.shape for chip in calibration_chips(manifest, small)} == {(1, 64, 64, 3)}


def test_a_network_that_is_registered_again_leaves_what_serves_as_it_is(
    settings: Settings, network: keras.Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained = log(settings, network)
    registry = Registry(settings.mlflow_uri, settings.model_name)
    first = register_as(settings, trained).version
    assert "stretched in" not in caplog.text
    deep = {str(high): Normalization(low=(0, 0, 0), high=(high,) * 3) for high in (2047, 4095)}
    trained = trained.model_copy(update={"normalization": {AOI: UINT8, **deep}})
    second = register_as(settings, trained, tolerance=0.9, flips=1).version
    assert "Imagery of more than 8 bits was stretched in 2 ways" in caplog.text
    for version, chosen in ((first, (0.6, 2)), (second, (0.9, 1))):
        pulled = ModelSpec.read(registry.pull(version=version, into=tmp_path))
        exported = ModelSpec.read(registry.pull_onnx(version=version, into=tmp_path / f"onnx-{version}")[1].parent)
        assert (pulled.tolerance, pulled.flips) == (exported.tolerance, exported.flips) == chosen


def test_what_taught_the_weights_that_a_training_began_from_does_not_judge_it(
    settings: Settings, network: keras.Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = load_manifest(Lake(settings.home), [])
    test = manifest.loc[manifest["split"] == "test", "tile_id"].tolist()
    assert len(test) > 1
    weights = tmp_path / "former.keras"
    weights.touch()
    assert learned_by_weights(weights, manifest).empty
    known = pd.DataFrame({"aoi": [AOI, "Elsewhere"], "tile_id": [test[0], "007"]})
    known.to_csv(learned_beside(weights), index=False)
    assert learned_by_weights(weights, manifest).equals(known)
    assert f"former.keras has learned from 1 of the {len(test)} test tiles" in caplog.text

    trained = log(settings, network, weights="former.keras")
    tracking.log_files(trained.run_id, {LEARNED_BEFORE: known.to_csv(index=False).encode()})
    assert of_split(settings, trained, "test")["tile_id"].tolist() == test[1:]
    all_known = manifest[["aoi", "tile_id"]].to_csv(index=False).encode()
    tracking.log_files(trained.run_id, {LEARNED_BEFORE: all_known})
    for split in ("train", "validation"):  # what has taught may teach again
        assert len(of_split(settings, trained, split)) == (manifest["split"] == split).sum() > 0
    tracking.log_files(trained.run_id, {LEARNED_BEFORE: known.to_csv(index=False).encode()})
    version = register_as(settings, trained).version
    learned = learned_by(settings, version)
    assert {(AOI, test[0]), ("Elsewhere", "007")} < set(learned.itertuples(index=False, name=None))
    again = Registry(settings.mlflow_uri, settings.model_name).pull_keras(version=version, into=tmp_path / "again")
    assert learned_by_weights(again, manifest).equals(learned)

    every = pd.DataFrame({"aoi": AOI, "tile_id": test})
    trained = log(settings, network, weights="former.keras")
    tracking.log_files(trained.run_id, {LEARNED_BEFORE: every.to_csv(index=False).encode()})
    with pytest.raises(DatasetError, match="have learned from every test tile"):
        of_split(settings, trained, "test")


def test_what_was_trained_on_another_split_is_not_judged_on_this_one(settings: Settings, network: keras.Model) -> None:
    other = log(settings, network).model_copy(update={"split_digest": "of before"})
    with pytest.raises(DatasetError, match="The split has changed since run"):
        of_split(settings, other, "test")


def test_the_rule_that_is_given_is_the_one_that_decides(settings: Settings, network: keras.Model) -> None:
    elsewhere = settings.model_copy(update={"model_name": "ruled"})
    assert not register_as(elsewhere, log(settings, network), rule=PromotionSpec(min_building_f1=1.0)).promoted


def test_an_area_keeps_its_own_tolerance_by_name_and_by_place(settings: Settings, network: keras.Model) -> None:
    version = register_as(settings, log(settings, network), own_tolerances={AOI: 0.45}).version
    registry = Registry(settings.mlflow_uri, settings.model_name)
    assert registry.resolve(version=version).tags["own_tolerances"] == f'{{"{AOI}": 0.45}}'
    model = registry.pull(version=version, into=settings.home / "pulled")
    spec = ModelSpec.read(model)
    west, south, east, north = read_tile_index(Lake(settings.home).aoi(AOI).tiles).total_bounds
    assert spec.places == {AOI: (pytest.approx((west, south, east, north), abs=1e-4),)}
    assert spec.tolerance_at((west + east) / 2, (south + north) / 2) == 0.45
    assert spec.tolerance_at(west + 90, south) == 0.6

    city = resolve_source(str(settings.home / "source"), settings.home)

    def tolerance(name: str, spec: ModelSpec, **chosen: float) -> float:
        spec.write(model)
        (of,) = score_on_sources(settings, model, [replace(city, name=name)], **chosen)[0].by_aoi.to_dict("records")
        return of["tolerance"]

    assert tolerance(AOI, spec) == tolerance("another_name", spec) == 0.45
    elsewhere = spec.model_copy(update={"places": {AOI: ((100.0, 0.0, 100.1, 0.1),)}})
    assert [tolerance(name, elsewhere) for name in (AOI, "another_name")] == [0.45, 0.6]
    assert tolerance(AOI, spec, tolerance=0.3) == 0.3


def test_the_card_is_registered_with_the_version(settings: Settings, network: keras.Model) -> None:
    trained = log(settings, network)
    tracking.log_files(trained.run_id, {CARD: b"<html>so good</html>"})
    version = register_as(settings, trained).version
    found = Registry(settings.mlflow_uri, settings.model_name).resolve(version=version)
    (card,) = settings.home.rglob(f"{found.tags['exports']}/card/{Path(CARD).name}")
    assert card.read_bytes() == b"<html>so good</html>"


def test_scores_of_other_labels_are_not_registered(settings: Settings, network: keras.Model) -> None:
    trained = log(settings, network)
    judged = {"run_id": trained.run_id, "model_id": trained.model_id, "tiles": 1, "tolerance": 0.6}
    evaluated = handover.TestEvaluation(**judged, metrics=SCORES, by_aoi=[], data_digest="of former labels")
    with pytest.raises(DatasetError, match=f"{AOI}: prepared anew, all or some, since run {trained.run_id} was scored"):
        register_model(settings, trained, ToleranceSweep(**judged, **CHOSEN), evaluated)


def test_what_belongs_to_another_training_is_not_registered(settings: Settings, network: keras.Model) -> None:
    trained = log(settings, network)
    with pytest.raises(DatasetError, match="was chosen for the network of run another") as error:
        register_as(settings, trained, run_id="another", model_id="m-2")
    assert "footprint tune" in error.value.fix
    judged = {"run_id": trained.run_id, "model_id": trained.model_id, "tiles": 1}
    chosen = ToleranceSweep(**judged, **CHOSEN, tolerance=0.6, flips=2)
    own = {"tolerance": 0.6, "flips": 2, "own_tolerances": {AOI: 0.5}}
    for former in ({"tolerance": 0.5, "flips": 2}, {"tolerance": 0.6, "flips": 1}, own):
        evaluated = handover.TestEvaluation(**judged, **former, metrics=SCORES, by_aoi=[])
        with pytest.raises(DatasetError, match="were not reached with what is chosen now") as error:
            register_model(settings, trained, chosen, evaluated)
        assert "footprint evaluate" in error.value.fix
