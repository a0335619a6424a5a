"""What each subcommand of `footprint` does. Each returns a dict for `--json`; `_lines` in it are for people."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import requests
from shapely.geometry import shape

from footprint_pipeline.errors import RequestError, SettingsError
from footprint_pipeline.files import atomic_path
from footprint_pipeline.footprints.extract import extract
from footprint_pipeline.footprints.imagery import open_imagery
from footprint_pipeline.footprints.mercator import tile_at
from footprint_pipeline.footprints.picture import draw, encode_png
from footprint_pipeline.footprints.runtime import Runtime
from footprint_pipeline.footprints.writers import feature_collection
from footprint_pipeline.lake import Lake
from footprint_pipeline.local_service import running_service, start_service
from footprint_pipeline.orchestration.local import run_job
from footprint_pipeline.registry import CHAMPION, Registry
from footprint_pipeline.settings import Settings, load_settings
from footprint_pipeline.spacenet.catalog import add_aoi, load_catalog
from footprint_pipeline.spacenet.sources import resolve_source

SYNTHETIC = "AOI_0_Synthetic"


def run(
    settings: Settings,
    *,
    sources: tuple[str, ...],
    aois: tuple[str, ...],
    tiles: int | None,
    on_bad_tile: str,
    skip_bad_labels: bool,
    **training: Any,
) -> dict[str, Any]:
    """Prepare every source, then train, sweep, evaluate, register and promote on all of them."""
    started = time.monotonic()
    names = prepare(settings, sources or (() if aois else (SYNTHETIC,)), tiles, on_bad_tile, skip_bad_labels)
    names = sorted({*names, *aois})
    records = run_job("model", settings, config={"trained_unet": {"aois": names, **training}})
    evaluation, registered = records["test_evaluation"], records["registered_model"]
    home = settings.home
    return {
        "aois": names,
        "mlflow_run": evaluation.run_id,
        "tolerance": evaluation.tolerance,
        **evaluation.metrics,
        "model": registered.name,
        "version": registered.version,
        "promoted": registered.promoted,
        "reason": registered.reason,
        "seconds": round(time.monotonic() - started, 1),
        "home": str(home.absolute()),
        "_lines": [
            "",
            f"Trained on {', '.join(names)} in {(time.monotonic() - started) / 60:.1f} minutes, all stages together.",
            f"  test split: median tile F1 {evaluation.metrics['median_tile_f1']:.3f}, "
            f"pooled pixel F1 {evaluation.metrics['pooled_pixel_f1']:.3f}, "
            f"building F1 (IoU >= 0.5) {evaluation.metrics['building_f1']:.3f}, tolerance {evaluation.tolerance:.2f}",
            f"  {registered.name} version {registered.version} is "
            f"{'the champion' if registered.promoted else 'a challenger'}: {registered.reason}",
            f"  prepared data {home / 'lake'}, models and runs {settings.tracking_uri or home / 'artifacts'}",
            "Look:  make ui     the graph, the plots (Dagster) and the run, the model (MLflow)",
            "Ask:   make serve  then POST a coordinate to /predict/polygon",
        ],
    }


def prepare(
    settings: Settings, sources: tuple[str, ...], tiles: int | None, on_bad_tile: str, skip_bad_labels: bool
) -> list[str]:
    """Materialise the data assets of every source; returns the names of their AOIs."""
    names = []
    for source in sources:
        aoi = resolve_source(source, settings.home)
        if load_catalog(settings.home).get(aoi.name) != aoi:
            add_aoi(settings.home, aoi.name, aoi.sources[0].uris, endpoint_url=aoi.endpoint_url)
        run_job(
            "dataset",
            settings,
            partition=aoi.name,
            config={
                "image_tiles": {"on_bad_tile": on_bad_tile, **({"tiles": tiles} if tiles else {})},
                "building_polygons": {"skip_bad_labels": skip_bad_labels},
            },
        )
        names.append(aoi.name)
    return names


def train(settings: Settings, *, aois: tuple[str, ...], **training: Any) -> dict[str, Any]:
    """Materialise `trained_unet`."""
    trained = run_job(
        "model", settings, selection=["trained_unet"], config={"trained_unet": {"aois": list(aois), **training}}
    )["trained_unet"]
    return {
        **trained.model_dump(mode="json"),
        "_lines": [f"{trained.network}: {trained.epochs} epochs, MLflow run {trained.run_id}. Next: footprint tune"],
    }


def tune(settings: Settings) -> dict[str, Any]:
    """Materialise `tolerance_sweep`."""
    swept = run_job("model", settings, selection=["tolerance_sweep"])["tolerance_sweep"]
    return {
        **swept.model_dump(mode="json"),
        "_lines": [
            f"Tuned tolerance: {swept.tolerance:.2f} with median={swept.median_tile_f1:.4f} "
            f"stdev={swept.std_tile_f1:.4f}. Next: footprint evaluate"
        ],
    }


def evaluate(
    settings: Settings,
    *,
    source: str | None,
    aoi: str | None,
    alias: str | None,
    version: str | None,
    tolerance: float | None,
    skip_bad_labels: bool,
) -> dict[str, Any]:
    """Materialise `test_evaluation`, or score a registered model on a source."""
    if source is not None or aoi is not None or alias is not None or version is not None:
        return _evaluate_registered(settings, source, aoi, alias, version, tolerance, skip_bad_labels)
    if tolerance is not None:
        raise RequestError(
            "The trained network is scored at the tolerance of its sweep.", fix="Give --alias or --source as well."
        )
    evaluation = run_job("model", settings, selection=["test_evaluation"])["test_evaluation"]
    return {
        **evaluation.model_dump(mode="json"),
        **evaluation.metrics,
        "_lines": [*_scores(evaluation.metrics), "Next: footprint register"],
    }


def register(settings: Settings) -> dict[str, Any]:
    """Materialise `registered_model`."""
    registered = run_job("model", settings, selection=["registered_model"])["registered_model"]
    return {
        **registered.model_dump(mode="json"),
        "_lines": [
            f"{registered.name} version {registered.version}: "
            f"{'promoted' if registered.promoted else 'not promoted'}, {registered.reason}"
        ],
    }


def export(settings: Settings, *, kind: str, alias: str | None, version: str | None, out: Path) -> dict[str, Any]:
    """Write a registered model's files to a folder."""
    registry = Registry(settings.mlflow_uri, settings.model_name)
    found = registry.resolve(alias=None if version else alias or CHAMPION, version=version)
    out.mkdir(parents=True, exist_ok=True)
    if kind == "openvino":
        pulled = registry.pull(version=found.version, into=settings.home.absolute() / "pulled")
        written = [Path(shutil.copy2(path, out / path.name)) for path in sorted(pulled.iterdir())]
    else:
        written = [registry.pull_keras(version=found.version, into=out)]
    return {
        "version": found.version,
        "files": [str(path) for path in written],
        "_lines": [f"{found.name} version {found.version}:", *(f"  {path}" for path in written)],
    }


