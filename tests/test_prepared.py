"""Many rows in one statement: they end as they would one by one, whatever is in them."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from db import queue, settle
from db.engine import Store
from db.ids import new_id
from db.ledger import Charge
from db.packing import Waiting
from db.plans import Onto
from db.settle import Again, Cancelled, Ending, Failed, Held, Settlement, Succeeded, Text
from db.states import AttemptState, CostSource
from tests.lanes import NOW, add, balanced, job, pack, rows

pytestmark = pytest.mark.both

MANY = 120
LATER = NOW + timedelta(minutes=5, microseconds=1)
PAID = Charge(AttemptState.OK, 0, CostSource.COMPUTED, price="p", tier="batch", input_tokens=7, total_ms=1.25)
LOST = Charge(AttemptState.UNKNOWN, error_code="cut", error='it "broke"\n')
CALL = {"id": "a", "name": "f", "arguments": {"ä": [1, None]}, "raw": "{}"}
WORDS = ("yes", "", "ja – 🚂\u2028 \"quoted\" \\u0000 'and' {[", "x" * 5000, "[1, 2]", "null", "12")
ENDINGS: Sequence[Ending] = (
    *(Succeeded(Text(words, "stop")) for words in WORDS),
    Succeeded(Text("", None, tool_calls=[CALL], choices=[{"text": "a"}, {"text": "b"}])),
    Succeeded(Text("cut", "length", truncated=True, output="of a command")),
    Failed("refused", "the model refused", Text("half", partial=True, refusal="no")),
    Again(LATER, "busy", "again"),
    Again(LATER, "late", "on", onto=Onto(1, "sync", "flex", LATER)),
    Cancelled(Text("left", partial=True)),
    Held(Text("held", partial=True)),
)


def taken(store: Store, endings: Sequence[Ending]) -> list[Settlement]:
    """As many running jobs, and how they will end."""
    add(store, *(job(lane="sync") for _ in endings))
    claims = queue.claim(store, "me", LATER, len(endings), NOW, ["openai"])
    charges = [PAID._replace(cost_nano=2**40 + n, request_id=f"r{n}") if n % 3 else LOST for n in range(len(endings))]
    return [Settlement(mine.job_id, mine.n, charges[at], endings[at]) for at, mine in enumerate(claims)]


def kept(store: Store, settlements: Sequence[Settlement]) -> list[Any]:
    """All that the tables hold of the jobs, but for their ids."""
    attempt = (
        "state tier cost_nano cost_source at_risk_nano price input_tokens total_ms request_id error_code error ended_at"
    )
    job = "state step lane tier run_after leave_by finished_at lease_by lease_until error_code error"
    result = "attempt text refusal tool_calls choices finish_reason truncated partial output stored_at"
    columns = [
        f"{table}.{name}" for table, names in (("a", attempt), ("j", job), ("r", result)) for name in names.split()
    ]
    tables = "job j JOIN attempt a ON a.job_id = j.id LEFT JOIN result r ON r.job_id = j.id"
    found = {row[0]: tuple(row)[1:] for row in rows(store, f"SELECT j.id, {', '.join(columns)} FROM {tables}")}
    return [found[one.job_id] for one in settlements]


@pytest.mark.parametrize("words", ["plain", "with a NUL: \0."])
def test_a_page_is_settled_as_each_row_of_it_would_be(store: Store, words: str) -> None:
    endings = [*ENDINGS, Succeeded(Text(words))] * (MANY // len(ENDINGS))
    together, alone = taken(store, endings), taken(store, endings)
    settle.settle(store, together, NOW)
    for one in alone:
        settle.settle(store, [one], NOW)
    assert kept(store, together) == kept(store, alone)
    balanced(store)


def test_settling_a_page_again_changes_nothing(store: Store) -> None:
    settlements = [one._replace(charge=PAID) for one in taken(store, [Succeeded(Text("yes"))] * MANY)]
    settle.settle(store, settlements, NOW)
    before = kept(store, settlements)
    other = PAID._replace(cost_nano=1)
    settle.settle(store, [one._replace(charge=other, ending=Failed("x", "no")) for one in settlements], LATER)
    settle.settle(store, [one._replace(ending=Succeeded(Text("other"))) for one in settlements], LATER)
    assert kept(store, settlements) == before


def test_of_two_answers_to_one_attempt_in_a_page_the_first_counts(store: Store) -> None:
    settlements = [one._replace(charge=PAID) for one in taken(store, [Succeeded(Text("first"))] * MANY)]
    twice = [one._replace(charge=PAID._replace(cost_nano=9), ending=Succeeded(Text("second"))) for one in settlements]
    settle.settle(store, [*settlements, *twice], NOW)
    assert {row[0] for row in rows(store, "SELECT text FROM result")} == {"first"}
    assert rows(store, "SELECT count(*) FROM attempt WHERE cost_nano = 9")[0][0] == 0


@pytest.mark.parametrize("many", [3, MANY])
def test_results_of_a_batch_settle_its_own_rows_alone(store: Store, many: int) -> None:
    """A row of another batch, of a live call, of no job: all are left, and the batch's own come back."""
    group = Waiting("openai", "gpt-6-luna", 1)
    mine, other = (new_id(NOW + timedelta(hours=n)) for n in (1, 2))
    for batch_id in (mine, other):
        add(store, *(job() for _ in range(many)))
        pack(store, batch_id, group, base_url="u", max_rows=many, max_bytes=10**9, now=NOW)
    (live,) = taken(store, ENDINGS[:1])
    packed = [rows(store, f"SELECT job_id, n FROM attempt WHERE batch_id = '{one}'") for one in (mine, other)]
    ours, theirs = ([Settlement(*row, PAID, Succeeded(Text("yes"))) for row in one] for one in packed)
    strange = Settlement("0" * 26, 1, PAID, Succeeded(Text("whose?")))
    assert settle.settle_rows(store, [*ours, *theirs, live, strange, *ours[:1]], NOW, mine) == [*ours, ours[0]]
    assert settle.settle_rows(store, ours, NOW, mine) == ours
    states = dict(rows(store, "SELECT state, count(*) FROM job GROUP BY state"))
    assert states == {"succeeded": many, "submitted": many, "running": 1}
    assert rows(store, "SELECT count(*) FROM attempt WHERE state = 'ok'") == [(many,)]
    balanced(store)
