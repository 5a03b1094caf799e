"""`make chaos`: every plan on both databases, and more that are drawn at random; a table of what became of it.

CHAOS_SEED (1) and CHAOS_ROUNDS (3) choose what is drawn: each round plays kills at random points and at random times,
pauses at random points, and faults of the provider. Ends with 1 when anything was wrong.
"""

import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

from tests.chaos import KEY, nursery
from tests.chaos_acts import Act, at_random, kill, pause, some
from tests.chaos_plans import BOTH, MIXED, PLANS, POINTS, Plan
from tests.chaos_run import Ran, run
from tests.postgres import postgres

AT_ONCE = 6
COLUMNS = ("run", "database", "kills", "pauses", "broken", "rows billed", "twice", "files twice", "batches twice",
           "jobs lost", "live calls", "repeated", "unknown", "seconds")  # fmt: skip


def drawn(seed: int) -> Plan:
    """A plan of the dice."""
    dice = Random(seed)
    points = [dice.choice(POINTS) for _ in range(8)]
    acts: list[Act] = [some(kill(point)) for point in points[:5]]
    acts += [some(pause(point)) for point in points[5:7]] + [some(pause(points[7], dice.choice(POINTS)))]
    acts += [at_random(dice.randint(3, 8))]
    dice.shuffle(acts)
    faults = dice.sample(FAULTS, 3)
    sandbox = {"batch_seconds": dice.choice([0.2, 1.0, 2.0]), "late_list_s": dice.choice([0.0, 0.3]),
               "latency_s": dice.choice([0.0, 0.1]), "faults": faults}  # fmt: skip
    jobs = {kind: 3 * number for kind, number in MIXED.items()}
    ends = "succeeded", "failed"  # killed, answered 500 and cut is three tries: the audit counts them
    return Plan(f"drawn {seed}", acts, jobs, sandbox, ends, even=False)


FAULTS = [
    {"kind": "lost_create", "times": 2, "chance": 0.5},
    {"kind": "lost_create", "times": 1, "how": "hang"},
    {"kind": "fail_rows", "fraction": 0.3, "times": 2},
    {"kind": "expire", "fraction": 0.5, "times": 1},
    {"kind": "token_limit", "times": 1},
    {"kind": "status", "status": 500, "chance": 0.05},
    {"kind": "status", "status": 429, "retry_after": 1, "chance": 0.05},
    {"kind": "drop", "chance": 0.03},
]


def plans() -> Iterator[tuple[Plan, str, int]]:
    first = int(os.environ.get("CHAOS_SEED", "1"))
    rounds = int(os.environ.get("CHAOS_ROUNDS", "3"))
    for plan in PLANS:
        yield from ((plan, database, first) for database in plan.on)
    for seed in range(first, first + rounds):
        yield from ((drawn(seed), database, seed) for database in BOTH)


def main() -> int:
    os.environ |= {"OPENAI_API_KEY": KEY, "ANTHROPIC_API_KEY": KEY}
    logging.disable(logging.CRITICAL)
    began = time.monotonic()
    print(" | ".join(COLUMNS), flush=True)
    with (
        postgres() as server,
        nursery() as workers,
        ThreadPoolExecutor(AT_ONCE) as pool,
        tempfile.TemporaryDirectory() as folder,
    ):

        def one(given: tuple[Plan, str, int]) -> Ran:
            plan, database, seed = given
            return run(workers, server, plan, database, Path(tempfile.mkdtemp(dir=folder)), seed)

        done = []
        for ran in pool.map(one, plans()):
            done.append(ran)
            print(" | ".join(map(str, ran.row())), flush=True)
            if ran.wrong:
                print(f"  WRONG: {ran.wrong}", flush=True)
    bad = sum(bool(ran.wrong) for ran in done)
    print(f"{len(done)} runs, {sum(ran.kills for ran in done)} kills, {sum(ran.pauses for ran in done)} pauses, "
          f"{bad} wrong, {time.monotonic() - began:.0f} s")  # fmt: skip
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
