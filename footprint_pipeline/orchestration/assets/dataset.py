"""From labels to split manifests, one AOI a partition."""

from pathlib import Path

import dagster as dg
from pydantic import Field

from footprint_pipeline.dataset.splits import SplitSpec
from footprint_pipeline.orchestration.resources import Workplace

_SPLIT = SplitSpec()


class PolygonsConfig(dg.Config):
    """How to read labels."""

    skip_bad_labels: bool = Field(
        False, description="Leave out labels that cannot be read or belong to no tile; they are listed in a CSV."
    )


class SplitConfig(dg.Config):
    """How to share tiles out."""

    train: float = Field(_SPLIT.train, description="Share of the tiles to train on.")
    validation: float = Field(_SPLIT.validation, description="Share to stop early and choose the tolerance on.")
    test: float = Field(_SPLIT.test, description="Share to judge on.")
    seed: int = Field(_SPLIT.seed, description="Another seed is another split.")
    drop_empty: bool = Field(_SPLIT.drop_empty, description="Leave out tiles without a building, as the article does.")


def dataset_assets(aois: dg.PartitionsDefinition) -> list[dg.AssetsDefinition]:
    """The assets of this stage."""

    @dg.asset(partitions_def=aois, group_name="dataset", kinds={"geopandas", "parquet"}, deps=["image_tiles"])
    def building_polygons(
        context: dg.AssetExecutionContext, config: PolygonsConfig, workplace: Workplace
    ) -> dg.MaterializeResult:
        """Building polygons as GeoParquet: WGS 84 and pixel geometry, geodesic area in m² and square feet."""
        from footprint_pipeline.orchestration.metadata import table
        from footprint_pipeline.stages.data import collect_polygons

        folder = workplace.folder(context.partition_key)
        collected = collect_polygons(folder, skip_bad_labels=config.skip_bad_labels)
        polygons, labels = collected.polygons, collected.labels
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": len(polygons.table),
                "area_m2_sum": float(polygons.table["area_m2"].sum()),
                "area_m2_median": float(polygons.table["area_m2"].median()) if len(polygons.table) else 0.0,
                "repaired": labels.repaired,
                "rejected": len(labels.rejected),
                "slivers_dropped": labels.slivers,
                "clipped_at_tile_edge": polygons.clipped,
                "outside_their_tile": polygons.outside,
                "path": dg.MetadataValue.path(folder.polygons),
                "sample": table(polygons.table[["tile_id", "building_id", "area_m2", "area_sqft"]].head(5)),
            }
        )

    @dg.asset(
        partitions_def=aois,
        group_name="dataset",
        kinds={"rasterio", "geotiff"},
        deps=["image_tiles", building_polygons],
    )
    def mask_tiles(context: dg.AssetExecutionContext, workplace: Workplace) -> dg.MaterializeResult:
        """Building masks, one GeoTIFF beside each image tile, on the tile's own grid."""
        from footprint_pipeline.dataset.masks import mask_path, read_mask
        from footprint_pipeline.dataset.tiles import normalization, read_tile, read_tile_index
        from footprint_pipeline.evaluation.reports import preview
        from footprint_pipeline.orchestration.metadata import picture
        from footprint_pipeline.stages.data import draw_masks

        folder = workplace.folder(context.partition_key)
        summary = draw_masks(folder)
        shown = [
            image
            for row in list(read_tile_index(folder.tiles).itertuples())[:3]
            for image in (
                normalization(row).to_uint8(read_tile(Path(row.path))[0]),
                read_mask(mask_path(folder.masks, row.tile_id)),
            )
        ]
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": summary.tiles,
                "building_pixels": summary.building_pixels,
                "building_share": summary.building_pixels / max(summary.pixels, 1),
                "path": dg.MetadataValue.path(folder.masks),
                "preview": picture(preview(shown)),
            }
        )

    @dg.asset(
        partitions_def=aois,
        group_name="dataset",
        kinds={"parquet"},
        deps=["image_tiles", building_polygons, mask_tiles],
    )
    def split_manifests(
        context: dg.AssetExecutionContext, config: SplitConfig, workplace: Workplace
    ) -> dg.MaterializeResult:
        """Which tile teaches, which one tunes, which one judges: 70/10/20, grouped by tile, seeded."""
        from footprint_pipeline.orchestration.metadata import table
        from footprint_pipeline.stages.data import split_tiles

        folder = workplace.folder(context.partition_key)
        manifest, digest = split_tiles(folder, SplitSpec(**config.model_dump()))
        summary = manifest.groupby("split").agg(
            tiles=("tile_id", "size"), buildings=("buildings", "sum"), building_share=("building_share", "mean")
        )
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": len(manifest),
                "digest": digest,
                "split": table(summary.reset_index()),
                "path": dg.MetadataValue.path(folder.manifest),
            }
        )

    return [building_polygons, mask_tiles, split_manifests]
