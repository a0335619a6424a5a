"""The commands that answer with the footprints of a place."""

import logging
from pathlib import Path

import numpy as np
import pytest
import rasterio

from footprint_pipeline.commands import places
from footprint_pipeline.errors import SettingsError
from footprint_pipeline.footprints.domain import DomainReference, brightness_counts
from footprint_pipeline.footprints.normalization import Normalization
from footprint_pipeline.footprints.spec import ModelSpec
from footprint_pipeline.lake import Lake
from footprint_pipeline.model import tracking
from footprint_pipeline.registry import CHAMPION, SERVING_FOLDER, Registry
from footprint_pipeline.settings import Settings, load_settings
from footprint_pipeline.spacenet.catalog import BUILT_IN, SYNTHETIC
from footprint_pipeline.spacenet.synthetic.city import CitySpec, write_city
from footprint_pipeline.stages.data import fetch_tiles
from footprint_pipeline_tests.stages.test_promotion import log_network, write_answer

# mlflow.pyfunc warns of its own type hints when it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:.*inferred as AnyType:UserWarning")


def test_the_imagery_is_of_the_city_that_was_prepared_last(tmp_path: Path) -> None:
    settings, folder = load_settings(home=tmp_path), Lake(tmp_path).aoi(SYNTHETIC)
    with pytest.raises(SettingsError, match="No imagery is set"):
        places.with_imagery(settings, None)
    for tiles in (2, 4, 2):  # the last one is there already
        layout, _ = fetch_tiles(settings, BUILT_IN[SYNTHETIC], folder, tiles=tiles, on_bad_tile="fail")
        assert places.with_imagery(settings, None).imagery == str(layout.folder / "mosaic.tif")


@pytest.mark.slow
def test_a_question_is_answered_by_the_champion_of_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not by what the service that answered last had in its cache, in either direction."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri := f"sqlite:///{tmp_path / 'mlflow.db'}")
    city = write_city(tmp_path / "source", CitySpec(rows=1, columns=2, tile_height=160, tile_width=176))
    settings = load_settings(home=tmp_path / "home", imagery=str(city.mosaic))
    registry = Registry(uri, settings.model_name)
    versions = []
    for number, probability in enumerate((0.9, 0.1)):
        model_id, run_id = log_network(settings.home, uri)
        answer = write_answer(tmp_path / f"answer-{number}" / SERVING_FOLDER, probability)
        tracking.add_to_model(uri, model_id, answer, SERVING_FOLDER)
        versions.append(registry.register(model_id=model_id, run_id=run_id, tags={}, description=""))

    def asked(settings: Settings, champion: str) -> tuple[str, int]:
        registry.point(CHAMPION, champion)
        told = places.ask(settings, coordinate=None, zoom=18, imagery=None, out=tmp_path / "answer")
        assert all(Path(file).stat().st_size for file in told["files"])
        return told["version"], told["footprints"]

    assert asked(settings, versions[0]) == (versions[0], 1)
    assert asked(settings, versions[1]) == (versions[1], 0)
    assert asked(settings, versions[0]) == (versions[0], 1)


@pytest.mark.slow
def test_imagery_of_another_range_than_the_model_s_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri := f"sqlite:///{tmp_path / 'mlflow.db'}")
    mosaic = write_city(tmp_path / "source", CitySpec(rows=1, columns=2, tile_height=160, tile_width=176)).mosaic
    with rasterio.open(mosaic) as source:
        pixels, profile = source.read(), source.profile
    seen = np.ascontiguousarray(np.moveaxis(pixels[:3], 0, -1))
    domain = DomainReference.of([brightness_counts(seen, np.ones(seen.shape[:2], bool))])
    deep = Normalization(high=(8 * 255.0,) * 3)
    for name, scale in (("as learned", 8), ("of fractions", 1 / 255)):
        with rasterio.open(tmp_path / f"{name}.tif", "w", **{**profile, "dtype": "float32"}) as file:
            file.write(pixels.astype(np.float32) * scale)
    settings = load_settings(home=tmp_path / "home")
    model_id, run_id = log_network(settings.home, uri)
    answer = write_answer(tmp_path / "answer" / SERVING_FOLDER, 0.1)
    ModelSpec.read(answer).model_copy(update={"domain": domain, "normalization": {"Rio": deep}}).write(answer)
    tracking.add_to_model(uri, model_id, answer, SERVING_FOLDER)
    registry = Registry(uri, settings.model_name)
    registry.point(CHAMPION, registry.register(model_id=model_id, run_id=run_id, tags={}, description=""))

    def told(name: str, command: str) -> str:
        caplog.clear()
        imagery = str(tmp_path / f"{name}.tif")
        with caplog.at_level(logging.WARNING, logger=places.__name__):
            if command == "ask":
                places.ask(settings, coordinate=None, zoom=18, imagery=imagery, out=tmp_path / "asked")
            else:
                middle = places._middle(places.with_imagery(settings, imagery))
                places.predict(
                    settings, coordinate=f"{middle[0]},{middle[1]}", zoom=18, imagery=imagery,
                    tolerance=None, outline="raw", alias=None, out=None, picture=None,
                )  # fmt: skip
        return caplog.text

    for command in ("predict", "ask"):
        assert "is unlike" not in told("as learned", command)
        said = told("of fractions", command)
        assert "of fractions.tif: is unlike all that red-roofs was trained on" in said
        assert "the model sees 0–2040" in said
