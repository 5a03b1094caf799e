"""What the tests of the store and of the lanes share: jobs without a policy, a context, a clock, and the account."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import text

from db import lookup, packing, queue, reports
from db.engine import Store
from db.ids import new_id
from db.packing import Room, Waiting
from db.queue import NewJob
from db.states import FINAL, JobState
from jobs import worker
from jobs.chat import Request
from jobs.clock import Clock
from jobs.context import Context
from jobs.providers import Endpoint, Timeouts
from jobs.sandbox.server import Sandbox
from router.intake import canonical
from tests.rolled import rolled_up

MODEL, CLAUDE, KEY = "gpt-6-luna", "claude-haiku-5-5", "sk-test-0123456789"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
RISK = 10_000_000  # nano-dollars that a decision puts at risk: more than any answer here costs
_numbers = itertools.count()


def decision(
    ident: str = "d", *, lane: str = "batch", plan: list[dict[str, Any]] | None = None, input_tokens: int = 1
) -> dict[str, Any]:
    """The row of a decision."""
    steps = plan or [{"lane": lane, "tier": "default", "leave_by": None}]
    words = {"class": "bulk", "tier": "default", "rule": "r", "reason": "why", "policy": "p"}
    numbers = {"input_tokens": input_tokens, "output_p50": 1, "output_p90": 1, "cost_nano": 1, "cost_p90_nano": RISK}
    times = {"finish_by": NOW, "decided_at": NOW}
    return {"id": ident, "lane": lane, "plan": steps, "options": [], **words, **numbers, **times}


def body(prompt: str, **more: Any) -> str:
    """The canonical body of a request."""
    return canonical({"model": MODEL, "messages": [{"role": "user", "content": prompt}], **more})


def job(prompt: str = "hi", *, now: datetime = NOW, lane: str = "batch", **more: Any) -> NewJob:
    """A job as it comes in; `more` are columns, and `sent` the further fields of its body."""
    number = next(_numbers)
    model = more.pop("model", MODEL)
    facts: dict[str, Any] = {
        "row_key": f"key {number}", "client_key": None, "decision_id": "d", "tier": "default", "model": model,
        "provider": "anthropic" if model.startswith("claude") else "openai", "interactive": False, "priority": 0,
        "tags": None, "deadline_at": None, "leave_by": None, "post_process": None,
        "body": body(prompt, **{"model": model, **more.pop("sent", {})}),
    }  # fmt: skip
    return NewJob(id=new_id(now), lane=lane, **facts | more)


def add(store: Store, *jobs: NewJob, now: datetime = NOW, **decided: Any) -> list[str]:
    """Queue the jobs under one decision; their ids."""
    submission = new_id(now)
    queue.open_submission(store, submission, "test", now)
    queue.add(store, submission, [decision(jobs[0].decision_id, lane=jobs[0].lane, **decided)], jobs, now)
    return [one.id for one in jobs]


def pack(store: Store, batch_id: str, group: Waiting, *, base_url: str, max_rows: int, max_bytes: int,
         now: datetime) -> int:  # fmt: skip
    """Put the first rows of a group that fit into a batch of this id; how many."""
    cut = next(packing.cuts(store, group, Room(max_rows, max_bytes), now), None)
    return packing.pack(store, batch_id, group, cut, base_url=base_url, now=now) if cut else 0


def rows(store: Store, sql: str, **values: Any) -> list[Any]:
    """Whatever a query finds."""
    with store.read() as connection:
        return list(connection.execute(text(sql), values))


def states(store: Store) -> dict[str, int]:
    """How many jobs there are in each state that has any."""
    return {state: count for state, count in lookup.counts(store).items() if count}


def balanced(store: Store) -> None:
    """accepted = Σ states; a result for each success; Σ attempts = Σ rollups = report, each rollup for itself."""
    accepted = rows(store, "SELECT coalesce(sum(accepted), 0) FROM submission")[0][0]
    assert accepted == sum(lookup.counts(store).values())
    assert not rows(
        store,
        "SELECT id FROM job WHERE state = 'succeeded' AND id NOT IN (SELECT job_id FROM result WHERE NOT partial)",
    )
    assert reports.account(store)["balances"], reports.account(store)
    rolled_up(store)


def settled(store: Store) -> tuple[int, int, int]:
    """Nano-dollars in the ledger, attempts of unknown cost, and nano-dollars at risk."""
    found = rows(
        store,
        "SELECT coalesce(sum(cost_nano), 0), coalesce(sum(CASE WHEN cost_nano IS NULL THEN 1 ELSE 0 END), 0), "
        "coalesce(sum(at_risk_nano), 0) FROM attempt",
    )
    return tuple(found[0])


class Later(Clock):
    """The time, so many seconds on; a test moves it instead of waiting."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.ahead)


