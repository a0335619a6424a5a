from pathlib import Path

import pytest

from footprint_pipeline.footprints.runtime import Runtime
from footprint_pipeline_tests.footprints.red_city import write_model


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def runtime(model_folder: Path) -> Runtime:
    return Runtime(model_folder, threads=1)
