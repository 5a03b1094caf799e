"""100 streams at once in one process: none starved, little memory, all of them kept; beside the bare SDK."""

import asyncio
import json
import tempfile
import time
import urllib.request
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.measure import PYTHON, Cost, run, verdict
from tests.bench.streaming import FEW, bare, bare_client, ours, prompt, router_at, sandbox

STREAMS, WORDS, PACE, RUNS = 100, 200, 50, 3
CHILD = "import sys; from tests.bench.many_streams import child; child(*sys.argv[1:])"
Speak = Callable[[str], AsyncGenerator[str, None]]


@dataclass(frozen=True, slots=True)
class Heard:
    """What one process read: seconds of CPU for all streams, the times of each one's chunks, and all words."""

    cpu: float
    times: list[list[float]]
    texts: list[str]

    @property
    def cpu_us(self) -> float:
        """Microseconds a chunk."""
        return self.cpu / sum(map(len, self.times)) * 1e6

    @property
    def cores(self) -> float:
        """How many processor cores it kept busy: one event loop cannot keep up with more than one."""
        return self.cpu / max(stream[-1] for stream in self.times)

    @property
    def gaps(self) -> list[list[float]]:
        """Milliseconds between the chunks of each stream."""
        return [[(late - early) * 1000 for early, late in pairwise(stream)] for stream in self.times]

    @property
    def median_gap(self) -> float:
        """Of all gaps of all streams."""
        return median(gap for stream in self.gaps for gap in stream)

    @property
    def worst_gap(self) -> float:
        """The longest of the stream that waited longest."""
        return max(max(stream) for stream in self.gaps)

    @property
    def first_ms(self) -> list[float]:
        """To the first words of each stream."""
        return [stream[0] * 1000 for stream in self.times]


# ---- in the process that reads ----


def child(who: str, url: str, folder: str) -> None:
    """Read all streams and leave what was heard in the folder."""
    heard = asyncio.run({"bare": through_sdk, "ours": through_router}[who](url, Path(folder)))
    Path(folder, f"{who}.json").write_text(json.dumps([heard.cpu, heard.times, heard.texts]))


async def through_sdk(url: str, _: Path) -> Heard:
    """With one client of the SDK."""
    async with bare_client(url) as client:
        return await all_at_once(lambda text: bare(client, text))


async def through_router(url: str, folder: Path) -> Heard:
    """With one router."""
    async with router_at(url, folder) as router:
        return await all_at_once(lambda text: ours(router, text))


async def all_at_once(speak: Speak) -> Heard:
    """A short stream to load and connect, then all of them."""
    _, warm = await listen(speak(prompt(FEW)))
    cpu = time.process_time()
    done = await asyncio.gather(*(listen(speak(prompt(WORDS, f"train {n}"))) for n in range(STREAMS)))
    cpu = time.process_time() - cpu
    return Heard(cpu, [times for times, _ in done], [warm, *(text for _, text in done)])


async def listen(words: AsyncGenerator[str, None]) -> tuple[list[float], str]:
    """When each chunk came, in seconds from the call, and all of the text."""
    start, times, heard = time.perf_counter(), [], []
    async for piece in words:
        times.append(time.perf_counter() - start)
        heard.append(piece)
    return times, "".join(heard)


# ---- in the process that measures ----


def measured(who: str, url: str, folder: str) -> tuple[Cost, Heard]:
    """One process of 100 streams: what it cost in all, and what it heard."""
    cost = run([PYTHON, "-c", CHILD, who, url, folder])
    return cost, Heard(*json.loads(Path(folder, f"{who}.json").read_text()))


def billed(url: str) -> int:
    """Nano-dollars on the sandbox's own bill."""
    with urllib.request.urlopen(f"{url}/_sandbox/bill?rows=0") as answer:
        total: dict[str, Any] = json.load(answer)["totals"]
    return int(total["cost_nano_usd"])


def check(folder: str, heard: Heard, words: list[str], bill: int) -> None:
    """Every job succeeded with all that the bare SDK read, and the ledger is the bill."""
    from db.engine import connect
    from tests.lanes import balanced, rows, settled, states

    store = connect(f"sqlite:///{folder}/bench.db")
    try:
        balanced(store)
        assert states(store) == {"succeeded": STREAMS + 1}
        stored = [row[0] for row in rows(store, "SELECT text FROM result WHERE NOT partial")]
        assert sorted(stored) == sorted(heard.texts), "what is kept is not what was read"
        assert heard.texts == words, "the router's words are not the bare SDK's"
        assert settled(store) == (bill, 0, 0), f"the ledger says {settled(store)}, the bill {bill}"
    finally:
        store.close()


def one_round(url: str) -> tuple[Heard, Cost, Heard]:
    """The bare SDK's streams, then the router's, from an empty database."""
    with tempfile.TemporaryDirectory() as folder:
        _, alone = measured("bare", url, folder)
        before = billed(url)
        cost, through = measured("ours", url, folder)
        check(folder, through, alone.texts, billed(url) - before)
    return alone, cost, through


def describe(name: str, done: list[Heard]) -> None:
    """Print what a reader met with."""
    figures = ("cpu_us", "cores", "median_gap", "worst_gap")
    cpu, cores, gap, worst = (median(getattr(one, figure) for one in done) for figure in figures)
    first = [ms for one in done for ms in one.first_ms]
    print(f"       {name}: {cpu:.0f} µs of CPU a chunk, {cores:.2f} cores;", end=" ")
    print(
        f"gaps {gap:.1f} ms, the worst {worst:.0f} ms; first token {median(first):.0f} ms, at worst {max(first):.0f} ms"
    )


def main() -> bool:
    """Gaps at the reader, and the peak memory of a process of its own; every round counts."""
    print(f"{STREAMS} streams of {WORDS} chunks at {PACE} a second each, in one process; medians of {RUNS} rounds:")
    with sandbox(tokens_per_second=PACE) as url:
        rounds = [one_round(url) for _ in range(RUNS)]
    alone, costs, through = (list(part) for part in zip(*rounds, strict=True))
    describe("through the router", through)
    describe("the bare SDK", alone)
    ratio = median(one.cpu_us / other.cpu_us for one, other in zip(through, alone, strict=True))
    print(
        f"       CPU a chunk / the bare SDK's: {ratio:.3g}; all succeeded with all their words, the ledger is the bill"
    )
    held = verdict("worst gap / the median gap", max(one.worst_gap / one.median_gap for one in through), 10)
    return verdict("peak MB", max(cost.peak_mb for cost in costs), 300) and held


if __name__ == "__main__":
    raise SystemExit(not main())
