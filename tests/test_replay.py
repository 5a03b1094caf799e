"""What a replay reads: each job as it was, the answers that it needed, and how long jobs were in their lanes."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from db import queue, replay, reports
from db.engine import Store
from db.ledger import Charge
from db.plans import Onto
from db.replay import Stay
from db.settle import Again, Failed
from db.states import AttemptState
from tests.lanes import MODEL, NOW, add, job
from tests.past import BATCH, BOTH, SYNC, batched, called, end, packed, paid

pytestmark = pytest.mark.both

FREE = Charge.free(AttemptState.CANCELLED)
CHAIN = [
    {"lane": "batch", "tier": "default", "leave_by": "2026-11-22T13:00:00Z", "window": None},
    {"lane": "sync", "tier": "default", "leave_by": None, "window": None},
]


def after(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


def everything(store: Store) -> list[replay.Recorded]:
    return [one for page in replay.jobs(store) for one in page]


def test_every_job_comes_once_a_page_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "PAGE", 2)
    idents = [called(store, 5, NOW + timedelta(hours=hour)) for hour in range(5)]
    pages = [[one.id for one in page] for page in replay.jobs(store)]
    assert [len(page) for page in pages] in ([2, 2, 1],)
    assert [ident for page in pages for ident in page] == idents
    some = replay.jobs(store, NOW + timedelta(hours=1), NOW + timedelta(hours=3))
    assert [one.id for page in some for one in page] == idents[1:3]


def test_a_job_is_as_it_was_asked_and_as_it_ended(store: Store) -> None:
    more = {"priority": 7, "tags": {"team": "search"}, "deadline_at": NOW + timedelta(hours=1), "post_process": "cat"}
    called(store, 12, **more)
    add(store, job("waits"))
    (done, waits) = everything(store)
    assert (done.state, done.priority, done.tags, done.post_process) == ("succeeded", 7, {"team": "search"}, "cat")
    assert (done.submitted_at, done.finished_at) == (NOW, NOW + after(12))
    assert (done.deadline_at, done.class_, done.rule, done.group) == (NOW + timedelta(hours=1), "bulk", "r", 1)
    assert (done.paid_nano, done.blind, [one.cost_nano for one in done.answers]) == (SYNC, 0, [SYNC])
    (answer,) = done.answers
    assert (answer.lane, answer.tier, answer.input, answer.output, answer.priced_at) == (
        "sync", "default", 1000, 100, NOW + after(12),
    )  # fmt: skip
    assert waits.body is not None
    assert "waits" in waits.body
    assert (waits.state, waits.paid_nano, waits.answers) == ("queued", 0, ())


def test_words_that_are_no_longer_kept_are_none(store: Store) -> None:
    called(store, 5)
    with store.write() as connection:
        connection.execute(text("DELETE FROM body"))
    assert [one.body for one in everything(store)] == [None]


def test_an_answer_that_did_not_fit_was_needed_too(store: Store) -> None:
    (ident,) = add(store, job(lane="sync"))
    for n, cost in ((1, SYNC), (2, 2 * SYNC)):
        (claim,) = queue.claim(store, "me", NOW + timedelta(days=1), 1, NOW + after(n), BOTH)
        again = Again(NOW, "schema_mismatch", "does not fit") if n == 1 else None
        end(store, ident, claim.n, paid(cost), NOW + after(n), again)
    (one,) = everything(store)
    assert (one.paid_nano, [answer.cost_nano for answer in one.answers]) == (3 * SYNC, [SYNC, 2 * SYNC])


def test_an_answer_that_came_after_the_jobs_own_was_not_needed(store: Store) -> None:
    (late,) = packed(store, NOW, plan=CHAIN)
    onto = Onto(1, "sync", "default", None)
    end(
        store, late, 1, Charge(AttemptState.UNKNOWN), NOW + after(70), Again(NOW + after(70), "left", "left", onto=onto)
    )
    (claim,) = queue.claim(store, "me", NOW + timedelta(days=1), 9, NOW + after(80), BOTH)
    end(store, late, claim.n, paid(SYNC), NOW + after(90))
    end(store, late, 1, paid(BATCH), NOW + after(500))
    (one,) = everything(store)
    assert (one.paid_nano, one.blind, [answer.lane for answer in one.answers]) == (SYNC + BATCH, 0, ["sync"])
    saved = reports.savings(store, ["lane"])
    assert (saved["paid_usd"], saved["standard_usd"]) == ("0.000225", "0.00015")  # a plain call would have been one


def test_what_is_unknown_is_counted_aside(store: Store) -> None:
    ident = called(store, 5, charge=Charge(AttemptState.UNKNOWN, at_risk_nano=9))
    (one,) = everything(store)
    assert (one.id, one.paid_nano, one.blind, one.answers) == (ident, 0, 1, ())


def test_the_rows_of_a_batch_that_came_in_together_stayed_as_one(store: Store) -> None:
    batched(store, 300, count=3)
    called(store, 12)
    called(store, 2, interactive=True)
    kinds = ("batch", False, 300.0, True), ("sync", False, 12.0, True), ("sync", True, 2.0, True)
    stays = list(replay.stays(store))
    assert sorted((one.lane, one.interactive, one.seconds, one.answered) for one in stays) == sorted(kinds)
    assert {(one.provider, one.model, one.began_at) for one in stays} == {("openai", MODEL, NOW)}
    assert list(replay.stays(store, NOW + after(1))) == []


def test_a_lane_that_was_left_was_too_slow_and_the_next_one_counts_from_its_call(store: Store) -> None:
    (ident,) = packed(store, NOW, plan=CHAIN)
    onto = Onto(1, "sync", "default", None)
    end(store, ident, 1, FREE, NOW + after(4000), Again(NOW + after(4000), "left", "left", onto=onto))
    sent = NOW + after(4100)
    (claim,) = queue.claim(store, "me", sent + timedelta(hours=1), 1, sent, BOTH)
    end(store, ident, claim.n, paid(SYNC), sent + after(7))
    common = ("openai", MODEL)
    assert sorted(replay.stays(store), key=lambda one: one.lane) == [
        Stay(*common, "batch", "default", False, NOW, 4000.0, answered=False),
        Stay(*common, "sync", "default", False, sent, 7.0, answered=True),
    ]


def test_a_tier_that_had_no_room_was_too_slow(store: Store) -> None:
    plan = [CHAIN[0] | {"lane": "sync", "tier": "flex"}, CHAIN[1]]
    (ident,) = add(store, job(lane="sync", tier="flex"), plan=plan)
    (claim,) = queue.claim(store, "me", NOW + timedelta(days=1), 1, NOW, BOTH)
    full = Charge.free(AttemptState.FAILED, outcome="busy")
    left = Again(NOW + after(60), "busy", "busy", onto=Onto(1, "sync", "default", None))
    end(store, ident, claim.n, full, NOW + after(60), left)
    (claim,) = queue.claim(store, "me", NOW + timedelta(days=1), 1, NOW + after(60), BOTH)
    end(store, ident, claim.n, paid(SYNC), NOW + after(64))
    assert sorted((one.tier, one.seconds, one.answered) for one in replay.stays(store)) == [
        ("default", 4.0, True),
        ("flex", 60.0, False),
    ]


def test_a_job_that_failed_says_nothing_of_its_lane(store: Store) -> None:
    (ident,) = packed(store, NOW)
    end(store, ident, 1, Charge.free(AttemptState.FAILED), NOW + after(60), Failed("bad", "bad"))
    assert list(replay.stays(store)) == []
