"""How good the trained network is, and at which tolerance."""

import dagster as dg
import pandas as pd

from footprint_pipeline.handover import TestEvaluation, ToleranceSweep, TrainedUnet
from footprint_pipeline.orchestration.resources import Workplace


@dg.asset(group_name="evaluation", kinds={"keras", "mlflow"}, pool="gpu")
def tolerance_sweep(workplace: Workplace, trained_unet: TrainedUnet) -> dg.Output[ToleranceSweep]:
    """The tolerance of the footprints, chosen from 50 on the validation split by the article's rule."""
    from footprint_pipeline.orchestration.metadata import picture
    from footprint_pipeline.stages.judging import sweep_tolerance

    swept, plot = sweep_tolerance(workplace.settings, trained_unet)
    return dg.Output(
        swept,
        metadata={
            "tolerance": swept.tolerance,
            "median_tile_f1": swept.median_tile_f1,
            "std_tile_f1": swept.std_tile_f1,
            "pooled_pixel_f1": swept.pooled_pixel_f1,
            "tiles": swept.tiles,
            "mlflow_run": workplace.run_url(trained_unet.experiment_id, trained_unet.run_id),
            "box_plot": picture(plot),
        },
    )


@dg.asset(group_name="evaluation", kinds={"keras", "mlflow"}, pool="gpu")
def test_evaluation(
    workplace: Workplace, trained_unet: TrainedUnet, tolerance_sweep: ToleranceSweep
) -> dg.Output[TestEvaluation]:
    """Pixel F1 and SpaceNet's building F1 on the test split, at the chosen tolerance."""
    from footprint_pipeline.orchestration.metadata import picture, table
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
            "mlflow_run": workplace.run_url(trained_unet.experiment_id, trained_unet.run_id),
            "overlays": picture(sheet),
        },
    )
