"""One row for each attempt: opened with its money at risk, settled once."""

from datetime import timedelta

import pytest
from sqlalchemy.exc import IntegrityError

from db import ledger, queue
from db.engine import Store
from db.ledger import Charge, Settled
from db.states import AttemptState, CostSource
from tests.lanes import NOW, RISK, add, job, rows

pytestmark = pytest.mark.both

LATER = NOW + timedelta(seconds=5)
PAID = Charge(AttemptState.OK, 700, CostSource.COMPUTED, standard_nano=1400, price="list", tier="flex", input_tokens=3)
UNKNOWN = Charge(AttemptState.UNKNOWN, error_code="cut", error="cut", request_id="req_1", total_ms=3.0)


def running(store: Store) -> str:
    add(store, job(lane="sync"))
    return queue.claim(store, "me", LATER, 1, NOW, ["openai"])[0].job_id


def close(store: Store, *settled: Settled) -> int:
    with store.write() as connection:
        return ledger.close(connection, settled, LATER)


def attempt(store: Store) -> tuple[object, ...]:
    return tuple(rows(store, "SELECT state, cost_nano, cost_source, at_risk_nano, tier FROM attempt")[0])


def test_an_open_attempt_says_what_it_may_cost(store: Store) -> None:
    running(store)
    assert attempt(store) == ("sent", None, "unknown", RISK, "default")


def test_what_was_served_and_paid_is_kept_and_nothing_is_at_risk_any_more(store: Store) -> None:
    ident = running(store)
    assert close(store, Settled(ident, 1, PAID)) == 1
    assert attempt(store) == ("ok", 700, "computed", None, "flex")
    assert rows(store, "SELECT standard_nano, price, input_tokens FROM attempt")[0] == (1400, "list", 3)


def test_the_second_settlement_changes_nothing(store: Store) -> None:
    ident = running(store)
    close(store, Settled(ident, 1, PAID))
    before = rows(store, "SELECT * FROM attempt")
    assert close(store, Settled(ident, 1, PAID._replace(cost_nano=1))) == 0
    assert close(store, Settled(ident, 1, UNKNOWN)) == 0
    assert rows(store, "SELECT * FROM attempt") == before


def test_an_unknown_cost_keeps_its_risk_until_it_is_known(store: Store) -> None:
    ident = running(store)
    close(store, Settled(ident, 1, UNKNOWN))
    assert attempt(store) == ("unknown", None, "unknown", RISK, "default")
    close(store, Settled(ident, 1, PAID))
    assert attempt(store) == ("ok", 700, "computed", None, "flex")


def test_what_is_free_costs_nothing_and_says_so(store: Store) -> None:
    ident = running(store)
    close(store, Settled(ident, 1, Charge.free(AttemptState.FAILED, code="429", error="busy")))
    assert attempt(store) == ("failed", 0, "computed", None, "default")
    assert rows(store, "SELECT price, error_code, error FROM attempt")[0] == ("not billed", "429", "busy")


def test_an_attempt_that_was_never_opened_cannot_be_settled(store: Store) -> None:
    ident = running(store)
    assert close(store, Settled(ident, 2, PAID), Settled("nobody", 1, PAID)) == 0
    assert close(store) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        Charge(AttemptState.OK, 700),
        Charge(AttemptState.OK, None, CostSource.COMPUTED),
        Charge(AttemptState.OK, -1, CostSource.COMPUTED),
    ],
)
def test_a_charge_that_contradicts_itself_is_refused(store: Store, wrong: Charge) -> None:
    ident = running(store)
    with pytest.raises(IntegrityError):
        close(store, Settled(ident, 1, wrong))
    assert attempt(store)[0] == "sent"
