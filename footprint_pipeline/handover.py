"""What one model stage hands to the next: small frozen records, kept as JSON."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from footprint_pipeline.footprints.normalization import Normalization


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrainedUnet(_Record):
    """A trained network in MLflow, and all that the later stages must know of its training."""

    run_id: str
    experiment_id: str
    model_id: str
    network: str
    parameters: int
    stride: int
    heads: tuple[str, ...] = ("building",)
    chip_size: int
    gsd_m: float
    aois: tuple[str, ...]
    split_digest: str
    data_digest: str = ""  # empty in records of before
    normalization: dict[str, Normalization]
    tiles: dict[str, int]
    epochs: int
    best_epoch: int
    validation_loss: float
    seconds: float
    precision: str
    weights: str | None = None


class ToleranceSweep(_Record):
    """What was chosen on the validation split to make footprints with, and what it reaches there."""

    run_id: str
    model_id: str
    tolerance: float
    own_tolerances: dict[str, float] = {}
    median_tile_f1: float
    std_tile_f1: float
    pooled_pixel_f1: float
    tiles: int
    rule: str
    article_tolerance: float
    seed_level: float | None = None
    flips: int = 1
    calibration: tuple[tuple[float, float], ...] = ()
    min_area_m2: float = 0.0
    building_f1: float


class TestEvaluation(_Record):
    """Scores on the test split, and with what was chosen they were reached."""

    run_id: str
    model_id: str
    tolerance: float
    own_tolerances: dict[str, float] = {}
    seed_level: float | None = None
    flips: int = 1
    min_area_m2: float = 0.0
    tiles: int
    metrics: dict[str, float]
    by_aoi: list[dict[str, str | int | float]]
    intervals: dict[str, tuple[float, float]] = {}
    data_digest: str = ""  # empty in records of before


class RegisteredModel(_Record):
    """A version in the registry, and whether it serves from now on."""

    name: str
    version: str
    run_id: str
    promoted: bool
    reason: str
    metrics: dict[str, float]
    champion_metrics: dict[str, float] | None
    commit: str | None = None
    differences: dict[str, float] = {}
    precision: str
    precisions: dict[str, dict[str, float]] = {}


class SearchedRecipe(_Record):
    """Where a search of hyperparameters stands: the best recipe that it has found, as a file."""

    study: str
    run_id: str
    experiment_id: str
    best_spec: Path
    best_trial: int
    best_value: float
    objective: str
    trials: int
    failed: int
