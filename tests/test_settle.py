"""How attempts end: alone, late, twice, after their lease was lost."""

from datetime import timedelta
from typing import Any

import pytest

from db import batches, queue, rescue, settle
from db.engine import Store
from db.ledger import Charge
from db.packing import Waiting
from db.plans import Onto
from db.queue import Claim
from db.settle import Again, Cancelled, Ending, Failed, Held, Settlement, Succeeded, Text
from db.states import AttemptState, CostSource
from tests import lanes
from tests.lanes import MODEL, NOW, RISK, add, balanced, job, rows, states

pytestmark = pytest.mark.both

UNTIL = NOW + timedelta(seconds=60)
DEAD = UNTIL + timedelta(seconds=1)
ALL = ["openai", "anthropic"]
PAID = Charge(AttemptState.OK, 700, CostSource.COMPUTED)
UNKNOWN = Charge(AttemptState.UNKNOWN, error_code="cut", error="cut")
YES = Succeeded(Text("yes", "stop"))


def claim(store: Store, by: str = "me", **more: Any) -> Claim:
    add(store, job(lane="sync", **more))
    return queue.claim(store, by, UNTIL, 1, NOW, ALL)[0]


def end(store: Store, mine: Claim, ending: Ending, charge: Charge = PAID) -> None:
    settle.settle(store, [Settlement(mine.job_id, mine.n, charge, ending)], NOW)


def one(store: Store, columns: str, table: str = "job") -> tuple[Any, ...]:
    return tuple(rows(store, f"SELECT {columns} FROM {table}")[0])


# ---- each ending ----


def test_success(store: Store) -> None:
    end(store, claim(store), YES)
    assert one(store, "state, error, lease_by, finished_at IS NOT NULL") == ("succeeded", None, None, 1)
    assert one(store, "text, partial, attempt", "result") == ("yes", 0, 1)
    balanced(store)


def test_failure_says_why_and_keeps_the_words(store: Store) -> None:
    end(store, claim(store), Failed("cut", "it was cut", Text("half", partial=True)), UNKNOWN)
    assert one(store, "state, error_code, error, lease_until") == ("failed", "cut", "it was cut", None)
    assert one(store, "text, partial", "result") == ("half", 1)
    assert one(store, "state, at_risk_nano", "attempt") == ("unknown", RISK)


def test_another_try_waits_for_its_time(store: Store) -> None:
    end(store, claim(store), Again(DEAD, "429", "busy"), Charge.free(AttemptState.FAILED))
    assert one(store, "state, error_code, lease_by, step, lane") == ("queued", "429", None, 0, "sync")
    assert queue.claim(store, "me", UNTIL, 1, UNTIL, ALL) == []
    assert queue.claim(store, "me", UNTIL, 1, DEAD, ALL)[0].n == 2


def test_another_try_in_the_next_lane_of_the_plan(store: Store) -> None:
    mine = claim(store, leave_by=UNTIL)
    end(store, mine, Again(NOW, "late", "late", onto=Onto(1, "stream", "flex", None)))
    assert one(store, "state, step, lane, tier, leave_by") == ("queued", 1, "stream", "flex", None)


def test_another_try_in_the_same_lane_keeps_its_hour(store: Store) -> None:
    end(store, claim(store, leave_by=DEAD), Again(NOW, "429", "busy"))
    assert one(store, "leave_by IS NOT NULL") == (1,)


def test_cancelled(store: Store) -> None:
    end(store, claim(store), Cancelled(Text("ha", partial=True)), UNKNOWN)
    assert one(store, "state, lease_by, error") == ("cancelled", None, None)
    assert one(store, "text, partial", "result") == ("ha", 1)


def test_a_held_job_stays_its_owners(store: Store) -> None:
    mine = claim(store)
    end(store, mine, Held(), Charge.free(AttemptState.FAILED))
    assert one(store, "state, lease_by, attempts") == ("running", "me", 1)
    second = queue.again(store, mine, NOW)
    assert second is not None
    end(store, second, YES)
    assert states(store) == {"succeeded": 1}


# ---- twice, late, lost ----


@pytest.mark.parametrize("ending", [YES, Failed("x", "why"), Again(NOW, "x", "why"), Cancelled()])
def test_settling_twice_changes_nothing(store: Store, ending: Ending) -> None:
    mine = claim(store)
    end(store, mine, ending)
    before = [rows(store, f"SELECT * FROM {table}") for table in ("job", "attempt", "result")]
    for second in (ending, Failed("y", "other"), Cancelled(), Again(DEAD, "z", "other")):
        end(store, mine, second, PAID._replace(cost_nano=1))
    assert [rows(store, f"SELECT * FROM {table}") for table in ("job", "attempt", "result")] == before


@pytest.mark.parametrize("ending", [Failed("x", "why"), Again(NOW, "x", "why"), Cancelled()])
def test_who_lost_the_lease_moves_nothing_but_pays(store: Store, ending: Ending) -> None:
    mine = claim(store)
    rescue.rescue(store, DEAD, 3)
    other = queue.claim(store, "other", DEAD + timedelta(minutes=1), 1, DEAD, ALL)[0]
    end(store, mine, ending)
    assert one(store, "state, lease_by, attempts") == ("running", "other", 2)
    paid = rows(store, "SELECT n, state, cost_nano FROM attempt ORDER BY n")
    assert [tuple(row) for row in paid] == [(1, "ok", 700), (2, "sent", None)]
    end(store, other, YES)
    assert states(store) == {"succeeded": 1}


