"""Records between the stages of the model: of one run, of two at a time, and of another try."""

import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import dagster as dg
import pytest
from pydantic import BaseModel

from footprint_pipeline.errors import DatasetError
from footprint_pipeline.orchestration.io_managers import JsonRecords, was_taken
from footprint_pipeline.orchestration.local import prepare_home
from footprint_pipeline.settings import Settings


class Network(BaseModel):
    """A record."""

    number: int


class Number(dg.Config):
    """Which network is made; whether something goes wrong after it."""

    number: int = 0
    fails: bool = False


@dg.asset
def trained(config: Number) -> Network:
    return Network(number=config.number)


@dg.asset
def judged(trained: Network, config: Number) -> Network:
    if config.fails:
        raise ValueError("by chance")
    return trained


def chain() -> dg.JobDefinition:
    """Both, on the folder that the environment names."""
    records = JsonRecords(folder=os.environ["RECORDS"])
    jobs = [dg.define_asset_job("chain", [trained, judged])]
    return dg.Definitions([trained, judged], jobs=jobs, resources={"io_manager": records}).resolve_job_def("chain")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECORDS", str(tmp_path / "records"))
    return tmp_path / "records"


@pytest.fixture
def instance(tmp_path: Path, folder: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(prepare_home(Settings(home=tmp_path)))) as instance:
        yield instance


def make(instance: dg.DagsterInstance, asset: str, number: int = 0) -> int:
    """The number of the asset that a run of it alone makes."""
    config = {"ops": {asset: {"config": {"number": number}}}}
    done = chain().execute_in_process(
        instance=instance, run_config=config, asset_selection=[dg.AssetKey(asset)], raise_on_error=True
    )
    return done.asset_value(asset).number


def test_a_run_that_made_nothing_reads_the_last(instance: dg.DagsterInstance) -> None:
    with pytest.raises(DatasetError, match="trained has not been materialized"):
        make(instance, "judged")
    for number in (1, 2):
        make(instance, "trained", number)
        assert make(instance, "judged") == number


def test_what_another_run_makes_meanwhile_is_not_taken_for_ones_own(instance: dg.DagsterInstance, folder: Path) -> None:
    @dg.asset(deps=[trained])
    def meanwhile() -> Network:
        make(instance, "trained", 2)
        return Network(number=0)

    @dg.asset(deps=[meanwhile])
    def registered(trained: Network) -> Network:
        return trained

    done = dg.materialize(
        [trained, meanwhile, registered], resources={"io_manager": JsonRecords(folder=str(folder))},
        instance=instance, run_config={"ops": {"trained": {"config": {"number": 1}}}},
    )  # fmt: skip
    assert done.asset_value("registered").number == 1
    assert Network.model_validate_json((folder / "trained.json").read_text()).number == 2


def test_another_try_goes_on_with_what_the_first_one_made(instance: dg.DagsterInstance, folder: Path) -> None:
    job = dg.reconstructable(chain)
    config = {"ops": {"trained": {"config": {"number": 1}}, "judged": {"config": {"fails": True}}}}
    with dg.execute_job(job, instance, run_config=config) as failed:
        assert not failed.success
    make(instance, "trained", 2)
    again = dg.ReexecutionOptions(failed.run_id, step_selection=["judged"])
    with dg.execute_job(job, instance, run_config={"ops": {}}, reexecution_options=again) as done:
        assert done.success
    assert Network.model_validate_json((folder / "judged.json").read_text()).number == 1


def test_a_record_is_taken_when_the_run_that_stored_it_came_to_its_end(
    instance: dg.DagsterInstance, folder: Path
) -> None:
    taken = partial(was_taken, instance, folder, "trained_unet")
    ids = {}
    for status in (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.STARTED):
        ids[status] = instance.create_run_for_job(chain(), status=status).run_id
        (folder / "runs" / ids[status]).mkdir(parents=True)
        (folder / "runs" / ids[status] / "trained_unet.json").write_text(json.dumps({"run_id": status.value}))
    assert [taken(status.value) for status in ids] == [True, False, False]
    assert not taken("of nobody")
    instance.delete_run(ids[dg.DagsterRunStatus.CANCELED])  # nobody knows how it ended
    assert taken("CANCELED")


def test_the_third_try_takes_what_the_second_one_made(instance: dg.DagsterInstance, folder: Path) -> None:
    job, fails = dg.reconstructable(chain), {"judged": {"config": {"fails": True}}}
    with dg.execute_job(job, instance, run_config={"ops": {"trained": {"config": {"number": 9}}, **fails}}) as tried:
        run_id = tried.run_id
    for config, steps in (
        ({"trained": {"config": {"number": 1}}, **fails}, ["trained", "judged"]), (fails, ["judged"]), ({}, ["judged"]),
    ):  # fmt: skip
        again = dg.ReexecutionOptions(run_id, step_selection=steps)
        with dg.execute_job(job, instance, run_config={"ops": config}, reexecution_options=again) as tried:
            run_id = tried.run_id
        make(instance, "trained", 2)
    assert tried.success
    assert Network.model_validate_json((folder / "judged.json").read_text()).number == 1
