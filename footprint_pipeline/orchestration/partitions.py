"""How assets are cut: one partition an AOI, the catalogue's and those that the user added."""

from pathlib import Path

import dagster as dg

from footprint_pipeline.spacenet.catalog import load_catalog


def aoi_partitions(home: Path) -> dg.StaticPartitionsDefinition:
    """A partition for every AOI of the catalogue; an AOI added later appears when definitions are reloaded."""
    return dg.StaticPartitionsDefinition(list(load_catalog(home)))
