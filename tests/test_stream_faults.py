"""A thousand streams, many at once, with random faults and readers who may leave: all end, and the account balances."""

import asyncio
import os
import threading
import time
from collections import Counter
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from db import queue
from db.engine import Store, connect
from db.ids import new_id
from db.migrations import migrate
from db.queue import Claim
from db.settle import Failed, Succeeded
from db.states import FINAL
from jobs import stream
from jobs.chat import OnLeave
from jobs.context import Context
from jobs.providers import Endpoint, Timeouts
from jobs.sandbox.server import Sandbox, running
from tests.fault_plans import SANDBOX, Plan, Seen, Words, drills, plans
from tests.lanes import KEY, decision, job, rows

SEED = int(os.environ.get("FAULT_SEED", "20261122"))
STREAMS, AT_ONCE = 1000, 100
QUICK = Timeouts(first_token=1.0, idle=0.6, total=5.0, connect=5.0)
OPEN_FILES = Path("/proc/self/fd")

pytestmark = pytest.mark.skipif(not OPEN_FILES.exists(), reason="open files are counted under /proc")


@dataclass
class Traffic:
    """All that is left of a thousand streams once their process is done."""

    seen: list[Seen]
    jobs: dict[str, Any]
    results: dict[str, Any]
    attempts: list[Any]
    pieces: int  # left in the log
    bill: dict[str, dict[str, Any]]  # by request id
    under_way: int  # requests that the sandbox still works on after every job has ended
    tasks: set[str]  # and what the event loop complained of
    files: Counter[str]
    threads: set[str]

    def stored(self, seen: Seen) -> Words:
        """What is kept of a job; Anthropic's refusals are texts, marked as such at their end."""
        row = self.results[seen.job_id]
        said = {"text": row.text, "refusal": "" if seen.plan.form == "messages" else row.refusal}
        said |= {f"call {at}": call["raw"] for at, call in enumerate(orjson.loads(row.tool_calls or "[]"))}
        return {name: words for name, words in said.items() if words}

    def billed(self, attempt: Any) -> int:
        """Nano-dollars of an attempt on the sandbox's bill."""
        row = self.bill.get(attempt.request_id)
        return row["cost_nano_usd"] if row else 0

    def shown(self, attempt: Any) -> str:
        """An attempt whose figures do not fit, with all that is needed to see why."""
        plan = next(seen.plan for seen in self.seen if seen.job_id == attempt.job_id)
        usage = self.bill.get(attempt.request_id, {}).get("usage")
        return f"{plan}: {attempt._asdict()}, on the bill {self.billed(attempt)} for {usage}"

    def __str__(self) -> str:
        ends = Counter((row.state, row.error_code) for row in self.jobs.values())
        tries = Counter((row.state, row.outcome, row.error_code) for row in self.attempts)
        lines = [f"seed {SEED}", "jobs:", *_counted(ends), "attempts:", *_counted(tries)]
        return "\n".join(lines)


def _counted(found: Counter[Any]) -> list[str]:
    return [f"  {number:5} {' '.join(map(str, what))}" for what, number in found.most_common()]


# ---- a thousand streams ----


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> Traffic:
    folder = tmp_path_factory.mktemp("streams")
    with pytest.MonkeyPatch.context() as patch, running(SANDBOX) as sandbox:
        for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
            patch.setenv(name, KEY)
        found = _carried(sandbox, folder)
    print(found)
    return found


def _carried(sandbox: Sandbox, folder: Path) -> Traffic:
    files, threads = _open_files(), set(threading.enumerate())
    given = plans(SEED, STREAMS)
    sandbox.faults(drills(given))
    store = connect(f"sqlite:///{folder / 'shunter.db'}")
    migrate(store)
    seen, tasks, under_way = asyncio.run(_streams(store, sandbox, folder, given))
    kept = _kept(store)
    store.close()
    left = _soon(lambda: _open_files() - files)
    return Traffic(
        seen=seen,
        bill={row["request_id"]: row for row in sandbox.bill()["rows"]},
        tasks=tasks,
        under_way=under_way,
        files=left,
        threads={thread.name for thread in set(threading.enumerate()) - threads},
        **kept,
    )


