"""The table of recipes: what its rows say, and that a row is trained, tuned and judged once."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import footprint_pipeline
from benchmarks.quality.rows import Row, read_rows
from footprint_pipeline.errors import SettingsError

ROOT = Path(footprint_pipeline.__file__).parents[1]
QUALITY = ROOT / "benchmarks" / "quality"


def test_every_row_is_a_recipe_of_its_own() -> None:
    rows = read_rows(QUALITY / "recipes.yaml")
    split = pd.read_csv(QUALITY / "split.csv", dtype=str)

    told = [(row.recipe(ROOT / "configs"), row.tune, row.aois, row.keep, row.begin, row.untrained) for row in rows]

    assert all(told.count(each) == 1 for each in told)
    assert {aoi for row in rows for aoi in (*row.aois, *row.keep)} <= set(split["aoi"])


def test_in_one_half_or_the_other_every_tile_of_the_two_cities_judges() -> None:
    split, *halves = (
        pd.read_csv(QUALITY / f"{name}.csv", dtype=str, index_col=["aoi", "tile_id"])["split"].sort_index()
        for name in ("split", "fold_1", "fold_2")
    )
    two = split.index.get_level_values("aoi").isin(["AOI_2_Vegas", "AOI_1_Rio"])
    assert all(half[~two].equals(split[~two]) for half in halves)
    assert halves[0][two].tolist() == halves[1][two].map({"train": "test", "test": "train"}).tolist()


def test_what_a_model_to_use_is_not_taught_is_what_no_other_was_taught() -> None:
    split, most = (
        pd.read_csv(QUALITY / f"{name}.csv", dtype=str, index_col=["aoi", "tile_id"])["split"].sort_index()
        for name in ("split", "most")
    )
    assert most.index.equals(split.index)
    assert set(most.loc[["AOI_2_Vegas"]]) == {"train"}
    apart = most[most != "train"]
    assert apart.value_counts().to_dict() == {"validation": 16, "test": 7}
    assert "train" not in set(split[apart.index])
    assert (split[most.index[most == "test"]] == "test").all()


@pytest.mark.parametrize(
    ("limits", "used"),
    [
        ({"keep": {"A": 2}}, ["train", "test", "train", "test", "test", "train", "validation"]),
        ({"keep": {"A": 1}, "apart": {"A": 2}}, ["train", "test", "guard", "test", "test", "train", "validation"]),
        ({"keep": {"A": 0}}, ["test", "test", "test", "test", "test", "train", "validation"]),
    ],
)
def test_a_row_learns_from_the_first_training_tiles_of_an_area_and_others_judge(
    limits: dict[str, dict[str, int]], used: list[str]
) -> None:
    splits = ["train", "test", "train", "train", "validation", "train", "validation"]
    table = pd.DataFrame({"aoi": [*"AAAAABB"], "tile_id": [*"1234567"], "split": splits})

    assert Row("few", **limits).tiles(table)["split"].tolist() == used
    assert table["split"].tolist() == splits


@pytest.mark.parametrize("text", ["late: {begin: early}\nearly: {}\n", "odd: {colour: blue}\n"])
def test_a_row_that_cannot_be_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "rows.yaml").write_text(text)

    with pytest.raises(SettingsError, match=r"row (late|odd)"):
        read_rows(tmp_path / "rows.yaml")


@pytest.mark.slow
def test_rows_are_worked_out_once_and_told_in_a_table(tmp_path: Path) -> None:
    tiny = "{epochs: 1, chips_per_epoch: 8, chip_size: 32, batch_size: 4, network: {width: 4, depth: 2}}"
    (tmp_path / "rows.yaml").write_text(f"small: {{spec: {tiny}}}\nfurther: {{begin: small, spec: {tiny}}}\n")
    home = tmp_path / "city"
    footprint = str(Path(sys.executable).with_name("footprint"))
    subprocess.run([footprint, "prepare", "--home", str(home), "--tiles", "12", "--split", "tile"], check=True)
    manifest = pd.read_parquet(next(home.glob("lake/*/split_manifest.parquet")))
    manifest.assign(aoi="AOI_0_Synthetic")[["aoi", "tile_id", "split"]].to_csv(tmp_path / "split.csv", index=False)

    def table(*options: str) -> str:
        source = next(home.glob("lake/*/raw/*"))
        told = ["--area", f"AOI_0_Synthetic={source}", "--split", str(tmp_path / "split.csv")]
        told += ["--work", str(tmp_path / "work"), "--rows", str(tmp_path / "rows.yaml")]
        return subprocess.run(
            [sys.executable, "-m", "benchmarks.quality", *told, *options],
            cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
        ).stdout  # fmt: skip

    told = table("--row", "all", "--latency")
    rows = [line for line in told.splitlines() if line.startswith(("| small", "| further"))]

    assert len(rows) == 2
    assert all(row.count(" / ") == 2 for row in rows)
    answers = {path: path.stat().st_mtime_ns for path in (tmp_path / "work" / "answers").iterdir()}
    assert len(answers) == 2
    assert "| small" in table("--row", "all")
    assert answers == {path: path.stat().st_mtime_ns for path in answers}
