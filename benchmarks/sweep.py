"""The article's tolerance sweep: 431 tiles of 512 × 512 at 50 tolerances, beside other ways to count the same.

Peers are 50 thresholdings of each tile in NumPy, written as one writes them and written with care, and the article's
way: a map over tolerances and tiles in TensorFlow. They are timed on some tiles, and a tile is compared with a tile.
On an accelerator the counting is Keras's own, with the data there already:
`KERAS_BACKEND=jax python -m benchmarks.sweep`.
"""

import json
from collections.abc import Callable

import numpy as np

from benchmarks.form import Figure, alone, in_turn, main
from footprint_pipeline.evaluation.tolerance import THRESHOLDS, SweepTable, from_claims, sweep, sweep_stream

TILES, SIDE, FOR_PEERS, FOR_ARTICLE = 431, 512, 8, 2
CPU_GOAL, READ_GOAL, MEMORY_GOAL_MB, DEVICE_GOAL_MS = 50, 4, 200, 10


def measure(quick: bool) -> list[Figure]:
    """Time all ways in turn; see the module."""
    tiles, rounds = (16, 1) if quick else (TILES, 9)
    probability, truth = make_tiles(tiles)
    some = slice(0, min(FOR_PEERS, tiles))
    ours, coming, plain, careful, read = in_turn(
        lambda: sweep(probability, truth),
        lambda: sweep_stream(zip(probability, truth, strict=True)),
        lambda: in_numpy(probability[some], truth[some], plainly),
        lambda: in_numpy(probability[some], truth[some], carefully),
        lambda: (probability.max(), truth.max()),
        rounds=rounds,
    )
    same(sweep(probability[some], truth[some]), in_numpy(probability[some], truth[some], plainly))
    same(sweep(probability[some], truth[some]), in_numpy(probability[some], truth[some], carefully))
    a_tile = 1e3 * ours / tiles
    plain, careful = (1e3 * seconds / len(probability[some]) for seconds in (plain, careful))
    memory = alone(EXTRA_MEMORY, json.dumps(tiles))["extra_mb"]
    same(
        sweep_stream(zip(probability[some], truth[some], strict=True)),
        in_numpy(probability[some], truth[some], plainly),
    )
    figures = [
        Figure(f"sweep of {tiles} tiles of {SIDE}×{SIDE}", ours, "s"),
        Figure("a tile; peer: 50 thresholdings, plainly", a_tile, "ms", plain, plain / a_tile,
               f"≥ {CPU_GOAL}", plain / a_tile >= CPU_GOAL),
        Figure("a tile; peer: 50 thresholdings, with care", a_tile, "ms", careful, careful / a_tile),
        Figure("all; peer: reading both arrays once", ours, "s", read, read / ours,
               f"≥ {1 / READ_GOAL}", READ_GOAL * read >= ours),
        Figure("as tiles come one by one; peer: all at hand", coming, "s", ours, ours / coming),
        Figure("extra memory, as tiles come one by one", memory, "MB",
               goal=f"≤ {MEMORY_GOAL_MB}", met=memory <= MEMORY_GOAL_MB),
    ]  # fmt: skip
    return [*figures, *article(probability, truth, a_tile), *on_device(probability, truth)]


def make_tiles(tiles: int) -> tuple[np.ndarray, np.ndarray]:
    """What a network that is mostly sure says, and truth: float32 and uint8, shape (tiles, side, side)."""
    rng = np.random.default_rng(0)
    probability = np.empty((tiles, SIDE, SIDE), np.float32)
    truth = np.empty((tiles, SIDE, SIDE), np.uint8)
    for tile in range(tiles):
        truth[tile] = rng.random((SIDE, SIDE), np.float32) < 0.15
        logit = rng.standard_normal((SIDE, SIDE), np.float32) * 3 + 8 * truth[tile] - 5
        probability[tile] = 1 / (1 + np.exp(-logit))
    return probability, truth


