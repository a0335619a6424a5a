"""What the service is asked of late, held against what its model was trained on."""

import dagster as dg
from pydantic import Field

from footprint_pipeline.orchestration.configs import config_of
from footprint_pipeline.orchestration.resources import Workplace
from footprint_pipeline.stages.drift import DriftReport, DriftSpec


class DriftConfig(config_of(DriftSpec())):  # type: ignore[misc]
    """When what is asked has drifted."""

    version: str | None = Field(None, description="Version of the registered model; the one that serves when empty.")


@dg.asset(group_name="serving", kinds={"mlflow", "matplotlib"}, deps=["registered_model"])
def footprint_drift(workplace: Workplace, config: DriftConfig) -> dg.Output[DriftReport]:
    """Colours and resolutions of the imagery that the service was asked about, against those of the training tiles."""
    spec = config.spec()
    from footprint_pipeline.orchestration.metadata import picture, table
    from footprint_pipeline.stages.drift import chart, gsd_table, report_drift

    report = report_drift(workplace.settings, spec, version=config.version)
    return dg.Output(
        report,
        metadata={
            "drifted": report.drifted,
            "verdict": report.verdict,
            "version": report.version,
            "registry": workplace.version_url(report.model, report.version),
            "since": report.since.isoformat(),
            "answers": report.answers,
            **{f"psi_{channel}": value for channel, value in report.psi.items()},
            **({} if report.out_of_domain is None else {"out_of_domain_answers": report.out_of_domain}),
            "gsd": table(gsd_table(report)),
            "colours": picture(chart(report)),
        },
    )
