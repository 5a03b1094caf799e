"""What a contender goes through: its speed in a lane, a create whose answer is lost, a kill right after a create."""

import json
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.intake import WORDS
from tests.bench.peers.contenders import MODEL, Contender, Job
from tests.bench.peers.running import Failed, billed_rows, killed, run
from tests.bench.streaming import sandbox

LATENCY_S = 0.05
LOST = {"kind": "lost_create", "times": 1, "match": {"path": "/v1/batches"}}


@dataclass(frozen=True, slots=True)
class Speed:
    """Rows a second from the file to the answers, and the peak megabytes of the largest process."""

    rate: float
    peak_mb: float


@dataclass(frozen=True, slots=True)
class Bill:
    """Rows charged for each row asked, and the share of the rows that got an answer; `trouble` is how it ended."""

    billed: float
    answered: float
    trouble: str = ""


def make(path: Path, rows: int, words: int) -> None:
    """Lines of OpenAI's Batch API, no two alike."""
    chance = random.Random(7)
    with path.open("w") as file:
        for n in range(rows):
            prompt = f"Say in two sentences what note {n} is about: " + " ".join(chance.choices(WORDS, k=words))
            body = {"model": MODEL, "messages": [{"role": "user", "content": prompt}]}
            line = {"custom_id": f"row-{n}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\n")


@contextmanager
def job(lane: str, rows: int, **settings: Any) -> Iterator[Job]:
    """A sandbox in a process of its own, an empty folder, and the rows: about one KB each, or short ones live."""
    latency = LATENCY_S if lane == "live" else 0.0
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryDirectory() as own,
        sandbox(batch_seconds=0, latency_s=latency, **settings) as url,
    ):
        file = Path(own) / "rows.jsonl"
        make(file, rows, 150 if lane == "batch" else 6)
        yield Job(lane, file, folder, url, rows)


def speed(one: Contender, lane: str, rows: int) -> Speed:
    """The whole way, every process of it counted; Failed when an answer is missing."""
    with job(lane, rows) as here:
        done = [run(command, one.env(here), here.folder) for command in [*one.before(here), one.command(here)]]
        answers = one.answers(here, done[-1])
    if answers != rows:
        raise Failed(f"{answers:,} answers to {rows:,} rows")
    return Speed(rows / sum(step.wall for step in done), max(step.peak_mb for step in done))


def lost(one: Contender, rows: int) -> Bill:
    """The batch is made, and the connection closed before its answer."""
    with job("batch", rows, faults=[LOST]) as here:
        for command in one.before(here):
            run(command, one.env(here), here.folder)
        return bill(here, lambda: one.answers(here, run(one.command(here), one.env(here), here.folder)))


def kill(one: Contender, rows: int) -> Bill:
    """The batch is made, its answer does not come, and the process is killed; then it is begun again."""
    with job("batch", rows, faults=[LOST | {"how": "hang"}]) as here:
        for command in one.before(here):
            run(command, one.env(here), here.folder)
        killed(one.command(here), one.env(here), here.folder, here.url)
        return bill(here, lambda: one.again(here))


def bill(here: Job, finish: Any) -> Bill:
    """What the sandbox charges after it, also where it fails."""
    answers, trouble = 0, ""
    try:
        answers = finish()
    except Failed as failure:
        trouble = str(failure)
    return Bill(billed_rows(here.url) / here.rows, answers / here.rows, trouble)
