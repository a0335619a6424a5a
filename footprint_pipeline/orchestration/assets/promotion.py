"""From a scored network to the registry: a version, and perhaps a new champion."""

import dagster as dg

from footprint_pipeline.handover import RegisteredModel, TestEvaluation, ToleranceSweep, TrainedUnet
from footprint_pipeline.orchestration.resources import Workplace


@dg.asset(group_name="registry", kinds={"mlflow", "openvino"})
def registered_model(
    workplace: Workplace,
    trained_unet: TrainedUnet,
    tolerance_sweep: ToleranceSweep,
    test_evaluation: TestEvaluation,
) -> dg.Output[RegisteredModel]:
    """The Keras model and its exports as one registry version; champion when it beats the present one."""
    from footprint_pipeline.stages.registration import register_model

    registered = register_model(workplace.settings, trained_unet, tolerance_sweep, test_evaluation)
    return dg.Output(
        registered,
        metadata={
            "version": registered.version,
            "registry": workplace.version_url(registered.name, registered.version),
            "promoted": registered.promoted,
            "reason": registered.reason,
            "precision": registered.precision,
            **{
                f"{name}_{precision}": value
                for precision, figures in registered.precisions.items()
                for name, value in figures.items()
            },
            **{f"candidate_{name}": value for name, value in registered.metrics.items()},
            **{f"champion_{name}": value for name, value in (registered.champion_metrics or {}).items()},
        },
    )
