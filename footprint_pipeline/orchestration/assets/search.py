"""The best recipe of many: a search of hyperparameters."""

from pathlib import Path
from typing import Literal

import dagster as dg
from pydantic import Field

from footprint_pipeline.handover import SearchedRecipe
from footprint_pipeline.model.search_space import OBJECTIVES, SearchSpec, read_space
from footprint_pipeline.model.spec import TrainingSpec
from footprint_pipeline.model.spec_fields import descriptions
from footprint_pipeline.model.spec_files import read_spec
from footprint_pipeline.orchestration.resources import Workplace

_DEFAULT, _SAYS = SearchSpec(), descriptions(SearchSpec)


class SearchConfig(dg.Config):
    """What to search, and how long."""

    aois: list[str] = Field([], description="AOIs to train on; every prepared one when empty.")
    spec_file: str | None = Field(None, description=_SAYS["base"] + " A YAML file; the default recipe when empty.")
    space_file: str | None = Field(None, description=_SAYS["space"] + " A YAML file; a space is built in.")
    trials: int = Field(
        20, description="How many trials the study holds at the end, those of earlier runs included.", ge=1
    )
    objective: Literal[tuple(OBJECTIVES)] = Field(  # type: ignore[valid-type]
        _DEFAULT.objective, description=_SAYS["objective"]
    )
    max_minutes_per_trial: float | None = Field(None, description=_SAYS["max_minutes_per_trial"])
    seed: int = Field(_DEFAULT.seed, description=_SAYS["seed"])
    study: str | None = Field(
        None, description="Name of the study; made from what is searched, and on what, when empty."
    )

    def spec(self) -> SearchSpec:
        """The core's spec.

        Raises:
            SettingsError: nothing can be searched so.
        """
        base = read_spec(Path(self.spec_file)) if self.spec_file else TrainingSpec()
        space = {"space": read_space(Path(self.space_file), base)} if self.space_file else {}
        return SearchSpec(
            base=base,
            objective=self.objective,
            max_minutes_per_trial=self.max_minutes_per_trial,
            seed=self.seed,
            **space,
        )


@dg.asset(group_name="model", kinds={"optuna", "mlflow"}, deps=["split_manifests"], pool="gpu")
def hyperparameter_search(
    context: dg.AssetExecutionContext, config: SearchConfig, workplace: Workplace
) -> dg.Output[SearchedRecipe]:
    """Trainings side by side under one MLflow run, and the best recipe among them."""
    spec = config.spec()  # before the imports, which take long
    from footprint_pipeline.orchestration.metadata import picture, table
    from footprint_pipeline.stages.search import search

    found = search(
        workplace.settings,
        spec,
        config.aois,
        trials=config.trials,
        tags={"dagster.run_id": context.run_id},
        study=config.study,
    )
    recipe = found.recipe
    return dg.Output(
        recipe,
        metadata={
            "mlflow_run": workplace.run_url(recipe.experiment_id, recipe.run_id),
            "best_spec": dg.MetadataValue.path(recipe.best_spec),
            "recipe": dg.MetadataValue.md(f"```yaml\n{recipe.best_spec.read_text('utf-8')}```"),
            f"best_{config.objective}": recipe.best_value,
            "trials": recipe.trials,
            "failed": recipe.failed,
            "table": table(found.trials),
            **{name: picture(png) for name, png in found.pictures.items()},
        },
    )
