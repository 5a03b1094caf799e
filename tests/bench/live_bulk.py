"""Bulk as live calls: 10,000 short rows at 50 ms, beside a bare AsyncOpenAI loop; two workers; and a provider's limit.

The queue is filled before, and not timed. Whole processes are timed beside the bare one; two workers beside one by the
ledger, from the first call to the last answer, since both start at once.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.intake import fresh
from tests.bench.measure import PYTHON, Cost, ratio, run, verdict
from tests.bench.streaming import sandbox

ROWS, RUNS, AT_ONCE, LATENCY = 10_000, 3, 64, 0.05
LIMIT, LIMITED_ROWS = 6000, 3000  # requests a minute, and half a minute of them
SHUNTER = str(Path(PYTHON).with_name("shunter"))

BARE = """
import asyncio, json, sys
from openai import AsyncOpenAI


async def main(file, at_once):
    gate = asyncio.Semaphore(at_once)
    async with AsyncOpenAI(max_retries=0) as client:
        async def one(line):
            async with gate:
                answer = await client.chat.completions.create(**json.loads(line)["body"])
            assert answer.choices[0].message.content

        with open(file) as lines:
            await asyncio.gather(*map(one, lines))


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


@dataclass(frozen=True, slots=True)
class Ledger:
    """What one run left: answers a second from the first call to the last, and the share that was turned away."""

    rate: float
    refused: float


def make(path: Path, rows: int) -> None:
    """Batch API lines with a short question each."""
    with path.open("w") as file:
        for n in range(rows):
            question = f"Name the capital of country number {n}, in one word."
            body = {"model": "gpt-6-luna", "messages": [{"role": "user", "content": question}]}
            row = {"custom_id": f"row-{n}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(row) + "\n")


@dataclass(frozen=True, slots=True)
class Bench:
    """A file of rows, a sandbox, and where the databases go."""

    folder: str
    rows: int
    file: Path
    env: dict[str, str]

    def fill(self) -> None:
        """A new database with every row queued."""
        self.env["SHUNTER_DATABASE_URL"] = f"sqlite:///{fresh(self.folder, 'bench')}"
        run([SHUNTER, "submit", "--file", str(self.file), "--lane", "sync", "--json"], self.env)

    def bare(self) -> Cost:
        return run([PYTHON, "-c", BARE, str(self.file), str(AT_ONCE)], self.env)

    def ours(self) -> Cost:
        self.fill()
        cost = run([SHUNTER, "worker", "--once", "--concurrency", str(AT_ONCE), "--json"], self.env)
        self.look()
        return cost

    def both(self) -> Ledger:
        """Two workers at once."""
        self.fill()
        command = [SHUNTER, "worker", "--once", "--concurrency", str(AT_ONCE), "--json"]
        pair = [subprocess.Popen(command, env=self.env, stdout=subprocess.DEVNULL) for _ in range(2)]
        assert [process.wait() for process in pair] == [0, 0]
        return self.look()

    def look(self) -> Ledger:
        """Every job has succeeded once; how fast that was."""
        from db.engine import connect
        from tests.lanes import balanced, rows, states

        store = connect(self.env["SHUNTER_DATABASE_URL"])
        try:
            balanced(store)
            assert states(store) == {"succeeded": self.rows}
            ended = dict(rows(store, "SELECT state, count(*) FROM attempt GROUP BY state"))
            assert ended.pop("ok") == self.rows
            assert set(ended) <= {"failed"}, ended
            span = "(julianday(max(ended_at)) - julianday(min(sent_at))) * 86400"
            seconds = rows(store, f"SELECT {span} FROM attempt WHERE state = 'ok'")[0][0]
        finally:
            store.close()
        refused = ended.get("failed", 0)
        return Ledger(self.rows / seconds, refused / (self.rows + refused))


@contextmanager
def bench(rows: int, **settings: Any) -> Iterator[Bench]:
    """A sandbox in a process of its own."""
    with tempfile.TemporaryDirectory() as folder, sandbox(latency_s=LATENCY, **settings) as url:
        file = Path(folder) / "rows.jsonl"
        make(file, rows)
        told = {"HOME": folder, "OPENAI_API_KEY": "sk-bench", "OPENAI_BASE_URL": f"{url}/v1"}
        yield Bench(folder, rows, file, dict(os.environ) | told)


def beside_bare(here: Bench) -> bool:
    """One worker, in turn with the bare loop."""
    here.bare()
    pairs = [(here.bare(), here.ours()) for _ in range(RUNS)]
    bares, ours = [one for one, _ in pairs], [other for _, other in pairs]
    for name, costs in (("worker --once", ours), ("a bare AsyncOpenAI loop", bares)):
        wall, cpu, peak = (median(getattr(cost, figure) for cost in costs) for figure in ("wall", "cpu", "peak_mb"))
        print(
            f"       {name}: {here.rows / wall:,.0f} requests/s, {cpu / here.rows * 1000:.2f} ms of CPU each,", end=" "
        )
        print(f"{peak:.0f} MB")
    return verdict("requests/s of a worker / of the bare loop", ratio(bares, ours, "wall"), 0.8, at_least=True)


def two(here: Bench) -> bool:
    """Two workers beside one."""
    rates = []
    for _ in range(RUNS):
        here.ours()
        alone = here.look().rate
        rates.append((alone, here.both().rate))
    alone, together = (median(rate) for rate in zip(*rates, strict=True))
    print(f"       one worker: {alone:,.0f} answers/s; two at once: {together:,.0f}")
    gain = median(both / one for one, both in rates)
    return verdict("answers/s of two workers / of one", gain, 1.7, at_least=True)


def limited() -> bool:
    """Two workers at a provider that allows less than they could."""
    with bench(LIMITED_ROWS, requests_per_minute=LIMIT, burst_seconds=1) as here:
        found = here.both()
    print(f"two workers under {LIMIT:,} requests a minute, {LIMITED_ROWS:,} rows:")
    held = verdict("answers/s / the limit", found.rate / (LIMIT / 60), 0.85, at_least=True)
    return verdict("calls that were turned away, in percent", found.refused * 100, 2) and held


def main(rows: int = ROWS) -> bool:
    """All three."""
    print(f"live bulk of {rows:,} short rows at {LATENCY * 1000:.0f} ms, {AT_ONCE} calls at once; medians of {RUNS}:")
    with bench(rows) as here:
        held = beside_bare(here)
        held = two(here) and held
    return limited() and held


if __name__ == "__main__":
    raise SystemExit(not main())
