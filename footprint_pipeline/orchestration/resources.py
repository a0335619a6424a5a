"""Resources: they hand out domain objects, so that assets stay free of clients and of the environment."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dagster as dg

from footprint_pipeline.errors import SourceError
from footprint_pipeline.files import locked
from footprint_pipeline.lake import AoiFolder, Lake
from footprint_pipeline.orchestration.lost_runs import tell_process
from footprint_pipeline.settings import Settings, load_settings
from footprint_pipeline.spacenet.areas import Aoi
from footprint_pipeline.spacenet.catalog import load_catalog

_PARTITION = "dagster/partition"
"""Dagster's tag of a run: which AOI it is of."""


class Workplace(dg.ConfigurableResource):
    """Where all state lives. Every other setting comes from the environment, read when an asset runs.

    A run of an AOI has its folder alone: another one of the same AOI waits for its end.
    """

    home: str

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["Workplace"]:
        """Tell of a run's process, and hold the AOI of the run, if it is of one, as long as it lasts."""
        if context.run and context.instance:
            tell_process(context.instance, context.run.run_id)
        aoi = context.run.tags.get(_PARTITION) if context.run else None
        with ExitStack() as held:
            if aoi:
                waiting = f"{aoi}: waiting for another run that prepares it"
                held.enter_context(locked(self.folder(aoi).lock, waiting=waiting))
            yield self

    @property
    def settings(self) -> Settings:
        """The settings in force, with this home."""
        return load_settings(home=Path(self.home))

    def folder(self, aoi: str) -> AoiFolder:
        """The folder of an AOI's prepared data."""
        return Lake(Path(self.home).absolute()).aoi(aoi)

    def aoi(self, name: str) -> Aoi:
        """An AOI of the catalogue.

        Raises:
            SourceError: there is none of that name.
        """
        catalog = load_catalog(Path(self.home))
        if name not in catalog:
            raise SourceError(
                f"No AOI is called {name}.", fix=f"Add it to aois.yaml, or choose one of {', '.join(catalog)}."
            )
        return catalog[name]

    def run_url(self, experiment_id: str, run_id: str) -> dg.UrlMetadataValue:
        """Link to an MLflow run."""
        return dg.MetadataValue.url(f"{self.settings.mlflow_ui_url}/#/experiments/{experiment_id}/runs/{run_id}")

    def artifact_url(self, experiment_id: str, run_id: str, artifact: str) -> dg.UrlMetadataValue:
        """Link to an artifact of an MLflow run."""
        return dg.MetadataValue.url(f"{self.run_url(experiment_id, run_id).value}/artifacts/{artifact}")

    def version_url(self, name: str, version: str) -> dg.UrlMetadataValue:
        """Link to a version of a registered model."""
        return dg.MetadataValue.url(f"{self.settings.mlflow_ui_url}/#/models/{name}/versions/{version}")
