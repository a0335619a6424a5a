"""What the service was asked against what its model was trained on: counters as the service writes them."""

import logging
from datetime import date, timedelta
from pathlib import Path

import cv2
import numpy as np
import pytest

from footprint_pipeline.errors import SettingsError
from footprint_pipeline.footprints.domain import LEVELS, AskedCounts, DomainReference, InputProfile
from footprint_pipeline.stages.drift import DriftReport, DriftSpec, chart, gsd_table, hold_against, judge
from serving.counters import Counters

TODAY = date(2025, 5, 28)
NAME = "red-roofs"


def around(level: int) -> np.ndarray:
    """Counts of an image that is mostly of one level, in every channel."""
    counts = np.full((3, LEVELS), 10)
    counts[:, level - 1 : level + 2] += 400
    return counts


DOMAIN = DomainReference.of([around(level) for level in (4, 5, 6, 5)], gsds_m=[0.3, 0.3, 0.5, 0.5])


def ask(folder: Path, level: int, *, times: int, day: date = TODAY, version: str = "1", gsd_m: float = 0.3) -> None:
    """A service that was asked so often about such imagery."""
    counters = Counters(folder, today=lambda: day)
    profile = InputProfile(around(level), gsd_m=gsd_m, out_of_domain=DOMAIN.out_of_domain(around(level)))
    for _ in range(times):
        counters.count(NAME, version, profile)
    counters.write()


def look(folder: Path, *, days: int = 28, threshold: float = 0.25, min_answers: int = 200) -> DriftReport:
    spec = DriftSpec(days=days, threshold=threshold, min_answers=min_answers)
    return hold_against(DOMAIN, folder, spec, model=NAME, version="1", until=TODAY)


def test_imagery_like_that_of_the_training_has_not_drifted(tmp_path: Path) -> None:
    for level in (4, 5, 5, 6):
        ask(tmp_path, level, times=60)
    report = look(tmp_path)
    assert (report.version, report.answers, report.drifted) == ("1", 240, False)
    assert max(report.psi.values()) < 0.01
    assert report.verdict.startswith("Alike: the largest population stability index is 0.0")
    assert report.out_of_domain == pytest.approx(
        np.mean([DOMAIN.out_of_domain(around(n)) >= 0.95 for n in (4, 5, 5, 6)])
    )


def test_imagery_unlike_it_has(tmp_path: Path) -> None:
    ask(tmp_path, 5, times=100)
    ask(tmp_path, 13, times=100, gsd_m=0.6)
    report = look(tmp_path)
    trained = np.sum([around(level) for level in (4, 5, 6, 5)], axis=0)[0] / 4
    asked = (around(5) + around(13))[0] / 2
    expected = float(((asked - trained) / trained.sum() * np.log(asked / trained)).sum())
    assert report.psi == pytest.approx(dict.fromkeys(("red", "green", "blue"), expected), abs=1e-3)
    assert report.drifted
    assert report.verdict.startswith("Drifted: ")
    assert report.out_of_domain == 0.5
    assert type(report).model_validate_json(report.model_dump_json()) == report

    table = gsd_table(report).set_index("about m a pixel")
    assert table["trained"].to_dict() == {0.297: 0.5, 0.5: 0.5, 0.595: 0.0}
    assert table["asked"].to_dict() == {0.297: 0.5, 0.5: 0.0, 0.595: 0.5}
    drawn = cv2.imdecode(np.frombuffer(chart(report), np.uint8), cv2.IMREAD_COLOR)
    assert drawn.shape[1] > 800
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 20


def test_only_the_last_days_of_this_version_count(tmp_path: Path) -> None:
    ask(tmp_path, 13, times=300, day=TODAY - timedelta(days=7))
    ask(tmp_path, 13, times=300, version="2")
    for level in (4, 5, 5, 6):
        ask(tmp_path, level, times=75, day=TODAY - timedelta(days=6))
    week = look(tmp_path, days=7)
    assert (week.answers, week.drifted, week.since) == (300, False, TODAY - timedelta(days=6))
    assert look(tmp_path, days=8).drifted


def test_the_rule_can_be_stricter_and_few_answers_decide_nothing(tmp_path: Path) -> None:
    ask(tmp_path, 13, times=199)
    few = look(tmp_path)
    assert not few.drifted
    assert few.verdict.startswith("Too little was asked to tell: ")
    assert look(tmp_path, min_answers=199).drifted
    far = max(few.psi.values()) + 0.01
    mild = look(tmp_path, min_answers=1, threshold=far)
    assert (mild.drifted, mild.verdict.split(":")[0]) == (False, "Somewhat different")
    with pytest.raises(SettingsError, match="footprint_drift: days is 0"):
        DriftSpec(days=0)


def test_no_counter_is_no_drift_and_a_broken_one_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    report = look(tmp_path)
    assert (report.answers, report.psi, report.drifted) == (0, {}, False)
    assert report.verdict == "Nothing was asked in 28 days."
    assert chart(report).startswith(b"\x89PNG")

    ask(tmp_path, 5, times=3)
    (tmp_path / "half.json").write_text('{"asked": [')
    with caplog.at_level(logging.WARNING):
        assert look(tmp_path).answers == 3
    assert "half.json is left out" in caplog.text


def test_what_is_being_written_does_not_count_twice(tmp_path: Path) -> None:
    ask(tmp_path, 5, times=3)
    (written,) = tmp_path.glob("*.json")
    (tmp_path / f".0123abcd-{written.name}").write_bytes(written.read_bytes())
    assert look(tmp_path).answers == 3


def test_one_channel_that_has_drifted_is_enough() -> None:
    asked = AskedCounts(answers=500)
    drifted, verdict = judge({"red": 0.02, "green": 0.31, "blue": 0.01}, asked, DriftSpec())
    assert drifted
    assert "0.310 (green)" in verdict


def test_the_threshold_itself_is_drift() -> None:
    psi, asked = {"red": 0.25, "green": 0.0, "blue": 0.0}, AskedCounts(answers=200)
    assert judge(psi, asked, DriftSpec(threshold=0.25))[0]
    assert not judge(psi, asked, DriftSpec(threshold=0.2501))[0]
