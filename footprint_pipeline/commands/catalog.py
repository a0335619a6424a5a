"""The command that lists what there is to prepare."""

from typing import Any

from footprint_pipeline.lake import Lake
from footprint_pipeline.settings import Settings
from footprint_pipeline.spacenet.catalog import load_catalog


def aois(settings: Settings) -> dict[str, Any]:
    """The catalogue."""
    catalog = load_catalog(settings.home)
    prepared = set(Lake(settings.home.absolute()).prepared())
    return {
        "aois": [{"name": name, "title": aoi.title, "prepared": name in prepared} for name, aoi in catalog.items()],
        "_lines": [
            f"{name:24} {aoi.title:45} {'prepared' if name in prepared else ''}".rstrip()
            for name, aoi in catalog.items()
        ],
    }
