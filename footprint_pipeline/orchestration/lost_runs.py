"""Runs whose process is gone: a machine that went down, `kill -9`, a UI that was closed.

Dagster would show them as started for ever, and they would hold the GPU's pool for ever. What ends well is not this
module's business. On a shared instance (PostgreSQL) a run's process may be elsewhere, so only runs that say that they
are of this host are ended there.
"""

import logging
import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import psutil  # type: ignore[import-untyped]

log = logging.getLogger(__name__)

_UNDER_WAY = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
_PATIENCE_S = 1.0
_PROCESS = "footprint/process"
"""Tag of a run: its own id, for tags are handed on when it is run once more; and its process's host, number, start."""


def tell_process(instance: dg.DagsterInstance, run_id: str) -> None:
    """Write down that this process works on a run."""
    pid = os.getpid()
    instance.add_run_tags(run_id, {_PROCESS: f"{run_id} {socket.gethostname()} {pid} {_began(pid)}"})


def end_lost_runs(instance: dg.DagsterInstance) -> int:
    """Mark runs as failed whose process is gone, let go of the pools they hold, and return how many there were."""
    lost = [run for run in runs_under_way(instance) if _is_lost(instance, run)]
    fail_runs(instance, lost, "Its process is gone. Launch it again: a training goes on where it was.")
    return len(lost)


def runs_under_way(instance: dg.DagsterInstance) -> Sequence[dg.DagsterRun]:
    """The runs that have a process, or should have one."""
    return instance.get_runs(dg.RunsFilter(statuses=_UNDER_WAY))


def fail_runs(instance: dg.DagsterInstance, runs: Sequence[dg.DagsterRun], reason: str) -> None:
    """Mark runs as failed whose process is gone, and let go of the pools they hold."""
    for run in runs:
        instance.report_run_failed(run, reason)
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        log.warning("Run %s had lost its process: it is marked as failed", run.run_id)


def wait_for_pool(instance: dg.DagsterInstance, pool: str) -> None:
    """Wait until no run that goes on holds the pool. Dagster waits as well, but neither says so nor hears Ctrl-C."""
    said: set[str] = set()
    while holders := _holders(instance, pool):
        if not end_lost_runs(instance):
            if holders - said:
                said |= holders
                log.warning(
                    "Waiting for run %s, which holds the pool %r. If nothing is left of it, cancel it in the UI",
                    ", ".join(sorted(holders)), pool,
                )  # fmt: skip
            time.sleep(_PATIENCE_S)


def _holders(instance: dg.DagsterInstance, pool: str) -> set[str]:
    """The runs that hold a pool; those that have ended let go of it now."""
    storage, holders = instance.event_log_storage, set()
    for slot in storage.get_concurrency_info(pool).claimed_slots:
        run = instance.get_run_by_id(slot.run_id)
        if run is not None and not run.is_finished:
            holders.add(slot.run_id)
        else:
            storage.free_concurrency_slots_for_run(slot.run_id)
    return holders


def _is_lost(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether the process of a run is gone; a run that tells of none is young, and monitoring sees to it."""
    alone = "sqlite" in type(instance.run_storage).__name__.lower()
    of, *told = run.tags.get(_PROCESS, "none").split()
    if of == run.run_id:
        host, pid, began = told
        return (alone or host == socket.gethostname()) and _began(int(pid)) != began
    number = _number(instance, run.run_id) if alone else None
    return number is not None and not _is_python(number)


def _number(instance: dg.DagsterInstance, run_id: str) -> int | None:
    """The number of the process that last worked on a run, as Dagster tells it; None before there is one."""
    for entry in reversed(instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)):
        event = entry.dagster_event
        number = event.engine_event_data.metadata.get("pid") if event else None
        if number is not None:
            return int(str(number.value))
    return None


def _is_python(pid: int) -> bool:
    """Whether a process may be a run's; any other has only inherited the number."""
    try:
        return any("python" in part.lower() for part in psutil.Process(pid).cmdline())
    except psutil.Error:
        return False


def _began(pid: int) -> str | None:
    """When a process began, said so that setting the clock, as after a pause, changes nothing; None when it is gone."""
    try:
        if sys.platform == "linux":
            state, *more = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            return None if state == b"Z" else more[18].decode()  # in ticks since the machine started
        return f"{psutil.Process(pid).create_time():.0f}"
    except (OSError, psutil.Error):
        return None
