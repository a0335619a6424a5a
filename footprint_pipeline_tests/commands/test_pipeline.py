"""What `run` and `prepare` say before they begin and at their end, and what they write down of a source."""

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from footprint_pipeline.commands import pipeline
from footprint_pipeline.dataset.spec import SplitSpec
from footprint_pipeline.dataset.splits import write_manifest
from footprint_pipeline.errors import DatasetError, SettingsError
from footprint_pipeline.lake import Lake
from footprint_pipeline.settings import Settings
from footprint_pipeline.spacenet.areas import Aoi
from footprint_pipeline.spacenet.catalog import BUILT_IN, load_catalog
from footprint_pipeline.stages.promotion import held_out
from footprint_pipeline_tests.areas import add_aoi
from footprint_pipeline_tests.spacenet.conftest import write_spacenet1
from footprint_pipeline_tests.stages.prepared import AOI, prepare_city


def data(assigned: Path | None = None) -> dict[str, dict[str, Any]]:
    return {"split_manifests": {"assigned": assigned and str(assigned)}}


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the jobs that are run, in place of running them."""
    run: list[str] = []
    metrics = dict.fromkeys(("median_tile_f1", "pooled_pixel_f1", "building_f1"), 0.5)
    records = {
        "test_evaluation": SimpleNamespace(run_id="r", tolerance=0.5, own_tolerances={}, metrics=metrics),
        "registered_model": SimpleNamespace(name="m", version="1", promoted=True, reason="it is better"),
    }

    def job(name: str, settings: Settings, **options: object) -> dict[str, SimpleNamespace]:
        run.append(name)
        return records

    monkeypatch.setattr(pipeline, "run_job", job)
    monkeypatch.setattr(pipeline, "check_all_splits", lambda lake, names: None)
    return run


def run(settings: Settings, *sources: object, aois: tuple[str, ...] = (), assigned: Path | None = None) -> str:
    answer = pipeline.run(
        settings, sources=tuple(map(str, sources)), aois=aois, data=data(assigned), training={"weights": None}, sweep={}
    )
    return "\n".join(answer["_lines"])


def test_what_could_not_be_judged_is_not_trained_on(tmp_path: Path) -> None:
    folder = prepare_city(tmp_path)
    pipeline.check_all_splits(Lake(tmp_path), [AOI])
    manifest = pd.read_parquet(folder.manifest)
    write_manifest(manifest.replace({"split": {"test": "guard"}}), folder.manifest, SplitSpec())
    with pytest.raises(DatasetError, match=f"{AOI}: no tile is of the split test") as caught:
        pipeline.check_all_splits(Lake(tmp_path), [AOI])
    assert "--assign" in caught.value.fix
    with pytest.raises(DatasetError, match="no tile to judge by"):
        held_out(Settings(home=tmp_path))


def test_two_sources_of_one_name_are_refused_and_named(tmp_path: Path, jobs: list[str]) -> None:
    first, second = (write_spacenet1(tmp_path / name) for name in ("first", "second"))
    settings = Settings(home=tmp_path / "home")
    with pytest.raises(SettingsError) as caught:
        run(settings, first, second)
    assert caught.value.problem == f"{first} and {second} are both called AOI_1_Rio."
    assert "--aoi AOI_1_Rio1, --aoi AOI_1_Rio2" in caught.value.fix
    with pytest.raises(SettingsError, match="are both called Town"):
        run(settings, first, second, aois=("Town", "Town"))
    assert jobs == []
    run(settings, first, second, aois=("North", "South"))
    assert jobs == ["dataset", "dataset", "model"]
    assert [load_catalog(settings.home)[name].sources[0].uris for name in ("North", "South")] == [
        (first.as_posix(),), (second.as_posix(),)
    ]  # fmt: skip


def test_a_name_that_means_another_source_than_it_did_is_told(
    tmp_path: Path, jobs: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    first, second = (write_spacenet1(tmp_path / name) for name in ("first", "second"))
    settings = Settings(home=tmp_path / "home")
    run(settings, first, aois=("AOI_1_Rio",))  # given away by name
    run(settings, first)
    run(settings, first, aois=("Town",))
    run(settings, "AOI_2_Vegas")
    assert caplog.messages == []
    run(settings, second, aois=("Town",))
    assert f"Town was {first} and is {second} from now on" in caplog.text
    assert "--aoi" in caplog.text
    caplog.clear()
    run(Settings(home=tmp_path / "other"), first)
    assert "AOI_1_Rio was s3://spacenet-dataset/" in caplog.text


def test_a_renamed_area_keeps_its_checksums_sizes_and_other_sources(tmp_path: Path, jobs: list[str]) -> None:
    settings = Settings(home=tmp_path)
    for name in ("AOI_1_Rio", "AOI_2_Vegas"):
        run(settings, name, aois=("Renamed",))
        known: Aoi = replace(BUILT_IN[name], name="Renamed", notes="")
        assert load_catalog(settings.home)["Renamed"] == known
    older = BUILT_IN["AOI_1_Rio"].sources[1]
    run(settings, older.uris[0])
    assert load_catalog(settings.home)["AOI_1_Rio"].sources == (older,)


def test_a_table_of_splits_is_read_before_anything_is_fetched(tmp_path: Path, jobs: list[str]) -> None:
    (tmp_path / "broken.csv").write_text("tile_id,split\na,exam\n")
    for name, said in (("missing.csv", "cannot be read as CSV"), ("broken.csv", "a cannot go to 'exam'")):
        with pytest.raises(DatasetError, match=said):
            run(Settings(home=tmp_path / "home"), assigned=tmp_path / name)
    assert jobs == []


def test_no_password_is_printed_and_the_next_command_names_the_home(
    tmp_path: Path, jobs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = run(Settings(home=tmp_path / "my home", tracking_uri="https://alice:s3cret@mlflow.example.org"))
    assert "models and runs https://mlflow.example.org" in said
    assert "s3cret" not in said
    assert f"footprint ui --home '{tmp_path / 'my home'}'" in said
    assert f"footprint serve --home '{tmp_path / 'my home'}'" in said
    assert "make" not in said
    said = run(Settings(home=tmp_path / ".footprint"))
    assert "make ui     the graph" in said
    assert "make serve  a map" in said


def test_one_s_own_area_is_not_written_again(tmp_path: Path, jobs: list[str]) -> None:
    add_aoi(tmp_path, "Town", str(write_spacenet1(tmp_path / "town")), title="A town")
    before = (tmp_path / "aois.yaml").read_text()
    run(Settings(home=tmp_path), "Town")
    assert (tmp_path / "aois.yaml").read_text() == before
