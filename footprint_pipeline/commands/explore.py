"""The command that shows what was prepared."""

from pathlib import Path
from typing import Any

from footprint_pipeline.lake import Lake
from footprint_pipeline.settings import Settings
from footprint_pipeline.stages.exploration import PAGE, write_report


def explore(settings: Settings, *, aois: tuple[str, ...], out: Path | None) -> dict[str, Any]:
    """Write one page on these AOIs, on every prepared one when none is named."""
    home = settings.home.absolute()
    report = write_report(Lake(home), aois, out or home / PAGE)
    return {
        "report": str(report.path),
        "aois": {name: report.numbers(name) for name in report.summaries},
        "_lines": [
            *(
                f"{name}: {found.tiles:,} tiles, {found.area_km2:.2f} km², {found.buildings:,} labels, "
                f"median {found.area_m2_median:.0f} m²"
                for name, found in report.summaries.items()
            ),
            f"Look: {report.path}",
        ],
    }
