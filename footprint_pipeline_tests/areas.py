"""AOIs of one's own, written as people write them: a name and a source."""

from collections.abc import Sequence
from pathlib import Path

from footprint_pipeline.spacenet.areas import Aoi, Part, Patterns, Source, normal_uri
from footprint_pipeline.spacenet.own_areas import write_aoi


def add_aoi(
    home: Path,
    name: str,
    source: str | Sequence[str],
    *,
    title: str | None = None,
    gsd_m: float | None = None,
    licence: str | None = None,
    endpoint_url: str | None = None,
    patterns: Patterns | None = None,
) -> Aoi:
    """Write an AOI to `<home>/aois.yaml`: of a folder, a .tar.gz, an s3:// URI, or archives that belong together."""
    parts = tuple(Part(normal_uri(uri, Path.cwd())) for uri in ([source] if isinstance(source, str) else source))
    aoi = Aoi(name, title or name, (Source(parts),), gsd_m, licence or "", "", endpoint_url, patterns)
    return write_aoi(home, aoi)
