"""Which jobs go next, and how they are found: by index, however many jobs there are."""

from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from db import claims, queue, settle
from db.engine import Store
from db.ledger import ATTEMPT, JOB, Charge
from db.prepared import Prepared
from db.settle import Again, Settlement, Succeeded, Text
from db.states import AttemptState, CostSource
from tests.lanes import NOW, add, balanced, job, rows

PAID = Charge(AttemptState.OK, 5, CostSource.COMPUTED)
TABLES = {"job", "attempt", "body", "result", "decision"}
UNTIL = NOW + timedelta(minutes=2)


@pytest.mark.both
def test_a_prepared_query_brings_what_the_usual_one_does(store: Store) -> None:
    """Times, truths and JSON, and those that are not there."""
    add(store, job(lane="sync", deadline_at=NOW, interactive=True, tags=["a", "ä"]), job(lane="sync"))
    queue.claim(store, "me", UNTIL, 1, NOW, ["openai"])
    with store.read() as connection:
        for table in (JOB, ATTEMPT):
            usual = [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))]
            assert Prepared(select(table).order_by(*table.primary_key)).all(connection) == usual
            assert usual


@pytest.mark.both
def test_a_claim_is_the_job_as_it_was_submitted(store: Store) -> None:
    add(store, job(lane="sync", body="{}", deadline_at=NOW + timedelta(hours=1)))
    [one] = queue.claim(store, "me", UNTIL, 9, NOW, ["openai"])
    settle.settle(store, [Settlement(one.job_id, 1, PAID, Again(NOW, "schema", "no JSON"))], NOW)
    [again] = queue.claim(store, "you", UNTIL, 9, NOW, ["openai"])
    assert (one.n, one.lease_by, one.answered, one.deadline_at) == (1, "me", 0, NOW + timedelta(hours=1))
    assert (again.n, again.lease_by, again.answered, again.job_id, again.body) == (2, "you", 1, one.job_id, "{}")
    assert (again.turned_away, again.never_ran, again.output_cap, again.class_) == (0, 0, None, one.class_)


@pytest.mark.both
def test_looking_ahead_takes_nothing(store: Store) -> None:
    add(store, job(lane="sync"), job(lane="sync", provider="anthropic", priority=-1), job(lane="batch"))
    both = ["anthropic", "openai"]
    assert claims.ahead(store, 9, NOW, both) == {"anthropic", "openai"}
    assert claims.ahead(store, 1, NOW, both) == {"openai"}
    assert claims.ahead(store, 9, NOW, ["anthropic"]) == {"anthropic"}
    assert claims.ahead(store, 9, NOW - timedelta(days=1), both) == set()
    assert len(queue.claim(store, "me", UNTIL, 9, NOW, both)) == 2
    assert claims.ahead(store, 9, NOW, both) == set()


@pytest.mark.both
def test_what_is_settled_and_claimed_as_one(store: Store) -> None:
    add(store, job(lane="sync"), job(lane="sync"))
    [one] = queue.claim(store, "me", UNTIL, 1, NOW, ["openai"])
    with store.as_one():
        settle.settle(store, [Settlement(one.job_id, 1, PAID, Succeeded(Text("yes")))], NOW)
        [other] = queue.claim(store, "me", UNTIL, 9, NOW, ["openai"])
    assert other.job_id != one.job_id
    assert rows(store, "SELECT state, count(*) FROM job GROUP BY state ORDER BY state") == [
        ("running", 1),
        ("succeeded", 1),
    ]
    balanced(store)


def test_no_statement_of_a_turn_reads_every_job(store: Store) -> None:
    """They were settled and claimed in the time that 10,000 queued jobs take to be read, once."""
    add(store, *(job(lane="sync") for _ in range(4)))
    mine = queue.claim(store, "me", UNTIL, 2, NOW, ["openai"])
    said: list[str] = []
    with store.write() as connection:
        driver: Any = connection.connection.driver_connection
    driver.set_trace_callback(said.append)
    settle.settle(store, [Settlement(one.job_id, one.n, PAID, Succeeded(Text("yes"))) for one in mine], NOW)
    assert len(queue.claim(store, "me", UNTIL, 2, NOW, ["openai"])) == 2
    driver.set_trace_callback(None)
    asked = [text for text in said if text.lstrip().startswith(("SELECT", "UPDATE", "INSERT"))]
    assert len(asked) > 5
    with store.read() as connection, closing(connection.connection.cursor()) as cursor:
        for text in asked:
            plan = [row[3] for row in cursor.execute(f"EXPLAIN QUERY PLAN {text}").fetchall()]
            scans = [step for step in plan if step.startswith("SCAN ") and step.split()[1] in TABLES]
            assert all(step.endswith(("USING INDEX job_next", "USING INDEX job_capped")) for step in scans), text
