"""Runs whose process is gone: a machine that went down, `kill -9`, a UI that was closed.

Dagster would show them as started for ever, and they would hold the GPU's pool for ever. What ends well is not this
module's business. On a shared instance (PostgreSQL) a run's process may be elsewhere, so nothing is ended there.
"""

import logging
import time
from collections.abc import Sequence

import dagster as dg
import psutil  # type: ignore[import-untyped]

log = logging.getLogger(__name__)

_UNDER_WAY = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
_PATIENCE_S = 1.0


def end_lost_runs(instance: dg.DagsterInstance) -> int:
    """Mark runs as failed whose process is gone, let go of the pools they hold, and return how many there were."""
    if "sqlite" not in type(instance.run_storage).__name__.lower():
        return 0
    lost = [run for run in runs_under_way(instance) if _is_lost(instance, run.run_id)]
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


def _is_lost(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether the process that last worked on a run is gone; a run without one is young, and monitoring sees to it."""
    for entry in reversed(instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)):
        event = entry.dagster_event
        number = event.engine_event_data.metadata.get("pid") if event else None
        if number is not None:
            try:
                # A process that is younger than its event has only inherited the number.
                return psutil.Process(int(str(number.value))).create_time() > entry.timestamp
            except psutil.NoSuchProcess:
                return True
    return False
