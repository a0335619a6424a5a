"""What the service would run is what is scored: its stretch of deep imagery, its tolerance at each place."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from footprint_pipeline.dataset.polygons import read_polygon_table
from footprint_pipeline.dataset.tiles import as_learned, normalization, read_tile
from footprint_pipeline.footprints.domain import DomainReference, brightness_counts
from footprint_pipeline.footprints.normalization import UINT8, Normalization
from footprint_pipeline.footprints.spec import ModelSpec
from footprint_pipeline.lake import Lake
from footprint_pipeline.stages.scoring import _stretched_as_learned, load_manifest, score_exported
from footprint_pipeline_tests.stages.prepared import AOI, prepare_city

RIO, PARIS = (Normalization(low=(low,) * 3, high=(2000.0,) * 3, gamma=1.5) for low in (10.0, 20.0))


class Told:
    """A model that says the share of red, and remembers what it was shown."""

    def __init__(self, **spec: Any) -> None:
        self.shown: list[np.ndarray] = []
        self.spec = ModelSpec(
            model_name="m", network="", gsd_m=0.5, chip_size=64, stride=1, heads=("building",),
            **({"tolerance": 0.5, "aois": (), "normalization": {}} | spec),
        )  # fmt: skip

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        self.shown.append(batch)
        return batch[..., :1]


def row(aoi: str, of: Normalization) -> dict[str, Any]:
    return {"aoi": aoi, "low": list(of.low), "high": list(of.high), "gamma": of.gamma}


def stretches(model: Told, *rows: dict[str, Any]) -> list[Normalization]:
    return [normalization(each) for each in _stretched_as_learned(pd.DataFrame(rows), model.spec).itertuples()]


def test_deep_imagery_is_stretched_as_it_was_learned(caplog: pytest.LogCaptureFixture) -> None:
    of_its_own = Normalization(low=(0.0,) * 3, high=(900.0,) * 3, gamma=2.0)
    rows = [row("Rio", UINT8), row("Rio", of_its_own), row("Elsewhere", of_its_own)]
    one = Told(normalization={"Rio": UINT8, "Rio (2)": RIO})
    assert stretches(one, *rows) == [UINT8, RIO, RIO]
    assert caplog.text == ""
    several = Told(normalization={"Rio": RIO, "Paris": PARIS})
    assert stretches(several, *rows) == [UINT8, RIO, of_its_own]
    assert "Elsewhere: imagery of more than 8 bits, which the service refuses" in caplog.text
    assert stretches(Told(normalization={"Rio": UINT8}), *rows) == [UINT8, of_its_own, of_its_own]


def test_a_score_is_of_what_the_service_would_be_shown_and_answer(tmp_path: Path) -> None:
    folder = prepare_city(tmp_path, dtype="uint16")
    tiles, polygons = load_manifest(Lake(tmp_path), [AOI]).head(2), read_polygon_table(folder.polygons)
    darker = Normalization(low=(0.0,) * 3, high=(4000.0,) * 3)
    model, own = Told(normalization={"Learned": darker}), Told()
    score_exported(model, tiles, polygons)
    score_exported(own, tiles, polygons)
    assert np.mean(model.shown[0]) < np.mean(own.shown[0]) - 0.1

    west, south, east, north = polygons.total_bounds
    near = {"aois": ("Rio",), "own_tolerances": {"Rio": 0.8}, "places": {"Rio": ((west, south, east, north),)}}
    tolerances = {
        name: set(score_exported(Told(**spec), tiles, polygons, **given).tiles["tolerance"])
        for name, spec, given in [
            ("near", near, {}),
            ("far", near | {"places": {"Rio": ((west + 5, south, east + 5, north),)}}, {}),
            ("named", near | {"aois": (AOI, "Rio")}, {}),
            ("told", near, {"tolerance": 0.3}),
        ]
    }
    assert tolerances == {"near": {0.8}, "far": {0.5}, "named": {0.5}, "told": {0.3}}


def test_imagery_far_from_what_was_learned_is_told_by_area(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = prepare_city(tmp_path, dtype="uint16")
    tiles, polygons = load_manifest(Lake(tmp_path), [AOI]).head(3), read_polygon_table(folder.polygons)
    seen = [(row, *read_tile(Path(row.path))) for row in tiles.itertuples()]
    domain = DomainReference.of([brightness_counts(as_learned(row, *tile), tile[1]) for row, *tile in seen])
    own = normalization(next(tiles.itertuples()))
    for scale, told in ((1, False), (16, True)):
        caplog.clear()
        learned = Normalization(low=own.low, high=tuple(scale * high for high in own.high), gamma=own.gamma)
        score_exported(Told(domain=domain, normalization={"Learned": learned}), tiles, polygons)
        assert (f"{AOI}: is unlike all that m was trained on" in caplog.text) == told
    assert f"Its values lie from {min(own.low):.5g} to {max(own.high):.5g}" in caplog.text
    assert learned.describe() in caplog.text
    assert caplog.text.count("is unlike") == 1
