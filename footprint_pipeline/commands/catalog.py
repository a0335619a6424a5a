"""The command that lists what there is to prepare."""

from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

from footprint_pipeline.settings import Settings
from footprint_pipeline.spacenet.areas import SYNTHETIC_URI, Aoi
from footprint_pipeline.spacenet.catalog import BUILT_IN, load_catalog

_HEADER = ("NAME", "TITLE", "GSD", "DOWNLOAD", "LICENCE", "PREPARED", "FROM")


def aois(settings: Settings) -> dict[str, Any]:
    """The catalogue: names, titles, ground sample distances, sizes, licences, sources, and what is prepared."""
    catalog = load_catalog(settings.home)
    prepared = set(settings.lake.prepared())
    rows = [_HEADER, *(_row(aoi, prepared=name in prepared) for name, aoi in catalog.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return {
        "aois": [_described(aoi, prepared=name in prepared) for name, aoi in catalog.items()],
        "_lines": [*lines, "", "Prepare and train on one: footprint run --source NAME [--tiles N]"],
    }


def _row(aoi: Aoi, *, prepared: bool) -> tuple[str, ...]:
    gsd = f"{aoi.gsd_m:g} m" if aoi.gsd_m else "-"
    return (aoi.name, aoi.title, gsd, _download(aoi), aoi.licence or "-", "yes" if prepared else "-", _place(aoi))


def _download(aoi: Aoi) -> str:
    """Bytes to fetch, for people."""
    source = aoi.sources[0]
    if not any(uri.startswith("s3://") for uri in source.uris):
        return "-"
    if source.size is None:
        return "unknown"
    return f"{source.size / 1e9:.1f} GB" if source.size >= 1e9 else f"{max(source.size / 1e6, 0.1):.1f} MB"


def _place(aoi: Aoi) -> str:
    """Where it comes from, in a few words."""
    uri = aoi.sources[0].uris[0]
    if uri == SYNTHETIC_URI:
        return "drawn here"
    if not uri.startswith("s3://"):
        return uri
    server = _server(aoi)
    return "/".join(uri.split("/")[:3]) + (f" at {server}" if server else "")


def _server(aoi: Aoi) -> str | None:
    """Host and port of an AOI's own server, without any credentials in its URL."""
    return urlsplit(aoi.endpoint_url).netloc.rpartition("@")[2] if aoi.endpoint_url else None


def _described(aoi: Aoi, *, prepared: bool) -> dict[str, Any]:
    """All that is known of an AOI, for programs."""
    return {
        "name": aoi.name,
        "title": aoi.title,
        "prepared": prepared,
        "built_in": aoi == BUILT_IN.get(aoi.name),
        "gsd_m": aoi.gsd_m,
        "size": aoi.sources[0].size,
        "md5_known": all(part.md5 is not None for part in aoi.sources[0].parts),
        "licence": aoi.licence,
        "notes": aoi.notes,
        "server": _server(aoi),
        "patterns": asdict(aoi.patterns) if aoi.patterns else None,
        "sources": [asdict(source) for source in aoi.sources],
    }
