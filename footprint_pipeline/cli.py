"""The `footprint` command: parses, calls, prints. No logic of its own.

Log lines go to stderr. With `--json` the last line of stdout is one JSON object. The exit code is 0 only on
success, 1 on an error that was explained, 2 on wrong usage.
"""

import json
import logging
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from footprint_pipeline import __version__
from footprint_pipeline.dataset.spec import MaskSpec, PolygonSpec, SplitSpec
from footprint_pipeline.errors import FootprintError
from footprint_pipeline.model.spec import LOSSES, NORMS, OPTIMIZERS, PRECISIONS, TrainingSpec
from footprint_pipeline.settings import Settings, load_settings

_SPEC = TrainingSpec()
_POLYGONS, _MASKS, _SPLIT = PolygonSpec(), MaskSpec(), SplitSpec()
Command = Callable[..., dict[str, Any]]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="footprint")
def main() -> None:
    """Building footprints from satellite imagery: prepare data, train, choose, serve.

    \b
    Try it offline on a generated city:   footprint run
    On tiles of your own (SpaceNet way):  footprint run --source FOLDER
    On SpaceNet's bucket:                 footprint run --source AOI_1_Rio --tiles 200
    Then serve the promoted model:        footprint serve
    """  # noqa: D301  (click's own mark for a paragraph that keeps its lines)


