"""A process that is killed leaves a run that Dagster believes in, and the pool of the GPU in its hands."""

import subprocess
import sys
import threading
from pathlib import Path

import dagster as dg

from footprint_pipeline.orchestration.local import prepare_home
from footprint_pipeline.orchestration.lost_runs import end_lost_runs, wait_for_pool
from footprint_pipeline.settings import Settings

RUN = """
import sys, time
import dagster as dg

@dg.op(pool="gpu")
def train():
    print("training", flush=True)
    time.sleep(600)

@dg.job
def work():
    train()

with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    work.execute_in_process(instance=instance)
"""


def test_a_killed_run_is_ended_and_lets_go_of_the_gpu_and_a_living_one_is_waited_for(tmp_path: Path) -> None:
    folder = str(prepare_home(Settings(home=tmp_path)))
    with (
        dg.DagsterInstance.from_config(folder) as instance,
        subprocess.Popen([sys.executable, "-c", RUN, folder], stdout=subprocess.PIPE, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "training\n"
            (run,) = instance.get_runs()
            assert end_lost_runs(instance) == 0  # its process lives
            waiting = threading.Thread(target=wait_for_pool, args=(instance, "gpu"))
            waiting.start()
            waiting.join(1.5)
            assert waiting.is_alive()
        finally:
            process.kill()
            process.wait()
        waiting.join(30)
        assert not waiting.is_alive()
        assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.FAILURE
        assert not instance.event_log_storage.get_concurrency_info("gpu").claimed_slots
        assert end_lost_runs(instance) == 0


def test_a_killed_run_that_nobody_waits_for_lets_go_of_the_gpu_too(tmp_path: Path) -> None:
    folder = str(prepare_home(Settings(home=tmp_path)))
    with (
        dg.DagsterInstance.from_config(folder) as instance,
        subprocess.Popen([sys.executable, "-c", RUN, folder], stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "training\n"
        process.kill()
        process.wait()
        assert end_lost_runs(instance) == 1
        assert not instance.event_log_storage.get_concurrency_info("gpu").claimed_slots
