"""The one form that benchmarks speak: a table for people, and with `--json` one object as the last line.

Every module makes its own input, runs ours and the peer in turn, and gives its figures to `main`. `--quick` keeps
a benchmark alive in CI: the same code on little input, within 30 s, and nothing is judged by it.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
"""That this process may use."""


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes:
        name: what was measured.
        value: ours.
        unit: of the value and of the peer.
        peer: the same work done the other way; None where there is no peer.
        ratio: how many times better ours is than the peer (above 1 is better); None without a peer.
        goal: what it should be, in words; empty where there is no goal.
        met: whether it is; None without a goal, and in a quick run.
    """

    name: str
    value: float
    unit: str
    peer: float | None = None
    ratio: float | None = None
    goal: str = ""
    met: bool | None = None


def main(measure: Callable[[bool], list[Figure]], *, description: str) -> None:
    """Parse the options, measure, print.

    Args:
        measure: takes whether to be quick, returns the figures.
        description: for `--help`.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="little input, within 30 s; nothing is judged")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options = parser.parse_args()
    figures = measure(options.quick)
    if options.quick:
        figures = [Figure(**{**asdict(figure), "met": None}) for figure in figures]
    print(table(figures))
    if options.json:
        print(json.dumps({"machine": machine(), "figures": [asdict(figure) for figure in figures]}))


def table(figures: list[Figure]) -> str:
    """The figures as a Markdown table, under a line that names the machine."""
    rows = [("figure", "ours", "peer", "ratio", "goal", "met")]
    for figure in figures:
        rows.append(
            (
                figure.name,
                f"{_number(figure.value)} {figure.unit}",
                "" if figure.peer is None else f"{_number(figure.peer)} {figure.unit}",
                "" if figure.ratio is None else f"{figure.ratio:.2f}",
                figure.goal,
                {None: "", True: "yes", False: "no"}[figure.met],
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join([machine(), "", *lines])


def machine() -> str:
    """Processor, cores that this process may use, GPUs, and Python."""
    name = platform.processor() or platform.machine()
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            name = next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    gpus: list[str] = []
    if shutil.which("nvidia-smi"):
        asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        gpus = subprocess.run(asked, capture_output=True, text=True).stdout.splitlines()
    return ", ".join([name, f"{CORES} cores", *gpus, f"Python {platform.python_version()}", platform.system()])


def in_turn(*works: Callable[[], object], rounds: int = 3) -> list[float]:
    """Seconds that each work takes, the median of `rounds`, run A B A B … so that noise meets all alike."""
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for seconds, work in zip(taken, works, strict=True):
            started = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - started)
    return [statistics.median(seconds) for seconds in taken]


def alone(code: str, *arguments: str) -> dict[str, float]:
    """Run Python code in a process of its own and return what it prints as JSON, with its peak memory.

    Args:
        code: prints one JSON object of numbers as its last line; `arguments` are in `sys.argv[1:]`.
        arguments: as text.

    Returns:
        That object, and `peak_mb`: the largest resident set of the process, megabytes.
    """
    wrapped = f"{code}\nfrom benchmarks.form import peak_mb; print(peak_mb())"
    answer = subprocess.run(
        [sys.executable, "-c", wrapped, *arguments], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.splitlines()
    return {**json.loads(answer[-2]), "peak_mb": float(answer[-1])}


def peak_mb() -> float:
    """The largest resident set of this process so far, megabytes."""
    try:  # what the parent had at the fork does not count here
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1e6 if sys.platform == "darwin" else 1e3)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
