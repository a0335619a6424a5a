"""What a user can get wrong: each has a clear error, an exit code, and leaves what was made before."""

import shutil
from pathlib import Path

import pytest
import rasterio

from footprint_pipeline.spacenet.synthetic.city import CitySpec, CitySummary, write_city
from footprint_pipeline_tests.conftest import Bucket

from .conftest import Footprint

LABELS = "processedBuildingLabels"


@pytest.fixture
def copy(tmp_path: Path, city: CitySummary) -> Path:
    """A copy of the tiny city that a test may spoil."""
    folder = tmp_path / "copy"
    shutil.copytree(city.folder, folder)
    return folder


def csv_of(folder: Path) -> Path:
    return next((folder / LABELS / "vectordata" / "summarydata").glob("*.csv"))


def tiles_of(folder: Path) -> list[Path]:
    return sorted((folder / LABELS / "3band").glob("*.tif"))


def lines(text: str) -> str:
    return " ".join(text.split())


def test_a_source_that_is_missing(tmp_path: Path, footprint: Footprint) -> None:
    outcome = footprint("run", "--source", tmp_path / "nowhere", "--home", tmp_path / "home")
    assert outcome.code == 1
    assert "nowhere" in outcome.err
    assert "AOI_1_Rio" in outcome.err  # the way out names what there is
    assert "Traceback" not in outcome.err


def test_a_source_that_is_empty(tmp_path: Path, footprint: Footprint) -> None:
    (tmp_path / "empty").mkdir()
    outcome = footprint("run", "--source", tmp_path / "empty", "--home", tmp_path / "home")
    assert outcome.code == 1
    assert "SourceError" in outcome.err
    assert "empty" in outcome.err


def test_a_source_that_is_not_spacenet(tmp_path: Path, footprint: Footprint) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_bytes(b"\xff\xd8\xff")
    outcome = footprint("run", "--source", tmp_path / "photos", "--home", tmp_path / "home")
    assert outcome.code == 1
    assert "3band" in outcome.err
    assert ".jpg" in outcome.err


def test_a_corrupt_tile_is_fatal_when_asked_and_leaves_what_was_made(
    tmp_path: Path, copy: Path, footprint: Footprint
) -> None:
    home = tmp_path / "home"
    broken = tiles_of(copy)[3]
    kept = home / "lake" / "AOI_0_Synthetic" / "tiles.parquet"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"made before")
    broken.write_bytes(broken.read_bytes()[:200])
    outcome = footprint("run", "--source", copy, "--on-bad-tile", "fail", "--home", home)
    assert outcome.code == 1
    assert broken.name in outcome.err
    assert "--on-bad-tile skip" in outcome.err
    assert kept.read_bytes() == b"made before"


def test_a_label_that_is_not_wkt(tmp_path: Path, copy: Path, footprint: Footprint) -> None:
    table = csv_of(copy)
    rows = table.read_text().splitlines(keepends=True)
    table.write_text("".join([*rows[:7], rows[7].replace("POLYGON", "POLYGN"), *rows[8:]]))
    outcome = footprint("run", "--source", copy, "--home", tmp_path / "home")
    assert outcome.code == 1
    assert f"{table.name}, row 8" in lines(outcome.err)
    assert "is not WKT" in outcome.err
    assert "--skip-bad-labels" in outcome.err


def test_labels_of_tiles_that_do_not_exist(tmp_path: Path, copy: Path, footprint: Footprint) -> None:
    gone = tiles_of(copy)[1]
    gone.unlink()
    outcome = footprint("run", "--source", copy, "--home", tmp_path / "home")
    assert outcome.code == 1
    assert "LabelError" in outcome.err
    assert gone.stem.removeprefix("3band_") in outcome.err


