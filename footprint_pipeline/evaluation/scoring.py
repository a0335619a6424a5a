"""Predict labelled tiles with any network and hold the answers against the labels.

Each tile is predicted at the model's ground sample distance; buildings are outlined and told apart there, where the
gaps between them are as wide as in training. Pixels and polygons are then scored on the tile's own grid. Where there
is no imagery nothing is claimed.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from footprint_pipeline.dataset.caching import grid_size, resample
from footprint_pipeline.dataset.masks import read_mask
from footprint_pipeline.dataset.rasterize import covered_pixels
from footprint_pipeline.dataset.tiles import as_learned, read_tile
from footprint_pipeline.errors import DatasetError
from footprint_pipeline.evaluation.buildings import BuildingScore, Scene, match_buildings
from footprint_pipeline.evaluation.calibration import Reliability, reliability
from footprint_pipeline.evaluation.tolerance import pixel_f1
from footprint_pipeline.footprints.predict import Infer, predict_probability
from footprint_pipeline.footprints.separate import interior_of
from footprint_pipeline.footprints.vectorize import Footprints, vectorize

log = logging.getLogger(__name__)

_SEEN = 0.5
_SAME_SHARE = 1e-6
"""A label with less of it on imagery is none: who is not shown a building cannot miss it."""
_PROPOSALS = ["aoi", "tile_id", "confidence", "area_m2", "right"]
_BUILDINGS = ["aoi", "tile_id", "area_m2", "found"]


@dataclass(frozen=True)
class Answer:
    """What a network says of a tile, on the grid that it works on.

    Attributes:
        probability: of a building, float32 in [0, 1], shape (h, w); 0 where there is no imagery.
        interior: how sure a pixel lies inside one building, the same; None when the network does not tell.
        size: height and width of the tile on its own grid, pixels.
        gsd_m: metres a pixel, on the network's grid.
    """

    probability: np.ndarray
    interior: np.ndarray | None
    size: tuple[int, int]
    gsd_m: float

    def footprints(self, *, tolerance: float, seed_level: float | None, min_area_m2: float = 0.0) -> Footprints:
        """The buildings, on the tile's own grid; see `vectorize`. Those of a smaller area are left out."""
        found = vectorize(
            self.probability,
            tolerance=tolerance,
            interior=self.interior,
            seed_level=seed_level,
            min_area_px=min_area_m2 / self.gsd_m**2,
        )
        height, width = self.probability.shape
        if (height, width) == self.size:
            return found
        scale = np.array([self.size[1] / width, self.size[0] / height])
        return Footprints(shapely.transform(found.polygons, lambda xy: xy * scale), found.confidence)

    def area_m2(self, found: Footprints) -> np.ndarray:
        """Ground that such footprints cover, square metres, shape (N,)."""
        stretch = self.probability.size / (self.size[0] * self.size[1])
        return shapely.area(found.polygons) * stretch * self.gsd_m**2


@dataclass(frozen=True)
class TilePrediction:
    """What a network says of a labelled tile.

    Attributes:
        tile_id: which tile.
        aoi: its AOI.
        image: uint8, shape (H, W, 3).
        truth: uint8 0/1, shape (H, W); 0 where there is no imagery, whatever the labels say.
        valid: where there is imagery, bool, shape (H, W).
        probability: of a building, on the tile's own grid, float32 in [0, 1], shape (H, W); 0 where there is no
            imagery.
        answer: what the network said before that was resampled.
        pixel_m2: ground that a pixel of the tile's own grid covers, square metres.
    """

    tile_id: str
    aoi: str
    image: np.ndarray
    truth: np.ndarray
    valid: np.ndarray
    probability: np.ndarray
    answer: Answer
    pixel_m2: float = 1.0


@dataclass(frozen=True)
class TestScores:
    """Scores of a network on a set of tiles, at one tolerance for each AOI.

    Attributes:
        tiles: one row a tile: `tile_id`, `aoi`, `tolerance`, `pixels` with imagery, counts and F1 of pixels and of
            buildings.
        by_aoi: one row an AOI: `aoi`, `tiles`, `tolerance`, the three figures, building precision and recall, and
            `all_building_pixel_f1`: what is as good as knowing nothing, the pooled pixel F1 of calling every pixel with
            imagery a building.
        median_tile_f1: median over the tiles with building pixels of their pixel F1 (the article's figure).
        pooled_pixel_f1: pixel F1 of all tiles taken as one.
        building_f1: SpaceNet's, mean over the AOIs where there is a building or one was claimed.
        proposals: one row a footprint: `aoi`, `tile_id`, `confidence`, `area_m2` and `right`, whether it is a building.
        buildings: one row a building: `aoi`, `tile_id`, `area_m2` and `found`.
        pixels: how often the probability of a pixel came true.
    """

    tiles: pd.DataFrame
    by_aoi: pd.DataFrame
    median_tile_f1: float
    pooled_pixel_f1: float
    building_f1: float
    proposals: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=_PROPOSALS))
    buildings: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=_BUILDINGS))
    pixels: Reliability = field(default_factory=lambda: reliability(np.empty(0), np.empty(0)))

    def metrics(self) -> dict[str, float]:
        """The three figures by name."""
        return {
            "median_tile_f1": self.median_tile_f1,
            "pooled_pixel_f1": self.pooled_pixel_f1,
            "building_f1": self.building_f1,
        }


