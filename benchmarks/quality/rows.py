"""What a table of recipes compares: rows as a YAML file tells them. No work is done here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from footprint_pipeline.dataset.spec import GUARD, SPLITS
from footprint_pipeline.errors import SettingsError
from footprint_pipeline.model.spec import TrainingSpec
from footprint_pipeline.model.spec_fields import change
from footprint_pipeline.model.spec_files import read_mapping

TEST = SPLITS[-1]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: what it is called.
        about: what is different about it, in words.
        aois: areas to train on; all when empty.
        keep: of these areas only the first so many training tiles are learned from; all others judge,
        apart: but for those among the first so many, so that rows which keep more of them are judged alike.
        begin: name of the row whose network it starts from; None: from random weights.
        base: file of the recipe that it changes; None: the default recipe.
        spec: what it changes of the recipe.
        tune: options of `footprint tune`.
        untrained: name of the row whose network it only tunes and judges again; None: it trains.
    """

    name: str
    about: str = ""
    aois: tuple[str, ...] = ()
    keep: Mapping[str, int] = field(default_factory=dict)
    apart: Mapping[str, int] = field(default_factory=dict)
    begin: str | None = None
    base: str | None = None
    spec: Mapping[str, Any] = field(default_factory=dict)
    tune: tuple[str, ...] = ()
    untrained: str | None = None

    def recipe(self, folder: Path) -> TrainingSpec:
        """The recipe in full; `base` is looked for in the folder."""
        spec = TrainingSpec()
        if self.base is not None:
            spec = change(spec, read_mapping(folder / self.base), where=self.base)
        return change(spec, dict(self.spec), where=f"row {self.name}")

    def tiles(self, table: pd.DataFrame) -> pd.DataFrame:
        """The split of the table (`aoi`, `tile_id`, `split`) as this row uses it, in the same order.

        Of an area that is to be kept in part, the first training tiles stay, in the table's order; those that are set
        apart besides go to the guard.
        """
        table = table.copy()
        for aoi, most in self.keep.items():
            of_area = table["aoi"] == aoi
            teaching = of_area & (table["split"] == "train")
            turn = teaching.cumsum().where(teaching, len(table) + 1)
            table.loc[of_area & (turn > most), "split"] = GUARD
            table.loc[of_area & (turn > max(most, self.apart.get(aoi, 0))), "split"] = TEST
        return table


def read_rows(path: Path) -> list[Row]:
    """Rows of a YAML file: names with what they change; rows that others build on come first.

    Raises:
        SettingsError: a row builds on one that does not stand before it, or has a field that there is not.
    """
    rows: list[Row] = []
    for name, content in read_mapping(path).items():
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in content.items()
        }
        try:
            row = Row(name, **fields)
        except TypeError as error:
            raise SettingsError(f"{path}: row {name}: {error}.", fix="Look at the fields of Row.") from None
        for needed in (row.begin, row.untrained):
            if needed is not None and needed not in [former.name for former in rows]:
                raise SettingsError(f"{path}: row {name} builds on {needed}.", fix="Put that row before it.")
        rows.append(row)
    return rows
