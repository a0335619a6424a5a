"""Commands that answer with the footprints of a place: predict, serve, ask."""

import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import requests
from shapely.geometry import shape

from footprint_pipeline.commands.lines import command_for
from footprint_pipeline.errors import RequestError, SettingsError
from footprint_pipeline.files import atomic_path
from footprint_pipeline.footprints.domain import BEYOND
from footprint_pipeline.footprints.extract import extract
from footprint_pipeline.footprints.imagery import open_imagery
from footprint_pipeline.footprints.mercator import Bounds, tile_at
from footprint_pipeline.footprints.patch import Imagery
from footprint_pipeline.footprints.picture import draw, encode_png
from footprint_pipeline.footprints.regularize import Outline
from footprint_pipeline.footprints.runtime import Runtime
from footprint_pipeline.footprints.spec import ModelSpec
from footprint_pipeline.footprints.tables import BY_SUFFIX, as_file
from footprint_pipeline.footprints.unlike import unlike_patch
from footprint_pipeline.footprints.writers import feature_collection, out_of_domain
from footprint_pipeline.local_service import on_signals, running_service, start_service
from footprint_pipeline.registry import CHAMPION, Registry
from footprint_pipeline.settings import Settings, load_settings
from footprint_pipeline.spacenet.catalog import SYNTHETIC
from footprint_pipeline.stages.data import fetched

log = logging.getLogger(__name__)

_GEOJSON = (".geojson", ".json")
_LOOK_PX = 512


def predict(
    settings: Settings,
    *,
    coordinate: str,
    zoom: int,
    tolerance: float | None,
    outline: Outline,
    imagery: str | None,
    alias: str | None,
    out: Path | None,
    picture: Path | None,
) -> dict[str, Any]:
    """Footprints around a coordinate, by the registered model."""
    latitude, longitude = _coordinate(coordinate)
    form = _form(out) if out is not None else None
    registry = Registry.of(settings)
    found = registry.resolve(alias=alias or CHAMPION)
    runtime = Runtime(registry.pull(version=found.version, into=settings.lake.pulled))
    source = open_imagery(with_imagery(settings, imagery))
    bounds = tile_at(longitude, latitude, zoom).bounds_3857
    extraction = extract(runtime, source, bounds, tolerance=tolerance, outline=outline)
    collection = feature_collection(
        extraction, runtime.spec, model_version=found.version, attribution=source.attribution
    )
    _warn_if_unlike(extraction.raster.profile.out_of_domain, runtime.spec, source, bounds)
    text = json.dumps(collection)
    if out is not None:
        with atomic_path(out) as temporary:
            temporary.write_bytes(as_file(collection, form) if form else text.encode())
    if picture is not None:
        with atomic_path(picture) as temporary:
            temporary.write_bytes(encode_png(draw(source, bounds, extraction.polygons_wgs84, extraction.confidence)))
    area = float(extraction.area_m2.sum())
    summary = f"{len(extraction)} footprints, {area:,.0f} m², model version {found.version}"
    return {
        "footprints": len(extraction),
        "area_m2": area,
        "version": found.version,
        **out_of_domain(extraction.raster.profile),
        "out": out and str(out),
        **({"_lines": [f"{summary}: {out}"]} if out else {"collection": collection, "_text": text}),
    }


def serve(settings: Settings, *, host: str | None, port: int | None, imagery: str | None) -> dict[str, Any]:
    """Run the service under gunicorn until it ends."""
    settings = with_imagery(settings, imagery)
    open_imagery(settings)  # what is wrong with it is better said here than by a server that does not start
    settings = settings.model_copy(update={"host": host or settings.host, "port": port or settings.port})
    process = start_service(settings)
    try:
        with on_signals(process.terminate):
            return {"exit_code": process.wait()}
    except KeyboardInterrupt:
        process.terminate()  # gunicorn has had the same Ctrl-C, but not a signal for this process alone
        return {"exit_code": process.wait()}


def ask(
    settings: Settings, *, coordinate: str | None, zoom: int, imagery: str | None, out: Path | None
) -> dict[str, Any]:
    """Start the service, ask it for footprints, write the answer and a picture of it, stop the service."""
    settings = with_imagery(settings, imagery)
    latitude, longitude = _coordinate(coordinate) if coordinate else _middle(settings)
    out = out or settings.home / "answer"
    body = {"coordinate": {"latitude": latitude, "longitude": longitude}, "zoom": zoom}
    with running_service(settings, log=settings.home.absolute() / "service.log") as address:
        requests.post(f"{address}/v1/model/refresh", timeout=300)  # it starts with what served last
        started = time.monotonic()
        answer = requests.post(f"{address}/v1/footprints", json=body, timeout=300)
        seconds = time.monotonic() - started
        model = requests.get(f"{address}/v1/model", timeout=300).json()
    content = answer.json()
    if not answer.ok:
        raise RequestError(f"The service answers {answer.status_code}: {content['detail']}", fix=content.get("fix", ""))
    with atomic_path(out / "footprints.geojson") as temporary:
        temporary.write_bytes(answer.content)
    features = content["features"]
    polygons = np.array([shape(feature["geometry"]) for feature in features], object)
    confidence = np.array([feature["properties"]["confidence"] for feature in features], float)
    bounds, source = tile_at(longitude, latitude, zoom).bounds_3857, open_imagery(settings)
    _warn_if_unlike(content.get("out_of_domain"), ModelSpec.model_validate(model["spec"]), source, bounds)
    with atomic_path(out / "footprints.png") as temporary:
        temporary.write_bytes(encode_png(draw(source, bounds, polygons, confidence)))
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
            f"On a map: {command_for(settings, 'serve')}, then http://127.0.0.1:{settings.port}",
        ],
    }


def with_imagery(settings: Settings, imagery: str | None) -> Settings:
    """Settings with the imagery asked for; else as set; else the synthetic city's mosaic when there is one."""
    if imagery is not None:
        return load_settings(home=settings.home, imagery=imagery).model_copy(update={"imagery_sources": None})
    if {"imagery", "imagery_sources"} & settings.model_fields_set or settings.mapbox_access_token is not None:
        return settings
    layout = fetched(settings.lake.aoi(SYNTHETIC))
    if layout is None or not (mosaic := layout.folder / "mosaic.tif").exists():
        raise SettingsError(
            "No imagery is set.",
            fix="Set MAPBOX_ACCESS_TOKEN, or FOOTPRINT_IMAGERY (--imagery) to an XYZ template or a GeoTIFF.",
        )
    return load_settings(home=settings.home, imagery=str(mosaic))


def _warn_if_unlike(out_of_domain: float | None, spec: ModelSpec, imagery: Imagery, bounds_3857: Bounds) -> None:
    """Look at a place that is out of domain, and say so where it is far from all that the model was trained on."""
    if out_of_domain is None or out_of_domain < BEYOND:
        return
    if told := unlike_patch(spec, imagery.read(bounds_3857, _LOOK_PX, _LOOK_PX)):
        log.warning("%s", told)


def _form(out: Path) -> str | None:
    """The media type of a file that is no GeoJSON, by how its name ends."""
    suffix = out.suffix.lower()
    if suffix not in (*_GEOJSON, *BY_SUFFIX):
        raise SettingsError(
            f"{out}: its name does not say what it is to hold.",
            fix=f"Let it end in {', '.join(_GEOJSON)} (GeoJSON), {', '.join(BY_SUFFIX)}.",
        )
    return BY_SUFFIX.get(suffix)


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
