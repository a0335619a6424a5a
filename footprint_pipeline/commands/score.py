"""Score anybody's proposals against anybody's truth, as SpaceNet does."""

from pathlib import Path
from typing import Any

import pandas as pd

from footprint_pipeline.evaluation.submissions import read_submission, score_submission


def score(*, truth: Path, proposals: Path, min_area: float) -> dict[str, Any]:
    """Score a table of proposals; figures by AOI, by size of building, and by image in `--json`."""
    scores = score_submission(read_submission(truth), read_submission(proposals), min_area_px=min_area)
    return {
        "building_f1": scores.f1,
        "by_aoi": scores.by_aoi.to_dict("records"),
        "by_size": scores.by_size.astype(object).where(scores.by_size != float("inf"), None).to_dict("records"),
        "by_image": scores.by_image.to_dict("records"),
        "_lines": [
            *_lines(scores.by_aoi.drop(columns="images").rename(columns={"aoi": ""})),
            "",
            *_lines(_named(scores.by_size)),
            "",
            f"building F1 (IoU >= 0.5, mean over areas)  {scores.f1:.4f}",
        ],
    }


def _named(by_size: pd.DataFrame) -> pd.DataFrame:
    """The size classes with their bounds in words."""
    upto = by_size["to_px"].map(lambda bound: f"to {bound:,.0f} px²")
    upto.iloc[-1] = "larger"
    return pd.concat([upto.rename(""), by_size.drop(columns=["from_px", "to_px"])], axis=1)


def _lines(table: pd.DataFrame) -> list[str]:
    return table.to_string(index=False, float_format="{:.4f}".format).splitlines()
