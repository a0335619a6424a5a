"""Metadata as the Dagster UI shows it: pictures and tables inside Markdown."""

import base64

import dagster as dg
import pandas as pd

from footprint_pipeline.evaluation.reports import markdown_table


def picture(png: bytes) -> dg.MarkdownMetadataValue:
    """A PNG, shown inline."""
    return dg.MetadataValue.md(f"![](data:image/png;base64,{base64.b64encode(png).decode()})")


def table(frame: pd.DataFrame) -> dg.MarkdownMetadataValue:
    """A table, shown inline."""
    return dg.MetadataValue.md(markdown_table(frame))
