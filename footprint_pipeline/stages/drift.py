"""Is the service asked about imagery like that of the training set? Its counters against a version's own reference.

What belongs here: adding the counters up, the verdict, and how both are shown. Counting is the service's business, the
index `footprints.domain`'s. MLflow and matplotlib are imported when they are needed: Dagster loads this module.
"""

import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from footprint_pipeline.errors import ModelError, SettingsError
from footprint_pipeline.footprints.domain import (
    ALIKE,
    CHANNELS,
    LEVELS,
    UNLIKE,
    AskedCounts,
    AskedOfDay,
    CounterFile,
    DomainReference,
)
from footprint_pipeline.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DriftSpec:
    """When what is asked has drifted.

    Attributes:
        days: answers of so many days count, today among them.
        threshold: population stability index of a channel from which imagery has drifted; by common usage 0.25.
        min_answers: with fewer answers nothing has drifted.
    """

    days: int = 28
    threshold: float = UNLIKE
    min_answers: int = 200

    def __post_init__(self) -> None:
        for name in ("days", "threshold", "min_answers"):
            if not getattr(self, name) > 0:
                raise SettingsError(f"footprint_drift: {name} is {getattr(self, name)}.", fix="Give more than 0.")


class DriftReport(BaseModel):
    """What a version was asked of late, held against what it was trained on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    version: str
    since: date
    until: date
    answers: int
    psi: dict[str, float]
    out_of_domain: float | None
    drifted: bool
    verdict: str
    asked: AskedCounts
    trained: DomainReference


_SPEC = DriftSpec()


def report_drift(settings: Settings, spec: DriftSpec = _SPEC, *, version: str | None = None) -> DriftReport:
    """Judge what the service was asked.

    Args:
        settings: where the registry and the counters are.
        spec: when it has drifted.
        version: of the registered model; the one that the service's alias points to when None.

    Raises:
        RegistryError: there is no such version.
        ModelError: it does not say what it was trained on.
    """
    from footprint_pipeline.footprints.spec import ModelSpec
    from footprint_pipeline.registry import Registry

    registry = Registry.of(settings)
    found = registry.resolve(version=version) if version else registry.resolve(alias=settings.alias)
    model = ModelSpec.read(registry.pull(version=found.version, into=settings.lake.pulled))
    if model.domain is None:
        raise ModelError(
            f"{found.name} version {found.version} was registered before models said what they were trained on.",
            fix="Register it again (footprint register), or train a new one.",
        )
    report = hold_against(
        model.domain,
        settings.counters_folder,
        spec,
        model=found.name,
        version=found.version,
        until=datetime.now(UTC).date(),
    )
    log.info("%s version %s: %s", found.name, found.version, report.verdict)
    return report


def hold_against(
    trained: DomainReference, counters: Path, spec: DriftSpec, *, model: str, version: str, until: date
) -> DriftReport:
    """What a version was asked, held against what it was trained on.

    Args:
        trained: what that looks like.
        counters: folder of what the service has counted.
        spec: when it has drifted.
        model: name of the registered model.
        version: its version.
        until: the last day that counts, in UTC.
    """
    since = until - timedelta(days=spec.days - 1)
    asked = AskedCounts()
    for each in read_counters(counters):
        if (each.model, each.version) == (model, version) and since <= each.day <= until:
            asked += each.counts
    psi = index_by_channel(trained, asked)
    drifted, verdict = judge(psi, asked, spec)
    return DriftReport(
        model=model,
        version=version,
        since=since,
        until=until,
        answers=asked.answers,
        psi=psi,
        out_of_domain=asked.beyond,
        drifted=drifted,
        verdict=verdict,
        asked=asked,
        trained=trained,
    )


def read_counters(folder: Path) -> Iterator[AskedOfDay]:
    """What all processes of the service have written down; a file that cannot be read is told and left out."""
    for path in sorted(folder.glob("*.json")):
        if path.name.startswith("."):  # one that is being written
            continue
        try:
            yield from CounterFile.model_validate_json(path.read_text("utf-8")).asked
        except (OSError, ValidationError) as error:
            log.warning("%s is left out: it cannot be read as counters (%s).", path, type(error).__name__)


def index_by_channel(trained: DomainReference, asked: AskedCounts) -> dict[str, float]:
    """The population stability index of each channel; empty when nothing was asked."""
    counts = np.array(asked.brightness)
    return dict(zip(CHANNELS, trained.psi(counts).round(4).tolist(), strict=True)) if counts.any() else {}


def judge(psi: dict[str, float], asked: AskedCounts, spec: DriftSpec) -> tuple[bool, str]:
    """Whether what was asked has drifted, and why, for people."""
    if not psi:
        return False, f"Nothing was asked in {spec.days} days."
    channel = max(psi, key=lambda name: psi[name])
    told = f"the largest population stability index is {psi[channel]:.3f} ({channel}) over {asked.answers:,} answers"
    if asked.answers < spec.min_answers:
        return False, f"Too little was asked to tell: {told}, and {spec.min_answers:,} are the least."
    if psi[channel] >= spec.threshold:
        return True, f"Drifted: {told}, at least {spec.threshold:g}."
    return False, f"{'Alike' if psi[channel] < ALIKE else 'Somewhat different'}: {told}, below {spec.threshold:g}."


def gsd_table(report: DriftReport) -> pd.DataFrame:
    """A row a step of ground sample distance: shares of the training tiles and of the answers that came in it."""
    trained, asked = report.trained.gsd_m, report.asked.gsd_m
    totals = max(sum(trained.values()), 1), max(sum(asked.values()), 1)
    return pd.DataFrame(
        [
            (step, trained.get(step, 0) / totals[0], asked.get(step, 0) / totals[1])
            for step in sorted(trained.keys() | asked.keys())
        ],
        columns=["about m a pixel", "trained", "asked"],
    )


def chart(report: DriftReport) -> bytes:
    """Shares of the pixels at each level of brightness, trained on and asked for, a panel a channel. PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.2), layout="constrained")
    panels = figure.subplots(1, len(CHANNELS), sharey=True)
    edges = np.linspace(0, 256, LEVELS + 1)
    for axes, name, trained, asked in zip(
        panels, CHANNELS, report.trained.shares, np.array(report.asked.brightness), strict=True
    ):
        axes.stairs(trained, edges, fill=True, color="#c9ced6", label="trained on")
        if asked.any():
            axes.stairs(asked / asked.sum(), edges, color=name, linewidth=1.5, label="asked for")
        axes.set(xlabel="brightness", title=f"{name}: {report.psi[name]:.3f}" if report.psi else name)
        axes.legend()
    panels[0].set_ylabel("share of the pixels")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()
