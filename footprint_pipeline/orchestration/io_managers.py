"""How one model stage hands a record to the next: as a JSON file, readable by people, no pickles."""

from pathlib import Path

import dagster as dg
from pydantic import BaseModel

from footprint_pipeline.errors import DatasetError
from footprint_pipeline.files import atomic_path


class JsonRecords(dg.ConfigurableIOManager):
    """Stores pydantic records as `<folder>/<asset>.json` and reads them back by the input's annotation."""

    folder: str

    def handle_output(self, context: dg.OutputContext, obj: BaseModel) -> None:
        """Write the record, atomically."""
        path = self._path(context.asset_key)
        with atomic_path(path) as temporary:
            temporary.write_text(obj.model_dump_json(indent=2) + "\n")
        context.add_output_metadata({"record": dg.MetadataValue.path(path)})

    def load_input(self, context: dg.InputContext) -> BaseModel:
        """Read the record that an upstream asset left.

        Raises:
            DatasetError: the asset has not been materialised.
        """
        path = self._path(context.asset_key)
        if not path.exists():
            raise DatasetError(
                f"{context.asset_key.to_user_string()} has not been materialized yet.",
                fix="Materialize it first, or run the whole chain.",
            )
        record: type[BaseModel] = context.dagster_type.typing_type
        return record.model_validate_json(path.read_text())

    def _path(self, key: dg.AssetKey) -> Path:
        return Path(self.folder) / f"{'__'.join(key.path)}.json"
