"""The training stage: interrupted, gone on with, and seen in MLflow and TensorBoard."""

import os
import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import cv2
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from footprint_pipeline.dataset import masks
from footprint_pipeline.dataset.augmentation import AugmentationSpec
from footprint_pipeline.dataset.caching import build_cache
from footprint_pipeline.dataset.spec import MaskSpec, PolygonSpec, SplitSpec
from footprint_pipeline.dataset.splits import read_manifests
from footprint_pipeline.dataset.tiles import TileIndex, changed_images, read_tile_index, write_tile_index
from footprint_pipeline.errors import DatasetError, RegistryError, TrainingError
from footprint_pipeline.evaluation.reports import FOUND, MISSED, WRONG
from footprint_pipeline.lake import Lake
from footprint_pipeline.model import conductor
from footprint_pipeline.model.checkpoints import Checkpoint, alone_in, save_checkpoint
from footprint_pipeline.model.spec import TrainingSpec, UNetSpec
from footprint_pipeline.model.spec_files import read_spec
from footprint_pipeline.model.training import TrainingResult, train
from footprint_pipeline.model.watching import Shown
from footprint_pipeline.settings import Settings
from footprint_pipeline.spacenet.sources import resolve_source
from footprint_pipeline.stages.data import collect_polygons, data_digest, draw_masks, fetch_tiles, split_tiles
from footprint_pipeline.stages.exploration import write_report
from footprint_pipeline.stages.live import ToTerminal, bar_or_lines, validation_picture
from footprint_pipeline.stages.scoring import load_manifest
from footprint_pipeline.stages.training import _stretches, train_unet
from footprint_pipeline_tests.stages.prepared import AOI, TILES, prepare_city

# mlflow.pyfunc warns of its own type hints when it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:.*inferred as AnyType:UserWarning")

SPEC = TrainingSpec(
    network=UNetSpec(width=4, depth=1, dropout=0.1, heads=("building", "border")),
    augmentation=AugmentationSpec(scale=(0.9, 1.2)), chip_size=64, batch_size=4, epochs=3, max_batches=3,
    precision="float32", learning_rate=1e-2,
)  # fmt: skip


def test_a_model_knows_the_stretch_of_each_pixel_type_of_an_area() -> None:
    def row(aoi: str, high: float, gamma: float = 1.0) -> dict:
        return {"aoi": aoi, "low": np.zeros(3), "high": np.full(3, high), "gamma": gamma}

    eight, sixteen, other = 255.0, 3000.0, 2000.0
    rows = [row("Town", eight), row("Hill", sixteen, 1.5), row("Town", eight), row("Town", other), row("Hill", eight)]
    told = {name: (stretch.high[0], stretch.gamma) for name, stretch in _stretches(pd.DataFrame(rows)).items()}
    assert told == {"Hill": (3000.0, 1.5), "Hill (2)": (255.0, 1.0), "Town": (255.0, 1.0), "Town (2)": (2000.0, 1.0)}


@pytest.fixture
def nobody_minds_sigterm() -> Iterator[None]:
    """Dagster, in the same process, leaves a handler behind."""
    former = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, former)