def predict(
    settings: Settings,
    *,
    coordinate: str,
    zoom: int,
    tolerance: float | None,
    imagery: str | None,
    alias: str | None,
    out: Path | None,
    picture: Path | None,
) -> dict[str, Any]:
    """Footprints around a coordinate, by the registered model."""
    latitude, longitude = _coordinate(coordinate)
    registry = Registry(settings.mlflow_uri, settings.model_name)
    found = registry.resolve(alias=alias or CHAMPION)
    runtime = Runtime(registry.pull(version=found.version, into=settings.home.absolute() / "pulled"))
    source = open_imagery(with_imagery(settings, imagery))
    bounds = tile_at(longitude, latitude, zoom).bounds_3857
    extraction = extract(runtime, source, bounds, tolerance=tolerance)
    text = json.dumps(
        feature_collection(extraction, runtime.spec, model_version=found.version, attribution=source.attribution)
    )
    if out is not None:
        with atomic_path(out) as temporary:
            temporary.write_text(text)
    if picture is not None:
        with atomic_path(picture) as temporary:
            temporary.write_bytes(encode_png(draw(source, bounds, extraction.polygons_wgs84, extraction.confidence)))
    area = float(extraction.area_m2.sum())
    summary = f"{len(extraction)} footprints, {area:,.0f} m², model version {found.version}"
    return {
        "footprints": len(extraction),
        "area_m2": area,
        "version": found.version,
        "out": out and str(out),
        "_lines": [f"{summary}: {out}" if out else text],
    }


def serve(settings: Settings, *, host: str | None, port: int | None, imagery: str | None) -> dict[str, Any]:
    """Run the service under gunicorn until it ends."""
    settings = with_imagery(settings, imagery)
    open_imagery(settings)  # what is wrong with it is better said here than by a server that does not start
    settings = settings.model_copy(update={"host": host or settings.host, "port": port or settings.port})
    process = start_service(settings)
    try:
        return {"exit_code": process.wait()}
    except KeyboardInterrupt:
        return {"exit_code": process.wait()}  # gunicorn has had the same Ctrl-C


