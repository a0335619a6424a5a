"""From a scored network to the registry: a version, and perhaps a new champion."""

from collections.abc import Iterator

import dagster as dg

from footprint_pipeline.evaluation.spec import PromotionSpec
from footprint_pipeline.handover import RegisteredModel, TestEvaluation, ToleranceSweep, TrainedUnet
from footprint_pipeline.orchestration.configs import config_of
from footprint_pipeline.orchestration.resources import Workplace


class PromotionConfig(config_of(PromotionSpec())):  # type: ignore[misc]
    """When a candidate takes the champion's place."""


@dg.asset(
    group_name="registry",
    kinds={"mlflow", "openvino"},
    check_specs=[
        dg.AssetCheckSpec(
            "serves",
            asset="registered_model",
            description="The version passes the floors and beats the champion on the same test tiles.",
        )
    ],
)
def registered_model(
    workplace: Workplace,
    trained_unet: TrainedUnet,
    tolerance_sweep: ToleranceSweep,
    test_evaluation: TestEvaluation,
    config: PromotionConfig,
) -> Iterator[dg.Output[RegisteredModel] | dg.AssetCheckResult]:
    """The Keras model and its exports as one registry version; champion when it beats the present one."""
    from footprint_pipeline.stages.registration import register_model

    registered = register_model(workplace.settings, trained_unet, tolerance_sweep, test_evaluation, config.spec())
    yield dg.Output(
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
    yield dg.AssetCheckResult(
        passed=registered.promoted,
        severity=dg.AssetCheckSeverity.WARN,  # the run has done what it should
        metadata={"reason": registered.reason, "commit": registered.commit or "not known", **registered.differences},
    )