def test_masks_that_are_not_those_of_the_labels_are_not_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepare_city(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(masks, "write_if_other", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            draw_masks(folder, MaskSpec(border_m=2.0))
    with pytest.raises(DatasetError, match="not complete"):
        train_unet(Settings(home=tmp_path), SPEC, [], tags={})
    draw_masks(folder)
    load_manifest(Lake(tmp_path), [])
    collect_polygons(folder, skip_bad_labels=False)  # other labels, and the masks of the former ones
    with pytest.raises(DatasetError, match="not complete") as caught:
        load_manifest(Lake(tmp_path), [])
    assert "mask_tiles" in caught.value.fix
    assert "If a run prepares it now, wait for its end" in caught.value.fix


def test_a_split_that_is_not_of_the_masks_is_not_learned(tmp_path: Path) -> None:
    folder = prepare_city(tmp_path)
    source = resolve_source(str(tmp_path / "source"), tmp_path)

    def prepare(tiles: int | None, **spec: float) -> None:
        """All but the split."""
        fetch_tiles(Settings(home=tmp_path), source, folder, tiles=tiles, on_bad_tile="fail")
        collect_polygons(folder, skip_bad_labels=False, spec=PolygonSpec(**spec))
        draw_masks(folder)

    for tiles, spec in ((TILES - 1, {}), (None, {"min_area_m2": 30.0})):
        prepare(tiles, **spec)
        with pytest.raises(DatasetError, match=f"{AOI}: its split is not of the masks") as caught:
            train_unet(Settings(home=tmp_path), SPEC, [], tags={})
        assert "split_manifests" in caught.value.fix
        assert "If a run prepares it now, wait for its end" in caught.value.fix
        split_tiles(folder, SplitSpec())
        load_manifest(Lake(tmp_path), [])
    prepare(TILES - 1)
    split_tiles(folder, SplitSpec(empty_share=0.0))
    load_manifest(Lake(tmp_path), [])
    prepare(None)
    with pytest.raises(DatasetError, match="its split is not of the masks"):
        load_manifest(Lake(tmp_path), [])


def test_images_that_are_others_than_those_prepared_are_not_learned(tmp_path: Path) -> None:
    folder = prepare_city(tmp_path)
    tiles = read_tile_index(folder.tiles)
    assert changed_images(tiles) == []
    image, whole = Path(tiles["path"][0]), Lake(tmp_path).aoi("AOI_0_A_whole_one")
    shutil.copytree(folder.folder, whole.folder)
    write_tile_index(TileIndex(tiles.drop(columns=["bytes", "modified_ns"])), whole.tiles)  # as of before
    pd.read_parquet(folder.manifest).assign(aoi="AOI_0_A_whole_one").to_parquet(whole.manifest)
    read = read_manifests([folder.manifest])
    assert data_digest(Lake(tmp_path), read) == data_digest(Lake(tmp_path), read.sample(frac=1, random_state=0))
    assert data_digest(Lake(tmp_path), read) != data_digest(
        Lake(tmp_path), read.assign(split=np.roll(read["split"], 1))
    )
    assert data_digest(Lake(tmp_path), read) != data_digest(Lake(tmp_path), read.assign(gamma=1.5))
    prepared = data_digest(Lake(tmp_path), read)
    write_tile_index(TileIndex(tiles.assign(modified_ns=tiles["modified_ns"] + 1)), folder.tiles)
    assert data_digest(Lake(tmp_path), read) != prepared
    write_tile_index(TileIndex(tiles), folder.tiles)
    for change in (lambda: os.utime(image, (1, 1)), image.unlink):
        change()
        with pytest.raises(DatasetError, match=f"{AOI}: 1 of its images are no longer those that were prepared"):
            train_unet(Settings(home=tmp_path), SPEC, [], tags={})


def test_tiles_that_are_newer_than_their_masks_are_neither_learned_nor_told(tmp_path: Path) -> None:
    folder = prepare_city(tmp_path)
    source = resolve_source(str(tmp_path / "source"), tmp_path)
    fetch_tiles(Settings(home=tmp_path), source, folder, tiles=None, on_bad_tile="fail")  # and the labels fail, say
    for use in (
        lambda: train_unet(Settings(home=tmp_path), SPEC, [], tags={}),
        lambda: write_report(Lake(tmp_path), []),
    ):
        with pytest.raises(DatasetError, match=r"not complete\.\n.*footprint prepare"):
            use()


def test_what_is_prepared_again_as_it_was_is_the_same_to_a_training(tmp_path: Path) -> None:
    def cached() -> tuple[Path, str]:
        manifest = load_manifest(Lake(tmp_path), [])
        cache = build_cache(manifest, tmp_path / "cache", gsd_m=0.5)
        return Path(str(cache.images.filename)), data_digest(Lake(tmp_path), manifest)

    folder = prepare_city(tmp_path)
    before = cached()
    fetch_tiles(
        Settings(home=tmp_path), resolve_source(str(tmp_path / "source"), tmp_path), folder, tiles=None,
        on_bad_tile="fail",
    )  # fmt: skip
    collect_polygons(folder, skip_bad_labels=False)
    draw_masks(folder)
    split_tiles(folder, SplitSpec())
    assert cached() == before
    draw_masks(folder, MaskSpec(border_m=1.0))
    assert not {*cached()} & {*before}


@pytest.mark.slow
def test_a_training_is_stamped_with_what_it_saw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = prepare_city(tmp_path)

    def digest() -> str:
        return data_digest(Lake(tmp_path), load_manifest(Lake(tmp_path), []))

    def while_masks_are_drawn_anew(*given: Any, **options: Any) -> TrainingResult:
        draw_masks(folder, MaskSpec(border_m=1.0))
        return train(*given, **options)

    seen = digest()
    monkeypatch.setattr("footprint_pipeline.stages.training.train", while_masks_are_drawn_anew)
    trained, _ = train_unet(Settings(home=tmp_path), replace(SPEC, epochs=1), [], tags={})
    assert trained.data_digest == seen != digest()


@pytest.mark.slow
def test_a_terminated_training_goes_on_in_the_same_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], nobody_minds_sigterm: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    caplog.set_level("INFO")
    prepare_city(tmp_path)
    settings = Settings(home=tmp_path)
    mlflow.set_tracking_uri(settings.mlflow_uri)
    experiment = mlflow.create_experiment(settings.experiment, artifact_location=Lake(tmp_path).artifacts.as_uri())
    parent = mlflow.MlflowClient().create_run(experiment)
    heard: list[int] = []

    class Terminating(ToTerminal):
        def on_epoch(self, epoch: int, entry: dict[str, float]) -> None:
            super().on_epoch(epoch, entry)
            heard.append(epoch)
            if epoch == 1 and heard == [0, 1]:
                handler = signal.getsignal(signal.SIGTERM)
                assert callable(handler), "SIGTERM would end this process, and with it the tests"
                handler(signal.SIGTERM, None)

    monkeypatch.setattr("footprint_pipeline.stages.training.bar_or_lines", Terminating)

    def go(**options: object) -> tuple:
        return train_unet(settings, SPEC, [], tags={"who": "a test"}, parent_run_id=parent.info.run_id, **options)

    with pytest.raises(KeyboardInterrupt):
        go()
    assert "epoch 1/3" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    (run,) = mlflow.search_runs([experiment], filter_string="tags.who = 'a test'", output_format="list")
    assert run.info.status == "KILLED"
    (folder,) = Lake(tmp_path).checkpoints.iterdir()
    with alone_in(folder), pytest.raises(TrainingError, match="running already, in another process"):
        go()

    trained, history = go()
    assert heard == [0, 1, 2]
    assert "Going on after epoch 2" in caplog.text
    assert (trained.run_id, trained.epochs, trained.heads) == (run.info.run_id, 3, ("building", "border"))
    assert not list(folder.glob("*.npz"))

    # Whoever asked was interrupted before it had this, and MLflow too.
    mlflow.MlflowClient().set_terminated(trained.run_id, "KILLED")
    assert go(handed_on=lambda run_id: run_id != trained.run_id) == (trained, history)
    with monkeypatch.context() as away:
        away.setattr(mlflow.MlflowClient, "get_run", Mock(side_effect=MlflowException("it is away")))
        with pytest.raises(RegistryError, match="it is away"):
            go(handed_on=lambda run_id: False)
    assert go(handed_on=lambda run_id: False) == (trained, history)

    run = mlflow.get_run(trained.run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", f"training on {AOI}")
    client = mlflow.MlflowClient()
    for name in ("loss", "val_f1", "learning_rate"):
        logged = client.get_metric_history(trained.run_id, name)
        assert [(metric.step, metric.value) for metric in logged] == [
            (epoch, pytest.approx(entry[name])) for epoch, entry in enumerate(history)
        ]
    assert run.data.params["ema"] == "0.998"
    assert run.data.params["network.heads"] == "('building', 'border')"
    tags = run.data.tags
    assert (tags["mlflow.parentRunId"], tags["aois"]) == (parent.info.run_id, AOI)
    assert (tags["keras_backend"], tags["split_digest"]) == ("tensorflow", trained.split_digest)
    assert tags["version.keras"]
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", tags.get("git_commit", "0" * 40))
    files = Path(mlflow.artifacts.download_artifacts(run_id=trained.run_id, dst_path=str(tmp_path / "artifacts-of")))
    assert read_spec(files / "training" / "spec.yaml") == SPEC
    picture = cv2.imread(str(files / "validation" / "epoch_0003.png"))
    assert picture.shape[0] == 512

    scalars: dict[str, list[int]] = {}
    for path in sorted((tmp_path / "tensorboard" / trained.run_id).iterdir()):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                scalars.setdefault(value.tag, []).append(event.step)
    assert scalars["loss/validation"] == [1, 2, 3]
    assert scalars["validation"] == [1, 3]


@pytest.mark.slow
def test_what_an_interruption_after_the_last_epoch_kept_from_mlflow_is_told_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nobody_minds_sigterm: None
) -> None:
    prepare_city(tmp_path)
    settings = Settings(home=tmp_path)

    def interrupted(folder: Path, checkpoint: Checkpoint) -> None:
        save_checkpoint(folder, checkpoint)
        if len(checkpoint.history) == SPEC.epochs:
            raise KeyboardInterrupt

    monkeypatch.setattr(conductor, "save_checkpoint", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_unet(settings, SPEC, [], tags={})
    monkeypatch.undo()
    trained, history = train_unet(settings, SPEC, [], tags={})
    client = mlflow.MlflowClient(settings.mlflow_uri)
    assert [metric.step for metric in client.get_metric_history(trained.run_id, "loss")] == [0, 1, 2]
    assert len(history) == 3
    assert "validation/epoch_0003.png" in [file.path for file in client.list_artifacts(trained.run_id, "validation")]
    again, _ = train_unet(settings, SPEC, [], tags={})  # nobody says that it is wanting, so it is a new training
    assert again.run_id != trained.run_id
    anew, _ = train_unet(settings, SPEC, [], tags={}, resume=False, handed_on=lambda run_id: False)
    assert anew.run_id != again.run_id


def test_found_is_green_wrong_red_and_missed_blue() -> None:
    truth, said = np.zeros((1, 4, 4), np.uint8), np.zeros((1, 4, 4), np.float32)
    truth[0, 0], said[0, 0, :2], said[0, 3] = 1, 0.9, 0.9
    picture = validation_picture(Shown(np.full((1, 4, 4, 3), 200, np.uint8), truth, said))
    assert (picture.shape, picture.dtype) == ((512, 256, 3), np.uint8)
    assert (picture[:256] == 200).all()
    judged = picture[256:]
    for (y, x), colour in (((10, 10), FOUND), ((10, 250), MISSED), ((250, 10), WRONG)):
        assert np.argmax(judged[y, x]) == np.argmax(colour)
    assert (judged[128, 128] == 100).all()


def test_lines_take_the_place_of_the_bar_where_nobody_looks(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr("footprint_pipeline.stages.live.SAY_EVERY_S", 0.0)
    watcher = bar_or_lines()  # pytest's stderr is no terminal
    watcher.on_begin([], epochs=2, steps=7)
    watcher.on_step(0, 3, 0.25)
    watcher.on_epoch(0, {})
    assert "epoch 1, step 4/7  loss 0.2500" in caplog.text
    assert capsys.readouterr().err == ""
