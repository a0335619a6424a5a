"""From a source to tiles on disk, one AOI a partition."""

from pathlib import Path
from typing import Literal

import dagster as dg
from pydantic import Field

from footprint_pipeline.orchestration.resources import Workplace


class ImageTilesConfig(dg.Config):
    """Which tiles to take."""

    tiles: int | None = Field(None, description="The first so many tiles only; all when empty.", gt=0)
    on_bad_tile: Literal["skip", "fail"] = Field(
        "skip", description="What to do about a tile that cannot be read: go on without it (named), or stop."
    )


def ingest_assets(aois: dg.PartitionsDefinition) -> list[dg.AssetsDefinition]:
    """The assets of this stage."""

    @dg.asset(partitions_def=aois, group_name="ingest", kinds={"s3", "geotiff"})
    def image_tiles(
        context: dg.AssetExecutionContext, config: ImageTilesConfig, workplace: Workplace
    ) -> dg.MaterializeResult:
        """RGB image tiles of one AOI: from S3, a folder, archives, or generated. With an index of their grids."""
        from footprint_pipeline.dataset.tiles import normalization, read_tile
        from footprint_pipeline.evaluation.reports import preview
        from footprint_pipeline.orchestration.metadata import picture
        from footprint_pipeline.stages.data import area_km2, fetch_tiles

        name = context.partition_key
        layout, index = fetch_tiles(
            workplace.settings,
            workplace.aoi(name),
            workplace.folder(name),
            tiles=config.tiles,
            on_bad_tile=config.on_bad_tile,
        )
        tiles = index.table
        rows = list(tiles.itertuples())
        shown = [rows[len(rows) * i // 5] for i in range(min(5, len(rows)))]
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": len(tiles),
                "area_km2": area_km2(tiles),
                "gsd_m": float((tiles["gsd_x_m"] * tiles["gsd_y_m"]).pow(0.5).median()),
                "bits": ", ".join(sorted(set(tiles["dtype"]))),
                "valid_share": float(tiles["valid_share"].mean()),
                "source": layout.source or str(layout.folder),
                "layout": layout.kind,
                "skipped": dg.MetadataValue.md("\n".join(f"- {reason}" for _, reason in index.skipped) or "none"),
                "preview": picture(preview([normalization(r).to_uint8(read_tile(Path(r.path))[0]) for r in shown])),
            }
        )

    return [image_tiles]
