"""How Python looks for garbage in a process that answers.

A full collection looks at every object there is, some hundred thousand that were imported, and nobody else runs Python
meanwhile: under load that is a quarter of a second, in which no request goes on. What one has kept it keeps for good, so
that the next looks only at what is new.
"""

import gc


def spare_what_stays() -> None:
    """Collect now, and never again look at what a full collection has kept. It is still freed when nobody refers to it."""
    if _spare not in gc.callbacks:
        gc.callbacks.append(_spare)
    gc.collect()


def _spare(phase: str, info: dict[str, int]) -> None:
    if phase == "stop" and info["generation"] == 2:
        gc.freeze()
