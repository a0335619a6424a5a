"""The `footprint` command: its subcommands, each of which parses and calls. No logic of its own."""

from pathlib import Path
from typing import Any

import click

from footprint_pipeline import __version__
from footprint_pipeline.cli_frame import framed
from footprint_pipeline.cli_options import (
    Command,
    FiniteRange,
    Sections,
    data_options,
    spec_option,
    sweep_options,
    training_options,
)
from footprint_pipeline.evaluation.spec import MIN_AREA_PX
from footprint_pipeline.footprints.predict import FLIPS
from footprint_pipeline.model.search_space import OBJECTIVES
from footprint_pipeline.settings import Settings

_FOLDER = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path, dir_okay=False)


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
    """A subcommand of that name."""
    return main.command(cls=Sections)(framed(function))


@command
@data_options
@training_options
@sweep_options
def run(settings: Settings, **options: Any) -> dict[str, Any]:
    """Do it all: fetch tiles, prepare them, train, choose the tolerance, evaluate, register and promote."""
    from footprint_pipeline.commands import pipeline

    return pipeline.run(settings, **options)


@command
@data_options
def prepare(settings: Settings, **options: Any) -> dict[str, Any]:
    """Fetch tiles and prepare them: polygons, masks, splits, checks, report. No training."""
    from footprint_pipeline.commands import pipeline

    return pipeline.prepare(settings, **options)


@command
@click.option("--images", type=_FOLDER, required=True, help="Folder of the images: PNG, JPEG or TIFF.")
@click.option("--masks", type=_FOLDER, required=True, help="Folder of the masks, of the same names; 0 is no building.")
@click.option("--aoi", metavar="NAME", required=True, help="What to call the area.")
@click.option("--out", type=_FOLDER, required=True, help="Folder to write tiles and labels to.")
@click.option(
    "--bounds",
    type=_FILE,
    metavar="FILE.csv",
    help="Where images lie that do not say so themselves: columns file, west, south, east, north.",
)
@click.option("--crs", help="Of images that a world file places, as in EPSG:32630.")
@click.option("--min-area-px", type=FiniteRange(0), help="Leave out parts of a mask that are smaller, pixels. [4]")
def import_masks(settings: Settings, **options: Any) -> dict[str, Any]:
    """Make an area of one's own of images and masks, as public building sets come."""
    from footprint_pipeline.commands import import_masks as command_module

    return command_module.import_masks(settings, **options)


@command
@click.option("--aoi", "aois", multiple=True, metavar="NAME", help="Area to show; repeat for several. [all prepared]")
@click.option("--out", type=_FILE, help="HTML file to write. [HOME/report.html]")
def explore(settings: Settings, **options: Any) -> dict[str, Any]:
    """Show what was prepared: sizes of buildings, maps, overlays, colours, on one HTML page."""
    from footprint_pipeline.commands import explore as command_module

    return command_module.explore(settings, **options)


@command
@click.option(
    "--aoi", "aois", multiple=True, metavar="NAME", help="Area to train on; repeat for several. [every prepared one]"
)
@training_options
def train(settings: Settings, **options: Any) -> dict[str, Any]:
    """Train the network on prepared AOIs and log it to MLflow."""
    from footprint_pipeline.commands import pipeline

    return pipeline.train(settings, **options)


@command
@click.option(
    "--aoi", "aois", multiple=True, metavar="NAME", help="Area to train on; repeat for several. [all prepared]"
)
@spec_option
@click.option(
    "--trials",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="How many trials the study holds at the end, those of earlier calls included.",
)
@click.option(
    "--space",
    "space_file",
    type=_FILE,
    metavar="SPACE.yaml",
    help="What may be varied, field by field. [a space that is built in]",
)
@click.option(
    "--objective",
    type=click.Choice(list(OBJECTIVES)),
    default="val_f1",
    show_default=True,
    help="What the best trial is best in, on the validation split.",
)
@click.option("--max-minutes-per-trial", type=float, help="Limit of each training. [the recipe's]")
@click.option(
    "--seed", type=int, default=1337, show_default=True, help="Of the search; the recipe has one for trainings."
)
@click.option("--study", help="Name of the study. [made from what is searched, and on what]")
def search(settings: Settings, **options: Any) -> dict[str, Any]:
    """Try many recipes on prepared AOIs and write down the best; the same command goes on where it was interrupted."""
    from footprint_pipeline.commands import search as command_module

    return command_module.search(settings, **options)


@command
@sweep_options
def tune(settings: Settings, **options: Any) -> dict[str, Any]:
    """Choose the trained network's tolerance, and how buildings are told apart, on the validation split."""
    from footprint_pipeline.commands import pipeline

    return pipeline.tune(settings, **options)


