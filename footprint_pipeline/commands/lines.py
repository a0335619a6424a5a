"""Lines that several commands say alike. Imports nothing that takes its time."""

import shlex

from footprint_pipeline.settings import Settings


def score_lines(metrics: dict[str, float]) -> list[str]:
    """The three figures, for people."""
    return [
        f"  median pixel F1 of the tiles with buildings  {metrics['median_tile_f1']:.4f}",
        f"  pixel F1 of all tiles as one                 {metrics['pooled_pixel_f1']:.4f}",
        f"  building F1 (SpaceNet, IoU >= 0.5)           {metrics['building_f1']:.4f}",
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
