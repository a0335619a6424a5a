"""SpaceNet's own tables, scored: whose ever proposals against whose ever truth.

A table has the columns `ImageId`, `BuildingId`, `PolygonWKT_Pix` and, of proposals, `Confidence`. A row whose polygon
is empty, or whose `BuildingId` is -1, says that its image was looked at. What counts as found is `buildings`' business.
"""

import logging
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import shapely

from footprint_pipeline.errors import LabelError, first_line
from footprint_pipeline.evaluation.buildings import BuildingScore, Scene, by_size, match_buildings
from footprint_pipeline.evaluation.spec import MIN_AREA_PX
from footprint_pipeline.spacenet.wkt import polygons_from_wkt

log = logging.getLogger(__name__)

SIZES_PX = (0.0, 100.0, 400.0, 1600.0, np.inf)
"""Bounds of the size classes, square pixels: sides of about 10, 20 and 40."""

_IMAGE, _BUILDING, _POLYGON, _CONFIDENCE = "ImageId", "BuildingId", "PolygonWKT_Pix", "Confidence"
_AOI = re.compile(r"AOI_\d+_[^_]+", re.IGNORECASE)


@dataclass(frozen=True)
class SubmissionScore:
    """Scores of a table of proposals.

    Attributes:
        f1: SpaceNet's, mean over AOIs.
        by_aoi: one row an AOI: `aoi`, `images`, `tp`, `fp`, `fn`, `precision`, `recall`, `f1`.
        by_size: one row a size class: `from_px`, `to_px` (square pixels) and the same counts and ratios. A building
            counts where its own area puts it, a false proposal where its.
        by_image: one row an image: `image`, `aoi` and the same counts and ratios.
    """

    f1: float
    by_aoi: pd.DataFrame
    by_size: pd.DataFrame
    by_image: pd.DataFrame


def read_submission(path: Path) -> pd.DataFrame:
    """A table of proposals or of truth.

    Args:
        path: CSV.

    Returns:
        DataFrame of image (str), polygon (shapely, valid, pixels; None where the row only names its image) and
        confidence (float64; 1 where the table does not say), in the file's order.

    Raises:
        LabelError: it cannot be read, lacks a column, or a row is no polygon; names the row.
    """
    fix = f"Give a CSV, with commas, of the columns {_IMAGE}, {_BUILDING}, {_POLYGON} and, of proposals, {_CONFIDENCE}."
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    except (OSError, ValueError) as error:  # ValueError: empty, not a table, or not UTF-8
        raise LabelError(f"{path}: cannot be read as CSV ({first_line(error)}).", fix=fix) from None
    if not isinstance(table.index, pd.RangeIndex):
        raise LabelError(f"{path}: its rows have more fields than its header.", fix=f"{fix} Put polygons in quotes.")
    table = table.rename(columns=str.strip)
    if missing := [name for name in (_IMAGE, _BUILDING, _POLYGON) if name not in table]:
        raise LabelError(f"{path}: has no column {', '.join(missing)}.", fix=fix)
    text = table[_POLYGON].str.strip()
    polygon = polygons_from_wkt(text)
    nothing = (pd.to_numeric(table[_BUILDING], errors="coerce") == -1).to_numpy() | shapely.is_empty(polygon)
    points, owner = shapely.get_coordinates(polygon, return_index=True)
    finite = np.ones(len(polygon), bool)
    finite[owner[~np.isfinite(points).all(axis=1)]] = False
    wrong = ~nothing & ~(np.isin(shapely.get_type_id(polygon), (3, 6)) & finite)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise LabelError(f"{path}, row {row + 2}: {text.iloc[row][:60]!r} is no polygon.", fix=fix)
    confidence = pd.to_numeric(table.get(_CONFIDENCE, pd.Series("1", table.index)), errors="coerce").to_numpy(float)
    if (unsure := ~nothing & ~np.isfinite(confidence)).any():
        row = int(np.argmax(unsure))
        raise LabelError(f"{path}, row {row + 2}: its {_CONFIDENCE} is no number.", fix=fix)
    image = table[_IMAGE].str.strip()
    twice = int(pd.DataFrame({"image": image, "building": table[_BUILDING]})[~nothing].duplicated().sum())
    if twice:
        log.warning("%s: %d rows have the ids of a row before them; each counts as a building", path.name, twice)
    invalid = ~nothing & ~shapely.is_valid(polygon)
    polygon[invalid] = shapely.make_valid(polygon[invalid], method="structure", keep_collapsed=False)
    polygon[nothing | (shapely.area(polygon) == 0)] = None
    return pd.DataFrame({"image": image, "polygon": polygon, "confidence": confidence})


def score_submission(
    truth: pd.DataFrame, proposals: pd.DataFrame, *, min_area_px: float = MIN_AREA_PX
) -> SubmissionScore:
    """Score proposals image by image; both tables are of `read_submission`.

    Proposals on an image that the truth does not name are all false.

    Args:
        truth: what is there.
        proposals: what is claimed.
        min_area_px: smaller polygons on either side are left out, square pixels.
    """
    there, claimed = _by_image(truth), _by_image(proposals)
    if strange := claimed.keys() - there.keys():
        log.warning("%d images of the proposals are not in the truth, such as %s", len(strange), min(strange))
    nothing = truth.iloc[:0]

    images = sorted(there.keys() | claimed.keys())
    scenes = [
        Scene(answer["polygon"].to_numpy(), answer["confidence"].to_numpy(), buildings["polygon"].to_numpy())
        for answer, buildings in ((claimed.get(image, nothing), there.get(image, nothing)) for image in images)
    ]
    matched = match_buildings(scenes, min_area_px=min_area_px)
    rows, found, false, missed = [], [np.empty(0)], [np.empty(0)], [np.empty(0)]
    for image, scene, matches in zip(images, scenes, matched, strict=True):
        area = shapely.area(scene.truth)
        found.append(area[matches.found])
        missed.append(area[matches.there & ~matches.found])
        false.append(shapely.area(scene.proposals[matches.proposed & ~matches.right]))
        aoi = _AOI.search(image)
        rows.append({"image": image, "aoi": aoi[0] if aoi else "all", **matches.score.row()})
    columns = list(BuildingScore().row())
    by_image = pd.DataFrame(rows, columns=["image", "aoi", *columns])
    by_aoi = pd.DataFrame(
        [
            {"aoi": aoi, "images": len(of_aoi), **BuildingScore(*of_aoi[["tp", "fp", "fn"]].sum().tolist()).row()}
            for aoi, of_aoi in by_image.groupby("aoi")
        ],
        columns=["aoi", "images", *columns],
    )
    telling = by_aoi[by_aoi[["tp", "fp", "fn"]].sum(axis=1) > 0]  # where nothing is and nothing is claimed, all is well
    sizes = by_size(*map(np.concatenate, (found, false, missed)), bounds=SIZES_PX)
    return SubmissionScore(
        f1=float(telling["f1"].mean()) if len(telling) else 0.0,
        by_aoi=by_aoi,
        by_size=sizes.rename(columns={"from": "from_px", "to": "to_px"}),
        by_image=by_image,
    )


def _by_image(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The polygons of every image that is named, perhaps none."""
    return {str(image): rows[rows["polygon"].notna()] for image, rows in table.groupby("image", sort=False)}
