"""Jobs: what people start by name."""

from typing import Any

import dagster as dg


def build_jobs() -> list[Any]:  # Dagster does not export the type of its asset jobs
    """`dataset` prepares one AOI, `model` goes from manifests to the registry, `whole_chain` does both.

    `search` stands beside them: it ends with a recipe, not with a model. So does `drift`: it looks at what the service
    was asked.
    """
    search = dg.AssetSelection.assets("hyperparameter_search")
    dataset = dg.AssetSelection.groups("ingest", "dataset")
    model = dg.AssetSelection.groups("model", "evaluation", "registry") - search
    return [
        dg.define_asset_job("dataset", dataset, description="Prepare one AOI."),
        dg.define_asset_job(
            "model", model, description="Train, sweep, evaluate, register and promote on every prepared AOI."
        ),
        dg.define_asset_job(
            "whole_chain",
            dataset | model,
            description="Prepare one AOI, then train on all prepared.",
        ),
        dg.define_asset_job("search", search, description="Search hyperparameters on every prepared AOI."),
        dg.define_asset_job(
            "drift",
            dg.AssetSelection.assets("footprint_drift"),
            description="Hold what the service was asked against what its model was trained on.",
        ),
    ]
