"""The asset checks: one op an asset, so that its tables are read once. What they look for: `dataset.checks`.

They run with their asset. They are no subsets on purpose: the UI would then offer to run them by themselves, and
starts such a run without a partition.
"""

import warnings
from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from footprint_pipeline.dataset.checks.run import CHECKS, Asset, run_checks
from footprint_pipeline.dataset.checks.spec import CheckSpec
from footprint_pipeline.orchestration.resources import Workplace

_SPEC = CheckSpec()


class TileLimits(dg.Config):
    """What is fine in image tiles."""

    min_side_px: int = Field(_SPEC.min_side_px, description="A tile is at least so wide and so high, pixels.")
    min_gsd_m: float = Field(_SPEC.min_gsd_m, description="Ground size of a pixel, metres, at least.")
    max_gsd_m: float = Field(_SPEC.max_gsd_m, description="Ground size of a pixel, metres, at most.")
    side_spread_px: int = Field(_SPEC.side_spread_px, description="Pixels between a tile's side and the usual.")
    gsd_spread: float = Field(_SPEC.gsd_spread, description="Share between a tile's pixel size and the usual.")
    min_valid_share: float = Field(_SPEC.min_valid_share, description="Share of the pixels with imagery, at least.")


class LabelLimits(dg.Config):
    """What is fine in labels."""

    max_lost_share: float = Field(_SPEC.max_lost_share, description="Share rejected or outside their tile, at most.")
    max_repaired_share: float = Field(_SPEC.max_repaired_share, description="Share that needed repair, at most.")
    max_unlabelled_share: float = Field(_SPEC.max_unlabelled_share, description="Share of tiles without a label row.")


class MaskLimits(dg.Config):
    """What is fine in masks."""

    sample_tiles: int = Field(_SPEC.sample_tiles, description="How many masks are compared with their polygons.", ge=1)
    seed: int = Field(_SPEC.seed, description="Another seed is another sample.")
    tile_area_tolerance: float = Field(_SPEC.tile_area_tolerance, description="Share of a tile's building area.")
    aoi_area_tolerance: float = Field(_SPEC.aoi_area_tolerance, description="Share of all sampled building area.")
    area_tolerance_px: float = Field(_SPEC.area_tolerance_px, description="And so many pixels a tile.")


class SplitLimits(dg.Config):
    """What is fine in splits."""

    min_coverage: float = Field(_SPEC.min_coverage, description="Share of building pixels, at least.")
    max_coverage: float = Field(_SPEC.max_coverage, description="Share of building pixels, at most.")
    min_tiles_with_buildings: int = Field(_SPEC.min_tiles_with_buildings, description="In each split, at least.")


def data_checks(aois: dg.PartitionsDefinition) -> list[dg.AssetChecksDefinition]:
    """The checks of the data assets, one partition an AOI like them."""

    @dg.multi_asset_check(specs=_specs("image_tiles", aois))
    def image_tiles_checks(
        context: dg.AssetCheckExecutionContext, config: TileLimits, workplace: Workplace
    ) -> Iterator[dg.AssetCheckResult]:
        yield from _results("image_tiles", context, config, workplace)

    @dg.multi_asset_check(specs=_specs("building_polygons", aois))
    def building_polygons_checks(
        context: dg.AssetCheckExecutionContext, config: LabelLimits, workplace: Workplace
    ) -> Iterator[dg.AssetCheckResult]:
        yield from _results("building_polygons", context, config, workplace)

    @dg.multi_asset_check(specs=_specs("mask_tiles", aois))
    def mask_tiles_checks(
        context: dg.AssetCheckExecutionContext, config: MaskLimits, workplace: Workplace
    ) -> Iterator[dg.AssetCheckResult]:
        yield from _results("mask_tiles", context, config, workplace)

    @dg.multi_asset_check(specs=_specs("split_manifests", aois))
    def split_manifests_checks(
        context: dg.AssetCheckExecutionContext, config: SplitLimits, workplace: Workplace
    ) -> Iterator[dg.AssetCheckResult]:
        yield from _results("split_manifests", context, config, workplace)

    return [image_tiles_checks, building_polygons_checks, mask_tiles_checks, split_manifests_checks]


def _specs(asset: Asset, aois: dg.PartitionsDefinition) -> list[dg.AssetCheckSpec]:
    with warnings.catch_warnings():
        # Without its partitions a check would be of "the last AOI prepared", whichever that was.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return [
            dg.AssetCheckSpec(
                check.name, asset=asset, description=check.question, blocking=check.blocking, partitions_def=aois
            )
            for check in CHECKS
            if check.asset == asset
        ]


def _results(
    asset: Asset, context: dg.AssetCheckExecutionContext, limits: dg.Config, workplace: Workplace
) -> Iterator[dg.AssetCheckResult]:
    for result in run_checks(workplace.folder(context.partition_key), asset, CheckSpec(**limits.model_dump())):
        yield dg.AssetCheckResult(
            check_name=result.name,
            passed=result.passed,
            severity=dg.AssetCheckSeverity.ERROR if result.blocking else dg.AssetCheckSeverity.WARN,
            description=result.description,
            metadata={**result.numbers, **({"fix": dg.MetadataValue.text(result.fix)} if result.fix else {})},
        )
