"""Draw the synthetic city that the service shows until it is given imagery of its own."""

from footprint_pipeline.settings import load_settings
from footprint_pipeline.spacenet.catalog import BUILT_IN
from footprint_pipeline.spacenet.sources import fetch

CITY = BUILT_IN["AOI_0_Synthetic"]

settings = load_settings()
if "imagery" in settings.model_fields_set:
    print("FOOTPRINT_IMAGERY is set: no city is needed.")
else:
    fetch(CITY, settings.lake.aoi(CITY.name).raw, settings=settings)
    print(f"{CITY.name} is there.")
