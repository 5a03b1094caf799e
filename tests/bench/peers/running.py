"""Commands of a contender: run to their end with their cost, or killed as soon as the sandbox has a batch."""

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LONGEST_S = 300.0
KEY = "sk-bench"


class Failed(Exception):
    """A command ended badly; the text is its last line."""


@dataclass(frozen=True, slots=True)
class Done:
    """One command: wall seconds, peak resident megabytes of its process, and what it printed."""

    wall: float
    peak_mb: float
    said: str


def run(command: list[str], env: Mapping[str, str], folder: str) -> Done:
    """To its end; Failed with its last words, or when it takes too long."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=err, env=dict(env), cwd=folder, start_new_session=True)
        limit = threading.Timer(LONGEST_S, end, (process.pid,))
        limit.start()
        _, status, usage = os.wait4(process.pid, 0)
        limit.cancel()
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        said, cried = (text(one) for one in (out, err))
    if process.returncode:
        how = f"no end after {LONGEST_S:.0f} s" if wall >= LONGEST_S else f"exit code {process.returncode}"
        raise Failed(f"{how}: {last_line(cried.strip() or said)}")
    return Done(wall, usage.ru_maxrss / 1024, said)


def killed(command: list[str], env: Mapping[str, str], folder: str, url: str) -> None:
    """SIGKILL as soon as the sandbox shows a batch, whose answer it holds back for ever."""
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=dict(env), cwd=folder, start_new_session=True)
        until = time.monotonic() + LONGEST_S
        while not batches(url):
            if process.poll() is not None or time.monotonic() > until:
                end(process.pid)
                raise Failed(f"no batch was made: {last_line(text(out))}")
            time.sleep(0.02)
        end(process.pid)
        process.wait()


def end(pid: int) -> None:
    """SIGKILL to a process of ours and all that it started."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def text(file: Any) -> str:
    """What was written to it."""
    file.seek(0)
    return str(file.read().decode("utf-8", "replace"))


def last_line(said: str) -> str:
    """The last line that says something: of a traceback, the error; of printed JSON, all of it in one line."""
    if said.lstrip().startswith("{"):
        said = " ".join(said.split())
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no word of why"


def get(url: str) -> Any:
    """What the sandbox answers."""
    wanted = urllib.request.Request(url, headers={"authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(wanted) as answer:
        return json.load(answer)


def batches(url: str) -> list[dict[str, Any]]:
    """All of the sandbox's."""
    return list(get(f"{url}/v1/batches")["data"])


def billed_rows(url: str) -> int:
    """How many the sandbox charges, once nothing is under way there."""
    while any(one["status"] in ("validating", "in_progress", "finalizing", "cancelling") for one in batches(url)):
        time.sleep(0.1)
    return int(get(f"{url}/_sandbox/bill?rows=0")["totals"]["rows"])