@dataclass
class World:
    """A store, a context over a sandbox, and what is done with them."""

    store: Store
    sandbox: Sandbox
    folder: Path
    clock: Later = field(default_factory=Later)
    settings: dict[str, Any] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def context(self, **changes: Any) -> Context:
        """A new process, as far as the store can tell."""
        url = self.sandbox.url
        endpoints = {
            "openai": Endpoint("openai", f"{url}/v1", own=False, key_env="OPENAI_API_KEY"),
            "anthropic": Endpoint("anthropic", url, own=False, key_env="ANTHROPIC_API_KEY"),
        }
        facts: dict[str, Any] = {
            "store": self.store, "endpoints": endpoints, "owner": f"owner-{next(_numbers)}", "install": "here",
            "folder": self.folder, "clock": self.clock, "timeouts": Timeouts(connect=2.0),
        }  # fmt: skip
        return Context(**facts | self.settings | changes)

    def add(self, *prompts: str, lane: str = "batch", **more: Any) -> list[str]:
        """Queue a job for each prompt."""
        now = self.clock.now()
        decided = {"plan": more.pop("plan")} if "plan" in more else {}
        made = [job(prompt, now=now, lane=lane, **{"decision_id": new_id(now), **more}) for prompt in prompts]
        return [ident for one in made for ident in add(self.store, one, now=now, **decided)]

    def work(self, **changes: Any) -> None:
        """`worker --once` in a process of its own."""
        asyncio.run(self.once(**changes))

    async def once(self, **changes: Any) -> None:
        context = self.context(**changes)
        try:
            told = worker.Told(trouble=self.troubles.append, note=self.notes.append)
            await worker.once(context, told, asyncio.Event())
        finally:
            await context.close()

    def job(self, ident: str) -> Mapping[str, Any]:
        """A job in its JSON form."""
        found = lookup.job(self.store, ident)
        assert found is not None
        return found

    def states(self) -> dict[str, int]:
        return states(self.store)

    def attempts(self) -> Counter[str]:
        """How many attempts there are in each state."""
        return Counter(row[0] for row in rows(self.store, "SELECT state FROM attempt"))

    def even(self) -> None:
        """The account balances, nothing is open or unknown, and the ledger is the sandbox's bill."""
        balanced(self.store)
        assert settled(self.store) == (self.sandbox.bill()["totals"]["cost_nano_usd"], 0, 0)

    def at_risk(self) -> None:
        """The account balances, and what the ledger lacks of the bill is within what it says is at risk."""
        balanced(self.store)
        cost, _, risk = settled(self.store)
        assert 0 <= self.sandbox.bill()["totals"]["cost_nano_usd"] - cost <= risk

    def batch_rows_once(self) -> None:
        """No row of a batch was billed twice."""
        billed = Counter(row["custom_id"] for row in self.sandbox.bill(kind="batch")["rows"])
        assert set(billed.values()) <= {1}, [key for key, count in billed.items() if count > 1]

    def made(self, path: str) -> int:
        """How many POSTs to this path the sandbox has seen."""
        seen = self.sandbox.requests()["requests"]
        return sum(one["method"] == "POST" and one["path"] == path for one in seen)


Ask = Callable[..., Request]
ENDED = sorted(state.value for state in FINAL)
OPEN = [state.value for state in JobState if state not in FINAL]
