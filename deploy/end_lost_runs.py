"""Mark runs as failed that were under way when the code location's container stopped.

A run is a process in that container. When it starts, none can be alive, yet Dagster would show them as started
for ever, and they would hold the GPU's pool.
"""

import dagster as dg

from footprint_pipeline.orchestration.lost_runs import fail_runs, runs_under_way


def end_lost_runs(instance: dg.DagsterInstance) -> int:
    """Mark them, and return how many there were."""
    lost = runs_under_way(instance)
    fail_runs(instance, lost, "The container stopped while the run was under way. Launch it again.")
    return len(lost)


if __name__ == "__main__":
    with dg.DagsterInstance.get() as instance:
        print(f"Runs lost when the container stopped: {end_lost_runs(instance)}")
