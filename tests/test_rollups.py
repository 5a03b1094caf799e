"""Rollups: right whatever changes attempts and whoever writes at the same time, in every zone and at every edge."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Event

import pytest
from sqlalchemy import text

from db import adjustments, queue, reports, rollups, settle, stuck
from db.adjustments import Adjustment, Repricing
from db.engine import Store, connect
from db.ids import new_id
from db.ledger import Charge
from db.packing import Waiting
from db.settle import Again, Failed, Settlement, Succeeded, Text
from db.states import AttemptState, CostSource
from tests import lanes
from tests.lanes import CLAUDE, MODEL, NOW, add, balanced, job, rows
from tests.rolled import rolled_up, stored

pytestmark = pytest.mark.both

BOTH = ["openai", "anthropic"]
YES = Succeeded(Text("yes", "stop"))
PAID = Charge(AttemptState.OK, 100, CostSource.COMPUTED, 200, input_tokens=3, output_tokens=5)
LOST = Charge(AttemptState.UNKNOWN, error_code="cut", error="cut")
UNPRICED = Charge(AttemptState.OK, input_tokens=3, output_tokens=5)
FREE = Charge.free(AttemptState.FAILED, code="http_500", error="no")


def call(store: Store, charge: Charge = PAID, at: datetime = NOW, **more: object) -> str:
    """A job that was called once."""
    add(store, job(now=at, **{"lane": "sync", **more}), now=at)
    (claim,) = queue.claim(store, "me", at + timedelta(hours=1), 1, at, BOTH)
    ending = YES if charge is PAID else Failed(str(charge.error_code), "why")
    settle.settle(store, [Settlement(claim.job_id, claim.n, charge, ending)], at + timedelta(seconds=1))
    return claim.job_id


def batch_of(store: Store, count: int, **more: object) -> tuple[str, list[str]]:
    ids, batch_id = add(store, *(job(**more) for _ in range(count))), new_id(NOW)
    group = Waiting("openai", MODEL, count)
    lanes.pack(store, batch_id, group, base_url="u", max_rows=count, max_bytes=10**6, now=NOW)
    return batch_id, ids


def imported(store: Store, batch_id: str, ids: list[str], charge: Charge, at: datetime) -> None:
    settle.settle_rows(store, [Settlement(ident, 1, charge, YES) for ident in ids], at, batch_id)


# ---- what changes attempts ----


def test_a_batch_counts_from_its_packing_to_its_last_row(store: Store) -> None:
    batch_id, ids = batch_of(store, 30, tags={"team": "a"})
    report = reports.cost(store, ["lane"])
    assert (report["open_attempts"], report["at_risk_usd"]) == (30, "0.3")
    imported(store, batch_id, ids[:20], PAID, NOW + timedelta(hours=3))
    imported(store, batch_id, ids, PAID, NOW + timedelta(hours=4))  # again, and the rest
    balanced(store)
    assert reports.cost(store, ["lane"])["total_usd"] == "0.000003"
    (row,) = reports.latency(store, ["lane"])["rows"]
    assert row["batch_s"]["count"] == row["turnaround_s"]["count"] == 30
    assert row["batch_s"]["p50"] == pytest.approx(3 * 3600, rel=0.005)
    assert row["batch_s"]["p99"] == pytest.approx(4 * 3600, rel=0.005)


def test_calls_that_end_alike_in_one_transaction_were_open_in_no_rollup(store: Store) -> None:
    add(store, *(job(lane="sync") for _ in range(20)))
    claims = queue.claim(store, "me", NOW + timedelta(hours=1), 20, NOW, ["openai"])
    settle.settle(store, [Settlement(one.job_id, one.n, FREE, Again(NOW, "x", "later")) for one in claims], NOW)
    balanced(store)
    assert reports.cost(store, [])["open_attempts"] == 0


def test_rows_that_cost_nobody_knows_what_are_at_risk_until_it_is_known(store: Store) -> None:
    batch_id, ids = batch_of(store, 12)
    imported(store, batch_id, [ids[0], ids[0], *ids[1:]], LOST, NOW + timedelta(hours=1))
    balanced(store)
    assert reports.cost(store, [])["at_risk_usd"] == "0.12"
    imported(store, batch_id, ids[:3], PAID, NOW + timedelta(hours=2))
    balanced(store)
    report = reports.cost(store, [])
    assert (report["total_usd"], report["unknown_attempts"], report["at_risk_usd"]) == ("0.0000003", 9, "0.09")


def test_rows_that_a_person_sends_again_stay_at_risk(store: Store) -> None:
    batch_id, ids = batch_of(store, 3)
    stuck.resubmit(store, batch_id, NOW)
    balanced(store)
    imported(store, batch_id, ids, PAID, NOW + timedelta(hours=1))
    balanced(store)


def test_a_new_price_is_in_every_report(store: Store) -> None:
    idents = [call(store), call(store, UNPRICED), call(store, tags={"team": "a"})]
    repricing = Repricing("r", "2026-11", NOW, None, NOW)
    same = {"cost_source": CostSource.COMPUTED, "price": "new"}
    changes = [Adjustment(idents[0], 1, 100, 70, 200, 140, **same), Adjustment(idents[1], 1, None, 5, None, 9, **same)]
    adjustments.apply(store, repricing, changes)
    balanced(store)
    report = reports.cost(store, [])
    assert (report["total_usd"], report["unknown_attempts"], report["at_risk_usd"]) == ("0.000000175", 0, "0")
    assert reports.savings(store, [])["standard_usd"] == "0.000000349"


def test_what_can_still_be_charged_gets_no_new_price(store: Store) -> None:
    ident = call(store, LOST)
    change = Adjustment(ident, 1, None, 70, None, 140, CostSource.COMPUTED, "new")
    assert adjustments.apply(store, Repricing("r", "2026-11", NOW, None, NOW), [change]) == 0
    settle.settle(store, [Settlement(ident, 1, PAID, YES)], NOW + timedelta(hours=1))
    balanced(store)


def test_they_are_filled_from_what_there_was(store: Store) -> None:
    for charge in (PAID, LOST, FREE):
        call(store, charge, tags={"team": "a"})
    batch_of(store, 3)
    before = stored(store)
    with store.write() as connection:
        connection.execute(text("DELETE FROM rollup"))
        connection.execute(text("DELETE FROM rollup_times"))
        rollups.fill(connection)
    assert stored(store) == before


def test_the_account_does_not_balance_where_a_rollup_was_changed(store: Store) -> None:
    call(store)
    assert reports.account(store)["balances"]
    with store.write() as connection:
        connection.execute(text("UPDATE rollup SET cost_nano = cost_nano + 1"))
    assert not reports.account(store)["balances"]


# ---- who asks, and when ----


def test_days_and_hours_are_those_of_the_zone(store: Store) -> None:
    for minute in (20, 40):
        call(store, at=datetime.fromisoformat(f"2026-11-22T18:{minute}:00Z"))
    assert [row["day"] for row in reports.cost(store, ["day"])["rows"]] == ["2026-11-22"]
    days = reports.cost(store, ["day"], zone="Asia/Kolkata")["rows"]  # five hours and a half ahead
    assert [(row["day"], row["jobs"]) for row in days] == [("2026-11-22", 1), ("2026-11-23", 1)]
    hours = [row["hour"] for row in reports.latency(store, ["hour"], zone="Europe/Berlin")["rows"]]
    assert hours == ["2026-11-22T19:00+01:00"]
    assert [row["hour"] for row in reports.errors(store, ["hour"])["rows"]] == []


@pytest.mark.parametrize("since", [0, 3, 15, 16])
def test_edges_are_cut_to_the_second(store: Store, since: int) -> None:
    for minute in range(0, 45, 3):
        call(store, at=NOW + timedelta(minutes=minute))
    begin, end = NOW + timedelta(minutes=since), NOW + timedelta(minutes=33)
    wanted = [minute for minute in range(0, 45, 3) if since <= minute < 33]
    assert reports.cost(store, ["tag:x"], begin, end)["rows"][0]["attempts"] == len(wanted)
    assert reports.latency(store, [], begin, end)["wait_s"]["count"] == len(wanted)
    assert reports.cost(store, [], begin, begin)["rows"] == []


def test_tags_are_told_apart_and_those_without_are_left(store: Store) -> None:
    for tags in (None, {"team": "a"}, {"team": "a", "x": "1"}, {"x": "1"}):
        call(store, tags=tags)
    found = reports.cost(store, ["tag:team", "tag:x"])["rows"]
    keys = [(row["tag:team"], row["tag:x"], row["jobs"]) for row in found]
    assert keys == [(None, None, 1), (None, "1", 1), ("a", None, 1), ("a", "1", 1)]
    assert [row["wait_s"]["count"] for row in reports.latency(store, ["tag:team"])["rows"]] == [2, 2]


def test_errors_are_told_by_cause_with_what_they_cost(store: Store) -> None:
    for charge in (PAID, LOST, FREE, FREE):
        call(store, charge)
    report = reports.errors(store, ["lane"])
    assert (report["attempts"], report["of_attempts"], report["percent"]) == (3, 4, 75.0)
    told = [
        (row["error"], row["state"], row["attempts"], row["cost_usd"], row["at_risk_usd"]) for row in report["rows"]
    ]
    assert told == [("http_500", "failed", 2, "0", "0"), ("cut", "unknown", 1, None, "0.01")]
    assert report["jobs_failed"] == [{"error": "http_500", "jobs": 2}, {"error": "cut", "jobs": 1}]


def test_hindsight_knows_the_cheapest_lane_of_each_class_and_model(store: Store) -> None:
    batch_id, ids = batch_of(store, 1)
    imported(store, batch_id, ids, PAID, NOW)
    dear = PAID._replace(cost_nano=200)
    call(store, dear), call(store, dear, model=CLAUDE)
    report = reports.savings(store, ["model"])
    assert [(row["model"], row["best_usd"]) for row in report["rows"]] == [(CLAUDE, "0.0000002"), (MODEL, "0.0000002")]
    assert (report["paid_usd"], report["best_usd"]) == ("0.0000005", "0.0000004")


# ---- at the same time ----


def test_four_writers_and_a_reader_are_always_right(store: Store, database_url: str) -> None:
    stores = [connect(database_url) for _ in range(4)]
    done = Event()

    def write(own: Store, number: int) -> None:
        for n in range(12):
            at = NOW + timedelta(minutes=n % 2)
            add(own, job(lane="sync", now=at, tags={"team": str(n % 2)}), now=at)
            claims = queue.claim(own, f"w{number}", at + timedelta(hours=1), 1, at, BOTH)
            ends = [Settlement(one.job_id, one.n, (PAID, LOST)[n % 2], YES) for one in claims]
            settle.settle(own, ends, at + timedelta(seconds=number))

    def read() -> int:
        looks = 0
        while not done.is_set():
            account = reports.account(store)
            assert account["balances"], account
            looks += 1
        return looks

    with ThreadPoolExecutor() as pool:
        looking = pool.submit(read)
        try:
            writing: list[Callable[[], None]] = [pool.submit(write, own, n).result for n, own in enumerate(stores)]
            for result in writing:
                result()
        finally:
            done.set()
        assert looking.result() > 0
    for own in stores:
        own.close()
    rolled_up(store)
    ((attempts, unknown),) = rows(store, "SELECT count(*), sum(CASE WHEN cost_nano IS NULL THEN 1 END) FROM attempt")
    report = reports.cost(store, [])
    assert (sum(row["attempts"] for row in report["rows"]), report["unknown_attempts"]) == (attempts, unknown)
    assert attempts > 24
