"""Lines that several commands say alike. Imports nothing that takes its time."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from footprint_pipeline.settings import Settings

_BY_AREA = {
    "median_tile_f1": "median F1",
    "pooled_pixel_f1": "pooled F1",
    "building_f1": "building F1",
    "all_building_pixel_f1": "pooled F1, all a building",
}
"""Figures of an area, and their heads."""


def score_lines(metrics: Mapping[str, float], by_aoi: Sequence[Mapping[str, Any]]) -> list[str]:
    """The three figures, for people; for every area, too, beside what calling each of its pixels a building gives."""
    wide = max((len(area["aoi"]) for area in by_aoi), default=0)
    return [
        f"  median pixel F1 of the tiles with buildings  {metrics['median_tile_f1']:.4f}",
        f"  pixel F1 of all tiles as one                 {metrics['pooled_pixel_f1']:.4f}",
        f"  building F1 (SpaceNet, IoU >= 0.5)           {metrics['building_f1']:.4f}",
        "  ".join(["", f"{'':{wide}}", "tiles", "tolerance", *_BY_AREA.values()]),
        *(
            "  ".join(
                ["", f"{area['aoi']:{wide}}", f"{area['tiles']:5}", f"{area['tolerance']:9.2f}"]
                + [f"{area[name]:{len(head)}.4f}" for name, head in _BY_AREA.items()]
            )
            for area in by_aoi
        ),
    ]


def next_commands(settings: Settings, *commands: str) -> str:
    """What to do next, as it can be pasted."""
    return "Next: " + ", ".join(f"footprint {command}{_at_home(settings)}" for command in commands)


def command_for(settings: Settings, what: str) -> str:
    """What starts the UI or the service on this home; `make` knows the default one alone."""
    home = _at_home(settings)
    return f"footprint {what}{home}" if home else f"make {what}"


def _at_home(settings: Settings) -> str:
    """The option that names a home, unless it is the default one."""
    default = Settings.model_fields["home"].default
    return "" if settings.home.absolute() == default.absolute() else f" --home {shlex.quote(str(settings.home))}"
