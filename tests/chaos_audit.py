"""After the chaos: jobs, ledger and the sandbox's own bill and batches side by side, to the nano-dollar."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from db import lookup
from db.engine import Store
from db.ids import custom_id
from jobs.sandbox.server import Sandbox
from tests.lanes import ENDED, rows

BATCHED = ("batch", "background")


@dataclass
class Audit:
    """What was counted, and in `wrong` whatever may never be."""

    jobs: int = 0
    lost: int = 0
    batch_rows: int = 0
    rows_twice: int = 0  # custom_ids with more than one charge
    jobs_twice: int = 0  # jobs with a second charge in a batch that no unknown or unusable first one explains
    files_twice: int = 0
    batches_twice: int = 0
    live_calls: int = 0
    live_repeated: int = 0
    unknown: int = 0
    lacking: int = 0  # nano-dollars that the ledger lacks of the bill
    wrong: list[str] = field(default_factory=list)

    def must(self, holds: bool, why: str) -> None:
        if not holds:
            self.wrong.append(why)


@dataclass(frozen=True)
class _Attempt:
    job_id: str
    n: int
    state: str
    lane: str
    cost: int | None
    risk: int | None
    request_id: str | None
    remote: str | None
    late: bool  # its answer came after its job had ended

    @property
    def key(self) -> str:
        return custom_id(self.job_id, self.n)


def audit(store: Store, sandbox: Sandbox, *, stopped: int, concurrency: int) -> Audit:
    """`stopped` workers were killed or paused, each with at most `concurrency` calls in flight."""
    found = Audit()
    attempts = _attempts(store)
    bill: list[Mapping[str, Any]] = sandbox.bill()["rows"]
    _account(store, found, attempts)
    _batch_rows(found, attempts, [row for row in bill if row["kind"] == "batch"])
    _live_calls(found, attempts, [row for row in bill if row["kind"] != "batch"], stopped * concurrency)
    _money(found, attempts, bill)
    _provider(found, sandbox)
    return found


def _attempts(store: Store) -> list[_Attempt]:
    return [
        _Attempt(*row)
        for row in rows(
            store,
            "SELECT a.job_id, a.n, a.state, a.lane, a.cost_nano, a.at_risk_nano, a.request_id, b.provider_batch_id, "
            "coalesce(a.ended_at > j.finished_at, 1 = 0) FROM attempt a JOIN job j ON j.id = a.job_id "
            "LEFT JOIN batch b ON b.id = a.batch_id ORDER BY a.job_id, a.n",
        )
    ]


def _account(store: Store, found: Audit, attempts: Sequence[_Attempt]) -> None:
    """Every job that was accepted is in one final state; each success has its answer, each attempt its end."""
    counts = lookup.counts(store)
    found.jobs = int(rows(store, "SELECT coalesce(sum(accepted), 0) FROM submission")[0][0])
    found.must(found.jobs == sum(counts.values()), f"{found.jobs} jobs accepted, {counts} there")
    unanswered = rows(store, "SELECT id FROM job WHERE state = 'succeeded' AND id NOT IN "
                             "(SELECT job_id FROM result WHERE NOT partial)")  # fmt: skip
    given_up = _given_up(store, attempts)
    final = sum(counts.get(state, 0) for state in ENDED)
    failed = counts.get("failed", 0)
    found.lost = found.jobs - final + len(unanswered) + failed - given_up
    why = rows(store, "SELECT error_code, error, count(*) FROM job WHERE state = 'failed' GROUP BY error_code, error")
    found.must(
        not found.lost, f"jobs lost: {counts}, {len(unanswered)} without an answer, {given_up} given up; failed: {why}"
    )
    found.must(not any(one.state == "sent" for one in attempts), "an attempt is still open")
    open_ = rows(store, "SELECT id, state, error FROM batch WHERE state <> 'imported'")
    found.must(not open_, f"batches are still open: {open_}")
    found.unknown = sum(one.state == "unknown" for one in attempts)


def _given_up(store: Store, attempts: Sequence[_Attempt]) -> int:
    """Failed jobs that may fail: each of their three tries died with its worker, or failed at the provider."""
    tries: dict[str, list[str]] = defaultdict(list)
    for one in attempts:
        if one.state not in ("expired", "cancelled"):  # those never ran
            tries[one.job_id].append("unknown" if one.late else one.state)
    failed = rows(store, "SELECT id FROM job WHERE state = 'failed'")
    return sum(len(tries[job_id]) == 3 and set(tries[job_id]) <= {"unknown", "failed"} for (job_id,) in failed)


def _batch_rows(found: Audit, attempts: Sequence[_Attempt], bill: Sequence[Mapping[str, Any]]) -> None:
    """Each row that was billed is one attempt, billed once, at what the ledger says."""
    known = {one.key: one for one in attempts if one.lane in BATCHED}
    billed = Counter(str(row["custom_id"]) for row in bill)
    found.batch_rows = len(bill)
    twice = [key for key, count in billed.items() if count > 1]
    found.rows_twice = len(twice)
    found.must(not twice, f"batch rows billed twice: {twice}")
    for row in bill:
        one = known.get(row["custom_id"])
        if one is None:
            found.wrong.append(f"billed, and not on the ledger: {row['custom_id']}")
        elif one.cost is None:
            found.must(row["cost_nano_usd"] <= (one.risk or 0), f"{one} was billed {row['cost_nano_usd']}")
        else:
            found.must(one.cost == row["cost_nano_usd"], f"{one} was billed {row['cost_nano_usd']}")
            found.must(one.remote == row["batch_id"], f"{one} was billed in {row['batch_id']}")
    unbilled = [one for key, one in known.items() if one.cost and key not in billed]
    found.must(not unbilled, f"on the ledger, and not billed: {unbilled}")
    _paid_again(found, [one for key, one in known.items() if key in billed])


def _paid_again(found: Audit, paid: Sequence[_Attempt]) -> None:
    """A job is paid for again only after an attempt that brought nothing."""
    seen: dict[str, _Attempt] = {}
    for one in paid:
        before = seen.get(one.job_id)
        if before is not None and before.state == "ok":
            found.jobs_twice += 1
            found.wrong.append(f"paid again after an answer: {before}, {one}")
        seen[one.job_id] = one


def _live_calls(found: Audit, attempts: Sequence[_Attempt], bill: Sequence[Mapping[str, Any]], most: int) -> None:
    """Each call that was billed is an attempt's by its request id, or else one of the unknown attempts'."""
    live = [one for one in attempts if one.lane not in BATCHED]
    paid = {one.request_id: one for one in live if one.cost}
    found.live_calls = len(bill)
    found.live_repeated = len(bill) - len({one.job_id for one in live if one.cost})
    found.must(found.live_repeated <= most, f"{found.live_repeated} live calls repeated, at most {most} were in flight")
    nobodys = []
    for row in bill:
        one = paid.pop(row["request_id"], None)
        if one is None:
            nobodys.append(row["cost_nano_usd"])
        else:
            found.must(one.cost == row["cost_nano_usd"], f"{one} was billed {row['cost_nano_usd']}")
    found.must(not paid, f"on the ledger, and not billed: {list(paid.values())}")
    unknown = [one.risk or 0 for one in live if one.cost is None]
    found.must(len(nobodys) <= len(unknown), f"{len(nobodys)} calls were billed to nobody, {len(unknown)} unknown")
    found.must(sum(nobodys) <= sum(unknown), f"{sum(nobodys)} nano-dollars, at risk are {sum(unknown)}")


def _money(found: Audit, attempts: Sequence[_Attempt], bill: Sequence[Mapping[str, Any]]) -> None:
    """What the ledger lacks of the bill is within what it says is at risk."""
    settled, risk = sum(one.cost or 0 for one in attempts), sum(one.risk or 0 for one in attempts)
    found.lacking = sum(row["cost_nano_usd"] for row in bill) - settled
    found.must(0 <= found.lacking <= risk, f"the bill less the ledger is {found.lacking} nano-dollars, at risk {risk}")


def _provider(found: Audit, sandbox: Sandbox) -> None:
    """No row was in two batches. A second file of one batch is only untidy: nothing is paid for it."""
    held = Counter(chain.from_iterable(map(set, sandbox.results().values())))
    twice = [key for key, count in held.items() if count > 1]
    found.batches_twice = len(twice)
    found.must(not twice, f"rows in two batches: {twice}")
    found.files_twice = sum(count - 1 for count in Counter(sandbox.input_files()).values())
