"""How reading an AOI's labels went: a record beside the polygon table, for the checks, the UI and reports.

What a label is and how it is read is the business of `spacenet.labels`; where it lies, `polygons`'.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from footprint_pipeline.errors import DatasetError
from footprint_pipeline.files import atomic_path
from footprint_pipeline.lake import AoiFolder


class LabelCounts(BaseModel):
    """What reading the labels of an AOI met.

    Attributes:
        rows: rows or features read for the AOI's tiles.
        empty: rows that say "no building here".
        repaired: polygons that were not valid and now are.
        rejected: labels listed in `labels_rejected.csv`.
        slivers: polygons without an area to speak of, dropped.
        outside: labels wholly outside their tile, dropped.
        too_small: labels left out because of `PolygonSpec.min_area_m2`.
        covered: labels left out because they lie within another one of their tile, or are one listed twice.
        clipped: labels cut at their tile's edge.
        unlabelled: ids of the tiles without any row or label file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    empty: int
    repaired: int
    rejected: int
    slivers: int
    outside: int
    clipped: int
    unlabelled: tuple[str, ...]
    too_small: int = 0
    covered: int = 0


def label_counts_path(folder: AoiFolder) -> Path:
    """Where the counts of an AOI lie."""
    return folder.folder / "labels.json"


def write_label_counts(counts: LabelCounts, path: Path) -> None:
    """Write the counts as JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(counts.model_dump_json(indent=1) + "\n", "utf-8")


def read_label_counts(path: Path) -> LabelCounts:
    """The counts written by `write_label_counts`.

    Raises:
        DatasetError: there are none, or the file is not what was written.
    """
    try:
        return LabelCounts.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        problem = f"{path.parent.name}/{path.name}: there is no record of how the labels were read."
    except ValidationError:
        problem = f"{path.parent.name}/{path.name}: is not a record of how the labels were read."
    raise DatasetError(problem, fix="Materialize building_polygons again.")
