"""The dataset report, composed: read the lake, sample tiles, draw, write the page, log it to MLflow."""

import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd

from footprint_pipeline import __version__
from footprint_pipeline.dataset.exploration import (
    SIZE_CLASSES,
    AoiDataset,
    Summary,
    TileSample,
    describe_tiles,
    measure_colours,
    sample_of_class,
    sample_rows,
    size_table,
    summarize,
    typical,
)
from footprint_pipeline.dataset.label_counts import label_counts_path, read_label_counts
from footprint_pipeline.dataset.masks import mask_path, read_mask, read_mask_index
from footprint_pipeline.dataset.report.content import SAMPLES, TYPICAL, Examples, report_sections
from footprint_pipeline.dataset.report.crops import Crop, crop_building, crop_size
from footprint_pipeline.dataset.report.page import Picture, render_page
from footprint_pipeline.dataset.splits import digest, read_manifests
from footprint_pipeline.dataset.tiles import TileRow, normalization, read_tile, read_tile_index
from footprint_pipeline.errors import DatasetError, RegistryError
from footprint_pipeline.files import atomic_path
from footprint_pipeline.lake import AoiFolder, Lake
from footprint_pipeline.settings import Settings

log = logging.getLogger(__name__)

PAGE = "report.html"
COLOUR_TILES = 200
"""Tiles of an AOI that are read for their colours."""
_COLUMNS = ["tile_id", "building_id", "area_m2", "area_sqft", "geometry_px"]


@dataclass(frozen=True)
class DatasetReport:
    """What was written.

    Attributes:
        path: the page.
        pictures: all that is on it, in its order.
        summaries: of each AOI, by name.
        classes: labels by size class of each AOI, by name.
        split_digests: of each AOI, by name.
    """

    path: Path
    pictures: tuple[Picture, ...]
    summaries: dict[str, Summary]
    classes: dict[str, dict[str, int]]
    split_digests: dict[str, str]

    def numbers(self, aoi: str) -> dict[str, float]:
        """The key numbers of an AOI by name, without those that it has no building to tell from."""
        numbers = {**asdict(self.summaries[aoi]), **{f"buildings.{k}": n for k, n in self.classes[aoi].items()}}
        return {name: value for name, value in numbers.items() if np.isfinite(value)}


def write_report(lake: Lake, aois: Sequence[str], out: Path | None = None) -> DatasetReport:
    """Explore prepared AOIs and write one HTML page on them, atomically.

    Args:
        lake: where they lie.
        aois: their names; every prepared one when empty.
        out: the page; by default `report.html` in the folder of the one AOI.

    Raises:
        DatasetError: an AOI is not prepared, or none is.
        TileError: a tile that is in the index cannot be read any more.
    """
    names = list(dict.fromkeys(aois)) or lake.prepared()
    _check_prepared(lake, names)
    datasets, examples = [], []
    for name in names:
        started = time.monotonic()
        datasets.append(read_dataset(lake.aoi(name)))
        examples.append(_examples(datasets[-1]))
        log.info("%s: explored in %.1f s", name, time.monotonic() - started)
    sections = report_sections(datasets, examples)
    title = f"Dataset report: {names[0]}" if len(names) == 1 else f"Dataset report: {len(names)} areas"
    subtitle = f"{', '.join(names)} · footprint-pipeline {__version__} · {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    out = out or lake.aoi(names[0]).folder / PAGE
    with atomic_path(out) as temporary:
        temporary.write_text(render_page(title, subtitle, sections), encoding="utf-8")
    log.info("Report on %s: %s", ", ".join(names), out)
    return DatasetReport(
        path=out,
        pictures=tuple(picture for section in sections for part in section.parts for picture in part.pictures),
        summaries={dataset.name: summarize(dataset) for dataset in datasets},
        classes={dataset.name: _class_counts(dataset) for dataset in datasets},
        split_digests={dataset.name: dataset.split_digest for dataset in datasets},
    )


def read_dataset(folder: AoiFolder) -> AoiDataset:
    """Read a prepared AOI's tables, and a sample of its tiles."""
    buildings = gpd.read_parquet(folder.polygons, columns=_COLUMNS)
    manifest = read_manifests([folder.manifest])
    tiles = describe_tiles(read_tile_index(folder.tiles), manifest, buildings)
    rejected = pd.read_csv(folder.rejected_labels) if folder.rejected_labels.exists() else pd.DataFrame({"reason": []})
    counts = label_counts_path(folder)
    sample = tiles.iloc[sample_rows(len(tiles), COLOUR_TILES)]
    return AoiDataset(
        name=folder.folder.name,
        tiles=tiles,
        buildings=buildings,
        rejected=rejected,
        label_counts=read_label_counts(counts) if counts.exists() else None,
        split_digest=digest(manifest),
        colours=measure_colours(_read_samples(sample, folder)),
    )


