from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from footprint_pipeline.dataset import processes
from footprint_pipeline.dataset.batches import FixedChips, TrainingChips
from footprint_pipeline.dataset.cache import TileCache
from footprint_pipeline.errors import SettingsError, TrainingError
from footprint_pipeline.model import conductor, training
from footprint_pipeline.model.conductor import Conductor
from footprint_pipeline.model.devices import choose_precision
from footprint_pipeline.model.learner import arrays, build_learner
from footprint_pipeline.model.losses import build_loss
from footprint_pipeline.model.spec import ARTICLE, TrainingSpec, UNetSpec
from footprint_pipeline.model.start import take_weights
from footprint_pipeline.model.training import TrainingResult, batches_ahead, keras_infer, steps_per_epoch, train
from footprint_pipeline.model.unet import build_unet
from footprint_pipeline.model.watching import Shown, Watcher
from footprint_pipeline_tests.model.conftest import CALM, TINY, toy_cache, toy_spec

NORMED = UNetSpec(width=4, depth=1, dropout=0.1, norm="batch")


class Notes(Watcher):
    """Writes everything down."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.steps: list[tuple[int, int]] = []
        self.epochs: list[tuple[int, dict[str, float]]] = []
        self.shown: dict[int, Shown] = {}

    def on_begin(self, history: list[dict[str, float]], *, epochs: int, steps: int) -> None:
        self.begun.append(len(history))

    def on_step(self, epoch: int, step: int, loss: float) -> None:
        self.steps.append((epoch, step))

    def on_epoch(self, epoch: int, entry: dict[str, float]) -> None:
        self.epochs.append((epoch, entry))

    def on_pictures(self, epoch: int, shown: Shown) -> None:
        self.shown[epoch] = shown


def validation_loss(result: TrainingResult, cache: TileCache) -> float:
    images, truth = FixedChips(cache, 32, 1000).batch(0)
    model = result.model
    return float(keras.ops.convert_to_numpy(build_loss("bce")(truth, model(images, training=False))))


@pytest.mark.slow
def test_training_learns_the_same_from_the_same_seed(cache: TileCache, tmp_path: Path) -> None:
    notes = Notes()
    spec = toy_spec(epochs=3, loss="bce", network=NORMED, learning_rate=2e-2)
    first = train(spec, cache, tmp_path / "1", watchers=[notes])
    assert first.history[-1]["loss"] < 0.9 * first.history[0]["loss"]
    assert first.history[-1]["val_loss"] < first.history[0]["val_loss"]
    assert [epoch for epoch, _ in notes.epochs] == [0, 1, 2]
    assert [entry for _, entry in notes.epochs] == first.history
    assert notes.begun == [0]
    assert notes.steps[0] == (0, 0)
    assert set(first.history[0]) == {"loss", "f1", "val_loss", "val_f1", "seconds", "learning_rate"}
    assert first.history[-1]["learning_rate"] < 0.2 * spec.learning_rate
    assert validation_loss(first, cache) == pytest.approx(first.history[first.best_epoch]["val_loss"], rel=1e-3)

    # What is shown is what the network says that would be kept.
    assert sorted(notes.shown) == [0, 2]
    shown = notes.shown[2]
    assert (shown.images.dtype, shown.images.shape, shown.truth.shape) == (np.uint8, (4, 32, 32, 3), (4, 32, 32))
    assert shown.truth.any(axis=(1, 2)).all()
    if first.best_epoch == 2:
        said = keras_infer(first.model)((shown.images / 255).astype(np.float32))[..., 0]
        assert np.allclose(said, shown.probability, atol=1e-3)

    second = train(spec, cache, tmp_path / "2")
    for ours, theirs in zip(first.model.get_weights(), second.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)

    probability = keras_infer(first.model)(np.zeros((2, 16, 32, 3), np.float32))
    assert (probability.shape, probability.dtype) == ((2, 16, 32, 1), np.float32)

    # What is kept is made of Keras's own layers, so that anyone can load it.
    path = tmp_path / "network.keras"
    first.model.save(path)
    loaded = keras.models.load_model(path)
    assert {type(layer).__module__.partition(".")[0] for layer in loaded.layers} == {"keras"}
    assert np.allclose(keras_infer(loaded)(np.zeros((2, 16, 32, 3), np.float32)), probability, atol=1e-6)


@pytest.mark.slow
def test_the_best_weights_are_those_returned_not_the_last(tmp_path: Path) -> None:
    contrary = toy_cache(inverted_validation=True)  # whatever is learnt makes validation worse
    spec = toy_spec(epochs=8, loss="bce", patience=2, network=NORMED)
    result = train(spec, contrary, tmp_path)
    losses = [entry["val_loss"] for entry in result.history]
    assert result.best_epoch == int(np.argmin(losses))
    assert len(losses) == result.best_epoch + 1 + 2
    assert validation_loss(result, contrary) == pytest.approx(losses[result.best_epoch], rel=1e-3)


@pytest.mark.slow
def test_averages_are_of_weights_and_statistics_and_do_not_disturb_learning(cache: TileCache) -> None:
    keras.utils.set_random_seed(3)  # so narrow a network may start dead
    spec = toy_spec(network=replace(NORMED, dropout=0.0), ema=0.9)
    learner, _ = build_learner(spec, devices=("cpu:0",), total_steps=40)
    plain, _ = build_learner(replace(spec, ema=0.0), devices=("cpu:0",), total_steps=40)
    plain.network.set_weights(learner.network.get_weights())
    chips = TrainingChips(cache, 32, 4, spec.augmentation, seed=1, dtype=np.uint8)
    expected = [np.copy(weight) for weight in learner.network.get_weights()]
    for step in range(12):
        batch = chips.batch(0, step)
        # A step averages the weights that it begins with, and the statistics that its batch leaves behind.
        before = learner.network.get_weights()
        learner.train_on_batch(*batch)
        plain.train_on_batch(*batch)
        keep = min(0.9, (2.0 + step) / (11.0 + step))
        after = learner.network.get_weights()
        now = [
            then if weight.trainable else value
            for weight, then, value in zip(learner.network.weights, before, after, strict=True)
        ]
        expected = [keep * old + (1 - keep) * new for old, new in zip(expected, now, strict=True)]
    for ours, wanted in zip(learner.kept_weights(), expected, strict=True):
        assert np.allclose(ours, wanted, atol=1e-5)
    for ours, wanted in zip(learner.network.get_weights(), plain.network.get_weights(), strict=True):
        assert np.allclose(ours, wanted, atol=1e-5)

    learner.swap_average()
    for ours, wanted in zip(learner.network.get_weights(), expected, strict=True):
        assert np.allclose(ours, wanted, atol=1e-5)
    # The averaged statistics are those of the averaged weights, near enough: judged by them or by the batch's own,
    # the network says about the same. Not so with the statistics that it had at the start.
    images = np.concatenate([chips.batch(1, step)[0] for step in range(8)])
    by_statistics, by_batch = (np.asarray(learner(images, training=flag)) for flag in (False, True))
    stale = build_unet(spec.network)
    stale.set_weights(learner.network.get_weights())
    for layer in stale.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            layer.set_weights([gamma, beta, 0 * mean, 0 * variance + 1])
    by_stale = keras_infer(stale)((images / 255).astype(np.float32))
    assert np.abs(by_statistics - by_batch).mean() < 0.5 * np.abs(by_stale - by_batch).mean()


@pytest.mark.parametrize("chips", [32, 1_000_000])
def test_time_runs_out_within_an_epoch_with_the_rate_at_its_end(cache: TileCache, tmp_path: Path, chips: int) -> None:
    spec = toy_spec(epochs=500, chips_per_epoch=chips, max_minutes=0.15)
    result = train(spec, cache, tmp_path)
    assert 1 <= len(result.history) < 500
    assert 8 < result.seconds < 60
    assert result.history[-1]["learning_rate"] < 0.1 * spec.learning_rate
    assert len(train(spec, cache, tmp_path).history) == len(result.history)


def test_a_limit_that_is_not_reached_changes_nothing(
    cache: TileCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = toy_spec(epochs=4)
    free = train(spec, cache, tmp_path / "free")
    now = 0.0

    def step(self: Conductor, batch: int, logs: dict | None = None) -> None:
        nonlocal now
        now += 1.0

    def validate(self: Conductor, logs: dict | None = None) -> None:
        nonlocal now
        now += 0.0 if self.history else 60.0  # it is compiled the first time
        self._learner.swap_average()

    monkeypatch.setattr(conductor, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(Conductor, "on_train_batch_begin", step)
    monkeypatch.setattr(Conductor, "on_test_begin", validate)
    limited = train(replace(spec, max_minutes=2), cache, tmp_path / "limited")
    assert now == 4 * steps_per_epoch(spec, cache) + 60 < 120
    for one, other in zip(free.model.get_weights(), limited.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("heads", [("building",), ("building", "border")])
def test_what_is_read_is_what_was_made_in_its_order_and_nothing_tunes_it(
    cache: TileCache, heads: tuple[str, ...]
) -> None:
    chips = TrainingChips(cache, 32, 4, CALM, 3, heads, np.uint8)
    with batches_ahead(chips, steps=2, epoch=1) as read:
        assert keras.config.backend() == "tensorflow"
        assert read.options().autotune.enabled is False
        for (epoch, step), got in zip([(1, 0), (1, 1), (2, 0)], read, strict=False):
            for made, seen in zip(chips.batch(epoch, step), got, strict=True):
                np.testing.assert_array_equal(seen, made)


@pytest.mark.slow
def test_what_is_read_anew_begins_anew(cache: TileCache) -> None:
    chips = TrainingChips(cache, 32, 4, CALM, 3, ("building",), np.uint8)
    with batches_ahead(chips, steps=2, epoch=0) as read:
        for _ in range(2):  # with several devices Keras looks at the first batches before it trains
            got, _ = next(iter(read))
            np.testing.assert_array_equal(got, chips.batch(0, 0)[0])


@pytest.mark.slow
def test_what_fails_in_making_a_batch_is_told_as_it_is(cache: TileCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: TrainingChips, epoch: int, step: int) -> None:
        raise TrainingError("A process that cuts chips has ended.", fix="Lower batch_size.")

    monkeypatch.setattr(TrainingChips, "batch", fail)
    chips = TrainingChips(cache, 32, 4, CALM, 3, ("building",), np.uint8)
    with pytest.raises(TrainingError, match="has ended") as caught, batches_ahead(chips, steps=2, epoch=0) as read:
        next(iter(read))
    assert caught.value.fix == "Lower batch_size."


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hook", "batch", "said"),
    [
        ("on_train_batch_begin", 6, "The loss is not a number in epoch 2, step 7, whose chips are of t"),
        ("on_train_batch_end", 7, "A weight is not a number after epoch 2"),
    ],
)
def test_what_is_not_a_number_stops_training_and_is_not_kept(
    cache: TileCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hook: str, batch: int, said: str
) -> None:
    def poison(self: Conductor, at: int, logs: dict | None = None) -> None:
        if (len(self.history), at) == (1, batch):
            bias = self.model.network.weights[-1]
            bias.assign(np.full(bias.shape, np.nan))

    spec = toy_spec(chips_per_epoch=32)
    notes = Notes()
    with monkeypatch.context() as patch:
        patch.setattr(Conductor, hook, poison)
        with pytest.raises(TrainingError) as caught:
            train(spec, cache, tmp_path, watchers=[notes])
    assert said in caught.value.problem
    if "step" in said:
        assert all(tile in caught.value.problem for tile in TrainingChips(cache, 32, 4, CALM, spec.seed).tiles_of(1, 6))
    assert "Lower the learning rate (0.01)" in caught.value.fix
    assert "epoch 1 is kept" in caught.value.fix
    assert [epoch for epoch, _ in notes.epochs] == [0]
    assert len(train(spec, cache, tmp_path).history) == 2


@pytest.mark.slow
def test_an_accelerator_is_fed_by_processes_and_learns_the_same(
    cache: TileCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Noted(processes.ChipProcesses):
        def batch(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
            asked.append((epoch, step))
            return super().batch(epoch, step)

    spec = toy_spec(epochs=2)
    by_threads = train(spec, cache, tmp_path / "threads")
    monkeypatch.setattr(training, "ChipProcesses", Noted)
    monkeypatch.setattr(training, "accelerated", lambda: True)
    by_processes = train(spec, cache, tmp_path / "processes")
    assert len(asked) >= 2 * steps_per_epoch(spec, cache)
    for one, other in zip(by_threads.model.get_weights(), by_processes.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    asked.clear()
    monkeypatch.setattr(training, "POSSIBLE", False)
    train(replace(spec, epochs=1), cache, tmp_path / "elsewhere")
    assert not asked


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_split_without_tiles_cannot_be_trained_on(cache: TileCache, tmp_path: Path, split: str) -> None:
    other = "validation" if split == "train" else "train"
    lacking = replace(cache, splits=np.full(len(cache), other))
    with pytest.raises(TrainingError, match=f"No tile is in the {split} split"):
        train(toy_spec(), lacking, tmp_path)


def test_a_chip_size_that_does_not_fit_is_refused_before_anything_starts(cache: TileCache, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no multiple"):
        train(toy_spec(chip_size=31), cache, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize(("gpus", "asked"), [(1, "1 GPU asked for"), (3, "3 GPUs asked for")])
def test_more_gpus_than_there_are_are_refused(cache: TileCache, tmp_path: Path, gpus: int, asked: str) -> None:
    """A CPU is none: who names a number would else train on it for days."""
    with pytest.raises(SettingsError, match=f"{asked}; tensorflow sees cpu:0"):
        train(toy_spec(gpus=gpus, batch_size=3), cache, tmp_path / "run")


@pytest.mark.parametrize(
    ("flags", "precision"),
    [
        ("fpu sse2 avx2", "float32"),
        ("fpu avx2 avx512f avx512_vnni avx_vnni", "float32"),
        ("fpu avx2 avx512f avx512_bf16", "mixed_bfloat16"),
        ("fpu avx512_fp16 amx_bf16 amx_tile", "mixed_bfloat16"),
    ],
)
def test_bfloat16_is_chosen_where_the_cpu_multiplies_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, precision: str
) -> None:
    """By its flags, unless a spec says otherwise."""
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: none\n", encoding="utf-8")
    monkeypatch.setattr("footprint_pipeline.model.devices._CPU", tmp_path / "cpuinfo")
    assert choose_precision("auto", ("cpu:0",)) == precision
    assert choose_precision("float32", ("cpu:0",)) == "float32"
    assert choose_precision("auto", ("gpu:0",)) == "mixed_bfloat16"
    monkeypatch.setattr("footprint_pipeline.model.devices._CPU", tmp_path / "none")  # as on macOS
    assert choose_precision("auto", ("cpu:0",)) == "float32"


def test_what_is_trained_in_bfloat16_comes_out_in_float32(cache: TileCache, tmp_path: Path) -> None:
    spec = toy_spec(
        epochs=1, loss="bce", chips_per_epoch=4, precision="mixed_bfloat16", optimizer="sgd", learning_rate=1e-3,
        schedule="constant", warm_up=0.0,
    )  # fmt: skip
    result = train(spec, cache, tmp_path)
    assert result.precision == "mixed_bfloat16"
    assert {layer.compute_dtype for layer in result.model.layers} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"
    assert validation_loss(result, cache) == pytest.approx(result.history[0]["val_loss"], rel=0.05)
    assert result.history[0]["learning_rate"] == pytest.approx(1e-3)


def test_the_articles_recipe_is_plain_gradient_descent() -> None:
    spec = TrainingSpec(
        network=replace(ARTICLE, width=2, depth=1), loss="bce", optimizer="sgd", learning_rate=0.02,
        schedule="constant", warm_up=0.0, weight_decay=0.0, clip_norm=0.0, ema=0.0, chip_size=32, batch_size=2,
        precision="float32",
    )  # fmt: skip
    learner, _ = build_learner(spec, devices=("cpu:0",), total_steps=10)
    assert learner.average is None
    images, truth = np.full((2, 32, 32, 3), 80, np.uint8), np.ones((2, 32, 32, 1), np.uint8)
    head = learner.network.layers[-1]
    before = head.get_weights()
    learner.train_on_batch(images, truth)
    bias_gradient = (before[1] - head.get_weights()[1]) / 0.02
    said = float(np.asarray(learner.network.layers[-1].bias)[0])
    assert -1.0 < bias_gradient[0] < 0.0  # of the mean cross-entropy of ones: said - 1
    assert said > 0.0
    assert [variable.name for variable in learner.optimizer.variables] == ["iteration", "progress"]


def test_decay_is_of_filters_alone() -> None:
    spec = toy_spec(
        network=NORMED, optimizer="sgd", learning_rate=0.1, schedule="constant", warm_up=0.0, momentum=0.0,
        clip_norm=0.0, ema=0.0,
    )  # fmt: skip
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    truth = np.ones((2, 32, 32, len(NORMED.heads)), np.uint8)
    start, after = [], []
    for decay in (0.0, 0.5):
        keras.utils.set_random_seed(1)
        learner, _ = build_learner(replace(spec, weight_decay=decay), devices=("cpu:0",), total_steps=10)
        start = arrays(learner.trainable_variables)
        learner.train_on_batch(images, truth)
        after.append(arrays(learner.trainable_variables))
    assert len({weight.ndim for weight in start}) == 2
    for weight, plain, decayed in zip(start, *after, strict=True):
        taken = 0.1 * 0.5 * weight if weight.ndim > 1 else 0.0 * weight
        np.testing.assert_allclose(plain - decayed, taken, atol=1e-6)


def test_adam_goes_without_decay_too() -> None:
    learner, _ = build_learner(toy_spec(weight_decay=0.0), devices=("cpu:0",), total_steps=10)
    images, truth = np.full((2, 32, 32, 3), 80, np.uint8), np.ones((2, 32, 32, 3), np.uint8)
    assert np.isfinite(learner.train_on_batch(images, truth[..., : len(TINY.heads)])).all()


def test_steps_cover_the_ground_once_unless_told_otherwise(cache: TileCache, monkeypatch: pytest.MonkeyPatch) -> None:
    assert steps_per_epoch(toy_spec(chips_per_epoch=None), cache) == 1000 / 4  # little ground: as few as there may be
    assert steps_per_epoch(toy_spec(chips_per_epoch=None, chip_size=256), cache) == 1000 / 4
    assert steps_per_epoch(toy_spec(chips_per_epoch=None, chip_size=512), cache) == 63  # 250 chips have their pixels
    monkeypatch.setattr("footprint_pipeline.model.training.FEWEST_CHIPS", 3)
    assert steps_per_epoch(toy_spec(chips_per_epoch=None), cache) == 4  # four tiles of 64, chips of 32, batches of 4
    assert steps_per_epoch(toy_spec(chips_per_epoch=9), cache) == 3
    assert steps_per_epoch(toy_spec(chips_per_epoch=9, max_batches=2), cache) == 2
    assert steps_per_epoch(toy_spec(chips_per_epoch=9, max_batches=5), cache) == 3


@pytest.mark.slow
def test_weights_that_fit_are_taken_and_counted(
    cache: TileCache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    other = build_unet(replace(NORMED, heads=("building", "border")))
    other.save(tmp_path / "other.keras")
    other.save_weights(tmp_path / "other.weights.h5")
    build_unet(replace(NORMED, width=6, heads=("building", "border"))).save_weights(tmp_path / "wide.weights.h5")
    (tmp_path / "no.keras").write_text("no")

    spec = toy_spec(network=NORMED, epochs=1, chips_per_epoch=4, optimizer="sgd", learning_rate=1e-9)
    model = train(spec, cache, tmp_path / "run", weights=tmp_path / "other.keras").model
    layers = len([layer for layer in model.layers if layer.weights])
    assert f"{layers - 2} of {layers} layers start from other.keras" in caplog.text
    assert np.allclose(model.layers[1].get_weights()[0], other.layers[1].get_weights()[0], atol=1e-5)
    assert np.isfinite(model.layers[-1].get_weights()[0]).all()

    network = build_unet(NORMED)
    before = network.get_weights()
    for name, said in (("wide.weights.h5", "No layer of wide.weights.h5 fits"), ("no.keras", "holds no weights")):
        with pytest.raises(TrainingError, match=said):
            take_weights(network, tmp_path / name)
    assert all(map(np.array_equal, network.get_weights(), before))
    assert take_weights(network, tmp_path / "other.weights.h5") == (layers - 2, layers)
