"""The command that searches hyperparameters."""

import shlex
from pathlib import Path
from typing import Any

from footprint_pipeline.commands.lines import next_commands
from footprint_pipeline.orchestration.assets.search import SearchConfig
from footprint_pipeline.orchestration.local import run_job
from footprint_pipeline.settings import Settings


def search(
    settings: Settings, *, aois: tuple[str, ...], spec_file: Path | None, space_file: Path | None, **options: Any
) -> dict[str, Any]:
    """Materialise `hyperparameter_search`."""
    config: dict[str, Any] = {
        "aois": list(aois),
        "spec_file": spec_file and str(spec_file.absolute()),
        "space_file": space_file and str(space_file.absolute()),
        **options,
    }
    SearchConfig(**config).spec()  # what cannot be is said before anything is started
    found = run_job("search", settings, config={"hyperparameter_search": config})["hyperparameter_search"]
    return {
        **found.model_dump(mode="json"),
        "_lines": [
            f"{found.study}: {found.objective} {found.best_value:.4f} in trial {found.best_trial}, the best of "
            f"{found.trials}{f', {found.failed} of which failed' if found.failed else ''}.",
            f"  recipe {found.best_spec}, MLflow run {found.run_id}",
            next_commands(settings, f"train --spec {shlex.quote(str(found.best_spec))}"),
        ],
    }
