"""A tiny synthetic city and the `footprint` command, as a user has them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from footprint_pipeline.spacenet.synthetic.city import CitySpec, CitySummary, write_city


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def answer(self) -> dict[str, Any]:
        return json.loads(self.out.splitlines()[-1])


Footprint = Callable[..., Outcome]


@pytest.fixture(scope="session")
def city(tmp_path_factory: pytest.TempPathFactory) -> CitySummary:
    return write_city(
        tmp_path_factory.mktemp("city") / "city", CitySpec(rows=4, columns=5, tile_height=160, tile_width=176)
    )


def clean_environment() -> dict[str, str]:
    """This process's environment without what sets the project up; MLflow writes to it in tests that use it."""
    ours = ("FOOTPRINT_", "MLFLOW_", "DAGSTER_", "MAPBOX_", "AWS_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@pytest.fixture(scope="session")
def footprint() -> Footprint:
    """Run `footprint …` as a process; `env` adds to a clean environment."""

    def run(*arguments: object, env: dict[str, str] | None = None, timeout: float = 600) -> Outcome:
        done = subprocess.run(
            [Path(sys.executable).with_name("footprint"), *map(str, arguments)],
            env={**clean_environment(), **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run
