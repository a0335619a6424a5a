"""Options that several subcommands share: which data, and how to train. Parsing only.

The options of a training are made from the specs' fields, so each has one name, one type and one description.
"""

import math
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any, get_args, get_origin

import click
from click.core import ParameterSource

from footprint_pipeline.dataset.spec import MaskSpec, PolygonSpec, SplitSpec
from footprint_pipeline.evaluation.spec import RULES, SweepSpec
from footprint_pipeline.footprints.predict import FLIPS
from footprint_pipeline.model.spec import TrainingSpec
from footprint_pipeline.model.spec_fields import SpecField, change, descriptions, fields_of, plain
from footprint_pipeline.model.spec_files import read_spec
from footprint_pipeline.settings import Settings

Command = Callable[..., dict[str, Any]]

_NAMES = {
    "learning_rate": ("-lr", "--learning-rate"),
    "chip_size": ("-s", "--size"),
    "gsd_m": ("--gsd",),
    "head_weights": ("--head-weight",),
    "network.heads": ("--head",),
}
"""Options that are not called as their field is."""
_POLYGONS, _MASKS, _SPLIT = PolygonSpec(), MaskSpec(), SplitSpec()


class FiniteRange(click.FloatRange):
    """A range of numbers; neither NaN nor infinity is in it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no number to measure by.", param, ctx)
        return number


class Option(click.Option):
    """An option that stands under a heading in the help."""

    def __init__(self, *arguments: Any, heading: str, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.heading = heading


class Sections(click.Command):
    """A subcommand whose help lists options under their headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write them."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                sections.setdefault(getattr(parameter, "heading", "Options"), []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def spec_option(function: Command) -> Command:
    """The option that names a recipe."""
    return click.option(
        "--spec", "spec_file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.yaml", cls=Option,
        heading="Recipe", help="Recipe to train by, as in configs/; what it leaves out has its default. Only here can "
        "augmentation be set. [the default recipe]",
    )(function)  # fmt: skip


def training_options(function: Command) -> Command:
    """The options of a training; the function gets `training`, the config of the asset.

    A recipe's value holds unless its option is given.
    """
    chosen = [field for field in fields_of(TrainingSpec()) if not field.name.startswith("augmentation.")]

    @wraps(function)
    def with_training(
        settings: Settings, spec_file: Path | None, weights: str | None, resume: bool, **options: Any
    ) -> dict[str, Any]:
        given = {field.name: options.pop(_parameter(field)) for field in chosen}
        given = {name: value for name, value in given.items() if value is not None and value != ()}
        spec = change(read_spec(spec_file) if spec_file else TrainingSpec(), given, where="On the command line")
        return function(settings, training={**plain(spec), "weights": weights, "resume": resume}, **options)

    options: list[Callable[[Any], Any]] = [
        spec_option,
        click.option("--weights", cls=Option, heading="Recipe",
                     help="Start from these weights, as far as they fit: a .keras or .weights.h5 file, or a registered "
                     "model's alias (champion) or number. [random]"),
        click.option("--resume/--no-resume", default=True, cls=Option, heading="Recipe",
                     help="Go on where the same training was interrupted, or start anew. [go on]"),
        *map(_option, chosen),
    ]  # fmt: skip
    for option in reversed(options):
        with_training = option(with_training)
    return with_training


def _option(field: SpecField) -> Callable[[Command], Command]:
    parts = get_args(field.kind) or (field.kind,)  # of `int | None` and `tuple[str, ...]` too
    multiple = get_origin(field.kind) is tuple
    dashed = field.leaf.replace("_", "-")
    names = (f"--{dashed}/--no-{dashed}",) if parts[0] is bool else _NAMES.get(field.name, (f"--{dashed}",))
    kind = click.Choice(field.choices) if field.choices else parts[0]
    return click.option(
        *names, _parameter(field), type=kind, multiple=multiple, default=None, cls=Option,
        heading="Network" if field.name.startswith("network.") else "Training",
        help=f"{field.description}{' Repeat for several.' if multiple else ''}{_shown(field.default)}",
    )  # fmt: skip


def _parameter(field: SpecField) -> str:
    return field.name.replace(".", "__")


def _shown(default: Any) -> str:
    if default is None:
        return ""  # the description says what that means
    if isinstance(default, bool):
        return " [yes]" if default else " [no]"
    return f" [{' '.join(map(str, default)) if isinstance(default, tuple) else default}]"


