"""The checks of an AOI's prepared data: which there are, and running them on what lies on disk.

Those that are blocking stop what comes after, for training on such data would be wrong; the others warn.
What each looks at is in `inputs` and `outputs`, the limits in `spec`. Putting data right is the
business of the modules that write it.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from footprint_pipeline.dataset.checks.inputs import (
    few_labels_are_lost,
    few_labels_were_repaired,
    labels_lie_on_their_tiles,
    tiles_are_alike,
    tiles_are_labelled,
    tiles_have_grids,
    tiles_have_imagery,
)
from footprint_pipeline.dataset.checks.outputs import (
    classes_are_in_balance,
    every_split_has_buildings,
    every_tile_has_a_mask,
    masks_agree_with_polygons,
    neighbours_share_a_split,
    splits_are_apart,
)
from footprint_pipeline.dataset.checks.record import record
from footprint_pipeline.dataset.checks.spec import CheckResult, CheckSpec, Finding, PreparedAoi
from footprint_pipeline.lake import AoiFolder

log = logging.getLogger(__name__)

Asset = Literal["image_tiles", "building_polygons", "mask_tiles", "split_manifests"]


@dataclass(frozen=True)
class Check:
    """A check of an asset; when it is blocking, training on data that fails it would be wrong."""

    look: Callable[[PreparedAoi, CheckSpec], Finding]
    asset: Asset
    blocking: bool

    @property
    def name(self) -> str:
        """What it is called."""
        return self.look.__name__

    @property
    def question(self) -> str:
        """What it answers, one sentence."""
        return (self.look.__doc__ or self.name).strip()


CHECKS = (
    Check(tiles_have_grids, "image_tiles", blocking=True),
    Check(tiles_are_alike, "image_tiles", blocking=False),
    Check(tiles_have_imagery, "image_tiles", blocking=False),
    Check(labels_lie_on_their_tiles, "building_polygons", blocking=True),
    Check(few_labels_are_lost, "building_polygons", blocking=True),
    Check(few_labels_were_repaired, "building_polygons", blocking=False),
    Check(tiles_are_labelled, "building_polygons", blocking=False),
    Check(every_tile_has_a_mask, "mask_tiles", blocking=True),
    Check(masks_agree_with_polygons, "mask_tiles", blocking=True),
    Check(splits_are_apart, "split_manifests", blocking=True),
    Check(neighbours_share_a_split, "split_manifests", blocking=True),
    Check(every_split_has_buildings, "split_manifests", blocking=True),
    Check(classes_are_in_balance, "split_manifests", blocking=False),
)


def run_checks(folder: AoiFolder, asset: Asset, spec: CheckSpec | None = None) -> list[CheckResult]:
    """Run the checks of an asset on an AOI; warnings are logged, what blocks is recorded and the caller's to tell.

    Args:
        folder: the AOI's prepared data.
        asset: whose checks.
        spec: the limits; the defaults when None.

    Raises:
        DatasetError: the asset has not been materialized.
    """
    prepared = PreparedAoi(folder)
    results = []
    for check in CHECKS:
        if check.asset != asset:
            continue
        found = check.look(prepared, spec or CheckSpec())
        passed = not found.problems
        results.append(
            CheckResult(
                check.name,
                passed,
                found.fine if passed else " ".join(found.problems),
                found.numbers,
                "" if passed else found.fix,
                check.blocking and found.blocking,
            )
        )
        if not passed and not results[-1].blocking:
            log.warning("%s: check %s warns: %s %s", folder.folder.name, check.name, results[-1].description, found.fix)
    record(folder, results)
    return results