def _kept(store: Store) -> dict[str, Any]:
    jobs = rows(store, "SELECT id, state, lease_by, lease_until, finished_at, error_code, error FROM job")
    results = rows(store, "SELECT job_id, attempt, text, refusal, tool_calls, partial, truncated FROM result")
    attempts = rows(
        store, "SELECT job_id, n, state, outcome, error_code, model, request_id, cost_nano, at_risk_nano FROM attempt"
    )
    return {
        "jobs": {row.id: row for row in jobs},
        "results": {row.job_id: row for row in results},
        "attempts": attempts,
        "pieces": rows(store, "SELECT count(*) FROM delta")[0][0],
    }


def _open_files() -> Counter[str]:
    """What this process has open, sockets as one kind."""
    found: Counter[str] = Counter()
    for name in os.listdir(OPEN_FILES):
        with suppress(FileNotFoundError):  # the folder that is listed
            found[os.readlink(OPEN_FILES / name).partition(":[")[0]] += 1
    return found


def _soon(left: Any, seconds: float = 5.0) -> Any:
    """What is left when nothing is, or in the end: the sandbox notices a closed connection a moment later."""
    end = time.monotonic() + seconds
    while left() and time.monotonic() < end:
        time.sleep(0.01)
    return left()


async def _streams(store: Store, sandbox: Sandbox, folder: Path, given: list[Plan]) -> tuple[list[Seen], set[str], int]:
    before, complaints = asyncio.all_tasks(), set[str]()
    asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.add(str(what)))
    contexts = {form: _context(store, sandbox, folder, form) for form in ("chat", "responses", "messages")}
    for form, context in contexts.items():
        context.provider("anthropic" if form == "messages" else "openai")  # its SDK takes a second to import
    room = asyncio.Semaphore(AT_ONCE)

    async def one(plan: Plan) -> Seen:
        async with room:
            return await _read(contexts[plan.form], plan)

    seen = await asyncio.gather(*map(one, given))
    for context in contexts.values():
        await context.settled()
    under_way = await asyncio.to_thread(_soon, lambda: _under_way(sandbox))
    for context in contexts.values():
        await context.close()
    return seen, complaints | {str(task) for task in asyncio.all_tasks() - before}, under_way


def _under_way(sandbox: Sandbox) -> int:
    """How many requests it works on: its tasks but for the server's own and the one that asks."""
    tasks: int = sandbox._do(lambda: len(asyncio.all_tasks()))
    return tasks - 2


def _context(store: Store, sandbox: Sandbox, folder: Path, form: str) -> Context:
    api = "responses" if form == "responses" else "chat"
    endpoints = {
        "openai": Endpoint("openai", f"{sandbox.url}/v1", own=False, key_env="OPENAI_API_KEY", api=api),
        "anthropic": Endpoint("anthropic", sandbox.url, own=False, key_env="ANTHROPIC_API_KEY"),
    }
    return Context(store, endpoints, owner=f"owner of {form}", install="here", folder=folder, timeouts=QUICK)


async def _read(context: Context, plan: Plan) -> Seen:
    """Submit a stream and read it as its plan says."""
    claim = await _submitted(context, plan)
    seen = Seen(plan, claim.job_id)
    with suppress(TimeoutError):
        async with asyncio.timeout(plan.leaves_after), aclosing(stream.watch(context, claim)) as events:
            async for event in events:
                seen.take(event)
                if sum(map(len, seen.deltas.values())) == plan.leaves_at:
                    return seen
            seen.stayed = True
    return seen


async def _submitted(context: Context, plan: Plan) -> Claim:
    """Its job, with its first attempt open."""
    now = context.clock.now()
    words = {"handling": plan.handling.stored(), "interactive": True, "model": plan.model, "sent": plan.sent}
    new = job(plan.prompt, now=now, lane="stream", decision_id=new_id(now), **words)
    decided = decision(new.decision_id, lane="stream") | plan.estimate
    claim = await context.db(queue.start, new, new.id, decided, context.owner, context.until(), now)
    assert claim is not None
    return claim


# ---- what must hold ----


