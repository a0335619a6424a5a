"""Mark runs as failed that were under way when the code location's container stopped.

A run is a process in that container. When it starts, none can be alive, yet Dagster would show them as started
for ever. Their place in the GPU's pool is freed by run monitoring.
"""

import dagster as dg

UNDER_WAY = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def end_lost_runs(instance: dg.DagsterInstance) -> int:
    """Mark them, and return how many there were."""
    lost = instance.get_runs(dg.RunsFilter(statuses=UNDER_WAY))
    for run in lost:
        instance.report_run_failed(run, "The container stopped while the run was under way. Launch it again.")
    return len(lost)


if __name__ == "__main__":
    with dg.DagsterInstance.get() as instance:
        print(f"Runs lost when the container stopped: {end_lost_runs(instance)}")
