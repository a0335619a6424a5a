"""Which blocking checks of an AOI failed when they last ran: training refuses such data, in whatever run.

Dagster stops what comes later in the run of the check; a training that is started afterwards reads this. What checks
look for is the business of `inputs` and `outputs`.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from footprint_pipeline.dataset.checks.spec import CheckResult
from footprint_pipeline.errors import DatasetError
from footprint_pipeline.files import atomic_path
from footprint_pipeline.lake import AoiFolder


def record(folder: AoiFolder, results: Iterable[CheckResult]) -> None:
    """Write down which of these checks failed and block; what is known of other checks stays."""
    failed = _read(folder.failed_checks)
    for result in results:
        failed.pop(result.name, None)
        if result.blocking and not result.passed:
            failed[result.name] = {"problem": result.description, "fix": result.fix}
    if not failed:
        folder.failed_checks.unlink(missing_ok=True)
        return
    with atomic_path(folder.failed_checks) as temporary:
        temporary.write_text(json.dumps(failed, indent=1) + "\n", encoding="utf-8")


def require_passed(folder: AoiFolder) -> None:
    """Make sure that no blocking check failed when it last ran.

    Raises:
        DatasetError: one did; names the AOI, the check, what it found and the way out.
    """
    for name, found in _read(folder.failed_checks).items():
        raise DatasetError(
            f"{folder.folder.name}: its data failed the check {name}. {found['problem']}",
            fix=f"{found['fix']} Then prepare it again (footprint prepare), or train on others (--aoi).",
        )


def _read(path: Path) -> dict[str, dict[str, str]]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
