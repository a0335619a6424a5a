"""Options of a training: what is not given comes from the recipe, what is given wins."""

from functools import wraps
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from footprint_pipeline.cli import main
from footprint_pipeline.cli_options import Sections, training_options
from footprint_pipeline.model.spec import TrainingSpec
from footprint_pipeline.model.spec_fields import fields_of, plain
from footprint_pipeline.settings import Settings


@training_options
def told(settings: Settings, training: dict[str, Any]) -> dict[str, Any]:
    return training


def parsed(*arguments: object) -> dict[str, Any]:
    found = {}

    @click.command(cls=Sections)
    @wraps(told)
    def run(**options: Any) -> None:
        found.update(told(Settings(), **options))

    outcome = CliRunner().invoke(run, list(map(str, arguments)), catch_exceptions=False, standalone_mode=False)
    assert outcome.exception is None
    return found


def test_without_options_the_default_recipe_is_trained_and_gone_on_with() -> None:
    assert parsed() == {**plain(TrainingSpec()), "weights": None, "resume": True}


def test_an_option_wins_over_the_recipe_and_the_recipe_over_the_default(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("epochs: 7\nbatch_size: 3\nnetwork: {width: 5, residual: false, depth: 2}\nxla: true\n")
    default = plain(TrainingSpec())
    assert parsed("--spec", recipe) == {
        **default, "weights": None, "resume": True, "epochs": 7, "batch_size": 3, "xla": True,
        "network": {**default["network"], "width": 5, "residual": False, "depth": 2},
    }  # fmt: skip
    # An option that says what the default is anyway wins too.
    given = parsed(
        "--spec", recipe, "--epochs", default["epochs"], "--width", 6, "--residual", "--no-xla", "--no-resume"
    )
    assert (given["epochs"], given["batch_size"], given["xla"], given["resume"]) == (default["epochs"], 3, False, False)
    assert (given["network"]["width"], given["network"]["residual"], given["network"]["depth"]) == (6, True, 2)


def test_the_article_s_options_and_those_of_many_values() -> None:
    given = parsed(
        "-lr", 0.02, "-s", 512, "--batch-size", 8, "--epochs", 9, "--max-batches", 755, "--gpus", 2,
        "--weights", "champion", "--head", "building", "--head", "border", "--head-weight", 1, "--head-weight", 0.3,
        "--norm", "none", "--ema", 0,
    )  # fmt: skip
    network = given.pop("network")
    assert given.items() >= {
        "learning_rate": 0.02, "chip_size": 512, "batch_size": 8, "epochs": 9, "max_batches": 755, "gpus": 2,
        "weights": "champion", "head_weights": [1.0, 0.3], "ema": 0.0,
    }.items()  # fmt: skip
    assert (network["heads"], network["norm"]) == (["building", "border"], "none")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("train", "--epochs", "0"), 1, "On the command line: epochs is 0."),
        (("train", "--loss", "mse"), 2, "'mse' is not one of 'bce'"),
        (("train", "--width", "wide"), 2, "--width"),
        (("train", "--spec", "nowhere.yaml"), 1, "nowhere.yaml: cannot be read"),
        (("train", "--weights", "nowhere.keras"), 1, "No weights are at"),
        (("run", "--weights", "nowhere.h5"), 1, "No weights are at"),
        (("search", "--space", "nowhere.yaml"), 1, "nowhere.yaml: cannot be read"),
        (("prepare", "--assign", "nowhere.csv"), 1, "nowhere.csv: cannot be read as CSV"),
        (("prepare", "--border", "nan"), 2, "nan is no number to measure by"),
        (("prepare", "--block", "inf"), 2, "inf is no number to measure by"),
        (("prepare", "--split", "tile", "--block", "300"), 2, "--block is the side of the blocks of --split block"),
        (("prepare", "--min-area", "nan"), 2, "nan is no number to measure by"),
        (("evaluate", "--tolerance", "nan"), 2, "nan is no number to measure by"),
        (("evaluate", "--skip-bad-labels"), 1, "--skip-bad-labels is of a --source"),
        (("evaluate", "--alias", "champion", "--version", "3"), 1, "--alias champion and --version 3 both name"),
        (("predict", "--at", "5,5", "--out", "p.shp"), 1, ".geojson, .json (GeoJSON), .parquet, .fgb, .gpkg"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_done(
    tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    outcome = CliRunner().invoke(main, [*arguments, "--home", str(tmp_path / "home")])
    assert outcome.exit_code == code, outcome.stderr
    assert said in " ".join(outcome.stderr.split())
    assert not (tmp_path / "home" / "lake").exists()


@pytest.mark.parametrize("command", ["train", "run"])
def test_the_help_lists_every_field_under_a_heading(command: str) -> None:
    outcome = CliRunner().invoke(main, [command, "--help"])
    assert outcome.exit_code == 0
    headings = [line for line in outcome.stdout.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == ["Options:", *(["Data:"] if command == "run" else []), "Recipe:", "Network:", "Training:",
                        *(["Tolerance:"] if command == "run" else [])]  # fmt: skip
    words = " ".join(outcome.stdout.split())
    for field in fields_of(TrainingSpec()):
        assert (field.description in words) == (not field.name.startswith("augmentation.")), field.name
