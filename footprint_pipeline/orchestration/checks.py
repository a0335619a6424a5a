"""The asset checks: one op an asset, so that its tables are read once. What they look for: `dataset.checks`.

They run with their asset. They are no subsets on purpose: the UI would then offer to run them by themselves, and
starts such a run without a partition.
"""

import warnings
from collections.abc import Iterator

import dagster as dg

from footprint_pipeline.dataset.checks.run import CHECKS, Asset, run_checks
from footprint_pipeline.dataset.checks.spec import CheckSpec
from footprint_pipeline.orchestration.configs import config_of
from footprint_pipeline.orchestration.resources import Workplace

_LIMITS = CheckSpec()
_OF_TILES = ("min_side_px", "min_gsd_m", "max_gsd_m", "side_spread_px", "gsd_spread", "min_valid_share")
_OF_LABELS = ("max_lost_share", "max_repaired_share", "max_unlabelled_share")
_OF_MASKS = ("sample_tiles", "seed", "tile_area_tolerance", "aoi_area_tolerance", "area_tolerance_px")
_OF_SPLITS = ("min_coverage", "max_coverage", "min_tiles_with_buildings")


class TileLimits(config_of(_LIMITS, only=_OF_TILES)):  # type: ignore[misc]
    """What is fine in image tiles."""


class LabelLimits(config_of(_LIMITS, only=_OF_LABELS)):  # type: ignore[misc]
    """What is fine in labels."""


class MaskLimits(config_of(_LIMITS, only=_OF_MASKS)):  # type: ignore[misc]
    """What is fine in masks."""


class SplitLimits(config_of(_LIMITS, only=_OF_SPLITS)):  # type: ignore[misc]
    """What is fine in splits."""


def data_checks(aois: dg.PartitionsDefinition) -> list[dg.AssetChecksDefinition]:
    """The checks of the data assets, one partition an AOI like them."""

    @dg.multi_asset_check(specs=_specs("image_tiles", aois))
    def image_tiles_checks(
        context: dg.AssetCheckExecutionContext, config: TileLimits, workplace: Workplace
    ) -> Iterator[dg.AssetCheckResult]:
        yield from _results("image_tiles", context, config.spec(), workplace)

    @dg.multi_asset_check(specs=_specs("building_polygons", aois))
    def building_polygons_checks(
        context: dg.AssetCheckExecutionContext, config: LabelLimits, workplace: Workplace
    ) -> Iterator[dg.AssetCheckResult]:
        yield from _results("building_polygons", context, config.spec(), workplace)

    @dg.multi_asset_check(specs=_specs("mask_tiles", aois))
    def mask_tiles_checks(
        context: dg.AssetCheckExecutionContext, config: MaskLimits, workplace: Workplace
    ) -> Iterator[dg.AssetCheckResult]:
        yield from _results("mask_tiles", context, config.spec(), workplace)

    @dg.multi_asset_check(specs=_specs("split_manifests", aois))
    def split_manifests_checks(
        context: dg.AssetCheckExecutionContext, config: SplitLimits, workplace: Workplace
    ) -> Iterator[dg.AssetCheckResult]:
        yield from _results("split_manifests", context, config.spec(), workplace)

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
    asset: Asset, context: dg.AssetCheckExecutionContext, limits: CheckSpec, workplace: Workplace
) -> Iterator[dg.AssetCheckResult]:
    for result in run_checks(workplace.folder(context.partition_key), asset, limits):
        yield dg.AssetCheckResult(
            check_name=result.name,
            passed=result.passed,
            severity=dg.AssetCheckSeverity.ERROR if result.blocking else dg.AssetCheckSeverity.WARN,
            description=result.description,
            metadata={**result.numbers, **({"fix": dg.MetadataValue.text(result.fix)} if result.fix else {})},
        )
