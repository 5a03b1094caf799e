"""A world whose endpoint is a quirky server, and what must hold of it whatever the server does."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from db.engine import Store
from db.ids import custom_id
from db.states import FINAL
from jobs import batch, polling, worker
from tests.lanes import KEY, World, balanced, rows
from tests.personalities import Personality, Play, Raw
from tests.quirky import Quirky, answer_to
from tests.quirky_http import quirky

PROMPTS = [f"Name the capital of country number {n}, in one word." for n in range(10)]
HOUR = 3600.0
PAST_ITS_END = 25 * HOUR + 60  # more than an hour after the last that a batch may take


@dataclass
class QuirkWorld(World):
    """A World over a quirky server; `asked` is the prompt of each job."""

    asked: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.server.clock = lambda: self.clock.now().timestamp()

    @property
    def server(self) -> Quirky:
        return cast("Quirky", self.sandbox)

    def ask(self, *prompts: str, **more: Any) -> list[str]:
        """Queue a job for each prompt, the ten usual ones when none is given; their ids."""
        chosen = prompts or tuple(PROMPTS)
        ids = self.add(*chosen, **more)
        self.asked |= dict(zip(ids, chosen, strict=True))
        return ids

    def look(self, seconds: float = 0.0) -> None:
        """Move the clock, then let a worker do what is due, one poll a batch, without waiting for what is due later."""
        self.clock.ahead += seconds
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(worker, "LINGER_S", 0.25)
            patch.setattr(polling, "_FIRST_POLL_S", 30.0)
            self.work()

    def until_final(self, hours: int = 80) -> None:
        """Look every now and then, as a worker does that runs for days."""
        self.look()
        for _ in range(hours):
            if self.ended():
                return
            self.look(HOUR)

    def ended(self) -> bool:
        """Whether every job is final."""
        return set(self.states()) <= {state.value for state in FINAL}

    def holds(self, *, succeeded: int = 10, paid: int | None = None, **others: int) -> None:
        """Every job is final and has its own answer; no row ran twice; the ledger owns up to every row that ran.

        `paid`: rows that ran in all; the number of answers when it is not given.
        """
        counts = {"succeeded": succeeded, **others}
        assert self.states() == {state: count for state, count in counts.items() if count}, self.story()
        balanced(self.store)
        for ident, prompt in self.asked.items():
            job = self.job(ident)
            assert (job["text"] == answer_to(prompt)) == (job["state"] == "succeeded"), (job["text"], prompt)
        bill = self.server.bill
        assert set(bill.values()) <= {1}, bill
        assert sum(bill.values()) == (succeeded if paid is None else paid), self.story()
        found = rows(self.store, "SELECT job_id, n, state, cost_nano, at_risk_nano FROM attempt")
        ledger = {custom_id(row.job_id, row.n): row for row in found}
        assert "sent" not in {row.state for row in ledger.values()}
        for name in bill:
            assert ledger[name].state in ("ok", "unknown"), f"{name} ran and is {ledger[name].state}"
        for name, row in ledger.items():
            assert row.state != "ok" or name in bill, f"{name} is charged and never ran"
            assert row.state != "unknown" or row.at_risk_nano, f"{name} is unknown and nothing is at risk"

    def story(self) -> str:
        """What has become of its jobs and batches, for a test that fails."""
        told = rows(self.store, "SELECT state, status, error, next_poll_at, cancel_at FROM batch ORDER BY id")
        made = [(held.status, len(held.ran)) for held in self.server.batches.values()]
        facts = [f"billed: {sum(self.server.bill.values())}", f"there: {made}", *self.troubles[-3:]]
        return "\n".join(map(str, [self.states(), dict(self.attempts()), *told, *facts]))

    def batches(self) -> int:
        """How many batches the server was asked to make."""
        return self.server.made("/v1/batches")


At = Callable[..., QuirkWorld]


def shown(**changes: Any) -> Callable[[Raw], Raw]:
    """A change of the batch object: these fields; None takes one away."""

    def change(raw: Raw) -> Raw:
        return {key: value for key, value in {**raw, **changes}.items() if key not in changes or value is not None}

    return change


def final(**changes: Any) -> Callable[[Raw], Raw]:
    """A change of the batch object once it has completed."""
    return lambda raw: {**raw, **changes} if raw["status"] == "completed" else raw


def lived(world: QuirkWorld, **holds: Any) -> QuirkWorld:
    """Ten jobs from their queue to their end, and what holds of them."""
    world.ask()
    world.until_final()
    world.holds(**holds)
    return world


@contextmanager
def lanes_at(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[At]:
    """Makes the world over a server of this personality, which plays this."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(batch, "_SOON_S", 0.2)
    monkeypatch.setattr(polling, "_FIRST_POLL_S", 0.02)
    with ExitStack() as stack:

        def at(who: Personality, *plays: Play, **settings: Any) -> QuirkWorld:
            server = stack.enter_context(quirky(who, *plays))
            return QuirkWorld(store, cast("Any", server), folder, settings=settings)

        yield at
