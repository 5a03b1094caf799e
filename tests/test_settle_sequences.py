"""The account over any sequence of moves: retries, crashes, parts of batches, late answers and re-pricings."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import event

from db import adjustments, batch_rows, batches, queue, rescue, settle
from db.adjustments import Adjustment, Repricing
from db.engine import connect
from db.ids import new_id
from db.ledger import Charge
from db.migrations import migrate
from db.packing import Waiting
from db.queue import Claim
from db.settle import Again, Cancelled, Ending, Failed, Held, Settlement, Succeeded, Text
from db.states import FINAL, MOVES, AttemptState, CostSource, JobState
from tests import lanes
from tests.lanes import MODEL, NOW, balanced, decision, job, rows

ALL = ["openai", "anthropic"]
PAID = Charge(AttemptState.OK, 700, CostSource.COMPUTED, 1400, input_tokens=9, output_tokens=5)
UNPRICED = Charge(AttemptState.OK, input_tokens=9, output_tokens=5)
UNKNOWN = Charge(AttemptState.UNKNOWN, error_code="cut", error="cut")
FREE = Charge.free(AttemptState.FAILED)
YES, NO, LATER = Succeeded(Text("yes", "stop")), Failed("x", "why"), Again(NOW, "x", "why")
ENDINGS = st.sampled_from([YES, NO, LATER])
CHARGES = st.sampled_from([PAID, UNPRICED, UNKNOWN, FREE, PAID._replace(cost_nano=5)])


class Died(Exception):
    """The process was killed in the middle of a transaction."""


_PAID = "coalesce(adjusted_nano, cost_nano)"
_SETTLED = "WHERE state IN ('ok', 'failed')"
_PLAIN = "coalesce(adjusted_standard_nano, standard_nano)"


PICKS = st.lists(st.integers(0, 15), min_size=1, max_size=3, unique=True)  # of rows, which come in no sure order


def _picked(found: list[Any], picks: list[int]) -> list[Any]:
    return [found[n] for n in sorted({pick % len(found) for pick in picks})] if found else []


class Moves(RuleBasedStateMachine):
    """Random owners, times and endings over one database; the invariants hold after every step."""

    claims = Bundle("claims")

    @initialize()
    def open(self) -> None:
        self.folder = TemporaryDirectory()
        self.store = connect(f"sqlite:///{Path(self.folder.name) / 'm.db'}")
        migrate(self.store)
        queue.open_submission(self.store, "s", "test", NOW)
        self.now: datetime = NOW
        self._begin()
        self.costs: dict[tuple[str, int], int] = {}
        self.was: dict[str, str] = {}
        self.by_person = False
        self.dies_after: int | None = None
        event.listen(self.store._engine, "before_cursor_execute", self._die)

    def _begin(self) -> None:
        """Something of each kind: settled calls, priced and not, one that runs, rows in a batch and out of it."""
        for lane in ("sync", "batch"):
            queue.add(self.store, "s", [decision()], [job(lane=lane) for _ in range(5)], NOW)
        ends = zip(
            queue.claim(self.store, "a", NOW + timedelta(seconds=30), 4, NOW, ALL), (PAID, UNPRICED, FREE), strict=False
        )
        settle.settle(self.store, [Settlement(one.job_id, one.n, charge, YES) for one, charge in ends], NOW)
        self.pack()

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()

    @rule(lane=st.sampled_from(["sync", "batch"]), interactive=st.booleans(), key=st.integers(0, 12))
    def submit(self, lane: str, interactive: bool, key: int) -> None:
        new = job(lane=lane, interactive=interactive, row_key=f"row {key}", now=self.now)
        queue.add(self.store, "s", [decision()], [new], self.now)

    @rule(key=st.integers(13, 20), target=claims)
    def start(self, key: int) -> Claim | None:
        new = job(lane="stream", interactive=True, row_key=f"row {key}", now=self.now)
        return queue.start(self.store, new, new.id, decision(), "person", self.now + timedelta(seconds=30), self.now)

    @rule(target=claims, by=st.sampled_from(["a", "b"]))
    def claim(self, by: str) -> Claim | None:
        found = queue.claim(self.store, by, self.now + timedelta(seconds=30), 1, self.now, ALL)
        return found[0] if found else None

    @rule(mine=claims, target=claims)
    def again(self, mine: Claim | None) -> Claim | None:
        return queue.again(self.store, mine, self.now) if mine else None

    @rule(seconds=st.sampled_from([1, 20, 40, 100]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule()
    def rescue(self) -> None:
        rescue.rescue(self.store, self.now, 3)

    @rule(by=st.sampled_from(["a", "b", "person"]))
    def renew(self, by: str) -> None:
        queue.renew(self.store, by, self.now + timedelta(seconds=30))

    @rule(
        mine=claims,
        ending=st.one_of(ENDINGS, st.sampled_from([Cancelled(), Held(Text("p", partial=True))])),
        charge=CHARGES,
    )
    def settle_call(self, mine: Claim | None, ending: Ending, charge: Charge) -> None:
        if mine:
            settle.settle(self.store, [Settlement(mine.job_id, mine.n, charge, ending)], self.now)

    @rule()
    def pack(self) -> None:
        limits = {"base_url": "u", "max_rows": 3, "max_bytes": 10**6}
        lanes.pack(self.store, new_id(self.now), Waiting("openai", MODEL, 1), now=self.now, **limits)

    @rule(ending=ENDINGS, charge=CHARGES, picks=PICKS)
    def late_answers(self, ending: Ending, charge: Charge, picks: list[int]) -> None:
        """To rows of any batches, whatever became of them."""
        found = _picked(rows(self.store, "SELECT job_id, n FROM attempt WHERE batch_id IS NOT NULL"), picks)
        settle.settle(self.store, [Settlement(ident, n, charge, ending) for ident, n in found], self.now)

    @rule(ending=ENDINGS, charge=CHARGES, which=st.integers(0, 5), picks=PICKS)
    def import_part(self, ending: Ending, charge: Charge, which: int, picks: list[int]) -> None:
        """Some rows of one batch, again perhaps, and perhaps one that is not its own."""
        if ids := [row[0] for row in rows(self.store, "SELECT id FROM batch ORDER BY id")]:
            batch_id = ids[which % len(ids)]
            query = "SELECT job_id, n FROM attempt WHERE batch_id = :id OR state = 'sent'"
            found = _picked(rows(self.store, query, id=batch_id), picks)
            ends = [Settlement(ident, n, charge, ending) for ident, n in found]
            settle.settle_rows(self.store, ends, self.now, batch_id)

    @rule(after=st.sampled_from([None, 0, 700, 5000]), where=st.sampled_from([_SETTLED, ""]), picks=PICKS)
    def reprice(self, after: int | None, where: str, picks: list[int]) -> None:
        """Attempts, of which those that are settled get a new price; None for the one that they have."""
        found = rows(self.store, f"SELECT job_id, n, {_PAID}, {_PLAIN} FROM attempt {where}")
        changes = [
            Adjustment(ident, n, paid, paid or 0 if after is None else after, plain, 1400, CostSource.ASSUMED, "new")
            for ident, n, paid, plain in _picked(found, picks)
        ]
        repricing = Repricing(new_id(self.now), "new", NOW, None, self.now)
        adjustments.apply(self.store, repricing, changes)

    @rule(statements=st.integers(0, 12), what=st.integers(0, 4), mine=claims, ending=ENDINGS, charge=CHARGES,
          picks=PICKS)  # fmt: skip
    def crash(self, statements: int, what: int, mine: Claim | None, ending: Ending, charge: Charge,
              picks: list[int]) -> None:  # fmt: skip
        """The process is killed while it does something: nothing of that transaction is left."""
        with self._dying(statements):
            match what:
                case 0 if mine:
                    settle.settle(self.store, [Settlement(mine.job_id, mine.n, charge, ending)], self.now)
                case 1:
                    self.late_answers(ending, charge, picks)
                case 2:
                    self.import_part(ending, charge, 0, picks)
                case 3:
                    self.reprice(5000, _SETTLED, picks)
                case _:
                    self.pack()

    @contextmanager
    def _dying(self, statements: int) -> Iterator[None]:
        self.dies_after = statements
        try:
            with suppress(Died):
                yield
        finally:
            self.dies_after = None

    def _die(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if self.dies_after is not None:
            self.dies_after -= 1
            if self.dies_after < 0:
                raise Died(statement)

    @rule()
    def upload(self) -> None:
        for row in rows(self.store, "SELECT id FROM batch WHERE state = 'packed' LIMIT 1"):
            batch = batches.get(self.store, row[0])
            count = len(list(batch_rows.rows_of(self.store, row[0])))
            assert batch is not None
            if count:
                batches.intend_upload(self.store, batch, count, self.now)
            else:  # every row was taken out
                batches.imported(self.store, batch.id, self.now)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if ids := [row[0] for row in rows(self.store, "SELECT id FROM job")]:
            queue.cancel(self.store, [data.draw(st.sampled_from(ids))], self.now)

    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        if ids := [row[0] for row in rows(self.store, "SELECT id FROM job")]:
            self.by_person = True
            queue.retry(self.store, [data.draw(st.sampled_from(ids))], self.now)

    @invariant()
    def account(self) -> None:
        if not hasattr(self, "store"):
            return
        self.now += timedelta(microseconds=1)  # an answer is known by its moment: no two moves have the same one
        balanced(self.store)
        assert not rows(self.store, "SELECT 1 FROM result GROUP BY job_id HAVING count(*) > 1")
        assert not rows(
            self.store,
            "SELECT 1 FROM job WHERE state = 'running' AND "
            "(SELECT count(*) FROM attempt WHERE job_id = id) <> attempts",
        )
        paid = {(row[0], row[1]): row[2] for row in rows(self.store, "SELECT job_id, n, cost_nano FROM attempt")}
        for key, cost in self.costs.items():
            assert paid[key] == cost, "a settled attempt changed its price"
        self.costs = {key: cost for key, cost in paid.items() if cost is not None}
        now = {row[0]: row[1] for row in rows(self.store, "SELECT id, state FROM job")}
        for ident, state in self.was.items():
            before, after = JobState(state), JobState(now[ident])
            if before != after:
                assert after in MOVES[before] or self._through(before, after), (before, after)
                assert before not in FINAL or self.by_person
        self.was, self.by_person = now, False

    @staticmethod
    def _through(before: JobState, after: JobState) -> bool:
        """One call may make two moves of a job: two of its attempts are settled in it."""
        return any(after in MOVES[between] for between in MOVES[before])


Moves.TestCase.settings = settings(
    max_examples=16,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)
test_any_sequence_of_moves = Moves.TestCase
