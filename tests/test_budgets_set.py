"""Caps of jobs, budgets as they are set and removed, and what all of it takes where there are none."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event

from db import queue, rates, settle, standing
from db.buckets import Gauge
from db.engine import Store
from db.queue import Claim
from db.rates import Gates, Lesson
from db.settle import Again
from tests.lanes import MODEL, NOW, add, job, rows
from tests.purses import budget, even, lost, paid, purse, said, sums
from tests.test_budgets import SOON, claim, pack, sync

pytestmark = pytest.mark.both


# ---- a job's own cap ----


def test_all_tries_of_a_job_share_its_cap(store: Store) -> None:
    (ident,) = sync(store, max_cost_nano=250)
    for nano in (90, 95):
        (mine,) = claim(store)
        ending = Again(SOON, "schema_mismatch", "no", settle.Text("half", partial=True))
        settle.settle(store, [paid(mine, nano)._replace(ending=ending)], SOON)
    assert claim(store) == []
    state, code, why = said(store, ident)
    assert (state, code) == ("failed", "over_cap")
    assert "over the cap of $0.00000025, of which $0.000000065 is left: it may cost $0.0000001" in why
    assert rows(store, "SELECT text FROM result")[0][0] == "half"


def test_a_try_of_unknown_cost_counts_as_what_it_may_have_cost(store: Store) -> None:
    sync(store, max_cost_nano=190)
    (mine,) = claim(store)
    assert rows(store, "SELECT reserved_nano FROM attempt")[0][0] == 100
    settle.settle(store, [lost(mine)], SOON)
    assert claim(store) == []
    even(store)


def test_others_are_not_held_up_by_a_cap(store: Store) -> None:
    sync(store, max_cost_nano=50)
    (other,) = sync(store)
    assert [one.job_id for one in claim(store)] == [other]
    assert rows(store, "SELECT count(*) FROM attempt WHERE reserved_nano IS NOT NULL")[0][0] == 0


# ---- setting them ----


def test_another_limit_keeps_the_sums_and_wakes_those_that_wait(store: Store) -> None:
    budget(store, 100, per="day")
    sync(store, 2)
    (mine,) = claim(store, purse(80))
    settle.settle(store, [paid(mine, 80)], SOON)
    assert claim(store, purse(80)) == []
    assert standing.waiting(store) == 1
    budget(store, 200, per="day", now=SOON)
    assert sums(store) == (80, 0)
    assert len(claim(store, purse(80))) == 1


def test_another_kind_of_the_same_name_begins_anew(store: Store) -> None:
    old = budget(store, 100, per="day")
    sync(store)
    (mine,) = claim(store)
    new = budget(store, 100, per="month", now=SOON)
    assert new.id != old.id
    assert sums(store, now=SOON) == (0, 0)
    settle.settle(store, [paid(mine, 30)], SOON)
    assert sums(store, now=SOON) == (0, 0), "it is the old one's"
    even(store)


def test_a_removed_one_limits_nothing(store: Store) -> None:
    budget(store, 100, per="day")
    sync(store, 3)
    assert len(claim(store)) == 1
    assert standing.remove(store, "b", SOON)
    assert not standing.remove(store, "b", SOON)
    assert len(claim(store)) == 2
    assert standing.standing(store, SOON) == []
    even(store)


def test_sums_that_are_not_those_of_the_attempts_are_told(store: Store) -> None:
    budget(store, 1000)
    sync(store)
    claim(store)
    with store.write() as connection:
        connection.exec_driver_sql("UPDATE budget_period SET reserved_nano = 150")
    (wrong,) = standing.audit(store)
    assert (wrong.name, wrong.spent_nano, wrong.reserved_nano) == ("b", (0, 0), (150, 100))


def test_calls_that_no_budget_pays_for_take_nothing_of_a_providers_limit(store: Store) -> None:
    url = "https://api.openai.com/v1"
    lesson = Lesson("openai", url, MODEL, requests=Gauge(600.0, 600.0))
    rates.learn(store, [lesson], NOW)
    budget(store, 50, tag="team=search", per="day")
    sync(store, 200, tags={"team": "search"}, priority=5)
    others = sync(store, 5)
    gates, taken = Gates({"openai": url}), []
    for second in range(1, 4):
        at = NOW + timedelta(seconds=second)
        claims = queue.claim(store, "me", at + timedelta(hours=1), 5, at, ["openai"], gates, purse(40))
        settle.settle(store, [paid(one, 40) for one in claims], at)
        taken += [one.job_id for one in claims]
    assert set(others) <= set(taken)
    assert len(taken) == 6, "one of those that the budget limits"


# ---- what it takes where there are none ----


def statements(store: Store, work: Callable[[], object]) -> list[str]:
    """What is said to the database: to SQLite's driver, past SQLAlchemy, too."""
    seen: list[str] = []

    def told(_: Any, __: Any, text: str, *___: Any) -> None:
        seen.append(text)

    if store.path:
        with store.write() as connection:
            driver: Any = connection.connection.driver_connection
        driver.set_trace_callback(seen.append)
        work()
        driver.set_trace_callback(None)
        return seen
    event.listen(store._engine, "before_cursor_execute", told)
    work()
    event.remove(store._engine, "before_cursor_execute", told)
    return seen


def test_without_budgets_each_transaction_looks_once(store: Store) -> None:
    sync(store, 3)
    add(store, *(job(decision_id="e") for _ in range(3)))
    claims: list[Claim] = []
    told = [
        statements(store, lambda: claims.extend(claim(store))),
        statements(store, lambda: settle.settle(store, [paid(one, 1) for one in claims], SOON)),
        statements(store, lambda: pack(store, purse())),
    ]
    for texts in told:
        looks = [text for text in texts if "budget" in text]
        assert len(looks) == 1, looks
    assert not [text for text in statements(store, lambda: claim(store)) if "budget" in text], "nothing is due"