def test_every_job_has_a_final_state_and_no_lease(traffic: Traffic) -> None:
    assert len(traffic.jobs) == STREAMS
    wrong = [
        f"{seen.plan}: {row}, {[one[1:] for one in traffic.attempts if one.job_id == seen.job_id]}"
        for seen in traffic.seen
        if (row := traffic.jobs[seen.job_id]).state not in FINAL or row.lease_by or row.lease_until
    ]
    assert not wrong, _list(wrong)
    assert "sent" not in {row.state for row in traffic.attempts}


def test_a_reader_who_stays_sees_how_the_job_ends(traffic: Traffic) -> None:
    states = {Succeeded: "succeeded", Failed: "failed"}
    for seen in traffic.seen:
        if seen.stayed:
            assert [ended.n for ended in seen.ended] == list(range(1, len(seen.ended) + 1))
            assert states[type(seen.ended[-1].ending)] == traffic.jobs[seen.job_id].state, str(seen.plan)


def test_what_is_stored_is_what_was_sent(traffic: Traffic) -> None:
    """All of it for a reader who stayed; one who left may have missed what had come by then, or came later."""
    wrong = []
    for seen in traffic.seen:
        n = traffic.results[seen.job_id].attempt if seen.job_id in traffic.results else 0
        stored = traffic.stored(seen) if n else {}
        heard = seen.words(n)
        same = stored == heard if seen.stayed else all(stored.get(name, "").startswith(heard[name]) for name in heard)
        later = any(seen.words(m) for m in seen.deltas if m > n)
        true = all(seen.plan.could_say(name, words) for name, words in stored.items())
        if later or not (same and true):
            wrong.append(f"{seen.plan}: stored of try {n} {stored}, heard {[(m, seen.words(m)) for m in seen.deltas]}")
    assert not wrong, _list(wrong)


def test_a_success_has_a_whole_answer(traffic: Traffic) -> None:
    """So may a job that was cancelled and drained; no other has."""
    wrong = []
    for seen in traffic.seen:
        row, state = traffic.results.get(seen.job_id), traffic.jobs[seen.job_id].state
        whole = row if row is not None and not row.partial else None
        drained = state == "cancelled" and seen.plan.handling.on_leave == OnLeave.DRAIN
        if (whole is not None) != (state == "succeeded") and not drained:
            wrong.append(f"{seen.plan}: {state}, stored {row}")
        elif whole and not whole.truncated and not seen.plan.calls and whole.text != seen.plan.full.text:
            wrong.append(f"{seen.plan}: stored {whole.text}, not {seen.plan.full.text}")
    assert not wrong, _list(wrong)


def test_the_ledger_is_the_bill_to_the_nano_dollar_where_the_cost_is_known(traffic: Traffic) -> None:
    known = [row for row in traffic.attempts if row.cost_nano is not None]
    wrong = [traffic.shown(row) for row in known if row.cost_nano != traffic.billed(row)]
    assert not wrong, _list(wrong)
    assert sum(row.cost_nano for row in known) == sum(map(traffic.billed, known)) > 0


def test_what_is_unknown_is_billed_within_what_is_at_risk(traffic: Traffic) -> None:
    unknown = [row for row in traffic.attempts if row.cost_nano is None and row.request_id]
    wrong = [traffic.shown(row) for row in unknown if not 0 <= traffic.billed(row) <= row.at_risk_nano]
    assert not wrong, _list(wrong)


def test_the_rest_of_the_bill_is_within_what_the_rest_puts_at_risk(traffic: Traffic) -> None:
    """Of attempts that ended before they had a request id only sums can be compared: here for each model."""
    rest, risk = Counter[str](), Counter[str]()
    known = {row.request_id for row in traffic.attempts}
    for key, row in traffic.bill.items():
        rest[row["model"]] += 0 if key in known else row["cost_nano_usd"]
    for row in traffic.attempts:
        risk[row.model] += row.at_risk_nano if row.cost_nano is None and not row.request_id else 0
    assert rest <= risk, f"{rest} on the bill, {risk} at risk"


def test_nothing_is_left(traffic: Traffic) -> None:
    assert traffic.pieces == 0, "rows in the log of deltas"
    assert traffic.under_way == 0, "requests that nobody waits for"
    assert traffic.tasks == set()
    assert traffic.files == Counter()
    assert traffic.threads == set()


def _list(wrong: list[str]) -> str:
    return "\n".join([f"{len(wrong)} of seed {SEED}:", *wrong[:20]])
