"""Run whole commands and say what they cost, by the system's own account of each finished process."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

PYTHON = sys.executable


@dataclass(frozen=True, slots=True)
class Cost:
    """One run: CPU and wall seconds, peak resident megabytes."""

    cpu: float
    wall: float
    peak_mb: float


def run(command: Sequence[str], env: Mapping[str, str] | None = None) -> Cost:
    """Run a command to its end; an AssertionError with its words when it fails."""
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=said, stderr=said, env=dict(env) if env else None)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise AssertionError(f"{command} ended with {process.returncode}: {said.read()[-2000:]!r}")
    return Cost(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024)


def paired(one: Callable[[], Cost], other: Callable[[], Cost], runs: int) -> tuple[list[Cost], list[Cost]]:
    """Both in turn, after one run of each that does not count, so that a drift of the machine meets both."""
    one(), other()
    pairs = [(one(), other()) for _ in range(runs)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def ratio(ones: Sequence[Cost], others: Sequence[Cost], figure: str) -> float:
    """The median of the pairs' ratios of a figure."""
    return statistics.median(
        getattr(one, figure) / getattr(other, figure) for one, other in zip(ones, others, strict=True)
    )


def median(costs: Sequence[Cost], figure: str) -> float:
    """The median of a figure."""
    return statistics.median(getattr(cost, figure) for cost in costs)


def verdict(name: str, value: float, bound: float, *, at_least: bool = False) -> bool:
    """Print a figure beside its bound; whether it holds."""
    holds = value >= bound if at_least else value <= bound
    sign = "≥" if at_least else "≤"
    print(f"  {'ok  ' if holds else 'MISS'} {name}: {value:.3g} (wanted {sign} {bound:g})")
    return holds