def test_a_late_answer_after_a_rescue_is_the_result_and_is_charged(store: Store) -> None:
    mine = claim(store)
    rescue.rescue(store, DEAD, 3)
    assert one(store, "state, cost_nano", "attempt") == ("unknown", None)
    end(store, mine, YES)
    assert states(store) == {"succeeded": 1}
    assert one(store, "text", "result") == ("yes",)
    assert one(store, "state, cost_nano, at_risk_nano", "attempt") == ("ok", 700, None)
    assert queue.claim(store, "x", DEAD, 1, DEAD, ALL) == []


def test_the_first_answer_is_the_result_and_every_answer_is_charged(store: Store) -> None:
    mine = claim(store)
    rescue.rescue(store, DEAD, 3)
    other = queue.claim(store, "other", DEAD + timedelta(minutes=1), 1, DEAD, ALL)[0]
    end(store, mine, Succeeded(Text("first")))
    end(store, other, Succeeded(Text("second")))
    assert one(store, "text", "result") == ("first",)
    assert one(store, "sum(cost_nano)", "attempt") == (1400,)


def test_an_attempt_that_nobody_holds_to_its_end_becomes_unknown(store: Store) -> None:
    mine = claim(store)
    rescue.rescue(store, DEAD, 3)
    queue.claim(store, "other", DEAD + timedelta(minutes=1), 1, DEAD, ALL)
    end(store, mine, YES)
    assert rescue.rescue(store, DEAD + timedelta(minutes=30), 3) == 0
    states_of = "SELECT state FROM attempt ORDER BY n"
    assert [row[0] for row in rows(store, states_of)] == ["ok", "sent"]  # its owner may still be at it
    rescue.rescue(store, DEAD + timedelta(hours=2), 3)
    assert [row[0] for row in rows(store, states_of)] == ["ok", "unknown"]


def test_a_late_answer_replaces_half_a_later_one(store: Store) -> None:
    mine = claim(store)
    rescue.rescue(store, DEAD, 3)
    other = queue.claim(store, "other", DEAD + timedelta(minutes=1), 1, DEAD, ALL)[0]
    end(store, other, Again(DEAD, "cut", "cut", Text("hal", partial=True)), UNKNOWN)
    end(store, mine, YES)
    assert states(store) == {"succeeded": 1}
    assert one(store, "text, attempt, partial", "result") == ("yes", 1, 0)


def test_half_of_an_earlier_answer_does_not_replace_half_of_a_later_one(store: Store) -> None:
    mine = claim(store)
    second = queue.again(store, mine, NOW)
    assert second is not None
    end(store, second, Failed("cut", "cut", Text("second", partial=True)), UNKNOWN)
    end(store, mine, Held(Text("first", partial=True)), UNKNOWN)
    assert one(store, "text", "result") == ("second",)


def test_a_good_answer_replaces_one_that_did_not_fit_its_schema(store: Store) -> None:
    mine = claim(store)
    end(store, mine, Again(NOW, "schema_mismatch", "no", Text("{bad")))
    second = queue.claim(store, "me", UNTIL, 1, NOW, ALL)[0]
    end(store, second, Succeeded(Text('{"good": 1}')))
    assert one(store, "text, partial", "result") == ('{"good": 1}', 0)


def test_a_late_answer_of_a_cancelled_job_is_charged_and_kept_and_the_job_stays_cancelled(store: Store) -> None:
    add(store, job())
    group = Waiting("openai", MODEL, 1)
    lanes.pack(store, "b", group, base_url="u", max_rows=9, max_bytes=9999, now=NOW)
    batch = batches.get(store, "b")
    assert batch is not None
    assert batches.intend_upload(store, batch, 1, NOW)
    ident = one(store, "id")[0]
    queue.cancel(store, [ident], NOW)
    settle.settle(store, [Settlement(ident, 1, PAID, YES)], NOW)
    assert states(store) == {"cancelled": 1}
    assert one(store, "text", "result") == ("yes",)
    assert one(store, "cost_nano", "attempt") == (700,)


# ---- rescue ----


def test_a_lease_that_still_holds_is_left_alone(store: Store) -> None:
    claim(store)
    assert rescue.rescue(store, UNTIL, 3) == 0
    assert states(store) == {"running": 1}


def test_a_job_whose_person_is_gone_fails_as_abandoned(store: Store) -> None:
    claim(store, interactive=True)
    assert rescue.rescue(store, DEAD, 3) == 1
    assert one(store, "state, error_code, lease_by") == ("failed", "abandoned", None)
    assert one(store, "state, error_code, at_risk_nano", "attempt") == ("unknown", "owner_died", RISK)


def test_bulk_is_tried_again_and_not_for_ever(store: Store) -> None:
    claim(store)
    for n in (1, 2, 3):
        assert one(store, "attempts") == (n,)
        assert rescue.rescue(store, DEAD + timedelta(hours=n), 3) == 1
        if n < 3:
            assert states(store) == {"queued": 1}
            queue.claim(store, "me", DEAD + timedelta(hours=n), 1, DEAD + timedelta(hours=n), ALL)
    assert one(store, "state, error_code") == ("failed", "abandoned")