def sweep_options(function: Command) -> Command:
    """How tolerance and seed level are chosen; the function gets `sweep`, the config of the asset."""

    @wraps(function)
    def with_sweep(settings: Settings, rule: str, half_say: int, flips: str, **options: Any) -> dict[str, Any]:
        return function(settings, sweep={"rule": rule, "half_say": half_say, "flips": int(flips)}, **options)

    spec, says = SweepSpec(), descriptions(SweepSpec)
    option = partial(click.option, cls=Option, heading="Tolerance", show_default=True)
    with_sweep = option("--flips", type=click.Choice(list(map(str, FLIPS))), default=str(spec.flips),
                        help=says["flips"])(with_sweep)  # fmt: skip
    with_sweep = option("--half-say", type=click.IntRange(0), default=spec.half_say, metavar="BUILDINGS",
                        help=says["half_say"])(with_sweep)  # fmt: skip
    return option("--rule", type=click.Choice(RULES), default=spec.rule, help=says["rule"])(with_sweep)


def data_options(function: Command) -> Command:
    """Which tiles to take and how to prepare them; the function gets `data`, the config of each data asset."""
    taken = {
        "image_tiles": ("tiles", "on_bad_tile"),
        "building_polygons": ("skip_bad_labels", "min_area_m2"),
        "mask_tiles": ("border_m", "contact_m"),
        "split_manifests": ("by", "block_m", "split_seed", "empty_share", "assigned"),
    }

    @wraps(function)
    def with_data(settings: Settings, **options: Any) -> dict[str, Any]:
        source = click.get_current_context().get_parameter_source("block_m")
        if options["by"] == "tile" and source is ParameterSource.COMMANDLINE:
            raise click.UsageError("--block is the side of the blocks of --split block; leave one of the two out.")
        data = {
            asset: {name.removeprefix("split_"): options.pop(name) for name in names} for asset, names in taken.items()
        }
        return function(settings, data=data, **options)

    option = partial(click.option, cls=Option, heading="Data")
    options = [
        option("--source", "sources", multiple=True, metavar="SOURCE",
                     help="Where tiles come from: a folder, a .tar.gz, an s3:// URI or a catalogue name "
                     "(footprint aois). Repeat for several areas. [AOI_0_Synthetic, a generated city]"),
        option("--aoi", "aois", multiple=True, metavar="NAME",
                     help="With --source: what to call its area, one name a source [read off the source]. "
                     "Alone: the same as --source NAME, an area of the catalogue."),
        option("--tiles", type=click.IntRange(1), help="Take the first N tiles of each source only."),
        option("--on-bad-tile", type=click.Choice(["skip", "fail"]), default="skip", show_default=True,
                     help="A tile that cannot be read: go on without it, or stop."),
        option("--skip-bad-labels", is_flag=True,
                     help="Leave out labels that cannot be read; list them in a CSV."),
        option("--min-area", "min_area_m2", type=FiniteRange(0), default=_POLYGONS.min_area_m2,
                     show_default=True, help="Leave out labels whose area is not greater, square metres."),
        option("--border", "border_m", type=FiniteRange(0), default=_MASKS.border_m, show_default=True,
                     help="Draw a band of building borders so wide into the masks, metres."),
        option("--contact", "contact_m", type=FiniteRange(0), default=_MASKS.contact_m, show_default=True,
                     help="Draw a band of the gaps between buildings closer than this into the masks, metres."),
        option("--split", "by", type=click.Choice(["block", "tile"]), default=_SPLIT.by, show_default=True,
                     help="Share tiles out by blocks of ground, so that neighbours never sit on both sides, or one by "
                     "one, the article's way."),
        option("--block", "block_m", type=FiniteRange(0, min_open=True), default=_SPLIT.block_m,
                     show_default=True, help="Side of a block, metres."),
        option("--split-seed", type=int, default=_SPLIT.seed, show_default=True,
                     help="Another seed is another split."),
        option("--assign", "assigned", type=click.Path(dir_okay=False, resolve_path=True), metavar="FILE.csv",
               help="Share tiles out as this table says: columns tile_id and split, and aoi where there are several; "
               "tiles that it does not name are left out."),
        option("--empty-share", type=FiniteRange(0, 1), default=_SPLIT.empty_share, show_default=True,
                     help="Share of the tiles without a building to keep."),
    ]  # fmt: skip
    for add in reversed(options):
        with_data = add(with_data)
    return with_data
