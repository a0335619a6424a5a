"""A tile through the exported network as the service runs it, beside Keras; and many callers at a time, three ways."""

import os
import queue
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.form import Figure, in_turn, main

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

TILE = 512
CALLERS = 8
GATHERED = 4
CHIPS = 8
"""That int8 is calibrated on: noise with patches, which shows how fast it is and not how good."""
LEAST = {"bf16": 3.0, "int8": 5.0}
"""How many times as fast as Keras, on a CPU with bfloat16; in f32, on one without it, 1.2."""
GATHERING_S = 0.002

Infer = Callable[[np.ndarray], np.ndarray]


def figures(quick: bool) -> list[Figure]:
    """Measure it all."""
    from footprint_pipeline.footprints.runtime import has_bfloat16
    from footprint_pipeline.model.spec import DEFAULT, UNetSpec

    side, rounds, calls = (128, 2, 1) if quick else (TILE, 3, 6)
    shipped, article = (UNetSpec(width=4, depth=2),) * 2 if quick else (DEFAULT, UNetSpec())
    goals = LEAST if has_bfloat16() else {"f32": 1.2, "int8": LEAST["int8"]}
    tile = np.random.default_rng(0).random((1, side, side, 3), np.float32)
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, spec in (("article's", article), ("shipped", shipped)):
            folder = Path(scratch) / name
            keras_predict, runtimes = both(spec, folder)
            for what, runtime in runtimes.items():
                ours, peer = in_turn(lambda: runtime(tile), lambda: keras_predict(tile), rounds=rounds)  # noqa: B023
                least = goals.get(what) if name == "article's" else None
                goal = {"goal": f"≥ {least:g}", "met": peer >= least * ours} if least else {}
                found.append(
                    Figure(f"a tile of {side}, {name} network, {what}; peer: Keras", ours * 1000, "ms", peer * 1000,
                           peer / ours, **goal)  # type: ignore[arg-type]
                )  # fmt: skip
        streams, whole, gathered = ways(folder)
        taken = in_turn(*(lambda infer=infer: together(infer, tile, calls) for infer in (streams, whole, gathered)),
                        rounds=max(2, rounds - 2))  # fmt: skip
    rates = [CALLERS * calls / seconds for seconds in taken]
    for peer, what in ((rates[1], "one tile at a time on all cores"), (rates[2], f"gathered to batches of {GATHERED}")):
        found.append(
            Figure(f"{CALLERS} callers, shipped network, in streams; peer: {what}", rates[0], "tiles/s", peer,
                   rates[0] / peer, "≥ 1", rates[0] >= peer)
        )  # fmt: skip
    return found


def both(spec: object, folder: Path) -> tuple[Infer, dict[str, Infer]]:
    """Keras's way and the service's, in each arithmetic that this CPU has, on the same weights; both warm."""
    import keras

    from footprint_pipeline.footprints.runtime import Runtime, has_bfloat16
    from footprint_pipeline.footprints.spec import ModelSpec
    from footprint_pipeline.model.export import export_openvino
    from footprint_pipeline.model.quantization import quantize
    from footprint_pipeline.model.unet import build_unet

    keras.utils.set_random_seed(0)
    model = build_unet(spec)  # type: ignore[arg-type]
    export_openvino(model, folder)
    ModelSpec(
        model_name="untrained", network="", tolerance=0.5, gsd_m=0.5, chip_size=256, stride=spec.stride,  # type: ignore[attr-defined]
        heads=spec.heads, aois=(), normalization={},  # type: ignore[attr-defined]
    ).write(folder)  # fmt: skip
    quantize(folder, chips(spec.stride))  # type: ignore[attr-defined]
    precisions = ("f32", "bf16", "int8") if has_bfloat16() else ("f32", "int8")
    runtimes: dict[str, Infer] = {name: Runtime(folder, precision=name, streams=True) for name in precisions}  # type: ignore[arg-type]
    return lambda batch: model.predict(batch, verbose=0), runtimes


def chips(stride: int) -> list[np.ndarray]:
    """Ground with patches on it, eight strides wide, float32 in [0, 1], shape (1, H, W, 3) each."""
    rng, side = np.random.default_rng(1), 8 * stride
    made = []
    for _ in range(CHIPS):
        chip = rng.normal(0.4, 0.05, (1, side, side, 3))
        for top, left in rng.integers(0, side - side // 4, (6, 2)):
            chip[:, top : top + side // 4, left : left + side // 4] += rng.uniform(-0.3, 0.5, 3)
        made.append(chip.clip(0, 1).astype(np.float32))
    return made


def ways(folder: Path) -> tuple[Infer, Infer, Infer]:
    """Callers served in streams, one after another on all cores, and gathered to batches."""
    from footprint_pipeline.footprints.runtime import Runtime

    whole = Runtime(folder)
    return Runtime(folder, streams=True), whole, Gathering(whole)


class Gathering:
    """Puts what several callers ask within a moment to the runtime as one batch; the way that was not taken."""

    def __init__(self, infer: Infer) -> None:
        self._infer = infer
        self._asked: queue.Queue[tuple[np.ndarray, queue.SimpleQueue[np.ndarray]]] = queue.Queue()
        threading.Thread(target=self._serve, daemon=True).start()

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """As the runtime."""
        answer: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
        self._asked.put((batch, answer))
        return answer.get()

    def _serve(self) -> None:
        while True:
            gathered = [self._asked.get()]
            while len(gathered) < GATHERED:
                try:
                    gathered.append(self._asked.get(timeout=GATHERING_S))
                except queue.Empty:
                    break
            answers = self._infer(np.concatenate([batch for batch, _ in gathered]))
            for number, (_, answer) in enumerate(gathered):
                answer.put(answers[number : number + 1])


def together(infer: Infer, tile: np.ndarray, calls: int) -> None:
    """Several threads that ask so many times each."""

    def caller() -> None:
        for _ in range(calls):
            infer(tile)

    threads = [threading.Thread(target=caller) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(figures, description="A tile through the exported network, beside Keras and beside other ways to serve many.")
