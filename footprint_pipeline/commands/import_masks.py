"""The command that makes an area of one's own of images and masks: import-masks."""

import shlex
from typing import Any

from footprint_pipeline.commands.lines import next_commands
from footprint_pipeline.settings import Settings
from footprint_pipeline.spacenet.mask_pairs import import_pairs


def import_masks(settings: Settings, **options: Any) -> dict[str, Any]:
    """Write images and masks of the same names as tiles and labels that `footprint prepare --source` reads.

    The options, and what fails, are those of `mask_pairs.import_pairs`.

    Returns:
        The answer as JSON prints it (`aoi`, `source`, `tiles`, `kept`, `buildings`, `slivers`, `without_mask`,
        `without_image`, `others`), and `_lines` for people.
    """
    made = import_pairs(**options)
    notes = [
        f"  {count:,} {what}"
        for count, what in (
            (made.kept, "tiles were there already"),
            (made.slivers, f"parts of fewer than {made.min_area_px:g} pixels left out"),
            (len(made.without_mask), "images left out, which have no mask"),
            (len(made.without_image), "masks left out, which have no image"),
            (len(made.others), "tiles of other pairs stay, which were imported before; remove there what is to go"),
        )
        if count
    ]
    return {
        "aoi": made.aoi,
        "source": str(made.folder),
        "tiles": made.tiles,
        "kept": made.kept,
        "buildings": made.buildings,
        "slivers": made.slivers,
        "without_mask": list(made.without_mask),
        "without_image": list(made.without_image),
        "others": list(made.others),
        "_lines": [
            f"{made.tiles:,} tiles with {made.buildings:,} buildings in {made.folder}",
            *notes,
            next_commands(settings, f"prepare --source {shlex.quote(str(made.folder))}"),
        ],
    }
