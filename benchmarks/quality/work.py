"""A row from prepared tiles to figures, by the `footprint` command in a process of its own."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.quality.rows import Row
from footprint_pipeline.files import atomic_path
from footprint_pipeline.model.spec_files import to_yaml

CONFIGS = Path(__file__).parents[2] / "configs"


@dataclass(frozen=True)
class Bench:
    """Where rows are worked out.

    Attributes:
        sources: AOI names with where their tiles come from, as `footprint prepare --source` takes them.
        split: columns `aoi`, `tile_id`, `split`.
        folder: holds prepared tiles, a home a row and the answers; what is there is not done again.
    """

    sources: dict[str, str]
    split: pd.DataFrame
    folder: Path

    def answers(self, row: Row) -> dict[str, Any] | None:
        """What `train`, `tune` and `evaluate` answered; None when the row is not worked out yet."""
        path = self._answers(row.name)
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def work_out(self, row: Row) -> dict[str, Any]:
        """Train, tune and judge; a training that was interrupted goes on."""
        home = self.folder / "homes" / row.name
        started_from = row.begin or row.untrained
        if not home.exists():
            prepared = self._prepared(row)
            partial = home.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(prepared / "lake", partial / "lake")
            partial.rename(home)
        answers: dict[str, Any] = {}
        if row.untrained is None:
            spec = self.folder / "specs" / f"{row.name}.yaml"
            _write(spec, to_yaml(row.recipe(CONFIGS)))
            weights = [] if started_from is None else ["--weights", str(self._weights(started_from))]
            aois = [part for aoi in row.aois or self.sources for part in ("--aoi", aoi)]
            answers["train"] = footprint("train", home, *aois, "--spec", str(spec), *weights)
        else:
            home = self.folder / "homes" / row.untrained
            answers["train"] = json.loads(self._answers(row.untrained).read_text(encoding="utf-8"))["train"]
        # Rows compare networks, so one tolerance serves all areas unless a row says otherwise.
        answers["tune"] = footprint("tune", home, "--half-say", "0", *row.tune)
        answers["evaluate"] = footprint("evaluate", home)
        _write(self._answers(row.name), json.dumps(answers))
        return answers

    def _answers(self, name: str) -> Path:
        return self.folder / "answers" / f"{name}.json"

    def _weights(self, name: str) -> Path:
        """The network of a row that is worked out, as a .keras file."""
        home = self.folder / "homes" / name
        model = json.loads(self._answers(name).read_text(encoding="utf-8"))["train"]["model_id"]
        return next(home.glob(f"artifacts/**/{model}/**/*.keras"))

    def _prepared(self, row: Row) -> Path:
        """A home whose lake holds every area, split as the row wants it."""
        limits = [f"{aoi}-{most}" for aoi, most in sorted(row.keep.items())]
        limits += [f"{aoi}-of-{most}" for aoi, most in sorted(row.apart.items())]
        what = "-".join(limits) or "all"
        home = self.folder / "prepared" / what
        table = home.with_suffix(".csv")
        done = home / "done"
        if not done.exists():
            table.parent.mkdir(parents=True, exist_ok=True)
            row.tiles(self.split).to_csv(table, index=False)
            named = [part for aoi, source in self.sources.items() for part in ("--source", source, "--aoi", aoi)]
            footprint("prepare", home, *named, "--assign", str(table))
            done.touch()
        return home


def footprint(command: str, home: Path, *options: str) -> dict[str, Any]:
    """What a subcommand answers with `--json`; its lines go to this process' standard error.

    Raises:
        CalledProcessError: it failed.
    """
    program = Path(sys.executable).with_name("footprint")
    told: Sequence[str] = (str(program), command, "--home", str(home), *options, "--json")
    done = subprocess.run(told, check=True, stdout=subprocess.PIPE, text=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")
