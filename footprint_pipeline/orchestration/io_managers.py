"""How one model stage hands a record to the next: as a JSON file, readable by people, no pickles."""

import json
from pathlib import Path

import dagster as dg
from pydantic import BaseModel

from footprint_pipeline.errors import DatasetError
from footprint_pipeline.files import atomic_path


class JsonRecords(dg.ConfigurableIOManager):
    """Stores pydantic records as JSON and reads them back by the input's annotation.

    The last record of an asset is `<folder>/<asset>.json`, whichever run made it. A run reads what it made itself, or
    the last of the runs that it is another try of, so that two at a time do not take each other's: these are kept in
    `<folder>/runs/<run>/` as well.
    """

    folder: str

    def handle_output(self, context: dg.OutputContext, obj: BaseModel) -> None:
        """Write the record, atomically."""
        path = Path(self.folder) / f"{context.asset_key.to_user_string()}.json"
        for each in (self._of_run(context.run_id) / path.name, path):
            with atomic_path(each) as temporary:
                temporary.write_text(obj.model_dump_json(indent=2) + "\n", "utf-8")
        context.add_output_metadata({"record": dg.MetadataValue.path(path)})

    def load_input(self, context: dg.InputContext) -> BaseModel:
        """Read the record that an upstream asset left.

        Raises:
            DatasetError: the asset has not been materialised.
        """
        name = f"{context.asset_key.to_user_string()}.json"
        places = [*(self._of_run(each) / name for each in _tries(context)), Path(self.folder) / name]
        path = next((place for place in places if place.exists()), None)
        if path is None:
            raise DatasetError(
                f"{context.asset_key.to_user_string()} has not been materialized yet.",
                fix="Materialize it first, or run the whole chain.",
            )
        record: type[BaseModel] = context.dagster_type.typing_type
        return record.model_validate_json(path.read_text("utf-8"))

    def _of_run(self, run_id: str) -> Path:
        return Path(self.folder) / "runs" / run_id


def was_taken(instance: dg.DagsterInstance, folder: Path, asset: str, mlflow_run: str) -> bool:
    """Whether an asset's record of this MLflow run was stored by a run that came to its end, as far as is known."""
    for path in folder.glob(f"runs/*/{asset}.json"):
        if json.loads(path.read_text("utf-8"))["run_id"] == mlflow_run:
            run = instance.get_run_by_id(path.parent.name)
            if run is None or run.is_success:
                return True
    return False


def _tries(context: dg.InputContext) -> list[str]:
    """The run, and the runs that it is another try of, from the last to the first."""
    run: dg.DagsterRun | None = context.step_context.dagster_run
    tries = []
    while run is not None:
        tries.append(run.run_id)
        run = context.step_context.instance.get_run_by_id(run.parent_run_id) if run.parent_run_id else None
    return tries
