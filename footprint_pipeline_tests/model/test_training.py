import time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from footprint_pipeline.dataset.batches import FixedChips
from footprint_pipeline.dataset.cache import TileCache
from footprint_pipeline.errors import SettingsError, TrainingError
from footprint_pipeline.model.losses import build_loss
from footprint_pipeline.model.spec import UNetSpec
from footprint_pipeline.model.training import TrainingResult, keras_infer, train
from footprint_pipeline_tests.model.conftest import toy_cache, toy_spec


def validation_loss(result: TrainingResult, cache: TileCache) -> float:
    images, truth = FixedChips(cache, 32, 1000).batch(0)
    model = result.model
    return float(keras.ops.convert_to_numpy(build_loss("bce")(truth, model(images, training=False))))


@pytest.mark.slow
def test_training_learns_the_same_from_the_same_seed(cache: TileCache, tmp_path: Path) -> None:
    heard: list[tuple[int, dict[str, float]]] = []
    spec = toy_spec(epochs=3, loss="bce")
    first = train(spec, cache, tmp_path / "1", on_epoch=lambda epoch, entry: heard.append((epoch, entry)))
    assert first.history[-1]["loss"] < 0.8 * first.history[0]["loss"]
    assert first.history[-1]["val_loss"] < first.history[0]["val_loss"]
    assert [epoch for epoch, _ in heard] == [0, 1, 2]
    assert [entry for _, entry in heard] == first.history
    assert set(first.history[0]) == {"loss", "f1", "val_loss", "val_f1", "seconds", "learning_rate"}
    assert first.history[-1]["learning_rate"] < 0.2 * spec.learning_rate
    assert validation_loss(first, cache) == pytest.approx(first.history[first.best_epoch]["val_loss"], rel=1e-3)

    second = train(spec, cache, tmp_path / "2")
    for ours, theirs in zip(first.model.get_weights(), second.model.get_weights(), strict=True):
        assert np.allclose(ours, theirs, atol=1e-6)
    other = train(toy_spec(epochs=1, loss="bce", seed=4), cache, tmp_path / "3")
    assert not np.allclose(first.model.get_weights()[0], other.model.get_weights()[0], atol=1e-3)

    infer = keras_infer(first.model)
    probability = infer(np.zeros((2, 16, 32, 3), np.float32))
    assert (probability.shape, probability.dtype) == ((2, 16, 32), np.float32)


@pytest.mark.slow
def test_the_best_weights_are_those_returned_not_the_last(tmp_path: Path) -> None:
    contrary = toy_cache(inverted_validation=True)  # whatever is learnt makes validation worse
    spec = toy_spec(epochs=4, loss="bce", chips_per_epoch=16, patience=2, network=UNetSpec(4, 2, 0.1, True))
    result = train(spec, contrary, tmp_path)
    losses = [entry["val_loss"] for entry in result.history]
    assert result.best_epoch == int(np.argmin(losses))
    assert result.best_epoch < len(losses) - 1
    assert validation_loss(result, contrary) == pytest.approx(losses[result.best_epoch], rel=1e-3)


def test_time_runs_out_after_the_epoch_under_way(cache: TileCache, tmp_path: Path) -> None:
    started = time.monotonic()
    result = train(toy_spec(epochs=500, max_minutes=0.02), cache, tmp_path)
    assert 1 <= len(result.history) < 100
    assert time.monotonic() - started < 60
    assert result.history[-1]["learning_rate"] < 1e-2


@pytest.mark.parametrize("chips", [4, 32], ids=["seen in validation only", "seen in training"])
def test_a_loss_that_is_not_a_number_stops_training(cache: TileCache, tmp_path: Path, chips: int) -> None:
    spec = toy_spec(epochs=1, learning_rate=1e38, optimizer="sgd", chips_per_epoch=chips)
    with pytest.raises(TrainingError, match="not a number") as caught:
        train(spec, cache, tmp_path)
    assert "Lower the learning rate" in caught.value.fix


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_split_without_tiles_cannot_be_trained_on(cache: TileCache, tmp_path: Path, split: str) -> None:
    other = "validation" if split == "train" else "train"
    lacking = replace(cache, splits=np.full(len(cache), other))
    with pytest.raises(TrainingError, match=f"No tile is in the {split} split"):
        train(toy_spec(), lacking, tmp_path)


def test_a_chip_size_that_does_not_fit_is_refused_before_anything_starts(cache: TileCache, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no multiple"):
        train(toy_spec(chip_size=30), cache, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert keras.mixed_precision.dtype_policy().name == "float32"


def test_what_is_trained_in_bfloat16_comes_out_in_float32(cache: TileCache, tmp_path: Path) -> None:
    spec = toy_spec(
        epochs=1, loss="bce", chips_per_epoch=4, precision="mixed_bfloat16", optimizer="sgd", learning_rate=1e-3
    )
    result = train(spec, cache, tmp_path)
    assert result.precision == "mixed_bfloat16"
    assert {layer.compute_dtype for layer in result.model.layers} == {"float32"}
    assert keras.mixed_precision.dtype_policy().name == "float32"
    assert validation_loss(result, cache) == pytest.approx(result.history[0]["val_loss"], rel=0.05)
    assert result.history[0]["learning_rate"] == pytest.approx(1e-3)
