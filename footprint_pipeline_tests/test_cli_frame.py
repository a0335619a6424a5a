"""What is around every subcommand."""

import subprocess
import sys
from typing import Any

import pytest
from click.testing import CliRunner

from footprint_pipeline.cli_frame import framed

DROPPED = """
import signal, sys, time
from functools import partial
signal.signal(signal.SIGINT, signal.default_int_handler)
from footprint_pipeline.cli_frame import _again
sys.unraisablehook = partial(_again, sys.unraisablehook)

class Ends:
    def __del__(self):
        raise {error}

Ends()
time.sleep(3)
print("went on")
"""


@pytest.mark.parametrize(
    ("error", "code", "out"),
    [("KeyboardInterrupt", -2, ""), ("BaseException", -2, ""), ("ValueError(7)", 0, "went on\n")],
)
def test_a_ctrl_c_that_python_drops_comes_again(error: str, code: int, out: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DROPPED.format(error=error)], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout) == (code, out)
    assert ("ValueError: 7" in done.stderr) == (code == 0)


@pytest.mark.parametrize(("options", "out", "err"), [([], "- one\n", ""), (["--json"], '{"collection": [1]}\n', "")])
def test_what_an_answer_holds_is_printed_once(
    options: list[str], out: str, err: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import click

    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)

    @click.command()
    @framed
    def command(settings: object) -> dict[str, Any]:
        return {"collection": [1], "_text": "- one"}

    done = CliRunner().invoke(command, ["--home", str(tmp_path), *options])
    assert (done.exit_code, done.stdout, done.stderr) == (0, out, err)
