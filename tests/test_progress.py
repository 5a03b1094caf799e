"""How far the work is: rows and money on their way, and when batches may end by what earlier ones took."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert

from db import queue, settle
from db.engine import Store
from db.ids import new_id
from db.ledger import Charge
from db.packing import Waiting
from db.progress import PRIORS, etas, money, progress, told
from db.queue import BATCH
from db.settle import Failed, Settlement, Succeeded, Text
from db.states import AttemptState
from tests.commands import PAID
from tests.lanes import MODEL, NOW, RISK, add, job, pack

pytestmark = pytest.mark.both


def batch(store: Store, *, rows: int = 100, took: float | None = None, age: float = 0.0, **more: Any) -> str:
    """A batch that was at its provider for so many seconds, or has been there for that long."""
    ended = took is not None
    sent = NOW - timedelta(seconds=took if took is not None else age)
    facts: dict[str, Any] = {
        "id": new_id(NOW), "state": "imported" if ended else "submitted", "provider": "openai", "base_url": "u",
        "model": MODEL, "rows": rows, "packed_at": sent, "next_poll_at": NOW, "submitted_at": sent, "create_tries": 1,
        "done": rows if ended else 0, "ended_at": NOW if ended else None, "imported_at": NOW if ended else None,
        "lane": "batch", "input_tokens": 0, "expires_at": sent + timedelta(days=1),
    }  # fmt: skip
    with store.write() as connection:
        made = facts | {"provider_batch_id": f"p-{facts['id']}"} | more
        connection.execute(insert(BATCH).values(made))
    return str(facts["id"])


def ends(store: Store, batch_id: str) -> tuple[float, str]:
    """Seconds from now, and how that is known."""
    eta = etas(store, [batch_id], NOW, PRIORS)[batch_id]
    return (eta.at - NOW).total_seconds(), eta.known_by


# ---- when a batch ends ----


def test_without_a_history_it_is_the_prior(store: Store) -> None:
    assert ends(store, batch(store)) == (2400.0, "prior")


def test_a_batch_that_is_older_than_the_prior_takes_longer_still(store: Store) -> None:
    waits = [ends(store, batch(store, age=age))[0] for age in (3600, 2 * 3600, 6 * 3600)]
    assert waits == sorted(waits)
    assert waits[0] > 600
    assert ends(store, batch(store, age=86_000))[0] <= 400  # the provider ends it after a day


def test_it_is_what_earlier_ones_took_that_took_as_long(store: Store) -> None:
    for took in (60, 600, 1000, 1400):
        batch(store, took=took)
    assert ends(store, batch(store)) == (800.0, "history")
    assert ends(store, batch(store, age=700)) == (500.0, "history")  # the median of those that took longer
    assert ends(store, batch(store, age=1400))[1] == "prior"


def test_others_models_lanes_and_cancelled_ones_are_no_history(store: Store) -> None:
    batch(store, took=60, model="gpt-4o")
    batch(store, took=60, provider="anthropic")
    batch(store, took=60, cancel_at=NOW)
    batch(store, took=60, done=0)
    batch(store, took=60, lane="background", completion_window="2h")
    assert ends(store, batch(store))[1] == "prior"


def test_batches_of_like_size_are_better_history_when_there_are_enough(store: Store) -> None:
    for _ in range(3):
        batch(store, rows=50_000, took=7200)
    assert ends(store, batch(store, rows=10)) == (7200.0, "history")
    for _ in range(3):
        batch(store, rows=20, took=120)
    assert ends(store, batch(store, rows=10)) == (120.0, "history")
    assert ends(store, batch(store, rows=40_000)) == (7200.0, "history")


def test_its_own_pace_is_better_than_both(store: Store) -> None:
    batch(store, took=60)
    assert ends(store, batch(store, age=300, done=25)) == (900.0, "pace")
    assert ends(store, batch(store, age=300, done=100)) == (0.0, "pace")
    assert ends(store, batch(store, age=300, done=5))[1] == "prior"


def test_it_ends_when_its_rows_are_to_leave(store: Store) -> None:
    assert ends(store, batch(store, leave_by=NOW + timedelta(minutes=10)))[0] == 600
    assert ends(store, batch(store, leave_by=NOW + timedelta(minutes=10), cancel_at=NOW))[0] == 2400


@pytest.mark.parametrize(("window", "seconds"), [("2h", 3600.0), ("8h", 14400.0)])
def test_a_background_window_is_its_own_prior(store: Store, window: str, seconds: float) -> None:
    one = batch(store, lane="background", completion_window=window, expires_at=None)
    assert ends(store, one) == (seconds, "prior")


def test_what_is_not_at_its_provider_has_no_end(store: Store) -> None:
    waiting = batch(store, state="packed", submitted_at=None, provider_batch_id=None)
    assert etas(store, [waiting, batch(store, took=5)], NOW, PRIORS) == {}


# ---- how much there is, and what it costs ----


def settled_rows(store: Store) -> tuple[str, list[str]]:
    """A batch of four rows: one answered, one failed and free, one unknown, one open."""
    ids = add(store, *(job() for _ in range(4)))
    pack(store, "b", Waiting("openai", MODEL, 4), base_url="u", max_rows=9, max_bytes=10**6, now=NOW)
    free, unknown = Charge.free(AttemptState.FAILED), Charge(AttemptState.UNKNOWN, error_code="batch_lost")
    gone = Failed("x", "x")
    settle.settle(
        store,
        [
            Settlement(ids[0], 1, PAID, Succeeded(Text("yes"))),
            Settlement(ids[1], 1, free, gone),
            Settlement(ids[2], 1, unknown, gone),
        ],
        NOW,
    )
    return "b", ids


def test_the_money_of_a_batch(store: Store) -> None:
    batch_id, _ = settled_rows(store)
    found = money(store, [batch_id, "none"])
    assert set(found) == {batch_id}
    assert (found[batch_id].paid, found[batch_id].expected, found[batch_id].at_risk) == (12_345, 1, 2 * RISK)
    (row,) = told(store, [{"id": batch_id}], NOW, PRIORS)
    assert row == {"id": "b", "cost_usd": "0.000012345", "expected_usd": "0.000000001", "at_risk_usd": "0.02",
                   "eta_at": None, "eta_by": None}  # fmt: skip


def test_all_that_is_on_its_way(store: Store) -> None:
    settled_rows(store)
    batch(store, rows=50, done=20, age=100)
    batch(store, took=60)
    batch(store, rows=1, lane="background", completion_window="2h")
    add(store, job(lane="sync"), job(lane="stream"))
    add(store, job(decision_id="w"))
    queue.claim(store, "me", NOW + timedelta(hours=1), 1, NOW, ["openai"])
    seen = progress(store, NOW)
    assert (seen.batches, seen.rows, seen.done) == (2, 54, 20)
    assert (seen.background, seen.live, seen.waiting) == (1, 2, 1)
    assert (seen.cost_nano, seen.at_risk_nano) == (12_345, 3 * RISK)
    assert seen.eta == NOW + timedelta(seconds=150)
    assert seen.since == datetime(2026, 11, 22, tzinfo=NOW.tzinfo)


def test_money_counts_from_when_it_was_settled(store: Store) -> None:
    settled_rows(store)
    assert progress(store, NOW, NOW).cost_nano == 12_345
    assert progress(store, NOW, NOW + timedelta(seconds=1)).cost_nano == 0


def test_nothing_is_on_its_way_in_an_empty_database(store: Store) -> None:
    seen = progress(store, NOW)
    assert (seen.batches, seen.rows, seen.live, seen.waiting, seen.cost_nano, seen.eta) == (0, 0, 0, 0, 0, None)
