"""The moves of jobs before they end, each alone; what loses changes nothing."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from db import batch_rows, batches, claims, queue, rescue, settle
from db.engine import Store
from db.ids import new_id
from db.ledger import Charge
from db.packing import Waiting
from db.settle import Failed, Settlement
from db.states import AttemptState
from tests import lanes
from tests.lanes import MODEL, NOW, RISK, add, balanced, decision, job, rows, states

pytestmark = pytest.mark.both

UNTIL = NOW + timedelta(seconds=60)
SOON = NOW + timedelta(seconds=1)
ALL = ["openai", "anthropic"]


def claim(store: Store, by: str = "me", limit: int = 100) -> list[queue.Claim]:
    return queue.claim(store, by, UNTIL, limit, SOON, ALL)


def pack(store: Store, batch: str = "b1") -> int:
    return lanes.pack(store, batch, Waiting("openai", MODEL, 1), base_url="u", max_rows=10, max_bytes=10**6, now=SOON)


# ---- the database's own rules ----


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ("state = 'done'", "state_word"),
        ("state = 'succeeded'", "final_is_finished"),
        ("finished_at = '2026-01-01'", "final_is_finished"),
        ("state = 'running'", "running_is_leased"),
        ("lease_until = '2026-01-01', lease_by = 'x'", "running_is_leased"),
        ("state = 'running', lease_until = '2026-01-01'", "lease_has_owner"),
        ("state = 'submitted'", "submitted_has_batch"),
        ("state = 'failed', finished_at = '2026-01-01'", "failed_says_why"),
        ("lane = 'mail'", "lane_word"),
        ("tier = 'gold'", "tier_word"),
        ("attempts = -1", "counts"),
        ("decision_id = 'nobody'", "(?i)foreign key"),
        ("submission_id = NULL", "(?i)not.null"),
    ],
)
def test_a_job_with_a_wrong_mix_of_columns_cannot_be(store: Store, change: str, rule: str) -> None:
    add(store, job())
    with pytest.raises(IntegrityError, match=rule), store.write() as connection:
        connection.execute(text(f"UPDATE job SET {change}"))
    assert states(store) == {"queued": 1}


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ("state = 'lost', ended_at = '2026-01-01'", "state_word"),
        ("state = 'ok'", "settled_has_end"),
        ("ended_at = '2026-01-01'", "settled_has_end"),
        ("cost_nano = 0", "unknown_is_null"),
        ("cost_source = 'computed'", "unknown_is_null"),
        ("cost_nano = -1, cost_source = 'computed'", "cost_not_negative"),
        ("n = 0", "counted_from_one"),
        ("lane = 'mail'", "lane_word"),
    ],
)
def test_an_attempt_with_a_wrong_mix_of_columns_cannot_be(store: Store, change: str, rule: str) -> None:
    add(store, job(lane="sync"))
    claim(store)
    with pytest.raises(IntegrityError, match=rule), store.write() as connection:
        connection.execute(text(f"UPDATE attempt SET {change}"))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ("state = 'gone'", "state_word"),
        ("state = 'submitted'", "submitted_is_known"),
        ("state = 'imported'", "imported_has_time"),
        ("rows = 0", "has_rows"),
    ],
)
def test_a_batch_with_a_wrong_mix_of_columns_cannot_be(store: Store, change: str, rule: str) -> None:
    add(store, job())
    pack(store)
    with pytest.raises(IntegrityError, match=rule), store.write() as connection:
        connection.execute(text(f"UPDATE batch SET {change}"))


# ---- add and start ----


def test_the_same_row_again_adds_nothing(store: Store) -> None:
    one, two = job(row_key="a"), job(row_key="b")
    queue.open_submission(store, "s1", "file", NOW)
    assert queue.add(store, "s1", [decision()], [one], NOW) == set()
    queue.open_submission(store, "s2", "file", NOW)
    assert queue.add(store, "s2", [decision()], [job(row_key="a"), two], NOW) == {"a"}
    assert [row[0] for row in rows(store, "SELECT id FROM job ORDER BY id")] == [one.id, two.id]
    counts = rows(store, "SELECT accepted, duplicates, rejected FROM submission ORDER BY id")
    assert [tuple(row) for row in counts] == [(1, 0, 0), (1, 1, 0)]
    balanced(store)


def test_all_of_them_or_none(store: Store) -> None:
    queue.open_submission(store, "s1", "file", NOW)
    good, bad = job(), job(decision_id="nobody")
    with pytest.raises(IntegrityError):
        queue.add(store, "s1", [decision()], [good, bad], NOW)
    assert states(store) == {}
    assert rows(store, "SELECT count(*) FROM body")[0][0] == 0
    assert rows(store, "SELECT count(*) FROM decision")[0][0] == 0
    balanced(store)


def test_more_rows_than_one_statement_takes(store: Store) -> None:
    many = [job(row_key=f"many {n}") for n in range(2300)]
    queue.open_submission(store, "s1", "file", NOW)
    assert queue.add(store, "s1", [decision()], many, NOW) == set()
    assert len(queue.add(store, "s1", [decision()], many, NOW)) == 2300
    assert states(store) == {"queued": 2300}


def test_everything_of_a_job_is_kept(store: Store) -> None:
    facts = {"client_key": "mine", "priority": 7, "tags": {"team": "search"}, "post_process": "cat"}
    ident = add(store, job(deadline_at=UNTIL, leave_by=SOON, **facts))[0]
    kept = rows(
        store,
        "SELECT client_key, priority, tags ->> 'team', post_process, deadline_at, leave_by, body "
        "FROM job JOIN body ON job_id = id WHERE id = :id",
        id=ident,
    )[0]
    assert tuple(kept[:4]) == ("mine", 7, "search", "cat")
    assert [str(time)[:19] for time in kept[4:6]] == ["2026-11-22 12:01:00", "2026-11-22 12:00:01"]
    assert '"content":"hi"' in kept[6]


def test_a_job_without_tags_has_none(store: Store) -> None:
    add(store, job())
    assert rows(store, "SELECT tags FROM job")[0][0] is None


def test_rejected_rows_are_counted(store: Store) -> None:
    queue.open_submission(store, "s1", "file", NOW)
    queue.reject(store, "s1", 2)
    queue.reject(store, "s1", 3)
    assert rows(store, "SELECT rejected FROM submission")[0][0] == 5


def test_a_started_job_is_leased_and_its_money_at_risk_in_one_step(store: Store) -> None:
    one = job(lane="stream", row_key="k")
    claimed = queue.start(store, one, "s1", decision(), "me", UNTIL, NOW)
    assert claimed is not None
    assert (claimed.job_id, claimed.n, claimed.lease_by) == (one.id, 1, "me")
    assert states(store) == {"running": 1}
    assert tuple(rows(store, "SELECT n, state, at_risk_nano, cost_nano FROM attempt")[0]) == (1, "sent", RISK, None)
    assert queue.start(store, job(row_key="k"), "s1", decision(), "me", UNTIL, NOW) is None
    assert states(store) == {"running": 1}
    balanced(store)


# ---- claim, again, renew ----


def test_the_most_urgent_first(store: Store) -> None:
    plain = job(lane="sync")
    late = job(lane="sync", deadline_at=NOW + timedelta(hours=2))
    near = job(lane="stream", deadline_at=NOW + timedelta(hours=1))
    first = job(lane="sync", priority=5)
    add(store, plain, late, near, first)
    order = [claim(store, limit=1)[0].job_id for _ in range(4)]
    assert order == [first.id, near.id, late.id, plain.id]


def test_nothing_before_its_time_of_another_lane_or_of_another_provider(store: Store) -> None:
    add(store, job(lane="batch"), job(lane="sync", model="claude-haiku-5-5"), job(lane="sync"))
    early = queue.claim(store, "me", UNTIL, 9, NOW - timedelta(seconds=1), ALL)
    assert early == []
    assert [one.provider for one in queue.claim(store, "me", UNTIL, 9, SOON, ["openai"])] == ["openai"]
    assert states(store) == {"queued": 2, "running": 1}
    assert claims.strangers(store, ["openai"], SOON) == ["anthropic"]
    assert claims.strangers(store, ALL, SOON) == []


def test_many_claimers_never_share_a_job(store: Store) -> None:
    add(store, *(job(lane="sync") for _ in range(100)))
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda n: [one.job_id for one in claim(store, f"w{n}", 7)], range(20)))
    ids = [ident for part in taken for ident in part]
    assert len(ids) == len(set(ids)) == 100
    assert rows(store, "SELECT count(*) FROM attempt")[0][0] == 100


def test_the_owner_opens_the_next_attempt_and_nobody_else(store: Store) -> None:
    add(store, job(lane="sync"))
    mine = claim(store)[0]
    assert queue.again(store, replace(mine, lease_by="other"), SOON) is None
    second = queue.again(store, mine, SOON)
    assert second is not None
    assert second.n == 2
    assert [row[0] for row in rows(store, "SELECT n FROM attempt ORDER BY n")] == [1, 2]


def test_a_lease_that_was_lost_opens_nothing(store: Store) -> None:
    add(store, job(lane="sync"))
    mine = claim(store)[0]
    rescue.rescue(store, UNTIL + timedelta(seconds=1), 3)
    assert queue.again(store, mine, SOON) is None
    assert rows(store, "SELECT count(*) FROM attempt")[0][0] == 1


def test_a_renewed_lease_is_not_rescued(store: Store) -> None:
    add(store, job(lane="sync"), job(lane="sync"))
    claim(store, "me", 1)
    claim(store, "other", 1)
    queue.renew(store, "me", UNTIL + timedelta(hours=1))
    assert rescue.rescue(store, UNTIL + timedelta(seconds=1), 3) == 1
    assert rows(store, "SELECT lease_by FROM job WHERE state = 'running'")[0][0] == "me"


# ---- cancel and retry ----


def test_a_waiting_job_is_cancelled_and_a_running_one_is_not(store: Store) -> None:
    waiting, running = add(store, job(), job(lane="sync"))
    claim(store)
    assert queue.cancel(store, [waiting, running], SOON) == [waiting]
    assert states(store) == {"cancelled": 1, "running": 1}
    assert queue.cancel(store, [waiting], SOON) == []


def test_a_packed_row_is_taken_out_and_has_cost_nothing(store: Store) -> None:
    one, two = add(store, job(), job())
    pack(store)
    assert queue.cancel(store, [one], SOON) == [one]
    assert tuple(rows(store, "SELECT state, cost_nano FROM attempt WHERE job_id = :id", id=one)[0]) == ("cancelled", 0)
    assert [row[0] for row in batch_rows.rows_of(store, "b1")] == [two]


def test_a_row_whose_file_may_be_at_the_provider_stays_open_until_its_bill_comes(store: Store) -> None:
    one = add(store, job())[0]
    pack(store)
    batch = batches.get(store, "b1")
    assert batch is not None
    assert batches.intend_upload(store, batch, 1, SOON)
    assert queue.cancel(store, [one], SOON) == [one]
    assert states(store) == {"cancelled": 1}
    assert rows(store, "SELECT state FROM attempt")[0][0] == "sent"


def test_a_file_that_was_written_before_a_row_was_taken_out_is_not_sent(store: Store) -> None:
    one, _ = add(store, job(), job())
    pack(store)
    batch = batches.get(store, "b1")
    assert batch is not None
    written = len(list(batch_rows.rows_of(store, "b1")))
    queue.cancel(store, [one], SOON)
    assert not batches.intend_upload(store, batch, written, SOON)
    assert batches.intend_upload(store, batch, 1, SOON)


def test_a_person_brings_a_failed_or_cancelled_job_back(store: Store) -> None:
    cancelled, failed, queued = add(store, job(), job(lane="sync", interactive=True), job())
    queue.cancel(store, [cancelled], SOON)
    mine = claim(store)[0]
    end = Settlement(mine.job_id, 1, Charge.free(AttemptState.FAILED), Failed("x", "why"))
    settle.settle(store, [end], SOON)
    assert sorted(queue.retry(store, [cancelled, failed, queued], SOON)) == sorted([cancelled, failed])
    assert states(store) == {"queued": 3}
    assert queue.claim(store, "me", UNTIL, 9, SOON, ALL)[0].n == 2


def test_ids_of_jobs_are_not_made_twice(store: Store) -> None:
    one = job()
    add(store, one)
    with pytest.raises(IntegrityError):
        add(store, job()._replace(id=one.id, decision_id=new_id(NOW)))
