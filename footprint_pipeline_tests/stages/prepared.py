"""A small synthetic city, prepared as the pipeline does it."""

from pathlib import Path

import rasterio

from footprint_pipeline.dataset.spec import SplitSpec
from footprint_pipeline.lake import AoiFolder, Lake
from footprint_pipeline.settings import Settings
from footprint_pipeline.spacenet.sources import resolve_source
from footprint_pipeline.spacenet.synthetic.city import CitySpec, write_city
from footprint_pipeline.stages.data import collect_polygons, draw_masks, fetch_tiles, split_tiles

AOI = "AOI_0_Synthetic"
TILES = 8


def prepare_city(home: Path, *, dtype: str = "uint8") -> AoiFolder:
    """Tiles, polygons, masks and split of `TILES` tiles under a home; pixels of other types are four times as high."""
    source = write_city(home / "source", CitySpec(rows=2, columns=4, tile_height=160, tile_width=176)).folder
    if dtype != "uint8":
        for path in source.rglob("3band*.tif"):
            with rasterio.open(path) as tile:
                pixels, profile = tile.read(), tile.profile
            with rasterio.open(path, "w", **{**profile, "dtype": dtype}) as tile:
                tile.write(4 * pixels.astype(dtype))
    folder = Lake(home).aoi(AOI)
    fetch_tiles(Settings(home=home), resolve_source(str(source), home), folder, tiles=None, on_bad_tile="fail")
    collect_polygons(folder, skip_bad_labels=False)
    draw_masks(folder)
    split_tiles(folder, SplitSpec())
    return folder
