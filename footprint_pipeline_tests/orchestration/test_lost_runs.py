"""A process that is killed leaves a run that Dagster believes in, and the pool of the GPU in its hands."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psutil  # type: ignore[import-untyped]
import pytest

from footprint_pipeline.orchestration.local import prepare_home
from footprint_pipeline.orchestration.lost_runs import end_lost_runs, tell_process, wait_for_pool
from footprint_pipeline.settings import Settings

RUN = """
import sys, time
import dagster as dg
from footprint_pipeline.orchestration.resources import Workplace

@dg.op(pool="gpu")
def train(workplace: Workplace):
    print("training", flush=True)
    time.sleep(600)

@dg.job(resource_defs={"workplace": Workplace(home=sys.argv[1])})
def work():
    train()

with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    work.execute_in_process(instance=instance)
"""
UNTOLD = RUN.replace("workplace: Workplace", "")
"""Without what tells of its process, as it was once."""


@contextmanager
def run_under_way(folder: str, script: str = RUN) -> Iterator[subprocess.Popen[str]]:
    """A process that works on a run, until it is killed."""
    with subprocess.Popen([sys.executable, "-c", script, folder], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "training\n"
            yield process
        finally:
            process.kill()


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(prepare_home(Settings(home=tmp_path)))


@pytest.fixture
def instance(folder: str) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(folder) as instance:
        yield instance


@dg.op
def nothing() -> None: ...


@dg.job
def job() -> None:
    nothing()


def test_a_killed_run_is_ended_and_lets_go_of_the_gpu_and_a_living_one_is_waited_for(
    folder: str, instance: dg.DagsterInstance
) -> None:
    with run_under_way(folder):
        (run,) = instance.get_runs()
        assert end_lost_runs(instance) == 0  # its process lives
        waiting = threading.Thread(target=wait_for_pool, args=(instance, "gpu"))
        waiting.start()
        waiting.join(1.5)
        assert waiting.is_alive()
    waiting.join(30)
    assert not waiting.is_alive()
    ended = instance.get_run_by_id(run.run_id)
    assert ended is not None
    assert ended.status is dg.DagsterRunStatus.FAILURE
    assert not instance.event_log_storage.get_concurrency_info("gpu").claimed_slots
    assert end_lost_runs(instance) == 0


@pytest.mark.parametrize("script", [RUN, UNTOLD], ids=["told", "untold"])
def test_a_killed_run_that_nobody_waits_for_lets_go_of_the_gpu_too(
    folder: str, instance: dg.DagsterInstance, script: str
) -> None:
    with run_under_way(folder, script):
        pass
    assert end_lost_runs(instance) == 1
    assert not instance.event_log_storage.get_concurrency_info("gpu").claimed_slots


@pytest.mark.parametrize("script", [RUN, UNTOLD], ids=["told", "untold"])
def test_a_run_outlives_a_clock_that_is_set_forward(
    folder: str, instance: dg.DagsterInstance, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_under_way(folder, script):
        booted = psutil.boot_time() + 3600  # as the kernel tells it then
        monkeypatch.setattr(psutil._psplatform, "boot_time", lambda: booted)
        assert end_lost_runs(instance) == 0


def test_a_process_that_has_only_inherited_the_number_works_on_no_run(
    folder: str, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    tell_process(instance, run.run_id)
    assert end_lost_runs(instance) == 0
    (tag,) = instance.get_runs()[0].tags.items() - run.tags.items()
    instance.add_run_tags(run.run_id, {tag[0]: tag[1].rpartition(" ")[0] + " 1"})  # it began at another time
    assert end_lost_runs(instance) == 1

    with run_under_way(folder, UNTOLD):
        pass
    with subprocess.Popen(["sleep", "600"]) as other:
        process = psutil.Process(other.pid)
        monkeypatch.setattr(psutil, "Process", lambda pid: process)
        assert end_lost_runs(instance) == 1
        other.kill()


def test_a_run_that_is_started_once_more_is_not_looked_for_where_the_first_one_was(
    folder: str, instance: dg.DagsterInstance
) -> None:
    with run_under_way(folder):
        (first,) = instance.get_runs()
    again = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTING, tags=first.tags)
    assert end_lost_runs(instance) == 1
    assert {run.run_id for run in instance.get_runs() if not run.is_finished} == {again.run_id}