def predict_tiles(
    manifest: pd.DataFrame,
    infer: Infer,
    *,
    gsd_m: float,
    stride: int,
    heads: Sequence[str] = ("building",),
    flips: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[TilePrediction]:
    """Predict the tiles of a manifest, one after another.

    Args:
        manifest: rows of split manifests.
        infer: the network.
        gsd_m: metres a pixel that the network works at.
        stride: the network's input must be a multiple of this.
        heads: what the network tells of each pixel, in order.
        flips: orientations that are averaged.
        progress: called with (done, total).

    Raises:
        TileError, DatasetError: a tile or its mask cannot be read, or the mask has been drawn anew since the split.
    """
    for done, row in enumerate(manifest.itertuples(), start=1):
        image, valid = read_tile(Path(row.path))
        size, seen = grid_size(row, gsd_m), as_learned(row, image, valid)
        at_gsd = resample(seen, size).astype(np.float32) / np.float32(255)
        told = predict_probability(at_gsd, infer, stride=stride, flips=flips)
        probability = np.clip(resample(np.ascontiguousarray(told[..., 0]), image.shape[:2]), 0.0, 1.0)
        probability[~valid] = 0.0
        told[resample(valid.astype(np.uint8) * np.uint8(255), size) < 128] = 0.0
        mask = read_mask(Path(row.mask_path))
        if "coverage" in manifest and abs(mask.mean() - row.coverage) > _SAME_SHARE:
            raise DatasetError(
                f"{row.mask_path}: has been drawn anew since its split was made.",
                fix=f"When {row.aoi} is prepared, do this again.",
            )
        yield TilePrediction(
            tile_id=row.tile_id,
            aoi=row.aoi,
            image=seen,
            truth=np.where(valid, mask, 0),
            valid=valid,
            probability=probability,
            answer=Answer(np.ascontiguousarray(told[..., 0]), interior_of(told, heads), image.shape[:2], gsd_m),
            pixel_m2=row.gsd_x_m * row.gsd_y_m,
        )
        if progress is not None:
            progress(done, len(manifest))


def score_tiles(
    predictions: Iterator[TilePrediction],
    polygons: gpd.GeoDataFrame,
    *,
    tolerance: float,
    own_tolerances: Mapping[str, float] = MappingProxyType({}),
    seed_level: float | None = None,
    min_area_m2: float = 0.0,
    on_tile: Callable[[TilePrediction, float], None] | None = None,
) -> TestScores:
    """Pixel and building scores of predicted tiles at a tolerance.

    Args:
        predictions: from `predict_tiles`.
        polygons: the polygon table of their AOIs.
        tolerance: a pixel is a building where probability > 1 - tolerance.
        own_tolerances: other tolerances, by AOI.
        seed_level: buildings that touch are told apart by interiors above it; None: they are not.
        min_area_m2: smaller footprints are no proposals, square metres, as in the service.
        on_tile: called with every prediction and its pixel F1, to keep some for pictures.

    Raises:
        DatasetError: there is no tile.
    """
    truth_of = tile_buildings(polygons)
    rows, proposals, buildings = [], [], []
    probabilities = reliability(np.empty(0), np.empty(0))
    for prediction in predictions:
        here = own_tolerances.get(prediction.aoi, tolerance)
        claimed, truth_px = prediction.probability > np.float32(1 - here), prediction.truth > 0
        tp = int(np.count_nonzero(claimed & truth_px))
        fp, fn = int(np.count_nonzero(claimed)) - tp, int(np.count_nonzero(truth_px)) - tp
        found = prediction.answer.footprints(tolerance=here, seed_level=seed_level, min_area_m2=min_area_m2)
        truth = truth_of(prediction)
        (matches,) = match_buildings([Scene(found.polygons, found.confidence, truth)])
        counts = matches.score
        f1 = float(pixel_f1(np.array(tp), np.array(fp), np.array(fn)))
        rows.append(
            {
                "tile_id": prediction.tile_id, "aoi": prediction.aoi,
                "tolerance": here, "pixels": int(np.count_nonzero(prediction.valid)),
                "pixel_tp": tp, "pixel_fp": fp, "pixel_fn": fn, "pixel_f1": f1,
                "building_tp": counts.true_positives, "building_fp": counts.false_positives,
                "building_fn": counts.false_negatives, "building_f1": counts.f1,
            }
        )  # fmt: skip
        where = {"aoi": prediction.aoi, "tile_id": prediction.tile_id}
        area_m2, true_m2 = (shapely.area(each) * prediction.pixel_m2 for each in (found.polygons, truth))
        proposed, there = matches.proposed, matches.there
        proposals.append(
            pd.DataFrame(
                {
                    "confidence": found.confidence[proposed],
                    "area_m2": area_m2[proposed],
                    "right": matches.right[proposed],
                }
            ).assign(**where)[_PROPOSALS]
        )
        buildings.append(
            pd.DataFrame({"area_m2": true_m2[there], "found": matches.found[there]}).assign(**where)[_BUILDINGS]
        )
        probabilities += reliability(prediction.probability[prediction.valid], prediction.truth[prediction.valid])
        if on_tile is not None:
            on_tile(prediction, f1)
    if not rows:
        raise DatasetError("There is no tile to score.", fix="Prepare tiles of the test split.")
    return replace(
        summarize(pd.DataFrame(rows)),
        proposals=pd.concat(proposals, ignore_index=True),
        buildings=pd.concat(buildings, ignore_index=True),
        pixels=probabilities,
    )


def tile_buildings(polygons: gpd.GeoDataFrame) -> Callable[[TilePrediction], np.ndarray]:
    """The labels of a predicted tile on the tile's grid, shape (N,), looked up in a polygon table.

    Those that lie for the greater part where there is no imagery are left out.
    """
    rows_of = polygons.groupby(["aoi", "tile_id"]).indices
    on_grid = polygons["geometry_px"].to_numpy()
    nothing = np.empty(0, int)

    def of(prediction: TilePrediction) -> np.ndarray:
        labels = on_grid[rows_of.get((prediction.aoi, prediction.tile_id), nothing)]
        if prediction.valid.all():
            return labels
        seen = [_share_seen(label, prediction.valid) >= _SEEN for label in labels]
        return labels[np.array(seen, bool)]

    return of


def _share_seen(label: shapely.Geometry, valid: np.ndarray) -> float:
    """How much of a label lies on imagery; one that holds no pixel's centre is where its middle is."""
    height, width = valid.shape
    inside = covered_pixels(np.array([label]), height=height, width=width, figures=np.zeros(1, int))
    if len(inside):
        return float(valid.ravel()[inside].mean())
    middle = shapely.point_on_surface(label)
    return float(valid[min(max(int(middle.y), 0), height - 1), min(max(int(middle.x), 0), width - 1)])


def summarize(tiles: pd.DataFrame) -> TestScores:
    """The figures of a set of scored tiles; see `TestScores`."""
    by_aoi = pd.DataFrame([_aoi_row(str(aoi), group) for aoi, group in tiles.groupby("aoi")])
    return TestScores(
        tiles=tiles,
        by_aoi=by_aoi,
        median_tile_f1=_median(tiles),
        pooled_pixel_f1=_pooled(tiles),
        building_f1=_mean_over_aois(by_aoi),
    )


def _aoi_row(aoi: str, tiles: pd.DataFrame) -> dict[str, object]:
    score = BuildingScore(*(int(tiles[f"building_{kind}"].sum()) for kind in ("tp", "fp", "fn")))
    return {
        "aoi": aoi,
        "tiles": len(tiles),
        "tolerance": float(tiles["tolerance"].iloc[0]),
        "median_tile_f1": _median(tiles),
        "pooled_pixel_f1": _pooled(tiles),
        "building_f1": score.f1,
        "building_precision": score.precision,
        "building_recall": score.recall,
        "buildings": score.true_positives + score.false_negatives,
        "proposals": score.true_positives + score.false_positives,
        "all_building_pixel_f1": _of_all_pixels(tiles),
    }


def _mean_over_aois(by_aoi: pd.DataFrame) -> float:
    """Building F1; an AOI where there is no building and none was claimed says nothing."""
    telling = by_aoi[by_aoi["buildings"] + by_aoi["proposals"] > 0]
    return float(telling["building_f1"].mean()) if len(telling) else 0.0


def _median(tiles: pd.DataFrame) -> float:
    with_buildings = tiles[tiles["pixel_tp"] + tiles["pixel_fn"] > 0]
    return float(with_buildings["pixel_f1"].median()) if len(with_buildings) else 0.0


def _pooled(tiles: pd.DataFrame) -> float:
    return float(pixel_f1(*(tiles[f"pixel_{kind}"].sum() for kind in ("tp", "fp", "fn"))))


def _of_all_pixels(tiles: pd.DataFrame) -> float:
    true = (tiles["pixel_tp"] + tiles["pixel_fn"]).sum()
    return float(pixel_f1(true, tiles["pixels"].sum() - true, np.array(0)))
