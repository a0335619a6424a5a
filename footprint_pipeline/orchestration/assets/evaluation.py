"""How good the trained network is, and at which tolerance."""

import dagster as dg
import pandas as pd

from footprint_pipeline.evaluation.spec import RULES, SweepSpec
from footprint_pipeline.handover import TestEvaluation, ToleranceSweep, TrainedUnet
from footprint_pipeline.orchestration.configs import config_of
from footprint_pipeline.orchestration.resources import Workplace


class SweepConfig(config_of(SweepSpec(), choices={"rule": RULES})):  # type: ignore[misc]
    """How the tolerance and the seed level are chosen."""


@dg.asset(group_name="evaluation", kinds={"keras", "mlflow"}, pool="gpu")
def tolerance_sweep(workplace: Workplace, trained_unet: TrainedUnet, config: SweepConfig) -> dg.Output[ToleranceSweep]:
    """The tolerance, and the level at which buildings that touch are told apart, chosen on the validation split."""
    from footprint_pipeline.orchestration.metadata import picture
    from footprint_pipeline.stages.judging import sweep_tolerance

    swept, pictures = sweep_tolerance(workplace.settings, trained_unet, config.spec())
    return dg.Output(
        swept,
        metadata={
            "rule": swept.rule,
            "tolerance": swept.tolerance,
            **{f"tolerance_{aoi}": own for aoi, own in swept.own_tolerances.items()},
            "tolerance_by_the_article": swept.article_tolerance,
            "min_area_m2": swept.min_area_m2,
            "seed_level": "not separated" if swept.seed_level is None else swept.seed_level,
            "building_f1": swept.building_f1,
            "median_tile_f1": swept.median_tile_f1,
            "std_tile_f1": swept.std_tile_f1,
            "pooled_pixel_f1": swept.pooled_pixel_f1,
            "tiles": swept.tiles,
            "mlflow_run": workplace.run_url(trained_unet.experiment_id, trained_unet.run_id),
            **{name: picture(png) for name, png in pictures.items()},
        },
    )


@dg.asset(group_name="evaluation", kinds={"keras", "mlflow"}, pool="gpu")
def test_evaluation(
    workplace: Workplace, trained_unet: TrainedUnet, tolerance_sweep: ToleranceSweep
) -> dg.Output[TestEvaluation]:
    """Pixel F1 and SpaceNet's building F1 on the test split, at the chosen tolerance."""
    from footprint_pipeline.orchestration.metadata import picture, table
    from footprint_pipeline.stages.card import CARD
    from footprint_pipeline.stages.judging import evaluate_test

    evaluation, scores, sheet = evaluate_test(workplace.settings, trained_unet, tolerance_sweep)
    worst_first = scores.tiles.sort_values("pixel_f1")[["tile_id", "pixel_f1", "building_f1"]]
    return dg.Output(
        evaluation,
        metadata={
            **evaluation.metrics,
            "tolerance": evaluation.tolerance,
            "by_aoi": table(scores.by_aoi),
            "tiles": table(pd.DataFrame(worst_first).head(20)),
            "95 % of the draws": dg.MetadataValue.md(
                "  \n".join(f"{name}: {low:.3f} to {high:.3f}" for name, (low, high) in evaluation.intervals.items())
            ),
            "mlflow_run": workplace.run_url(trained_unet.experiment_id, trained_unet.run_id),
            "model_card": workplace.artifact_url(trained_unet.experiment_id, trained_unet.run_id, CARD),
            "overlays": picture(sheet),
        },
    )
