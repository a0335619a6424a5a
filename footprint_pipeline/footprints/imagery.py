"""Where the pixels of a place come from: one door to every provider of imagery."""

from footprint_pipeline.errors import SettingsError
from footprint_pipeline.footprints.geotiff import GeoTiffImagery
from footprint_pipeline.footprints.patch import Imagery, Patch
from footprint_pipeline.footprints.xyz import MapboxImagery, XyzImagery
from footprint_pipeline.settings import Settings

__all__ = ["GeoTiffImagery", "Imagery", "MapboxImagery", "Patch", "XyzImagery", "open_imagery"]


def open_imagery(settings: Settings) -> Imagery:
    """The imagery that the settings name: 'mapbox', an XYZ template, or a GeoTIFF.

    Raises:
        SettingsError: the token or the file is missing, or the template makes no sense.
    """
    if settings.imagery == "mapbox":
        if settings.mapbox_access_token is None:
            raise SettingsError(
                "MAPBOX_ACCESS_TOKEN: missing, and the imagery is Mapbox.",
                fix="Set the token, or set FOOTPRINT_IMAGERY to an XYZ template or a GeoTIFF.",
            )
        return MapboxImagery(settings.mapbox_access_token, max_zoom=settings.imagery_max_zoom)
    if "{z}" in settings.imagery:
        return XyzImagery(
            settings.imagery,
            min_zoom=settings.imagery_min_zoom,
            max_zoom=settings.imagery_max_zoom,
            attribution=settings.imagery_attribution,
        )
    return GeoTiffImagery(settings.imagery, attribution=settings.imagery_attribution)
