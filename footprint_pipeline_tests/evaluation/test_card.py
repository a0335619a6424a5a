import re
from dataclasses import replace

import numpy as np
import pandas as pd

from footprint_pipeline.evaluation import scoring
from footprint_pipeline.evaluation.bootstrap import intervals
from footprint_pipeline.evaluation.calibration import reliability
from footprint_pipeline.evaluation.card import CardFacts, render_card
from footprint_pipeline.footprints.picture import encode_png

PNG = encode_png(np.zeros((8, 24, 3), np.uint8))
FACTS = CardFacts(
    name="U-Net <2 heads>", facts={"MLflow run": "abc"}, recipe={"learning_rate": 0.002},
    data=[["Town", "5", "CC BY-SA 4.0"]], data_head=["area", "train", "licence"], calibration=((0.5, 0.2), (0.9, 0.8)),
    worst=PNG, best=PNG, box_plot=PNG,
)  # fmt: skip


def scores(tiles: int) -> scoring.TestScores:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"tile_id": [f"t{n}" for n in range(tiles)], "aoi": "Town", "pixels": 1000, "pixel_f1": 0.5})
    table["tolerance"] = 0.6
    for what in ("pixel", "building"):
        table[[f"{what}_tp", f"{what}_fp", f"{what}_fn"]] = 10, 12, 8
    said = rng.random(200)
    return replace(
        scoring.summarize(table),
        proposals=pd.DataFrame({"confidence": said, "area_m2": 1e4 * rng.random(200), "right": rng.random(200) < said}),
        buildings=pd.DataFrame({"area_m2": 1e4 * rng.random(90), "found": rng.random(90) < 0.5}),
        pixels=reliability(rng.random(1000), rng.random(1000) < 0.5),
    )


def test_the_card_says_what_there_is_and_loads_nothing() -> None:
    made = scores(40)

    page = render_card(made, intervals(made.tiles), FACTS)

    for told in ("U-Net &lt;2 heads&gt;", "CC BY-SA 4.0", "learning_rate", "0.002", "over 500 m²", "Town", "40 tiles"):
        assert told in page
    assert f"<b>{made.building_f1:.3f}</b>" in page
    assert len(re.findall(r'<img src="data:image/png;base64,', page)) == 5
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert "test tiles are few" not in page


def test_few_tiles_are_said_to_be_few_and_a_plot_may_be_missing() -> None:
    made = scores(4)
    page = render_card(made, intervals(made.tiles), replace(FACTS, box_plot=None, calibration=()))
    assert "4 test tiles are few" in page
    assert page.count("data:image/png") == 4
