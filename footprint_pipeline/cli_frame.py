"""What is around every subcommand: its home, its log lines, its errors explained, its answer printed, its end.

Log lines go to stderr. With `--json` the last line of stdout is one JSON object. The exit code is 0 only on
success, 1 on an error that was explained, 2 on wrong usage, 130 after Ctrl-C.
"""

import gc
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any, NoReturn

import click

from footprint_pipeline.cli_options import Command
from footprint_pipeline.errors import FootprintError
from footprint_pipeline.home import check_place
from footprint_pipeline.settings import load_settings

_AGAIN_S = 0.1


def framed(function: Command) -> Callable[..., NoReturn]:
    """A subcommand with `--home` and `--json`, its errors explained, its answer printed."""

    @click.option(
        "--home", type=click.Path(path_type=Path, file_okay=False), help="Folder that holds all state. [.footprint]"
    )
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line of stdout.")
    @wraps(function)
    def run(home: Path | None, as_json: bool, **options: Any) -> NoReturn:
        _log_to_stderr()
        sys.unraisablehook = partial(_again, sys.unraisablehook)
        try:
            settings = load_settings(home=home)
            check_place(settings.home)
            answer: dict[str, Any] | None = function(settings, **options)
        except FootprintError as error:
            click.secho(f"{type(error).__name__}: {error}", fg="red", err=True)
            _leave(1)
        except OSError as error:
            if error.filename is None or error.strerror is None:
                raise
            click.secho(f"{error.filename}: {error.strerror}.", fg="red", err=True)
            _leave(1)
        except KeyboardInterrupt:
            answer = None
        if answer is None:
            gc.collect()  # TensorFlow complains when what was under way goes only as Python ends
            click.echo("Interrupted. What was finished is kept; run the same command again to go on.", err=True)
            _leave(130)
        text = answer.pop("_text", None)  # what the answer holds as an object, for people
        for line in [*answer.pop("_lines", []), *([text] if text and not as_json else [])]:
            click.echo(line, err=as_json)
        if as_json:
            click.echo(json.dumps(answer, default=str))
        _leave(int(answer.get("exit_code", 0)))

    return run


def _again(tell: Callable[[Any], None], lost: "sys.UnraisableHookArgs") -> None:
    """Repeat a Ctrl-C that came while Python called something whose errors it drops; tell of other errors as before."""
    if issubclass(lost.exc_type, Exception | GeneratorExit | SystemExit):
        tell(lost)
        return
    repeat = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), signal.SIGINT))
    repeat.daemon = True
    repeat.start()


def _leave(code: int) -> NoReturn:
    """End without Python's last look at each of the objects that TensorFlow has left, which one waits for."""
    gc.freeze()
    sys.exit(code)


class _Plain(logging.Formatter):
    """Time and message, without what Dagster puts in front of a line that it manages."""

    def format(self, record: logging.LogRecord) -> str:
        managed = getattr(record, "dagster_meta", None)
        if managed:
            record = logging.makeLogRecord({**record.__dict__, "msg": managed["orig_message"], "args": ()})
        return super().format(record)


def _is_no_interruption(record: logging.LogRecord) -> bool:
    """What Ctrl-C breaks off logs its traceback, though nothing is wrong: SQLAlchemy does, as it closes a database."""
    return not record.exc_info or isinstance(record.exc_info[1], Exception | None)


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_is_no_interruption)
    handler.setFormatter(_Plain("%(asctime)s  %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("footprint_pipeline").setLevel(logging.INFO)
    for noisy in ("mlflow.store.db.utils", "mlflow.system_metrics.system_metrics_monitor", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # TensorFlow's C++ side greets on stderr; errors still show.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
