import logging
import re
import threading

import pytest

from footprint_pipeline.spacenet.s3.progress import Progress


def test_lines_have_share_rate_and_time_left(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    quiet = Progress("s3://b/k", 10, every_s=60)
    for _ in range(10):
        quiet(1)
    assert caplog.records == []
    progress = Progress("s3://b/k", 4_000_000, every_s=0)
    progress(1_000_000)
    assert caplog.messages[0].startswith("s3://b/k: 1.0 of 4.0 MB (25 %), ")
    assert caplog.messages[0].endswith(" s left")


def test_what_was_there_already_is_no_speed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    progress = Progress("s3://b/k", 2_000_000_000_000, every_s=0)
    progress.already(1_000_000_000_000)
    progress(1)
    assert re.fullmatch(r"s3://b/k: 1000000\.0 of 2000000\.0 MB \(50 %\), [01]\.\d MB/s, .*", caplog.messages[0])


def test_threads_share_one_count(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    progress = Progress("s3://b/k", 4_000_001, every_s=0)
    threads = [threading.Thread(target=lambda: [progress(1_000) for _ in range(1_000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    progress(1)
    assert caplog.messages[-1].startswith("s3://b/k: 4.0 of 4.0 MB (100 %), ")


def test_a_terminal_gets_a_bar_and_the_log_nothing(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Progress("s3://b/k", 4_000_000, every_s=0) as progress:
        progress.already(1_000_000)
        progress(1_000_000)
    assert "s3://b/k:  25%" in capsys.readouterr().err
    assert caplog.records == []
