"""From labels to split manifests, one AOI a partition."""

from dataclasses import asdict
from pathlib import Path

import dagster as dg
from pydantic import Field

from footprint_pipeline.dataset.spec import MaskSpec, PolygonSpec, SplitSpec
from footprint_pipeline.orchestration.configs import config_of
from footprint_pipeline.orchestration.resources import Workplace


class PolygonsConfig(config_of(PolygonSpec())):  # type: ignore[misc]
    """How to read labels, and which to keep."""

    skip_bad_labels: bool = Field(
        False, description="Leave out labels that cannot be read or belong to no tile; they are listed in a CSV."
    )


class MaskConfig(config_of(MaskSpec())):  # type: ignore[misc]
    """Which bands masks have beside the building's own."""


class SplitConfig(config_of(SplitSpec())):  # type: ignore[misc]
    """How to share tiles out."""

    assigned: str | None = Field(
        None,
        description="Share tiles out as this CSV says instead: columns tile_id and split, and aoi where there are "
        "several. Tiles that it does not name are left out.",
    )


def dataset_assets(aois: dg.PartitionsDefinition) -> list[dg.AssetsDefinition]:
    """The assets of this stage."""

    @dg.asset(partitions_def=aois, group_name="dataset", kinds={"geopandas", "parquet"}, deps=["image_tiles"])
    def building_polygons(
        context: dg.AssetExecutionContext, config: PolygonsConfig, workplace: Workplace
    ) -> dg.MaterializeResult:
        """Building polygons as GeoParquet along a Hilbert curve: geometry in WGS 84 and pixels, geodesic area."""
        import pandas as pd

        from footprint_pipeline.orchestration.metadata import table
        from footprint_pipeline.stages.data import collect_polygons

        folder = workplace.folder(context.partition_key)
        collected = collect_polygons(folder, skip_bad_labels=config.skip_bad_labels, spec=config.spec())
        polygons, counts = collected.polygons, collected.counts
        shift = polygons.pixel_shift
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": len(polygons.table),
                "area_m2_sum": float(polygons.table["area_m2"].sum()),
                "area_m2_median": float(polygons.table["area_m2"].median()) if len(polygons.table) else 0.0,
                "repaired": counts.repaired,
                "rejected": counts.rejected,
                "slivers_dropped": counts.slivers,
                "too_small": polygons.too_small,
                "within_another": counts.covered,
                "clipped_at_tile_edge": counts.clipped,
                "outside_their_tile": counts.outside,
                "tiles_without_any_label": len(counts.unlabelled),
                **({"pixels_against_degrees": table(pd.DataFrame([asdict(shift)]))} if shift else {}),
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
    def mask_tiles(context: dg.AssetExecutionContext, config: MaskConfig, workplace: Workplace) -> dg.MaterializeResult:
        """Building masks, one GeoTIFF an image tile, on the tile's own grid; with bands of borders and contacts."""
        from footprint_pipeline.dataset.masks import mask_path, read_mask
        from footprint_pipeline.dataset.tiles import normalization, read_tile, read_tile_index
        from footprint_pipeline.evaluation.reports import preview
        from footprint_pipeline.orchestration.metadata import picture
        from footprint_pipeline.stages.data import draw_masks

        folder = workplace.folder(context.partition_key)
        summary = draw_masks(folder, config.spec())
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
        """Which tile teaches, which one tunes, which one judges: shared out by blocks of ground, by a seeded hash."""
        from footprint_pipeline.dataset.splits import block_size, split_summary
        from footprint_pipeline.orchestration.metadata import table
        from footprint_pipeline.stages.data import split_tiles

        folder = workplace.folder(context.partition_key)
        manifest, digest = split_tiles(
            folder, config.spec(), assigned=Path(config.assigned) if config.assigned else None
        )
        in_force = block_size(manifest)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": len(manifest),
                "digest": digest,
                "block": f"{in_force:g} m" if in_force else "each tile its own",
                "split": table(split_summary(manifest)),
                "path": dg.MetadataValue.path(folder.manifest),
            }
        )

    return [building_polygons, mask_tiles, split_manifests]
