"""Run whole commands and say what they cost, by the system's own account of each finished process."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

PYTHON = sys.executable


@dataclass(frozen=True, slots=True)
class Cost:
    """One run: CPU and wall seconds, peak resident megabytes."""

    cpu: float
    wall: float
    peak_mb: float


# A process begins with the peak of whoever started it, so that a small one stands between it and us.
_BETWEEN = """
import json, os, sys, time
start = time.perf_counter()
tell, *command = sys.argv[1:]
pid = os.posix_spawnp(command[0], command, os.environ)
_, status, usage = os.wait4(pid, 0)
spent = {"cpu": usage.ru_utime + usage.ru_stime, "wall": time.perf_counter() - start, "peak_mb": usage.ru_maxrss / 1024}
os.write(int(tell), json.dumps([os.waitstatus_to_exitcode(status), spent]).encode())
"""


def run(command: Sequence[str], env: Mapping[str, str] | None = None) -> Cost:
    """Run a command to its end; an AssertionError with its words when it fails."""
    with tempfile.TemporaryFile() as said:
        told, tell = os.pipe()
        between = [PYTHON, "-I", "-S", "-c", _BETWEEN, str(tell), *command]
        process = subprocess.Popen(between, stdout=said, stderr=said, env=dict(env) if env else None, pass_fds=[tell])
        os.close(tell)
        with os.fdopen(told) as telling:
            code, spent = json.loads(telling.read() or '["not run", {}]')
        process.wait()
        if code:
            said.seek(0)
            raise AssertionError(f"{command} ended with {code}: {said.read()[-2000:]!r}")
    return Cost(**spent)


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
