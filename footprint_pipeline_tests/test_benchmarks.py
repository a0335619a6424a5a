"""Benchmarks stay alive: each runs on little input and answers in the one form. Nothing is judged by it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import footprint_pipeline

ROOT = Path(footprint_pipeline.__file__).parents[1]
NAMES = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text("utf-8"))
ABSENT = ["tensorflow", "torch", "pandas", "pyarrow", "geopandas", "shapely", "rasterio", "mlflow", "pydantic"]


def test_there_are_benchmarks() -> None:
    assert {"batches", "download", "labels", "masks", "training"} <= set(NAMES)


def test_training_is_measured_where_numpy_opencv_and_keras_are_all_there_is() -> None:
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import benchmarks.training
"""

    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_quick_run_answers_in_the_one_form(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    assert "cores" in answer["machine"]
    assert answer["figures"]
    for figure in answer["figures"]:
        assert set(figure) == {"name", "value", "unit", "peer", "ratio", "goal", "met"}
        assert figure["value"] > 0 or figure["unit"] in {"bytes", "MB"}, figure
        assert figure["met"] is None
    assert f"| {answer['figures'][0]['name']}" in done.stdout
