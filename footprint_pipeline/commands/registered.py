"""Commands on registered models: export them, score them."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from footprint_pipeline.commands.lines import score_lines
from footprint_pipeline.registry import CHAMPION, Registry
from footprint_pipeline.settings import Settings
from footprint_pipeline.spacenet.sources import resolve_source
from footprint_pipeline.stages.scoring import score_on_source, score_on_test_splits


def export(settings: Settings, *, kind: str, alias: str | None, version: str | None, out: Path) -> dict[str, Any]:
    """Write a registered model to a folder, as `openvino`, `onnx` or `keras`."""
    registry = Registry(settings.mlflow_uri, settings.model_name)
    found = registry.resolve(alias=None if version else alias or CHAMPION, version=version)
    out.mkdir(parents=True, exist_ok=True)
    if kind == "openvino":
        pulled = registry.pull(version=found.version, into=settings.home.absolute() / "pulled")
        written = [Path(shutil.copy2(path, out / path.name)) for path in sorted(pulled.iterdir())]
    elif kind == "onnx":
        written = registry.pull_onnx(version=found.version, into=out)
    else:
        written = [registry.pull_keras(version=found.version, into=out)]
    return {
        "version": found.version,
        "files": [str(path) for path in written],
        "_lines": [f"{found.name} version {found.version}:", *(f"  {path}" for path in written)],
    }


def score(
    settings: Settings,
    *,
    source: str | None,
    aoi: str | None,
    alias: str | None,
    version: str | None,
    tolerance: float | None,
    flips: str | None,
    skip_bad_labels: bool,
) -> dict[str, Any]:
    """Score a registered model on a source, or on the test splits of what is prepared."""
    registry = Registry(settings.mlflow_uri, settings.model_name)
    found = registry.resolve(alias=None if version else alias or CHAMPION, version=version)
    model = registry.pull(version=found.version, into=settings.home.absolute() / "pulled")
    as_told: dict[str, Any] = {"tolerance": tolerance, "flips": int(flips) if flips else None}
    if source is not None:
        area = resolve_source(source, settings.home)
        area = replace(area, name=aoi or area.name)
        scores = score_on_source(settings, model, area, **as_told, skip_bad_labels=skip_bad_labels)
    else:
        scores = score_on_test_splits(settings, model, [aoi] if aoi else [], **as_told)
    names = sorted(scores.by_aoi["aoi"])
    return {
        "version": found.version,
        "aois": names,
        "tiles": len(scores.tiles),
        **scores.metrics(),
        "by_aoi": scores.by_aoi.to_dict("records"),
        "_lines": [f"{found.name} version {found.version} on {len(scores.tiles)} tiles of {', '.join(names)}:",
                   *score_lines(scores.metrics())],
    }  # fmt: skip
