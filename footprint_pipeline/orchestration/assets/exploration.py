"""A look at what was prepared, before anything is trained on it, one AOI a partition."""

import dagster as dg

from footprint_pipeline.orchestration.resources import Workplace


def exploration_assets(aois: dg.PartitionsDefinition) -> list[dg.AssetsDefinition]:
    """The assets of this stage."""

    @dg.asset(
        partitions_def=aois,
        group_name="dataset",
        kinds={"matplotlib", "html", "mlflow"},
        deps=["image_tiles", "building_polygons", "mask_tiles", "split_manifests"],
    )
    def dataset_report(context: dg.AssetExecutionContext, workplace: Workplace) -> dg.MaterializeResult:
        """Sizes of buildings, maps of the tiles, labels on the imagery, colours: one HTML page, also in MLflow."""
        from footprint_pipeline.orchestration.metadata import picture
        from footprint_pipeline.stages.exploration import log_report, write_report

        name = context.partition_key
        report = write_report(workplace.settings.lake, [name])
        logged = log_report(workplace.settings, report)
        return dg.MaterializeResult(
            metadata={
                "report": dg.MetadataValue.path(report.path),
                "split_digest": report.split_digests[name],
                **{what: round(value, 4) for what, value in report.numbers(name).items()},
                **{drawn.name: picture(drawn.png) for drawn in report.pictures},
                **({"mlflow_run": workplace.run_url(*logged)} if logged else {}),
            }
        )

    return [dataset_report]
