"""The Dagster code location. Imports neither Keras nor MLflow: every spawned step reloads this module."""

import dagster as dg

from footprint_pipeline.lake import Lake
from footprint_pipeline.orchestration.assets.dataset import dataset_assets
from footprint_pipeline.orchestration.assets.drift import footprint_drift
from footprint_pipeline.orchestration.assets.evaluation import test_evaluation, tolerance_sweep
from footprint_pipeline.orchestration.assets.exploration import exploration_assets
from footprint_pipeline.orchestration.assets.ingest import ingest_assets
from footprint_pipeline.orchestration.assets.promotion import registered_model
from footprint_pipeline.orchestration.assets.search import hyperparameter_search
from footprint_pipeline.orchestration.assets.training import trained_unet
from footprint_pipeline.orchestration.checks import data_checks
from footprint_pipeline.orchestration.io_managers import JsonRecords
from footprint_pipeline.orchestration.jobs import build_jobs
from footprint_pipeline.orchestration.resources import Workplace
from footprint_pipeline.orchestration.retraining import build_schedules, build_sensors
from footprint_pipeline.settings import Settings, load_settings
from footprint_pipeline.spacenet.catalog import load_catalog


def build_definitions(settings: Settings | None = None) -> dg.Definitions:
    """The graph, its jobs and its resources; state lives where the settings, or the environment, say."""
    settings = settings or load_settings()
    home = settings.home.absolute()
    aois = dg.StaticPartitionsDefinition(list(load_catalog(home)))  # one added later appears with the next reload
    return dg.Definitions(
        assets=[
            *ingest_assets(aois),
            *dataset_assets(aois),
            *exploration_assets(aois),
            hyperparameter_search,
            trained_unet,
            tolerance_sweep,
            test_evaluation,
            registered_model,
            footprint_drift,
        ],
        asset_checks=data_checks(aois),
        jobs=build_jobs(),
        schedules=build_schedules(settings),
        sensors=build_sensors(aois),
        resources={
            "workplace": Workplace(home=str(home)),
            "io_manager": JsonRecords(folder=str(Lake(home).records)),
        },
        # The chain is a line: one process imports TensorFlow once instead of once a step.
        executor=dg.in_process_executor,
    )


defs = build_definitions()
