"""The same code on every backend, and on several devices. Each backend needs a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from footprint_pipeline.evaluation.tolerance import THRESHOLDS, from_claims, sweep

PROBE = '''
import json, os, sys
import numpy as np
backend = os.environ["KERAS_BACKEND"]
if backend == "tensorflow":
    import tensorflow as tf
    cpus = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)
import pathlib, tempfile
from itertools import repeat
from footprint_pipeline.dataset.batches import FixedChips, TrainingChips
from footprint_pipeline.model.devices import choose_devices, spread_over
from footprint_pipeline.model.learner import build_learner
from footprint_pipeline.model.pixel_sweep import build_count
from footprint_pipeline.model.spec import UNetSpec
from footprint_pipeline.model.training import train
from footprint_pipeline.model.watching import Watcher
from footprint_pipeline_tests.model.conftest import CALM, toy_cache, toy_spec

def losses(spec, devices):
    """Of two steps from given weights on one batch: the second tells of the gradient and of the optimizer."""
    rng = np.random.default_rng(5)
    with spread_over(devices):
        learner, _ = build_learner(spec, devices=devices, total_steps=10)
        learner.network.set_weights([
            np.abs(w) if "variance" in v.path or "gamma" in v.path else w
            for v in learner.network.weights for w in [rng.normal(0, 0.3, v.shape).astype(np.float32)]
        ])
        learner.restart_average()
        batch = TrainingChips(cache, 32, 4, CALM, seed=1, dtype=np.uint8).batch(0, 0)
        stream = (part for part in repeat(batch))
        told = learner.fit(stream, steps_per_epoch=1, epochs=2, verbose=0, shuffle=False).history["loss"]
        average = [float(np.sum(part)) for part in learner.kept_weights()]
    return told + average[:2]

def apart(spec):
    """How far the devices' own statistics are from each other after a step, and when that is judged."""
    with spread_over(both):
        learner, _ = build_learner(spec, devices=both, total_steps=10)
        copies = learner.distribute_strategy.experimental_local_results
        learner.fit((part for part in repeat(batch)), steps_per_epoch=1, verbose=0, shuffle=False)
        told = []
        for _ in range(2):
            parts = [copies(weight.value) for weight in learner.network.non_trainable_weights]
            told.append(max(float(np.abs(one - two).max()) for one, two in parts))
            learner.swap_average()
    return told

cache = toy_cache()
batch = TrainingChips(cache, 32, 4, CALM, seed=1, dtype=np.uint8).batch(0, 0)
both = choose_devices(0, batch_size=4)
said = {"devices": both}
network = UNetSpec(width=4, depth=1, dropout=0.0)
bce = toy_spec(loss="bce", network=network, optimizer="sgd", momentum=0.9, learning_rate=0.1, clip_norm=0.0)
said["one"] = losses(bce, both[:1])
said["two"] = losses(bce, both)
count = build_count(np.array(json.loads(sys.argv[1]), np.float32))
said["swept"] = [each.tolist() for each in count(*(np.load(path) for path in sys.argv[2:]))]
if backend == "tensorflow":
    said["apart"] = apart(toy_spec(network=UNetSpec(width=4, depth=1, norm="batch"), ema=0.0))
if backend == "jax":  # other libraries are none of training's business
    said["loaded"] = [name for name in ("tensorflow", "rasterio", "geopandas", "mlflow") if name in sys.modules]
    with tempfile.TemporaryDirectory() as folder:
        spec = toy_spec(network=UNetSpec(width=4, depth=1, dropout=0.1, norm="batch"), max_batches=3, max_minutes=5)
        pictures = []
        watcher = Watcher()
        watcher.on_pictures = lambda epoch, shown: pictures.append((epoch, shown.probability.shape))
        train(spec, cache, pathlib.Path(folder), watchers=[watcher])
        spec = toy_spec(network=spec.network, max_batches=3, max_minutes=5, epochs=3)
        result = train(spec, cache, pathlib.Path(folder), watchers=[watcher])
        said["history"] = result.history
        said["pictures"] = pictures
        said["trained_on"] = result.devices
print("SAID" + json.dumps(said))
'''


def probe(backend: str, *arguments: str) -> dict:
    environment = {**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    root = Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments], cwd=root, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout.rpartition("SAID")[2])


@pytest.mark.slow
def test_a_step_and_a_sweep_are_the_same_on_every_backend_and_on_two_devices(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    probability, truth = rng.random((3, 41, 57), np.float32), rng.integers(0, 2, (3, 41, 57), np.uint8)
    probability[0, :9], probability[1, :9] = rng.choice(THRESHOLDS, (9, 57)), 0.0
    np.save(tmp_path / "probability.npy", probability)
    np.save(tmp_path / "truth.npy", truth)
    told = (json.dumps(THRESHOLDS.tolist()), str(tmp_path / "probability.npy"), str(tmp_path / "truth.npy"))
    tensorflow, jax = (probe(backend, *told) for backend in ("tensorflow", "jax"))
    expected = sweep(probability, truth)
    for said in (tensorflow, jax):
        swept = from_claims(*(np.array(each) for each in said["swept"]))
        assert np.array_equal(swept.true_positives, expected.true_positives)
        assert np.array_equal(swept.false_positives, expected.false_positives)
        assert np.array_equal(swept.false_negatives, expected.false_negatives)
    assert tensorflow["devices"] == jax["devices"] == ["cpu:0", "cpu:1"]
    assert jax["one"] == pytest.approx(tensorflow["one"], rel=1e-4)
    for said in (tensorflow, jax):
        assert said["two"] == pytest.approx(said["one"], rel=1e-4)
        assert said["one"][1] < said["one"][0]
    assert tensorflow["apart"][0] > tensorflow["apart"][1] == 0
    assert jax["loaded"] == []
    assert len(jax["history"]) == 3
    assert jax["pictures"] == [[epoch, [4, 32, 32]] for epoch in (0, 1, 2)]
    assert jax["trained_on"] == ["cpu:0", "cpu:1"]