def in_numpy(probability: np.ndarray, truth: np.ndarray, way: Callable[..., tuple[int, int, int]]) -> np.ndarray:
    """TP, FP, FN of every tile at every tolerance, shape (3, tiles, 50)."""
    return np.array(
        [[way(p, t, threshold) for threshold in THRESHOLDS] for p, t in zip(probability, truth, strict=True)]
    ).transpose(2, 0, 1)


def plainly(probability: np.ndarray, truth: np.ndarray, threshold: np.float32) -> tuple[int, int, int]:
    """As one writes it."""
    claimed, building = probability > threshold, truth > 0
    return (claimed & building).sum(), (claimed & ~building).sum(), (~claimed & building).sum()


def carefully(probability: np.ndarray, truth: np.ndarray, threshold: np.float32) -> tuple[int, int, int]:
    """With NumPy's fastest way to count, and no count twice."""
    claimed, building = probability > threshold, truth.view(bool)
    right = np.count_nonzero(claimed & building)
    return right, np.count_nonzero(claimed) - right, np.count_nonzero(building) - right


def article(probability: np.ndarray, truth: np.ndarray, a_tile: float) -> list[Figure]:
    """F1 by a map over tolerances of a map over tiles, in TensorFlow where it is installed."""
    try:
        import tensorflow as tf
    except ImportError:
        return []
    said, there = tf.constant(probability[:FOR_ARTICLE]), tf.constant(truth[:FOR_ARTICLE], tf.float32)

    def f1(pair: tuple[tf.Tensor, tf.Tensor], threshold: tf.Tensor) -> tf.Tensor:
        claimed = tf.cast(pair[0] > threshold, tf.float32)
        right = tf.reduce_sum(claimed * pair[1])
        return 2 * right / (tf.reduce_sum(claimed) + tf.reduce_sum(pair[1]))

    @tf.function
    def mapped() -> tf.Tensor:
        return tf.map_fn(
            lambda threshold: tf.map_fn(
                lambda pair: f1(pair, threshold), (said, there), fn_output_signature=tf.float32
            ),
            tf.constant(THRESHOLDS),
        )

    ours = sweep(probability[:FOR_ARTICLE], truth[:FOR_ARTICLE]).f1
    if np.abs(mapped().numpy().T - ours).max() > 1e-4:
        raise SystemExit("The article's way finds another F1.")
    (seconds,) = in_turn(lambda: mapped().numpy())
    peer = 1e3 * seconds / FOR_ARTICLE
    return [Figure("a tile; peer: the article's map in TensorFlow", a_tile, "ms", peer, peer / a_tile)]


def on_device(probability: np.ndarray, truth: np.ndarray) -> list[Figure]:
    """The counting on an accelerator, where there is one, with the data on it."""
    from keras import ops

    from footprint_pipeline.model.devices import accelerated
    from footprint_pipeline.model.pixel_sweep import build_count

    if not accelerated():
        return []
    count = build_count(THRESHOLDS)
    there = ops.convert_to_tensor(probability), ops.convert_to_tensor(truth)
    counted = from_claims(*count(*there))
    expected = sweep(probability, truth)
    same(counted, np.array([expected.true_positives, expected.false_positives, expected.false_negatives]))
    (seconds,) = in_turn(lambda: count(*there), rounds=7)
    taken = 1e3 * seconds
    goal = f"≤ {DEVICE_GOAL_MS}"
    return [Figure("all, on the accelerator", taken, "ms", goal=goal, met=taken <= DEVICE_GOAL_MS)]


def same(table: SweepTable, counts: np.ndarray) -> None:
    """Raise unless both counted the same."""
    if not np.array_equal([table.true_positives, table.false_positives, table.false_negatives], counts):
        raise SystemExit("The two ways count differently.")


EXTRA_MEMORY = """
import json, sys
from benchmarks.form import peak_mb
from benchmarks.sweep import make_tiles
from footprint_pipeline.evaluation.tolerance import sweep, sweep_stream
tiles = make_tiles(json.loads(sys.argv[1]))
sweep(tiles[0][:1], tiles[1][:1])
before = peak_mb()
sweep_stream(zip(*tiles))
print(json.dumps({"extra_mb": peak_mb() - before}))
"""


if __name__ == "__main__":
    main(measure, description=__doc__ or "")