def ask(
    settings: Settings, *, coordinate: str | None, zoom: int, imagery: str | None, out: Path | None
) -> dict[str, Any]:
    """Start the service, ask it for footprints, write the answer and a picture of it, stop the service."""
    settings = with_imagery(settings, imagery)
    latitude, longitude = _coordinate(coordinate) if coordinate else _middle(settings)
    out = out or settings.home / "answer"
    body = {"coordinate": {"latitude": latitude, "longitude": longitude}, "zoom": zoom}
    with running_service(settings, log=settings.home.absolute() / "service.log") as address:
        started = time.monotonic()
        answer = requests.post(f"{address}/predict/polygon", json=body, timeout=300)
        seconds = time.monotonic() - started
    content = answer.json()
    if not answer.ok:
        raise RequestError(f"The service answers {answer.status_code}: {content['detail']}", fix=content.get("fix", ""))
    with atomic_path(out / "footprints.geojson") as temporary:
        temporary.write_bytes(answer.content)
    features = content["features"]
    polygons = np.array([shape(feature["geometry"]) for feature in features], object)
    confidence = np.array([feature["properties"]["confidence"] for feature in features], float)
    bounds = tile_at(longitude, latitude, zoom).bounds_3857
    with atomic_path(out / "footprints.png") as temporary:
        temporary.write_bytes(encode_png(draw(open_imagery(settings), bounds, polygons, confidence)))
    version = answer.headers["X-Model-Version"]
    return {
        "footprints": len(features),
        "version": version,
        "seconds": round(seconds, 3),
        "files": [str(out / "footprints.geojson"), str(out / "footprints.png")],
        "_lines": [
            f"The service, with model version {version}, answered {latitude:.5f},{longitude:.5f} "
            f"with {len(features)} footprints in {seconds:.2f} s:",
            f"  {out / 'footprints.geojson'}",
            f"  {out / 'footprints.png'}",
        ],
    }


def aois(settings: Settings) -> dict[str, Any]:
    """The catalogue."""
    catalog = load_catalog(settings.home)
    prepared = set(Lake(settings.home.absolute()).prepared())
    return {
        "aois": [{"name": name, "title": aoi.title, "prepared": name in prepared} for name, aoi in catalog.items()],
        "_lines": [
            f"{name:24} {aoi.title:45} {'prepared' if name in prepared else ''}".rstrip()
            for name, aoi in catalog.items()
        ],
    }


def with_imagery(settings: Settings, imagery: str | None) -> Settings:
    """Settings with the imagery asked for; else as set; else the synthetic city's mosaic when there is one."""
    if imagery is not None:
        return load_settings(home=settings.home, imagery=imagery)
    if "imagery" in settings.model_fields_set or settings.mapbox_access_token is not None:
        return settings
    mosaics = list(Lake(settings.home.absolute()).aoi(SYNTHETIC).raw.glob("*/mosaic.tif"))
    if not mosaics:
        raise SettingsError(
            "No imagery is set.",
            fix="Set MAPBOX_ACCESS_TOKEN, or FOOTPRINT_IMAGERY (--imagery) to an XYZ template or a GeoTIFF.",
        )
    return load_settings(home=settings.home, imagery=str(max(mosaics, key=lambda path: path.stat().st_mtime)))


def _evaluate_registered(
    settings: Settings,
    source: str | None,
    aoi: str | None,
    alias: str | None,
    version: str | None,
    tolerance: float | None,
    skip_bad_labels: bool,
) -> dict[str, Any]:
    registry = Registry(settings.mlflow_uri, settings.model_name)
    found = registry.resolve(alias=None if version else alias or CHAMPION, version=version)
    from footprint_pipeline.stages.scoring import score_on_source, score_on_test_splits

    model = registry.pull(version=found.version, into=settings.home.absolute() / "pulled")
    if source is not None:
        area = resolve_source(source, settings.home)
        area = replace(area, name=aoi or area.name)
        scores = score_on_source(settings, model, area, tolerance=tolerance, skip_bad_labels=skip_bad_labels)
    else:
        scores = score_on_test_splits(settings, model, [aoi] if aoi else [], tolerance=tolerance)
    names = sorted(scores.by_aoi["aoi"])
    return {
        "version": found.version,
        "aois": names,
        "tiles": len(scores.tiles),
        **scores.metrics(),
        "by_aoi": scores.by_aoi.to_dict("records"),
        "_lines": [f"{found.name} version {found.version} on {len(scores.tiles)} tiles of {', '.join(names)}:",
                   *_scores(scores.metrics())],
    }  # fmt: skip


def _scores(metrics: dict[str, float]) -> list[str]:
    return [
        f"  median pixel F1 of the tiles with buildings  {metrics['median_tile_f1']:.4f}",
        f"  pixel F1 of all tiles as one                 {metrics['pooled_pixel_f1']:.4f}",
        f"  building F1 (SpaceNet, IoU >= 0.5)           {metrics['building_f1']:.4f}",
    ]


def _middle(settings: Settings) -> tuple[float, float]:
    """Latitude and longitude of the middle of the imagery, where it has one."""
    extent = open_imagery(settings).extent_wgs84
    if extent is None:
        raise RequestError("The imagery covers the world; where to look?", fix="Give --at LAT,LON.")
    return (extent.bottom + extent.top) / 2, (extent.left + extent.right) / 2


def _coordinate(text: str) -> tuple[float, float]:
    try:
        latitude, longitude = (float(part) for part in text.split(","))
    except ValueError:
        raise RequestError(f"--at {text!r} is not LAT,LON.", fix="Give degrees, as in --at 5.585,-0.2.") from None
    if not (-85 <= latitude <= 85 and -180 <= longitude <= 180):
        raise RequestError(
            f"--at {text}: latitude {latitude} or longitude {longitude} is off the map.",
            fix="Latitude comes first and lies within ±85 degrees, longitude within ±180.",
        )
    return latitude, longitude
