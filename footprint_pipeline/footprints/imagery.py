"""Where the pixels of a place come from: one door to every provider of imagery."""

from footprint_pipeline.errors import SettingsError
from footprint_pipeline.footprints.patch import Imagery
from footprint_pipeline.footprints.sources import ImagerySources, SourceSpec, is_template, read_sources
from footprint_pipeline.footprints.tile_cache import TileCache
from footprint_pipeline.settings import Settings


def open_sources(settings: Settings) -> ImagerySources:
    """The imagery that a service may be asked for: that of the sources' file, else the one that the settings name.

    Tiles are kept in the settings' cache, which all sources share.

    Raises:
        SettingsError: a token or a file is missing, or a template makes no sense.
    """
    limit_bytes = settings.imagery_cache_mb << 20
    cache = TileCache(settings.imagery_cache_folder, limit_bytes=limit_bytes) if limit_bytes else TileCache()
    if settings.imagery_sources is not None:
        return read_sources(settings.imagery_sources, cache=cache)
    return ImagerySources({"default": _source(settings).open(cache=cache)}, default="default")


def open_imagery(settings: Settings) -> Imagery:
    """The imagery that answers those who name none; see `open_sources`."""
    return open_sources(settings).default


def _source(settings: Settings) -> SourceSpec:
    """What FOOTPRINT_IMAGERY names: 'mapbox', a template of tiles, or a GeoTIFF."""
    zooms = {"min_zoom": settings.imagery_min_zoom, "max_zoom": settings.imagery_max_zoom}
    credit = {"attribution": settings.imagery_attribution}
    if settings.imagery == "mapbox":
        token = settings.mapbox_access_token
        if token is None:
            raise SettingsError(
                "MAPBOX_ACCESS_TOKEN: missing, and the imagery is Mapbox.",
                fix="Set the token, or set FOOTPRINT_IMAGERY to an XYZ template or a GeoTIFF.",
            )
        return SourceSpec.model_validate({"mapbox": token.get_secret_value(), **zooms})
    if is_template(settings.imagery):
        return SourceSpec.model_validate({"url": settings.imagery, **zooms, **credit})
    return SourceSpec.model_validate({"path": settings.imagery, **credit})
