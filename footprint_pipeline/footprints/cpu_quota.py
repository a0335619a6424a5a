"""How much CPU the container may use: what the kernel's control groups grant, which no pool of threads asks by itself.

Cores that the process is bound to are not told here; OpenVINO sees those.
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def cpu_quota(root: Path = Path("/")) -> int | None:
    """The CPUs that the control group of this process, and those above it, grant.

    Args:
        root: what holds `proc` and `sys`.

    Returns:
        Whole ones, rounded down, so that threads are not stopped in the middle of their work, but at least 1; None
        where nothing grants less than what there is.
    """
    granted = min(_quotas(root), default=None)
    if granted is None or granted >= (os.cpu_count() or 1):
        return None
    return max(1, int(granted))


def _quotas(root: Path) -> Iterator[float]:
    try:
        lines = (root / "proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = PurePosixPath(path.lstrip("/"))  # in a container it may be the host's, and only its root be there
        for folder in (group, *group.parents):
            yield from _quota(root / "sys/fs/cgroup" / controllers / folder)


def _quota(folder: Path) -> Iterator[float]:
    try:
        if (folder / "cpu.max").exists():  # version 2
            quota, period = (folder / "cpu.max").read_text("utf-8").split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text("utf-8") for name in ("quota", "period"))
        if int(quota) > 0:  # version 1 says -1 where there is no limit, version 2 a word
            yield int(quota) / int(period)
    except (OSError, ValueError):
        return
