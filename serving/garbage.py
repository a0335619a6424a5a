"""How Python looks for garbage in a process that answers.

A full collection looks at every object there is, some hundred thousand that were imported, and nobody else runs Python
meanwhile: under load that is some tenths of a second, in which no request goes on. So what one has kept, the next
leaves alone, and looks only at what is new.
"""

import gc


def spare_what_stays() -> None:
    """Collect now, and never look again at what a full collection has kept.

    It is still freed when nobody refers to it. What is part of a cycle stays for good: in a service, next to nothing.
    """
    if _spare not in gc.callbacks:
        gc.callbacks.append(_spare)
    gc.collect()


def _spare(phase: str, info: dict[str, int]) -> None:
    if phase == "stop" and info["generation"] == 2:
        gc.freeze()