def command(function: Command) -> click.Command:
    """A subcommand with `--home` and `--json`, its errors explained, its answer printed."""

    @click.option(
        "--home", type=click.Path(path_type=Path, file_okay=False), help="Folder that holds all state. [.footprint]"
    )
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line of stdout.")
    @wraps(function)
    def run(home: Path | None, as_json: bool, **options: Any) -> None:
        _log_to_stderr()
        try:
            answer = function(load_settings(home=home), **options)
        except FootprintError as error:
            click.secho(f"{type(error).__name__}: {error}", fg="red", err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            click.echo("Interrupted. What was finished is kept; run the same command again to go on.", err=True)
            sys.exit(130)
        lines = answer.pop("_lines", [])
        for line in lines:
            click.echo(line, err=as_json)
        if as_json:
            click.echo(json.dumps(answer, default=str))
        sys.exit(int(answer.get("exit_code", 0)))

    return main.command()(run)


class _Plain(logging.Formatter):
    """Time and message, without what Dagster puts in front of a line that it manages."""

    def format(self, record: logging.LogRecord) -> str:
        managed = getattr(record, "dagster_meta", None)
        if managed:
            record = logging.makeLogRecord({**record.__dict__, "msg": managed["orig_message"], "args": ()})
        return super().format(record)


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain("%(asctime)s  %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("footprint_pipeline").setLevel(logging.INFO)
    for noisy in ("mlflow.store.db.utils", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # TensorFlow's C++ side greets on stderr; errors still show.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def training_options(function: Command) -> Command:
    """The options of a training, with the defaults of the core's spec."""
    network = _SPEC.network
    options = [
        click.option("--epochs", type=click.IntRange(1), default=_SPEC.epochs, show_default=True,
                     help="Passes at most."),
        click.option("--width", type=click.IntRange(1), default=network.width, show_default=True,
                     help="Filters of the first block; the article's network has 64."),
        click.option("--norm", type=click.Choice(NORMS), default=network.norm, show_default=True,
                     help="Normalisation; the article's network has none."),
        click.option("--dropout", type=click.FloatRange(0, 1, max_open=True), default=network.dropout,
                     show_default=True, help="Share dropped after the deeper blocks."),
        click.option("-lr", "--learning-rate", type=float, default=_SPEC.learning_rate, show_default=True),
        click.option("--optimizer", type=click.Choice(OPTIMIZERS), default=_SPEC.optimizer, show_default=True),
        click.option("--loss", type=click.Choice(LOSSES), default=_SPEC.loss, show_default=True),
        click.option("--batch-size", type=click.IntRange(1), default=_SPEC.batch_size, show_default=True),
        click.option("-s", "--size", "chip_size", type=click.IntRange(16), default=_SPEC.chip_size, show_default=True,
                     help="Side of a training chip, pixels."),
        click.option("--chips-per-epoch", type=click.IntRange(1),
                     help="Chips a pass. [enough to cover the ground once]"),
        click.option("--patience", type=click.IntRange(1), default=_SPEC.patience, show_default=True,
                     help="Stop after so many epochs without improvement."),
        click.option("--max-minutes", type=float, help="Stop training after so many minutes. [no limit]"),
        click.option("--gsd", "gsd_m", type=float, help="Metres a pixel to work at. [median of the training tiles]"),
        click.option("--precision", type=click.Choice(PRECISIONS), default=_SPEC.precision, show_default=True),
        click.option("--seed", type=int, default=_SPEC.seed, show_default=True),
    ]  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


def data_options(function: Command) -> Command:
    """Which tiles to take and how to prepare them; the function gets `data`, the config of each data asset."""
    taken = {
        "image_tiles": ("tiles", "on_bad_tile"),
        "building_polygons": ("skip_bad_labels", "min_area_m2"),
        "mask_tiles": ("border_m", "contact_m"),
        "split_manifests": ("by", "block_m", "split_seed", "empty_share"),
    }

    @wraps(function)
    def with_data(settings: Settings, **options: Any) -> dict[str, Any]:
        data = {
            asset: {name.removeprefix("split_"): options.pop(name) for name in names} for asset, names in taken.items()
        }
        return function(settings, data=data, **options)

    options = [
        click.option("--source", "sources", multiple=True, metavar="SOURCE",
                     help="Where tiles come from: a folder, a .tar.gz, an s3:// URI or a catalogue name "
                     "(footprint aois). Repeat for several areas. [AOI_0_Synthetic, a generated city]"),
        click.option("--aoi", "aois", multiple=True, metavar="NAME",
                     help="With --source: what to call its area, one name a source [read off the source]. "
                     "Alone: the same as --source NAME, an area of the catalogue."),
        click.option("--tiles", type=click.IntRange(1), help="Take the first N tiles of each source only."),
        click.option("--on-bad-tile", type=click.Choice(["skip", "fail"]), default="skip", show_default=True,
                     help="A tile that cannot be read: go on without it, or stop."),
        click.option("--skip-bad-labels", is_flag=True,
                     help="Leave out labels that cannot be read; list them in a CSV."),
        click.option("--min-area", "min_area_m2", type=click.FloatRange(0), default=_POLYGONS.min_area_m2,
                     show_default=True, help="Leave out labels whose area is not greater, square metres."),
        click.option("--border", "border_m", type=click.FloatRange(0), default=_MASKS.border_m, show_default=True,
                     help="Draw a band of building borders so wide into the masks, metres."),
        click.option("--contact", "contact_m", type=click.FloatRange(0), default=_MASKS.contact_m, show_default=True,
                     help="Draw a band of the gaps between buildings closer than this into the masks, metres."),
        click.option("--split", "by", type=click.Choice(["block", "tile"]), default=_SPLIT.by, show_default=True,
                     help="Share tiles out by blocks of ground, so that neighbours never sit on both sides, or one by "
                     "one, the article's way."),
        click.option("--block", "block_m", type=click.FloatRange(0, min_open=True), default=_SPLIT.block_m,
                     show_default=True, help="Side of a block, metres."),
        click.option("--split-seed", type=int, default=_SPLIT.seed, show_default=True,
                     help="Another seed is another split."),
        click.option("--empty-share", type=click.FloatRange(0, 1), default=_SPLIT.empty_share, show_default=True,
                     help="Share of the tiles without a building to keep."),
    ]  # fmt: skip
    for option in reversed(options):
        with_data = option(with_data)
    return with_data


@command
@data_options
@training_options
def run(settings: Settings, **options: Any) -> dict[str, Any]:  # fmt: skip
    """Do it all: fetch tiles, prepare them, train, choose the tolerance, evaluate, register and promote."""
    from footprint_pipeline.commands import pipeline

    return pipeline.run(settings, **options)


@command
@data_options
def prepare(settings: Settings, **options: Any) -> dict[str, Any]:  # fmt: skip
    """Fetch tiles and prepare them: polygons, masks, splits, checks, report. No training."""
    from footprint_pipeline.commands import pipeline

    return pipeline.prepare(settings, **options)


@command
@click.option("--aoi", "aois", multiple=True, metavar="NAME", help="Area to show; repeat for several. [all prepared]")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="HTML file to write. [HOME/report.html]")
def explore(settings: Settings, **options: Any) -> dict[str, Any]:
    """Show what was prepared: sizes of buildings, maps, overlays, colours, on one HTML page."""
    from footprint_pipeline.commands import explore as command_module

    return command_module.explore(settings, **options)


@command
@click.option(
    "--aoi", "aois", multiple=True, metavar="NAME", help="Area to train on; repeat for several. [every prepared one]"
)
@training_options
def train(settings: Settings, **options: Any) -> dict[str, Any]:  # fmt: skip
    """Train the network on prepared AOIs and log it to MLflow."""
    from footprint_pipeline.commands import pipeline

    return pipeline.train(settings, **options)


@command
def tune(settings: Settings) -> dict[str, Any]:
    """Choose the tolerance of the trained network on the validation split."""
    from footprint_pipeline.commands import pipeline

    return pipeline.tune(settings)


@command
@click.option("--source", help="Score a registered model on all tiles of this source instead: folder, archive, s3://.")
@click.option("--aoi", help="Name for the source's area. [read off the source]")
@click.option("--alias", help="Which registered model, by alias. [champion]")
@click.option("--version", help="Which registered model, by number.")
@click.option("--tolerance", type=click.FloatRange(0, 1, min_open=True), help="Another tolerance than the model's own.")
@click.option("--skip-bad-labels", is_flag=True, help="Leave out labels that cannot be read; list them in a CSV.")
def evaluate(settings: Settings, **options: Any) -> dict[str, Any]:
    """Score the trained network on the test split; or, with --source, a registered model on any labelled tiles."""
    if any(options[name] for name in ("source", "aoi", "alias", "version", "tolerance")):
        from footprint_pipeline.commands import registered

        return registered.score(settings, **options)
    from footprint_pipeline.commands import pipeline

    return pipeline.evaluate(settings)


@command
def register(settings: Settings) -> dict[str, Any]:
    """Register the evaluated network, and promote it when it beats the champion."""
    from footprint_pipeline.commands import pipeline

    return pipeline.register(settings)


@command
@click.option("--format", "kind", type=click.Choice(["openvino", "keras"]), default="openvino", show_default=True)
@click.option("--alias", help="Which registered model, by alias. [champion]")
@click.option("--version", help="Which registered model, by number.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write to.")
def export(settings: Settings, **options: Any) -> dict[str, Any]:
    """Take a registered model out of the registry, as files."""
    from footprint_pipeline.commands import registered

    return registered.export(settings, **options)


@command
@click.option("--at", "coordinate", metavar="LAT,LON", required=True, help="Coordinate in degrees, as in 5.585,-0.2.")
@click.option(
    "--zoom", type=click.IntRange(10, 19), default=16, show_default=True, help="Size of the area, as a map tile."
)
@click.option("--tolerance", type=click.FloatRange(0, 1, min_open=True), help="Another tolerance than the model's own.")
@click.option("--imagery", help="'mapbox', an XYZ template or a GeoTIFF. [FOOTPRINT_IMAGERY, else the synthetic city]")
@click.option("--alias", help="Which registered model, by alias. [champion]")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="GeoJSON file to write. [stdout]")
@click.option(
    "--picture", type=click.Path(path_type=Path, dir_okay=False), help="PNG of the footprints on the imagery."
)
def predict(settings: Settings, **options: Any) -> dict[str, Any]:  # fmt: skip
    """Building footprints around a coordinate, as GeoJSON, by a registered model, without a service."""
    from footprint_pipeline.commands import places

    return places.predict(settings, **options)


@command
@click.option("-a", "--host", help="Address to bind to. [127.0.0.1]")
@click.option("-p", "--port", type=click.IntRange(1, 65535), help="Port to listen on. [8080]")
@click.option("--imagery", help="'mapbox', an XYZ template or a GeoTIFF. [FOOTPRINT_IMAGERY, else the synthetic city]")
def serve(settings: Settings, **options: Any) -> dict[str, Any]:
    """Serve the promoted model over HTTP (gunicorn), until Ctrl-C."""
    from footprint_pipeline.commands import places

    return places.serve(settings, **options)


@command
@click.option("--at", "coordinate", metavar="LAT,LON", help="Coordinate in degrees. [the middle of the imagery]")
@click.option(
    "--zoom", type=click.IntRange(10, 19), default=17, show_default=True, help="Size of the area: a map tile."
)
@click.option("--imagery", help="'mapbox', an XYZ template or a GeoTIFF. [FOOTPRINT_IMAGERY, else the synthetic city]")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for the answer. [HOME/answer]")
def ask(settings: Settings, **options: Any) -> dict[str, Any]:
    """Try the service: start it, ask it for footprints over HTTP, draw the answer, stop it."""
    from footprint_pipeline.commands import places

    return places.ask(settings, **options)


@command
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to bind to.")
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Port of the Dagster UI.")
@click.option(
    "--mlflow-port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="Port of the MLflow UI."
)
def ui(settings: Settings, **options: Any) -> dict[str, Any]:  # fmt: skip
    """Open the Dagster UI (webserver and daemon) and the MLflow UI on this home, until Ctrl-C."""
    from footprint_pipeline.orchestration.local import run_ui

    host, port, mlflow_port = options["host"], options["port"], options["mlflow_port"]
    click.echo(f"Dagster http://{host}:{port}   MLflow http://{host}:{mlflow_port}   Ctrl-C ends both", err=True)
    return {"exit_code": run_ui(settings, **options)}


@command
def aois(settings: Settings) -> dict[str, Any]:
    """List the areas of interest that there are: the catalogue's and yours."""
    from footprint_pipeline.commands import catalog

    return catalog.aois(settings)
