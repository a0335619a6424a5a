"""How an exported model is run: on how many threads, in streams, on ONNX Runtime; and its self-test."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from footprint_pipeline.errors import ModelError
from footprint_pipeline.footprints import cpu_quota as quota_module
from footprint_pipeline.footprints import runtime as runtime_module
from footprint_pipeline.footprints.cpu_quota import cpu_quota
from footprint_pipeline.footprints.onnx_runtime import CUDA, OnnxRuntime, has_cuda, open_runtime
from footprint_pipeline.footprints.runtime import Runtime
from footprint_pipeline.footprints.selftest import run_selftest, write_selftest
from footprint_pipeline_tests.footprints.red_city import write_model


@pytest.fixture
def many_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota_module.os, "cpu_count", lambda: 16)


def groups(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    """A kernel's files as a container sees them."""
    for name, text in {
        "proc/self/cgroup": cgroup,
        **{f"sys/fs/cgroup/{name}": text for name, text in files.items()},
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.usefixtures("many_cpus")
@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "3200000 100000\n"}, None),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, 3),
        ("0::/\n", {}, None),
        ("2:cpu,acct:/x\n", {"cpu,acct/x/cpu.cfs_quota_us": "400000\n", "cpu,acct/x/cpu.cfs_period_us": "100000\n"}, 4),
        # The host's path; in the container only the mount's root is there.
        ("1:cpu:/docker/abc\n", {"cpu/cpu.cfs_quota_us": "150000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ("1:cpu:/\n0::/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
    ],
)  # fmt: skip
def test_the_control_groups_grant_is_read(
    tmp_path: Path, cgroup: str, files: dict[str, str], expected: int | None
) -> None:
    assert cpu_quota(groups(tmp_path, cgroup, files)) == expected


def test_where_there_are_no_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None


@pytest.fixture(scope="module")
def batch() -> np.ndarray:
    return np.random.default_rng(0).random((5, 32, 48, 3), np.float32)


def test_streams_answer_as_one_batch_does(model_folder: Path, batch: np.ndarray) -> None:
    alone, shared = Runtime(model_folder, threads=2), Runtime(model_folder, threads=2, streams=True)
    assert (alone.streams, shared.streams) == (1, 2)
    assert np.allclose(alone(batch), shared(batch), atol=0.02)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: shared(batch[number % 5][None])[0], range(40)))
    expected = shared(batch)
    for number, answer in enumerate(answers):
        assert np.array_equal(answer, expected[number % 5])


def test_one_image_alone_gets_all_cores_and_several_share_them(
    model_folder: Path, batch: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Runtime(model_folder, threads=2, streams=True)
    asked: list[str] = []
    inside, leave = threading.Event(), threading.Event()
    answers = runtime_module._answers

    def watched(network: object, parts: list[np.ndarray]) -> np.ndarray:
        asked.append("whole" if network is runtime._whole else "divided")
        if len(asked) == 1:
            inside.set()
            assert leave.wait(20)
        return answers(network, parts)

    monkeypatch.setattr(runtime_module, "_answers", watched)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(runtime, batch[:1])
        assert inside.wait(20)
        second = runtime(batch[:1])
        leave.set()
        assert np.allclose(first.result(), second, atol=0.02)
    runtime(batch[:2])
    runtime(batch[:1])
    assert asked == ["whole", "divided", "divided", "whole"]


def test_an_answer_stays_what_it_was_when_the_next_is_computed(model_folder: Path, batch: np.ndarray) -> None:
    runtime = Runtime(model_folder, threads=2, streams=True)
    first = runtime(batch[:1])
    kept = first.copy()
    for _ in range(5):
        runtime(1.0 - batch[:1])
    assert np.array_equal(first, kept)
    first[:] = 0.0  # and is the caller's to change


def write_onnx(folder: Path) -> None:
    """The model of `write_model` for ONNX Runtime: where red exceeds green."""
    weights = helper.make_tensor("weights", TensorProto.FLOAT, (3, 1), [20.0, -20.0, 0.0])
    bias = helper.make_tensor("bias", TensorProto.FLOAT, (1,), [-10.0])
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["image", "weights"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["score"]),
            helper.make_node("Sigmoid", ["score"], ["probability"]),
        ],
        "red",
        [value("image", TensorProto.FLOAT, ["b", "h", "w", 3])],
        [value("probability", TensorProto.FLOAT, ["b", "h", "w", 1])],
        [weights, bias],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")


def test_onnx_runtime_stands_in_for_openvino(tmp_path: Path, batch: np.ndarray) -> None:
    pytest.importorskip("onnxruntime")
    folder = write_model(tmp_path / "model")
    write_onnx(folder)
    ours, openvino = OnnxRuntime(folder, provider="CPUExecutionProvider"), Runtime(folder, precision="f32")
    assert np.abs(ours(batch) - openvino(batch)).max() < 1e-5
    assert (ours.spec, ours.precision, ours.streams) == (openvino.spec, "f32", 1)
    write_selftest(folder, openvino)
    run_selftest(ours, folder)
    (folder / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"ONNX Runtime cannot load model\.onnx"):
        OnnxRuntime(folder, provider="CPUExecutionProvider")


@pytest.mark.skipif(has_cuda(), reason="there is CUDA here")
@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
def test_without_cuda_openvino_serves_and_asking_for_cuda_says_so(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    write_onnx(folder)
    assert type(open_runtime(folder)) is Runtime
    pytest.importorskip("onnxruntime")
    with pytest.raises(ModelError, match=f"{CUDA} does not work here") as caught:
        OnnxRuntime(folder)
    assert "onnxruntime-gpu" in caught.value.fix


def test_a_model_that_works_passes_its_selftest(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    run_selftest(Runtime(folder), folder)  # from before there were any
    write_selftest(folder, Runtime(folder, precision="f32"))
    for precision in ("f32", "bf16"):
        run_selftest(Runtime(folder, precision=precision), folder)


def test_a_model_that_answers_something_else_fails_its_selftest(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    runtime = Runtime(folder)
    write_selftest(folder, lambda image: 1 - runtime(image))
    with pytest.raises(ModelError, match="fails its self-test: what was stored differs by"):
        run_selftest(runtime, folder)
    (folder / "selftest.npz").write_bytes((folder / "selftest.npz").read_bytes()[:300])
    with pytest.raises(ModelError, match=r"selftest\.npz cannot be read"):
        run_selftest(runtime, folder)

    three = write_model(tmp_path / "three", heads=("building", "border", "contact"))
    with pytest.raises(ModelError, match=r"shape \(1, 128, 128, 1\), not \(1, 128, 128, 3\)"):
        run_selftest(Runtime(three), three)

    class Wrong:
        def __init__(self, answer: float) -> None:
            self.spec, self.precision, self.answer = runtime.spec, "f32", answer

        def __call__(self, batch: np.ndarray) -> np.ndarray:
            return np.full((*batch.shape[:3], 1), self.answer, np.float32)

    shutil.rmtree(three)
    for answer in (np.nan, -0.5, 1.5):
        with pytest.raises(ModelError, match="not made of probabilities"):
            run_selftest(Wrong(answer), three)
