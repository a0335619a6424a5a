"""The Dagster graph: the only room that imports dagster."""