def test_too_few_tiles_to_split(tmp_path: Path, footprint: Footprint) -> None:
    write_city(tmp_path / "small", CitySpec(rows=1, columns=2, tile_height=128, tile_width=128))
    outcome = footprint("run", "--source", tmp_path / "small", "--home", tmp_path / "home")
    assert outcome.code == 1
    assert "at least three" in outcome.err


def test_a_key_that_is_not_in_the_bucket(tmp_path: Path, footprint: Footprint, bucket: Bucket) -> None:
    outcome = footprint(
        "run", "--source", f"s3://{bucket.name}/no/such.tar.gz", "--home", tmp_path / "home",
        env={"FOOTPRINT_S3_ENDPOINT_URL": bucket.endpoint_url},
    )  # fmt: skip
    assert outcome.code == 1
    assert f"s3://{bucket.name}/no/such.tar.gz" in outcome.err
    assert not (tmp_path / "home" / "aois.yaml").exists()


def test_no_champion_in_the_registry(tmp_path: Path, city: CitySummary, footprint: Footprint) -> None:
    outcome = footprint("predict", "--at", "38,-40", "--imagery", city.mosaic, "--home", tmp_path / "home", "--json")
    assert outcome.code == 1
    assert "no alias 'champion'" in outcome.err
    assert "footprint run" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("predict", "--at", "91,0"), 1, "latitude 91"),
        (("predict", "--at", "here"), 1, "not LAT,LON"),
        (("predict", "--at", "5,5", "--tolerance", "2"), 2, "tolerance"),
        (("run", "--epochs", "0"), 1, "epochs is 0"),
        (("run", "--spec", "nowhere.yaml"), 1, "nowhere.yaml: cannot be read"),
        (("run", "--source", "AOI_1_Rio", "--aoi", "A", "--aoi", "B"), 1, "1 sources, but 2 names"),
        (("run", "--aoi", "AOI_1_Ryo"), 1, "Did you mean AOI_1_Rio?"),
        (("run", "--size", "100"), 1, "Chip size 100 is no multiple"),
        (("train",), 1, "no split manifest"),
        (("tune",), 1, "has not been materialized"),
        (("serve", "--imagery", "nowhere.tif"), 1, "nowhere.tif"),
        (("fly",), 2, "fly"),
    ],
)
def test_usage(tmp_path: Path, footprint: Footprint, arguments: tuple[str, ...], code: int, said: str) -> None:
    outcome = footprint(*arguments, "--home", tmp_path / "home")
    assert outcome.code == code, outcome.err
    assert said in lines(outcome.err)
    assert "Traceback" not in outcome.err


def test_a_setting_that_makes_no_sense(tmp_path: Path, footprint: Footprint) -> None:
    outcome = footprint("aois", "--home", tmp_path / "home", env={"FOOTPRINT_PORT": "many"})
    assert outcome.code == 1
    assert "FOOTPRINT_PORT" in outcome.err


def test_a_corrupt_tile_is_skipped_by_default_and_named(tmp_path: Path, copy: Path, footprint: Footprint) -> None:
    broken = tiles_of(copy)[3]
    with rasterio.open(broken) as source:
        assert source.count == 3
    broken.write_bytes(broken.read_bytes()[:200])
    home = tmp_path / "home"
    outcome = footprint("prepare", "--source", copy, "--home", home)
    assert outcome.code == 0, outcome.err
    assert f"Skipped {broken.stem.removeprefix('3band_')}" in outcome.err
    assert (home / "lake" / "AOI_0_Synthetic" / "split_manifest.parquet").exists()


def test_a_place_that_cannot_be_written_to(tmp_path: Path, footprint: Footprint) -> None:
    (tmp_path / "file").write_text("in the way")
    outcome = footprint("prepare", "--home", tmp_path / "file" / "home")
    assert outcome.code == 1
    assert "Traceback" not in outcome.err
    assert outcome.err.splitlines()[-1] == f"{tmp_path / 'file' / 'home'}: Not a directory."
    assert footprint("export", "--home", tmp_path, "--out", tmp_path / "file").code == 2
