"""What starts runs by itself: the schedule and the sensors, evaluated on a real instance."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pandas as pd
import pytest

from footprint_pipeline.dataset.spec import PolygonSpec, SplitSpec
from footprint_pipeline.dataset.splits import read_manifests
from footprint_pipeline.definitions import build_definitions
from footprint_pipeline.errors import SettingsError
from footprint_pipeline.handover import RegisteredModel, TrainedUnet
from footprint_pipeline.lake import Lake
from footprint_pipeline.orchestration.assets.training import TrainingConfig
from footprint_pipeline.orchestration.local import prepare_home
from footprint_pipeline.orchestration.resources import Workplace
from footprint_pipeline.orchestration.retraining import (
    ATTEMPTS,
    CAUSE,
    RETRIES,
    build_sensors,
    last_prepared,
    training_under_way,
)
from footprint_pipeline.settings import Settings
from footprint_pipeline.spacenet.areas import Aoi
from footprint_pipeline.spacenet.synthetic.city import CitySpec, write_city
from footprint_pipeline.stages.data import collect_polygons, data_digest, draw_masks, split_tiles
from footprint_pipeline_tests.areas import add_aoi
from footprint_pipeline_tests.conftest import Bucket
from footprint_pipeline_tests.stages.prepared import AOI, prepare_city


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("FOOTPRINT_HOME", str(tmp_path))
    return Settings(home=tmp_path)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(prepare_home(Settings(home=tmp_path / "instance")))) as instance:
        yield instance


def start_training(instance: dg.DagsterInstance, settings: Settings) -> str:
    """A run of the training job that is under way."""
    job = build_definitions(settings).resolve_job_def("model")
    return instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED).run_id


def ended(instance: dg.DagsterInstance, settings: Settings, asked: dg.RunRequest, status: dg.DagsterRunStatus) -> None:
    """What was asked for has been run, and ended so."""
    job = build_definitions(settings).resolve_job_def("model")
    instance.create_run_for_job(job, status=status, tags=asked.tags)


def look(
    settings: Settings, instance: dg.DagsterInstance, sensor: str, cursor: str | None = None
) -> tuple[list[dg.RunRequest], str | None]:
    """What a sensor asks for, and its cursor."""
    definitions = build_definitions(settings)
    repository = definitions.get_repository_def()
    with dg.build_sensor_context(
        instance=instance, cursor=cursor, repository_def=repository, resources=definitions.resources
    ) as context:
        told = repository.get_sensor_def(sensor).evaluate_tick(context)
    return list(told.run_requests or []), told.cursor


def trained_on(settings: Settings, stamp: str) -> None:
    record = TrainedUnet(
        run_id="r", experiment_id="1", model_id="m", network="n", parameters=1, stride=2, chip_size=64, gsd_m=0.3,
        aois=(AOI,), split_digest="s", data_digest=stamp, normalization={}, tiles={}, epochs=1,
        best_epoch=0, validation_loss=1, seconds=1, precision="float32",
    )  # fmt: skip
    path = settings.home / "records" / "trained_unet.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(record.model_dump_json())


def registered_from(settings: Settings, run_id: str) -> None:
    record = RegisteredModel(
        name="m", version="1", run_id=run_id, promoted=False, reason="", metrics={}, champion_metrics=None,
        precision="f32",
    )  # fmt: skip
    (settings.home / "records" / "registered_model.json").write_text(record.model_dump_json())


def test_nothing_starts_by_itself_before_it_is_switched_on(settings: Settings) -> None:
    repository = build_definitions(settings).get_repository_def()
    assert {schedule.name for schedule in repository.schedule_defs} == {"weekly_retraining", "daily_drift"}
    assert {sensor.name for sensor in repository.sensor_defs} == {"new_tiles", "changed_sources", "drifted_inputs"}
    for each in (*repository.schedule_defs, *repository.sensor_defs):
        assert each.default_status.value == "STOPPED"
        assert each.description


def test_the_schedule_trains_unless_a_training_is_under_way(settings: Settings, instance: dg.DagsterInstance) -> None:
    definitions = build_definitions(settings.model_copy(update={"retrain_cron": "30 4 * * 2"}))
    schedule = definitions.resolve_schedule_def("weekly_retraining")
    assert (schedule.cron_schedule, schedule.job_name) == ("30 4 * * 2", "model")

    (asked,) = schedule.evaluate_tick(dg.build_schedule_context(instance=instance)).run_requests
    assert RETRIES.items() <= asked.tags.items()

    run_id = start_training(instance, settings)
    told = schedule.evaluate_tick(dg.build_schedule_context(instance=instance))
    assert not told.run_requests
    assert told.skip_message == "A preparation or a training is queued or under way."
    instance.report_run_failed(instance.get_run_by_id(run_id))
    assert schedule.evaluate_tick(dg.build_schedule_context(instance=instance)).run_requests


def test_what_starts_by_itself_goes_by_the_recipe_that_is_set(
    settings: Settings, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("epochs: 3\n")
    definitions = build_definitions(settings.model_copy(update={"retrain_spec": recipe}))
    schedule = definitions.resolve_schedule_def("weekly_retraining")
    (asked,) = schedule.evaluate_tick(dg.build_schedule_context(instance=instance)).run_requests
    config = asked.run_config["ops"]["trained_unet"]["config"]
    assert TrainingConfig(**config).spec().epochs == 3
    assert dg.validate_run_config(definitions.resolve_job_def("model"), asked.run_config)


def test_what_was_asked_is_looked_at_every_day(settings: Settings, instance: dg.DagsterInstance) -> None:
    daily = build_definitions(settings).resolve_schedule_def("daily_drift")
    assert (daily.cron_schedule, daily.job_name) == ("0 1 * * *", "drift")
    start_training(instance, settings)
    assert len(daily.evaluate_tick(dg.build_schedule_context(instance=instance)).run_requests) == 1


def test_a_setting_that_is_no_cron_expression_is_named(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="FOOTPRINT_RETRAIN_CRON is 'on mondays'"):
        build_definitions(settings.model_copy(update={"retrain_cron": "on mondays"}))


def test_what_is_prepared_anew_is_trained_on_once(settings: Settings, instance: dg.DagsterInstance) -> None:
    assert look(settings, instance, "new_tiles")[0] == []
    folder = prepare_city(settings.home)
    stamp = data_digest(Lake(settings.home), read_manifests([folder.manifest]))

    (asked,), _ = look(settings, instance, "new_tiles")
    assert look(settings, instance, "new_tiles")[0][0].run_key == asked.run_key  # Dagster starts a run of a key once
    ended(instance, settings, asked, dg.DagsterRunStatus.FAILURE)
    (retried,), _ = look(settings, instance, "new_tiles")
    assert retried.run_key != asked.run_key  # so that Dagster starts it
    for _ in range(ATTEMPTS - 1):
        ended(instance, settings, retried, dg.DagsterRunStatus.FAILURE)
    assert look(settings, instance, "new_tiles")[0] == []
    trained_on(settings, stamp)
    assert look(settings, instance, "new_tiles")[0] == []

    collect_polygons(folder, skip_bad_labels=False, spec=PolygonSpec(min_area_m2=30.0))
    told = look(settings, instance, "new_tiles")
    assert told[0] == []  # its masks are those of other labels, so preparing it is not done
    draw_masks(folder)
    split_tiles(folder, SplitSpec())
    (again,), _ = look(settings, instance, "new_tiles")  # the same split of other labels
    trained_on(settings, data_digest(Lake(settings.home), read_manifests([folder.manifest])))
    assert look(settings, instance, "new_tiles")[0] == []

    table = pd.read_parquet(folder.manifest)
    table.iloc[:-1].assign(mask_path=table["mask_path"]).to_parquet(folder.manifest)
    (again,), _ = look(settings, instance, "new_tiles")
    assert again.run_key != asked.run_key
    start_training(instance, settings)
    assert look(settings, instance, "new_tiles")[0] == []


def test_a_training_of_which_no_version_came_is_asked_for_again(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    folder = prepare_city(settings.home)
    stamp = data_digest(Lake(settings.home), read_manifests([folder.manifest]))
    (asked,), _ = look(settings, instance, "new_tiles")
    trained_on(settings, stamp)
    ended(instance, settings, asked, dg.DagsterRunStatus.FAILURE)  # after the training
    (again,), _ = look(settings, instance, "new_tiles")
    assert (again.tags[CAUSE], again.run_key != asked.run_key) == (asked.tags[CAUSE], True)
    registered_from(settings, "another")
    assert look(settings, instance, "new_tiles")[0]
    registered_from(settings, "r")  # by hand
    assert look(settings, instance, "new_tiles")[0] == []
    registered_from(settings, "another")
    ended(instance, settings, again, dg.DagsterRunStatus.SUCCESS)
    assert look(settings, instance, "new_tiles")[0] == []


def test_an_object_that_is_another_one_now_starts_the_chain_for_its_area(
    settings: Settings, instance: dg.DagsterInstance, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOOTPRINT_S3_ENDPOINT_URL", bucket.endpoint_url)
    folder = settings.home / "mine"
    folder.mkdir()
    (folder / "3band_img1.tif").write_bytes(b"one")
    linked = folder.with_name("linked")
    linked.mkdir()
    (linked / "tiles").symlink_to(folder)
    archive = bucket.put("town.tar.gz", b"first")
    bucket.put("tiles/3band_a_img1.tif", b"a")
    for name, source in (
        ("AOI_7_Town", archive), ("AOI_8_Loose", f"s3://{bucket.name}/tiles"), ("AOI_9_Here", str(linked)),
    ):  # fmt: skip
        add_aoi(settings.home, name, source)
        manifest = Lake(settings.home).aoi(name).manifest
        manifest.parent.mkdir(parents=True)
        manifest.touch()

    asked, cursor = look(settings, instance, "changed_sources")
    assert asked == []  # the first look remembers
    assert len(json.loads(cursor)) == 3
    assert look(settings, instance, "changed_sources", cursor) == ([], cursor)

    bucket.put("town.tar.gz", b"other")
    bucket.put("tiles/3band_b_img1.tif", b"b")
    asked, changed = look(settings, instance, "changed_sources", cursor)
    assert [request.partition_key for request in asked] == ["AOI_7_Town"]  # one at a time
    assert RETRIES.items() <= asked[0].tags.items()
    for _ in range(ATTEMPTS - 1):
        ended(instance, settings, asked[0], dg.DagsterRunStatus.FAILURE)
        asked, changed = look(settings, instance, "changed_sources", changed)
        assert [request.partition_key for request in asked] == ["AOI_7_Town"]  # what failed is asked for again
    ended(instance, settings, asked[0], dg.DagsterRunStatus.SUCCESS)
    asked, changed = look(settings, instance, "changed_sources", changed)
    assert [request.partition_key for request in asked] == ["AOI_8_Loose"]
    bucket.put("town.tar.gz", b"third")
    (back,), _ = look(settings, instance, "changed_sources", changed)
    ended(instance, settings, back, dg.DagsterRunStatus.SUCCESS)
    _, third = look(settings, instance, "changed_sources", changed)
    bucket.put("town.tar.gz", b"other")  # as it was once, and was dealt with then
    (again,), _ = look(settings, instance, "changed_sources", third)
    assert again.partition_key == "AOI_7_Town"
    bucket.put("town.tar.gz", b"third")
    for _ in range(ATTEMPTS):
        ended(instance, settings, asked[0], dg.DagsterRunStatus.CANCELED)
    (folder / "3band_img1.tif").write_bytes(b"three")
    asked, changed = look(settings, instance, "changed_sources", changed)
    assert [request.partition_key for request in asked] == ["AOI_9_Here"]  # not for ever

    bucket.client.delete_object(Bucket=bucket.name, Key="town.tar.gz")
    asked, kept = look(settings, instance, "changed_sources", changed)
    assert [request.partition_key for request in asked] == ["AOI_9_Here"]
    assert (
        json.loads(kept)["AOI_7_Town"] == json.loads(changed)["AOI_7_Town"]
    )  # what cannot be looked at is not forgotten
    start_training(instance, settings)
    assert look(settings, instance, "changed_sources", cursor)[0] == []


def test_an_area_that_dagster_does_not_know_yet_holds_up_no_other(
    settings: Settings, instance: dg.DagsterInstance, caplog: pytest.LogCaptureFixture
) -> None:
    folders = [settings.home / name for name in ("first", "second")]
    for number, folder in enumerate(folders):
        folder.mkdir()
        (folder / "3band_img1.tif").write_bytes(b"one")
        add_aoi(settings.home, f"AOI_{number}_Town", str(folder))
        manifest = Lake(settings.home).aoi(f"AOI_{number}_Town").manifest
        manifest.parent.mkdir(parents=True)
        manifest.touch()
    loaded = dg.StaticPartitionsDefinition(["AOI_1_Town"])
    (sensor,) = (each for each in build_sensors(loaded) if each.name == "changed_sources")

    def tick(cursor: str | None) -> dg.SensorResult:
        resources = {"workplace": Workplace(home=str(settings.home))}
        with dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources) as context:
            return sensor(context)

    cursor = tick(None).cursor
    for folder in folders:
        (folder / "3band_img1.tif").write_bytes(b"three")
    assert [request.partition_key for request in tick(cursor).run_requests] == ["AOI_1_Town"]
    assert "AOI_0_Town was added after these definitions were loaded" in caplog.text

    (settings.home / "aois.yaml").unlink()
    add_aoi(settings.home, "AOI_1_Town", str(folders[1]))
    assert [request.partition_key for request in tick(cursor).run_requests] == ["AOI_1_Town"]
    assert "AOI_0_Town: its source cannot be looked at now: No AOI is called AOI_0_Town" in caplog.text


def test_areas_for_which_there_was_no_time_come_first_the_next_time(
    settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"AOI_{number}_Town" for number in range(4)]
    for name in names:
        add_aoi(settings.home, name, str(settings.home / name))
        manifest = Lake(settings.home).aoi(name).manifest
        manifest.parent.mkdir(parents=True)
        manifest.touch()
    looked_at: list[str] = []
    now = 0.0

    def slow_look(aoi: Aoi, **_: object) -> str:
        nonlocal now
        now += 30.0
        looked_at.append(aoi.name)
        return "as ever"

    monkeypatch.setattr("footprint_pipeline.orchestration.retraining.fingerprint", slow_look)
    monkeypatch.setattr("footprint_pipeline.orchestration.retraining.time", SimpleNamespace(monotonic=lambda: now))
    _, cursor = look(settings, instance, "changed_sources")
    assert list(json.loads(cursor)) == names[:2]
    for _ in range(2):
        _, cursor = look(settings, instance, "changed_sources", cursor)
    assert looked_at == [*names[:2], *names[2:], *names[:2]]
    assert json.loads(cursor) == dict.fromkeys(names, "as ever")  # what was passed over is not forgotten


def test_an_area_is_prepared_again_as_it_was(
    settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    town = write_city(settings.home / "town", CitySpec(rows=1, columns=6, tile_height=96, tile_width=96)).folder
    add_aoi(settings.home, "AOI_7_Town", str(town))
    config = {
        "ops": {
            "image_tiles": {"config": {"tiles": 5}},
            "image_tiles_checks": {"config": {"min_side_px": 90}},
            "split_manifests": {"config": {"by": "tile"}},
        }
    }
    job = build_definitions(settings).resolve_job_def("dataset")
    assert job.execute_in_process(instance=instance, partition_key="AOI_7_Town", run_config=config).success
    _, cursor = look(settings, instance, "changed_sources")
    next(town.rglob("3band_*.tif")).touch()
    recipe = settings.home / "recipe.yaml"
    recipe.write_text("epochs: 3\n")
    monkeypatch.setenv("FOOTPRINT_RETRAIN_SPEC", str(recipe))
    ((asked,), _) = look(settings, instance, "changed_sources", cursor)
    assert asked.run_config["ops"]["image_tiles"]["config"]["tiles"] == 5
    assert asked.run_config["ops"]["image_tiles_checks"]["config"]["min_side_px"] == 90
    assert asked.run_config["ops"]["split_manifests"]["config"]["by"] == "tile"
    assert asked.run_config["ops"]["trained_unet"]["config"] == {"spec_file": str(recipe)}
    assert dg.validate_run_config(build_definitions(settings).resolve_job_def("whole_chain"), asked.run_config)


@pytest.mark.parametrize("assets", [["trained_unet"], ["hyperparameter_search"], ["test_evaluation"]])
def test_a_training_may_be_of_assets_chosen_by_hand(
    settings: Settings, instance: dg.DagsterInstance, assets: list[str]
) -> None:
    job = build_definitions(settings).resolve_implicit_global_asset_job_def()
    chosen = job.get_subset(asset_selection={dg.AssetKey(asset) for asset in assets})
    instance.create_run_for_job(chosen, status=dg.DagsterRunStatus.STARTED, asset_selection=chosen.asset_selection)
    assert training_under_way(instance) == (assets != ["test_evaluation"])


def test_a_run_that_was_asked_for_is_tried_once_more(tmp_path: Path) -> None:
    with dg.DagsterInstance.from_config(str(prepare_home(Settings(home=tmp_path)))) as instance:
        assert instance.run_retries_enabled
        assert instance.run_retries_max_retries == 0  # runs of people are not


@pytest.mark.parametrize("status", ["NOT_STARTED", "STARTING", "STARTED", "CANCELING"])
def test_a_training_is_under_way_until_it_has_ended(
    settings: Settings, instance: dg.DagsterInstance, status: str
) -> None:
    job = build_definitions(settings).resolve_job_def("model")
    instance.create_run_for_job(job, status=dg.DagsterRunStatus[status])
    assert training_under_way(instance)


def test_another_area_is_not_prepared_as_the_last_one_was(settings: Settings, instance: dg.DagsterInstance) -> None:
    for name, tiles in (("AOI_7_Town", 5), ("AOI_8_Town", 4)):
        town = write_city(settings.home / name, CitySpec(rows=1, columns=6, tile_height=96, tile_width=96)).folder
        add_aoi(settings.home, name, str(town))
        config = {
            "ops": {
                "image_tiles": {"config": {"tiles": tiles}},
                "image_tiles_checks": {"config": {"min_side_px": 90}},
                "split_manifests": {"config": {"by": "tile"}},
            }
        }
        job = build_definitions(settings).resolve_job_def("dataset")
        assert job.execute_in_process(instance=instance, partition_key=name, run_config=config).success
    assert last_prepared(instance, "AOI_7_Town")["image_tiles"]["config"]["tiles"] == 5
