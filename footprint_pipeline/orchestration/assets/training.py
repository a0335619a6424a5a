"""The network, trained on every AOI asked for."""

from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from footprint_pipeline.handover import TrainedUnet
from footprint_pipeline.model.spec import TrainingSpec
from footprint_pipeline.model.spec_fields import change, plain
from footprint_pipeline.model.spec_files import read_spec
from footprint_pipeline.orchestration.configs import config_of
from footprint_pipeline.orchestration.io_managers import was_taken
from footprint_pipeline.orchestration.resources import Workplace
from footprint_pipeline.stages.weights import find_weights


class TrainingConfig(config_of(TrainingSpec())):  # type: ignore[misc]
    """How to train, on what, and from where."""

    aois: list[str] = Field([], description="AOIs to train on; every prepared one when empty.")
    spec_file: str | None = Field(
        None, description="Recipe to train by, as in configs/. What differs here from its shown default changes it."
    )
    weights: str | None = Field(
        None,
        description="Start from these weights, as far as they fit: a .keras or .weights.h5 file, or a registered "
        "model's alias or number; random when empty.",
    )
    resume: bool = Field(True, description="Go on where the same training was interrupted, or start anew.")

    def spec(self) -> TrainingSpec:
        """The core's spec.

        Raises:
            SettingsError: no training can be made of this.
        """
        default = plain(TrainingSpec())
        given = self.model_dump(include=set(default))
        base = TrainingSpec()
        if self.spec_file:
            base, given = read_spec(Path(self.spec_file)), _differences(given, default)
        return change(base, given, where="trained_unet")


def _differences(values: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _differences(value, default[name]) if isinstance(value, dict) else value
        for name, value in values.items()
        if value != default[name]
    }


@dg.asset(group_name="model", kinds={"keras", "mlflow"}, deps=["split_manifests"], pool="gpu")
def trained_unet(
    context: dg.AssetExecutionContext, config: TrainingConfig, workplace: Workplace
) -> dg.Output[TrainedUnet]:
    """The U-Net, trained on the split manifests and logged to MLflow with its recipe, curves and pictures."""
    settings, spec = workplace.settings, config.spec()  # before the imports, which take long
    from footprint_pipeline.evaluation.reports import learning_curves
    from footprint_pipeline.model.unet import gflop
    from footprint_pipeline.orchestration.metadata import picture
    from footprint_pipeline.stages.runs import last_validation_picture
    from footprint_pipeline.stages.training import train_unet

    trained, history = train_unet(
        settings,
        spec,
        config.aois,
        tags={"dagster.run_id": context.run_id},
        resume=config.resume,
        weights=find_weights(settings, config.weights) if config.weights else None,
        handed_on=partial(was_taken, context.instance, settings.lake.records, context.asset_key.to_user_string()),
    )
    seen = last_validation_picture(settings, trained.run_id)
    return dg.Output(
        trained,
        metadata={
            "mlflow_run": workplace.run_url(trained.experiment_id, trained.run_id),
            "network": trained.network,
            "parameters": trained.parameters,
            "gflop_per_512_px_tile": gflop(spec.network, 512),
            "aois": ", ".join(trained.aois),
            "gsd_m": trained.gsd_m,
            "epochs": trained.epochs,
            "best_epoch": trained.best_epoch + 1,
            "validation_loss": trained.validation_loss,
            "minutes": trained.seconds / 60,
            "learning_curves": picture(learning_curves(history)),
            **({"validation": picture(seen)} if seen else {}),
        },
    )
