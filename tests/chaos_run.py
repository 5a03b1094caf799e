"""One plan on one database, from the first job to the audit."""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.chaos import Nursery, chaos
from tests.chaos_audit import Audit
from tests.chaos_plans import Plan
from tests.postgres import Postgres, postgres


@dataclass(frozen=True)
class Ran:
    """How it went; `wrong` says what must not be, with how all stands then and the workers' last words."""

    plan: str
    database: str
    kills: int
    pauses: int
    broken: int
    found: Audit
    wrong: str
    seconds: float

    def row(self) -> tuple[object, ...]:
        """For the table of `make chaos`."""
        found = self.found
        return (self.plan, self.database, self.kills, self.pauses, self.broken, found.batch_rows,
                found.rows_twice + found.jobs_twice, found.files_twice, found.batches_twice, found.lost,
                found.live_calls, found.live_repeated, found.unknown, round(self.seconds, 1))  # fmt: skip


def run(workers: Nursery, shared: Postgres, plan: Plan, database: str, folder: Path, seed: int = 1) -> Ran:
    """Play it all and audit it; a worker or an act that fails is wrong, too."""
    began = time.monotonic()
    with ExitStack() as stack:
        server = stack.enter_context(postgres(durable=True)) if plan.own_server else shared
        url = f"sqlite:///{folder / 'shunter.db'}" if database == "sqlite" else server.create()
        own = server if plan.own_server else None
        made = stack.enter_context(chaos(workers, url, folder, plan.sandbox, server=own, random=Random(seed)))
        wrong = []
        try:
            plan.play(made)
        except AssertionError as error:
            wrong.append(str(error))
        found = made.audit()
        wrong += found.wrong
        if not set(states := made.world.states()) <= set(plan.ends):
            wrong.append(f"the jobs are {states}")
        if plan.even and (found.unknown or found.lacking):
            wrong.append(f"{found.unknown} unknown attempts, {found.lacking} nano-dollars are not on the ledger")
        said = "\n".join([*wrong, made.standing(), made.log()]) if wrong else ""
        counts = made.kills, made.pauses, made.broken
    return Ran(plan.name, database, *counts, found, said, time.monotonic() - began)