@command
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="SOURCE",
    help="Score a registered model on all tiles of this source instead: folder, archive, s3://. Repeat for several.",
)
@click.option(
    "--aoi",
    "aois",
    multiple=True,
    metavar="NAME",
    help="Name for a source's area, one a source [read off the source]; alone: a prepared area. Repeat for several.",
)
@click.option("--alias", help="Which registered model, by alias. [champion]")
@click.option("--version", help="Which registered model, by number.")
@click.option("--tolerance", type=FiniteRange(0, 1, min_open=True), help="Another tolerance than the model's own.")
@click.option("--flips", type=click.Choice(list(map(str, FLIPS))), help="Orientations to average. [the model's own]")
@click.option("--skip-bad-labels", is_flag=True, help="Leave out labels that cannot be read; list them in a CSV.")
def evaluate(settings: Settings, **options: Any) -> dict[str, Any]:
    """Score the trained network on its test tiles; by any option here a registered model, on these or on sources."""
    if any(options.values()):
        from footprint_pipeline.commands import registered

        return registered.score(settings, **options)
    from footprint_pipeline.commands import pipeline

    return pipeline.evaluate(settings)


@command
@click.option("--truth", type=_FILE, required=True, help="CSV of what is there: ImageId, BuildingId, PolygonWKT_Pix.")
@click.option("--proposals", type=_FILE, required=True, help="CSV of what is claimed: the same, and Confidence.")
@click.option(
    "--min-area",
    type=FiniteRange(0),
    default=MIN_AREA_PX,
    show_default=True,
    help="Leave out smaller polygons on either side, square pixels.",
)
def score(settings: Settings, **options: Any) -> dict[str, Any]:
    """Score building polygons of any origin as SpaceNet does: its own CSV tables, matched at IoU >= 0.5."""
    from footprint_pipeline.commands import score as command_module

    return command_module.score(**options)


@command
def register(settings: Settings) -> dict[str, Any]:
    """Register the evaluated network, and promote it when it beats the champion."""
    from footprint_pipeline.commands import pipeline

    return pipeline.register(settings)


@command
@click.argument("version")
@click.option("--force", is_flag=True, help="Whatever it scores, and without looking.")
def promote(settings: Settings, **options: Any) -> dict[str, Any]:
    """Make a registered VERSION the champion, if it beats the present one on the test splits of what is prepared."""
    from footprint_pipeline.commands import promotion

    return promotion.promote(settings, **options)


@command
def rollback(settings: Settings) -> dict[str, Any]:
    """Make the former champion the champion again."""
    from footprint_pipeline.commands import promotion

    return promotion.rollback(settings)


@command
@click.argument("first")
@click.argument("second")
@click.option("--out", type=_FILE, help="PNG to draw the tiles on which they differ most. [in the home folder]")
def compare(settings: Settings, **options: Any) -> dict[str, Any]:
    """Score two registered models, by number or alias, on the same test tiles: figures, differences, pictures."""
    from footprint_pipeline.commands import promotion

    return promotion.compare(settings, **options)


@command
@click.option(
    "--format", "kind", type=click.Choice(["openvino", "onnx", "keras"]), default="openvino", show_default=True
)
@click.option("--alias", help="Which registered model, by alias. [champion]")
@click.option("--version", help="Which registered model, by number.")
@click.option("--out", type=_FOLDER, required=True, help="Folder to write to.")
def export(settings: Settings, **options: Any) -> dict[str, Any]:
    """Take a registered model out of the registry, as files."""
    from footprint_pipeline.commands import registered

    return registered.export(settings, **options)


@command
@click.option("--at", "coordinate", metavar="LAT,LON", required=True, help="Coordinate in degrees, as in 5.585,-0.2.")
@click.option(
    "--zoom", type=click.IntRange(10, 19), default=16, show_default=True, help="Size of the area, as a map tile."
)
@click.option("--tolerance", type=FiniteRange(0, 1, min_open=True), help="Another tolerance than the model's own.")
@click.option(
    "--outline",
    type=click.Choice(["raw", "regularised"]),
    default="raw",
    show_default=True,
    help="Footprints as the network sees them, or with straight walls and square corners.",
)
@click.option("--imagery", help="'mapbox', an XYZ template or a GeoTIFF. [FOOTPRINT_IMAGERY, else the synthetic city]")
@click.option("--alias", help="Which registered model, by alias. [champion]")
@click.option("--out", type=_FILE, help="GeoJSON, .parquet, .fgb or .gpkg file to write. [stdout]")
@click.option("--picture", type=_FILE, help="PNG of the footprints on the imagery.")
def predict(settings: Settings, **options: Any) -> dict[str, Any]:
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
@click.option("--out", type=_FOLDER, help="Folder for the answer. [HOME/answer]")
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
def ui(settings: Settings, **options: Any) -> dict[str, Any]:
    """Open the Dagster UI (webserver and daemon) and the MLflow UI on this home, until Ctrl-C."""
    from footprint_pipeline.orchestration.ui import check_ports, run_ui

    check_ports(settings, **options)
    host, port, mlflow_port = options["host"], options["port"], options["mlflow_port"]
    mlflow = settings.mlflow_ui_url if settings.mlflow_is_server else f"http://{host}:{mlflow_port}"
    click.echo(f"Dagster http://{host}:{port}   MLflow {mlflow}   Ctrl-C ends what runs here", err=True)
    return {"exit_code": run_ui(settings, **options)}


@command
def aois(settings: Settings) -> dict[str, Any]:
    """List the areas of interest that there are: the catalogue's and yours."""
    from footprint_pipeline.commands import catalog

    return catalog.aois(settings)
