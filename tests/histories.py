"""Random histories: jobs that are called, packed, imported in part, given up, taken back and re-priced."""

from datetime import datetime, timedelta
from random import Random

from db import adjustments, queue, rescue, settle
from db.adjustments import Adjustment, Repricing
from db.engine import Store
from db.ids import new_id
from db.ledger import Charge
from db.packing import Waiting
from db.settle import Again, Cancelled, Ending, Failed, Settlement, Succeeded, Text
from db.states import AttemptState, CostSource
from tests.lanes import CLAUDE, MODEL, NOW, add, job, pack, rows

_BOTH = ["openai", "anthropic"]
_TAGS = (None, {"team": "a"}, {"team": "b", "x": "1"})
_SETTLED = "SELECT job_id, n, coalesce(adjusted_nano, cost_nano), coalesce(adjusted_standard_nano, standard_nano) "


class History:
    """What happens to one store; `step` is anything at all."""

    def __init__(self, store: Store, dice: Random) -> None:
        self.store, self.dice, self.now = store, dice, NOW

    def step(self) -> None:
        """One move, after some time."""
        self.now += timedelta(seconds=self.dice.choice((1, 20, 200, 1200)))
        moves = (self.submit, self.submit, self.call, self.call, self.pack, self.imports, self.imports, self.give_up,
                 self.reprice)  # fmt: skip
        self.dice.choice(moves)()

    def submit(self) -> None:
        """Jobs of one kind."""
        lane, model, tags = (
            self.dice.choice(("sync", "stream", "batch")),
            self.dice.choice((MODEL, CLAUDE)),
            self._tags(),
        )
        new = [job(lane=lane, model=model, tags=tags, now=self.now) for _ in range(self.dice.randint(1, 12))]
        add(self.store, *new, now=self.now)

    def call(self) -> None:
        """Some jobs are claimed; most of them come back."""
        until = self.now + timedelta(seconds=60)
        claims = queue.claim(self.store, "me", until, self.dice.randint(1, 6), self.now, _BOTH)
        ends = [Settlement(one.job_id, one.n, *self._end()) for one in claims if self.dice.random() < 0.8]
        if ends:
            settle.settle(self.store, ends, self.now + timedelta(seconds=self.dice.randint(0, 9)))

    def pack(self) -> None:
        """A batch of what waits."""
        pack(self.store, new_id(self.now), Waiting("openai", MODEL, 9), base_url="u", max_rows=self.dice.randint(1, 9),
             max_bytes=10**6, now=self.now)  # fmt: skip

    def imports(self) -> None:
        """Some of a batch's rows, which may have been imported before."""
        tries = self._some("SELECT job_id, n, batch_id FROM attempt WHERE batch_id IS NOT NULL ORDER BY job_id, n")
        if tries:
            batch_id = tries[0][2]
            ends = [Settlement(ident, n, *self._end()) for ident, n, where in tries if where == batch_id]
            settle.settle_rows(self.store, ends, self.now, batch_id)

    def give_up(self) -> None:
        """Whoever was at it died, and it is tried again."""
        rescue.rescue(self.store, self.now, 3)

    def reprice(self) -> None:
        """Some attempts cost something else than was said, if they are settled; what was unknown can become known."""
        found = self._some(f"{_SETTLED} FROM attempt ORDER BY job_id, n")
        changes = [
            Adjustment(
                ident,
                n,
                nano,
                self.dice.randint(0, 900),
                plain,
                self.dice.choice((None, plain, 1800)),
                CostSource.ASSUMED,
                "new",
            )
            for ident, n, nano, plain in found
        ]
        adjustments.apply(self.store, Repricing(new_id(self.now), "new", NOW, None, self.now), changes)

    def _some(self, query: str) -> list[tuple[str, int, int | None, int | None]]:
        found = [tuple(row) for row in rows(self.store, query)]
        return self.dice.sample(found, min(len(found), self.dice.randint(0, 8)))

    def _tags(self) -> dict[str, str] | None:
        return self.dice.choice(_TAGS)

    def _end(self) -> tuple[Charge, Ending]:
        cost, again = self.dice.randint(0, 999), self.now + timedelta(seconds=30)
        used = {"input_tokens": self.dice.randint(1, 99), "output_tokens": self.dice.randint(0, 99)}
        paid = Charge(AttemptState.OK, cost, CostSource.COMPUTED, self.dice.choice((None, cost * 2)), **used)
        timed = paid._replace(first_token_ms=self.dice.uniform(1, 900), gap_p50_ms=3.5, total_ms=1000.0)
        unpriced = Charge(AttemptState.OK, **used)
        lost = Charge(AttemptState.UNKNOWN, error_code="cut", error="cut")
        free = Charge.free(AttemptState.FAILED, code="http_500", error="no")
        yes, later = Succeeded(Text("yes", "stop")), Again(again, "x", "later")
        ways: list[tuple[Charge, Ending]] = [
            (paid, yes), (unpriced, yes), (timed, yes), (paid, later), (lost, later), (lost, Failed("cut", "why")),
            (free, later), (free, Failed("http_500", "why")), (lost, Cancelled()),
        ]  # fmt: skip
        return self.dice.choice(ways)


def happened(store: Store, seed: int, steps: int) -> datetime:
    """A whole history; when it was over."""
    history = History(store, Random(seed))
    for _ in range(steps):
        history.step()
    return history.now
