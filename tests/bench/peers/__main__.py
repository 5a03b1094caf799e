"""`python -m tests.bench.peers`, or some of them: `python -m tests.bench.peers curator autobatcher`.

Each peer is installed from its package into an environment of its own under build/peers, and runs against the same
sandbox as Shunter in the same run; ratios are to Shunter's. SHUNTER_BENCH_PEER_ROWS changes how many rows.
"""

import os
import sys
from collections.abc import Callable
from statistics import median
from typing import TypeVar

from tests.bench.peers.contenders import PEERS, Contender, Shunter
from tests.bench.peers.places import NotThere
from tests.bench.peers.running import Failed
from tests.bench.peers.trials import LATENCY_S, Bill, Speed, kill, lost, speed

ROWS, RUNS = int(os.environ.get("SHUNTER_BENCH_PEER_ROWS", "2000")), 3
Found = TypeVar("Found")
Speeds = dict[str, Speed]
Bills = dict[str, Bill]


def there(names: list[str]) -> list[Contender]:
    """Shunter, and the peers that can be had; one line for each that cannot."""
    unknown = set(names) - {peer.name for peer in PEERS}
    if unknown:
        raise SystemExit(f"no peer {', '.join(sorted(unknown))}; there are {', '.join(peer.name for peer in PEERS)}")
    found: list[Contender] = [Shunter()]
    for peer in PEERS:
        if names and peer.name not in names:
            continue
        try:
            peer.ready()
            found.append(peer)
        except NotThere as why:
            print(f"       {peer.title}: not installed: {why}")
    return found


def tried(one: Contender, what: str, trial: Callable[[], Found]) -> Found | None:
    """A trial; one line when it fails."""
    try:
        return trial()
    except Failed as why:
        print(f"       {one.title}, {what}: {why}", flush=True)
        return None


def speeds(field: list[Contender], lane: str) -> Speeds:
    """Medians of a lane, all in turn, after a run of each that does not count; one that fails is left out."""
    names = ", ".join(one.name for one in field if lane in one.lanes)
    print(f"       {lane}: {RUNS + 1} rounds of {names}", flush=True)
    runs: dict[str, list[Speed]] = {one.title: [] for one in field if lane in one.lanes}
    for _ in range(RUNS + 1):
        for one in field:
            if one.title not in runs:
                continue
            found = tried(one, lane, lambda one=one: speed(one, lane, ROWS))  # type: ignore[misc]
            if found is None:
                del runs[one.title]
            else:
                runs[one.title].append(found)
    return {
        title: Speed(median(run.rate for run in counted[1:]), median(run.peak_mb for run in counted[1:]))
        for title, counted in runs.items()
    }


def bills(field: list[Contender], what: str, trial: Callable[[Contender, int], Bill]) -> Bills:
    """Each once: it is no matter of chance."""
    found = {}
    for one in field:
        if "batch" not in one.lanes:
            continue
        ended = tried(one, what, lambda one=one: trial(one, ROWS))  # type: ignore[misc]
        if ended is None:
            continue
        found[one.title] = ended
        if ended.answered < 1:
            print(f"       {one.title}, {what}: {ended.answered:.0%} answered. {ended.trouble}", flush=True)
    return found


def column(found: Speeds, title: str) -> list[str]:
    """Rows a second, the same beside Shunter's, megabytes."""
    if title not in found:
        return ["-", "-", "-"]
    one, ours = found[title], found.get("shunter")
    return [f"{one.rate:,.0f}", f"{one.rate / ours.rate:.2f}" if ours else "-", f"{one.peak_mb:.0f}"]


def ratio(found: Bills, title: str) -> str:
    return f"{found[title].billed:.2f}" if title in found else "-"


def table(field: list[Contender], batch: Speeds, live: Speeds, losses: Bills, kills: Bills) -> None:
    """One line a contender."""
    three = ["rows/s", "/ Shunter's", "peak MB"]
    rows = [["", *three, *three, "answer lost", "killed"]]
    for one in field:
        name = one.title
        rows.append([name, *column(batch, name), *column(live, name), ratio(losses, name), ratio(kills, name)])
    wide = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    spans = [sum(wide[1:4]) + 4, sum(wide[4:7]) + 4, sum(wide[7:9]) + 2]
    heads = ["a batch", f"live calls, {LATENCY_S * 1000:.0f} ms", "rows billed / asked"]
    print(" " * wide[0], *(head.center(span) for head, span in zip(heads, spans, strict=True)), sep="  ")
    for name, *cells in rows:
        print(name.ljust(wide[0]), *(cell.rjust(width) for cell, width in zip(cells, wide[1:], strict=True)), sep="  ")


def main(names: list[str]) -> bool:
    """All of it; whether Shunter was billed each row once."""
    print(f"{ROWS:,} rows, from the file to the answers, medians of {RUNS}; whole processes:", flush=True)
    field = there(names)
    batch, live = speeds(field, "batch"), speeds(field, "live")
    losses, kills = bills(field, "the answer to the create lost", lost), bills(field, "killed after the create", kill)
    table(field, batch, live, losses, kills)
    ours = [found.get("shunter") for found in (losses, kills)]
    return all(one is not None and one.billed == one.answered == 1 for one in ours)


if __name__ == "__main__":
    raise SystemExit(not main(sys.argv[1:]))
