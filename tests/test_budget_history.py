"""Random histories: whatever happens to jobs, each budget holds what its attempts come to, and is never exceeded."""

import random
from collections.abc import Callable
from datetime import timedelta

import pytest

from db import packing, queue, rescue, settle, standing
from db.engine import Store
from db.ledger import Charge
from db.packing import Room
from db.queue import Claim
from db.reserving import OverBudget
from db.settle import Again, Ending, Failed, Held, Settlement, Text
from db.states import AttemptState
from tests.lanes import NOW, add, balanced, decision, job, rows
from tests.purses import budget, even, paid, purse

pytestmark = pytest.mark.both
TAGS = (None, {"team": "search"}, {"team": "ads"}, {"team": "search", "x": "y"})
LIMITS = {"all": 20_000, "daily": 3000, "search": 900}


class History:
    """A store, what is open in it, and everything that can happen next."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store, self.dice, self.now = store, random.Random(seed), NOW
        self.open: list[Claim] = []
        self.ended: list[Claim] = []
        self.batches = 0
        self.purse = purse(lambda sending: 50 + 10 * (len(sending.body) % 10))
        budget(store, LIMITS["all"], name="all")
        budget(store, LIMITS["daily"], name="daily", per="day")
        budget(store, LIMITS["search"], name="search", per="month", tag="team=search")

    def step(self) -> None:
        """One thing happens."""
        things: list[tuple[int, Callable[[], object]]] = [
            (4, self.submit), (6, self.claim), (9, self.end), (1, self.die), (3, self.pack), (2, self.cancel),
            (2, self.late), (1, self.wait), (2, self.start), (1, self.retry), (1, self.anew),
        ]  # fmt: skip
        self.now += timedelta(seconds=self.dice.randint(1, 40))
        self.dice.choices([thing for _, thing in things], [weight for weight, _ in things])[0]()

    def submit(self) -> None:
        many = range(self.dice.randint(1, 6))
        lane = self.dice.choice(["sync", "batch"])
        add(self.store, *(self._job(lane) for _ in many), now=self.now)

    def _job(self, lane: str) -> queue.NewJob:
        cap = self.dice.choice([None, None, None, 160])
        words, tags = "x" * self.dice.randint(0, 30), self.dice.choice(TAGS)
        return job(words, now=self.now, lane=lane, tags=tags, max_cost_nano=cap, decision_id=f"d {lane}")

    def claim(self) -> None:
        until = self.now + timedelta(hours=1)
        self.open += queue.claim(
            self.store, "me", until, self.dice.randint(1, 5), self.now, ["openai"], None, self.purse
        )

    def start(self) -> None:
        new, until = self._job("sync"), self.now + timedelta(hours=1)
        try:
            mine = queue.start(self.store, new, new.id, decision(new.decision_id), "me", until, self.now, self.purse)
        except OverBudget:
            return
        assert mine is not None
        self.open.append(mine)

    def pack(self) -> None:
        for group in packing.waiting(self.store, self.now):
            for cut in packing.cuts(self.store, group, Room(4, 10**6), self.now):
                self.batches += 1
                batch_id = f"b{self.batches}"
                packing.pack(self.store, batch_id, group, cut, base_url="u", now=self.now, purse=self.purse)
                taken = rows(self.store, "SELECT job_id, n FROM attempt WHERE batch_id = :id", id=batch_id)
                self.open += [Claim(ident, n, *[""] * 4, False, "", None, None, 0, 0, "") for ident, n in taken]

    def end(self) -> None:
        some = [self.open.pop(self.dice.randrange(len(self.open))) for _ in range(min(len(self.open), 3))]
        self.settle(some)

    def late(self) -> None:
        """Something is heard of an attempt that was settled, or given up, before."""
        self.settle(self.dice.sample(self.ended, min(len(self.ended), 2)), late=True)

    def settle(self, claims: list[Claim], *, late: bool = False) -> None:
        self.now += timedelta(milliseconds=1)  # what ends by itself has an instant of its own
        ends = [self._ends(one, late=late) for one in claims]
        settle.settle(self.store, ends, self.now)
        self.ended += claims
        held = [one for one, end in zip(claims, ends, strict=True) if isinstance(end.ending, Held) and one.lease_by]
        again = [queue.again(self.store, one, self.now, self.purse) for one in held]
        self.open += [one for one in again if one is not None]

    def _ends(self, claim: Claim, *, late: bool) -> Settlement:
        reserved = rows(
            self.store, "SELECT reserved_nano FROM attempt WHERE job_id = :id AND n = :n", id=claim.job_id, n=claim.n
        )[0][0]
        endings: list[Ending] = [Failed("x", "x"), Again(self.now, "x", "x"), *([] if late else [Held(Text("half"))])]
        ending = self.dice.choice(endings)
        match self.dice.randrange(4):
            case 0:
                return Settlement(claim.job_id, claim.n, Charge(AttemptState.UNKNOWN, error_code="cut"), ending)
            case 1:
                return Settlement(claim.job_id, claim.n, Charge.free(AttemptState.FAILED, code="x"), ending)
            case _:
                return paid(claim, self.dice.choice([reserved or 0, self.dice.randint(0, reserved or 0)]))

    def die(self) -> None:
        """Nobody renews the leases any more."""
        self.now += timedelta(hours=2)
        rescue.rescue(self.store, self.now, 3)
        alive = {row[0] for row in rows(self.store, "SELECT job_id FROM attempt WHERE state = 'sent'")}
        self.ended += [one for one in self.open if one.job_id not in alive]
        self.open = [one for one in self.open if one.job_id in alive]

    def cancel(self) -> None:
        ids = [row[0] for row in rows(self.store, "SELECT id FROM job WHERE state IN ('queued', 'submitted')")]
        queue.cancel(self.store, self.dice.sample(ids, min(len(ids), 2)), self.now)

    def retry(self) -> None:
        ids = [row[0] for row in rows(self.store, "SELECT id FROM job WHERE state IN ('failed', 'cancelled')")]
        queue.retry(self.store, self.dice.sample(ids, min(len(ids), 2)), self.now)

    def wait(self) -> None:
        self.now += timedelta(hours=self.dice.choice([1, 25]))

    def anew(self) -> None:
        """A budget goes and comes back, or gets the limit that it has."""
        name = self.dice.choice(["daily", "search"])
        if self.dice.random() < 0.5:
            standing.remove(self.store, name, self.now)
        tag = "team=search" if name == "search" else None
        per = "month" if name == "search" else "day"
        budget(self.store, LIMITS[name], name=name, per=per, tag=tag, now=self.now)

    def holds(self) -> None:
        """What must be so at any moment."""
        even(self.store)
        over = """SELECT name FROM budget_period JOIN budget ON budget.id = budget_id
            WHERE spent_nano + reserved_nano > limit_nano"""
        assert rows(self.store, over) == []
        above = """SELECT id FROM job JOIN attempt ON job_id = id WHERE max_cost_nano IS NOT NULL
            GROUP BY id, max_cost_nano HAVING sum(coalesce(cost_nano, reserved_nano)) > max_cost_nano"""
        assert rows(self.store, above) == []


@pytest.mark.parametrize("seed", range(6))
def test_a_history(store: Store, seed: int) -> None:
    history = History(store, seed)
    for _ in range(90):
        history.step()
        history.holds()
    while history.open:
        history.end()
        history.holds()
    balanced(store)
    held = "SELECT count(*), count(reserved_nano), sum(CASE WHEN state <> 'unknown' THEN 1 ELSE 0 END) FROM attempt"
    attempts, holding, known = rows(store, held)[0]
    assert attempts > 15
    assert 0 < holding <= attempts - known, "only what nobody can tell holds something"
