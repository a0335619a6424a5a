"""The network, trained on every AOI asked for."""

from dataclasses import replace

import dagster as dg
from pydantic import Field

from footprint_pipeline.handover import TrainedUnet
from footprint_pipeline.model.spec import LOSSES, NORMS, OPTIMIZERS, PRECISIONS, TrainingSpec
from footprint_pipeline.orchestration.resources import Workplace

_SPEC = TrainingSpec()


class TrainingConfig(dg.Config):
    """How to train. The defaults suit a CPU; width 64 without normalisation is the article's network."""

    aois: list[str] = Field([], description="AOIs to train on; every prepared one when empty.")
    width: int = Field(_SPEC.network.width, description="Filters of the first block; the article's network has 64.")
    depth: int = Field(_SPEC.network.depth, description="Down-sampling blocks.")
    dropout: float = Field(_SPEC.network.dropout, description="Share dropped after the deeper blocks.")
    norm: str = Field(_SPEC.network.norm, description=f"One of {', '.join(NORMS)}; the article has none.")
    loss: str = Field(_SPEC.loss, description=f"One of {', '.join(LOSSES)}.")
    optimizer: str = Field(_SPEC.optimizer, description=f"One of {', '.join(OPTIMIZERS)}.")
    learning_rate: float = Field(_SPEC.learning_rate, description="The largest learning rate.")
    batch_size: int = Field(_SPEC.batch_size, description="Chips a step.")
    chip_size: int = Field(_SPEC.chip_size, description="Side of a chip, pixels.")
    epochs: int = Field(_SPEC.epochs, description="Passes at most.")
    chips_per_epoch: int | None = Field(
        _SPEC.chips_per_epoch, description="Chips a pass; as many as cover the training ground once when empty."
    )
    patience: int = Field(_SPEC.patience, description="Stop after so many epochs without improvement.")
    max_minutes: float | None = Field(_SPEC.max_minutes, description="Stop after so many minutes.")
    gsd_m: float | None = Field(_SPEC.gsd_m, description="Metres a pixel; the training tiles' median when empty.")
    precision: str = Field(_SPEC.precision, description=f"One of {', '.join(PRECISIONS)}.")
    seed: int = Field(_SPEC.seed, description="Weights, order and augmentation.")

    def spec(self) -> TrainingSpec:
        """The core's spec."""
        values = self.model_dump(exclude={"aois"})
        network = {name: values.pop(name) for name in ("width", "depth", "dropout", "norm")}
        return replace(_SPEC, network=replace(_SPEC.network, **network), **values)


@dg.asset(group_name="model", kinds={"keras", "mlflow"}, deps=["split_manifests"], pool="gpu")
def trained_unet(
    context: dg.AssetExecutionContext, config: TrainingConfig, workplace: Workplace
) -> dg.Output[TrainedUnet]:
    """The U-Net, trained on the split manifests and logged to MLflow with its curves and checkpoints."""
    from footprint_pipeline.evaluation.reports import learning_curves
    from footprint_pipeline.orchestration.metadata import picture
    from footprint_pipeline.stages.training import train_unet

    trained, history = train_unet(
        workplace.settings, config.spec(), config.aois, tags={"dagster.run_id": context.run_id}
    )
    return dg.Output(
        trained,
        metadata={
            "mlflow_run": workplace.run_url(trained.experiment_id, trained.run_id),
            "network": trained.network,
            "aois": ", ".join(trained.aois),
            "gsd_m": trained.gsd_m,
            "epochs": trained.epochs,
            "best_epoch": trained.best_epoch + 1,
            "validation_loss": trained.validation_loss,
            "minutes": trained.seconds / 60,
            "learning_curves": picture(learning_curves(history)),
        },
    )