def log_report(settings: Settings, report: DatasetReport) -> tuple[str, str] | None:
    """Log the report on one AOI to MLflow, as a run `dataset <AOI>`: page, pictures, key numbers.

    The experiment is `<experiment>-data`: trainings are compared among themselves.

    Returns:
        Ids of the experiment and of the run; None, with a warning in the log, when MLflow is away.
    """
    # MLflow is set up by the registry, so it comes first.
    from footprint_pipeline.registry import experiment_id, safe_line, without_credentials

    import mlflow  # isort: skip
    from mlflow.entities import Metric, RunTag
    from mlflow.exceptions import MlflowException

    (aoi,) = report.summaries
    tags = {"stage": "dataset_report", "aoi": aoi, "split_digest": report.split_digests[aoi]}
    uri = settings.mlflow_uri
    try:
        client = mlflow.MlflowClient(tracking_uri=uri)
        made_in = experiment_id(client, f"{settings.experiment}-data", artifacts=settings.mlflow_artifacts)
        run_id: str = client.create_run(made_in, run_name=f"dataset {aoi}").info.run_id
        ended = "FAILED"
        try:
            now = int(time.time() * 1000)
            metrics = [Metric(name, float(value), now, 0) for name, value in report.numbers(aoi).items()]
            client.log_batch(run_id, metrics=metrics, tags=[RunTag(name, value) for name, value in tags.items()])
            with tempfile.TemporaryDirectory() as scratch:
                plots = Path(scratch) / "plots"
                plots.mkdir()
                for picture in report.pictures:
                    (plots / f"{picture.name}.png").write_bytes(picture.png)
                client.log_artifacts(run_id, str(plots), "plots")
            client.log_artifact(run_id, str(report.path))
            ended = "FINISHED"
        finally:
            client.set_terminated(run_id, ended)
    except (MlflowException, RegistryError, OSError) as error:
        log.warning(
            "The report on %s is written, but MLflow at %s does not take it (%s).",
            aoi, without_credentials(uri), safe_line(error),
        )  # fmt: skip
        return None
    return made_in, run_id


def _check_prepared(lake: Lake, names: Sequence[str]) -> None:
    prepared = lake.prepared()
    if not names:
        raise DatasetError(
            f"No AOI is prepared in {lake.home}.", fix="Prepare one: footprint run, or materialize split_manifests."
        )
    for name in names:
        folder = lake.aoi(name)
        missing = [path.name for path in (folder.tiles, folder.polygons, folder.masks, folder.manifest)
                   if not path.exists()]  # fmt: skip
        if missing:
            raise DatasetError(
                f"{name} is not prepared: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not there.",
                fix="Run the dataset job for it (footprint run --source, or Materialize in the Dagster UI)"
                + (f"; prepared are {', '.join(prepared)}." if prepared else "."),
            )
        read_mask_index(folder.masks)


def _read_samples(rows: gpd.GeoDataFrame, folder: AoiFolder) -> Iterator[TileSample]:
    for row in rows.itertuples():
        image, valid = read_tile(Path(row.path))
        yield TileSample(image, valid, read_mask(mask_path(folder.masks, row.tile_id)), normalization(row))


def _examples(dataset: AoiDataset) -> Examples:
    tiles: dict[str, TileRow] = {row.tile_id: row for row in dataset.tiles.itertuples()}
    positions = dataset.buildings.groupby("tile_id").indices
    shapes = dataset.buildings["geometry_px"].to_numpy()

    def crop(building: pd.Series, title: str, *, columns: int) -> Crop:
        tile = tiles[building["tile_id"]]
        image, valid = read_tile(Path(tile.path))
        here = positions[building["tile_id"]]
        return crop_building(
            normalization(tile).to_uint8(image),
            valid,
            shapes[here],
            int(np.flatnonzero(here == building.name)[0]),
            gsd_m=(tile.gsd_x_m * tile.gsd_y_m) ** 0.5,
            title=title,
            size=crop_size(columns),
        )

    def area(building: pd.Series) -> str:
        digits = 0 if building["area_m2"] >= 1 else 2
        return f"{building['area_m2']:,.{digits}f} m² · {building['area_sqft']:,.0f} ft²"

    by_class = []
    for size_class in SIZE_CLASSES:
        sample = [row for _, row in sample_of_class(dataset.buildings, size_class, SAMPLES).iterrows()]
        if sample:
            crops = [crop(building, area(building), columns=SAMPLES) for building in sample]
            origins = [(str(building["building_id"]), str(building["tile_id"])) for building in sample]
            by_class.append((size_class.name, crops, origins))
    shown = [
        crop(building, f"{name}: {area(building)}", columns=TYPICAL)
        for name, building in typical(dataset.buildings).items()
    ]
    return Examples(shown, by_class)


def _class_counts(dataset: AoiDataset) -> dict[str, int]:
    table = size_table(dataset.buildings["area_sqft"].to_numpy())
    names = ["below_10_sqft", *(size_class.name for size_class in SIZE_CLASSES[1:])]
    return dict(zip(names, map(int, table["buildings"]), strict=True))
