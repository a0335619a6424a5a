"""Imagery to footprints: no keras, no dagster, no flask."""
