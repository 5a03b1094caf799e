"""Provider batches and their moves, each alone; a worker that lost its right changes nothing."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from db import batch_rows, batches, packing
from db.engine import Store
from db.packing import Waiting
from db.tables import Batch
from tests import lanes
from tests.lanes import MODEL, NOW, RISK, add, job, rows, states

pytestmark = pytest.mark.both

SOON = NOW + timedelta(seconds=1)
LATE = NOW + timedelta(hours=1)


def packed(store: Store, batch: str = "b", group: Waiting | None = None, **more: Any) -> int:
    limits: dict[str, Any] = {"base_url": "u", "max_rows": 100, "max_bytes": 10**6, "now": NOW}
    return lanes.pack(store, batch, group or Waiting("openai", MODEL, 1), **limits | more)


def get(store: Store, batch: str = "b") -> Batch:
    found = batches.get(store, batch)
    assert found is not None
    return found


def sent(store: Store, batch: str = "b") -> Batch:
    """A batch that is at the provider."""
    assert batches.intend_upload(store, get(store, batch), get(store, batch).rows, NOW)
    assert batches.uploaded(store, batch, f"file-{batch}")
    assert batches.intend_create(store, get(store, batch), NOW)
    assert created(store, batch)
    return get(store, batch)


def created(store: Store, batch: str = "b", provider: str | None = None) -> bool:
    known: dict[str, Any] = {"status": "validating", "expires_at": LATE, "next_poll_at": SOON, "now": NOW}
    return batches.created(store, batch, provider_batch_id=provider or f"p-{batch}", **known)


def ids(store: Store, batch: str) -> list[str]:
    return [row[0] for row in batch_rows.rows_of(store, batch)]


# ---- pack ----


def test_what_waits_by_provider_and_model(store: Store) -> None:
    add(store, job(), job(), job(model="gpt-4o"), job(lane="sync"))
    assert sorted(packing.waiting(store, NOW), key=lambda group: group.model) == [
        Waiting("openai", "gpt-4o", 1),
        Waiting("openai", MODEL, 2),
    ]
    assert packing.waiting(store, NOW - timedelta(seconds=1)) == []


def test_a_packed_job_has_its_attempt_open_and_its_money_at_risk(store: Store) -> None:
    one = add(store, job())[0]
    assert packed(store) == 1
    assert states(store) == {"submitted": 1}
    attempt = rows(store, "SELECT job_id, n, state, lane, batch_id, at_risk_nano FROM attempt")[0]
    assert tuple(attempt) == (one, 1, "sent", "batch", "b", RISK)
    assert packed(store, "b2") == 0
    assert batches.get(store, "b2") is None


def test_cut_at_its_rows(store: Store) -> None:
    made = add(store, *(job() for _ in range(7)))
    assert [packed(store, f"b{n}", max_rows=3) for n in range(4)] == [3, 3, 1, 0]
    assert [*ids(store, "b0"), *ids(store, "b1"), *ids(store, "b2")] == made


def test_cut_at_its_bytes_and_one_that_is_larger_goes_alone(store: Store) -> None:
    size = len(job("é" * 1000).body.encode())
    add(store, *(job("é" * 1000) for _ in range(3)))
    assert packed(store, "b0", max_bytes=size * 2 + 1) == 2
    assert packed(store, "b1", max_bytes=10) == 1


def test_who_must_leave_first_goes_first(store: Store) -> None:
    never, late, early = add(store, job(), job(leave_by=LATE), job(leave_by=SOON))
    packed(store, "b0", max_rows=1)
    packed(store, "b1", max_rows=2)
    packed(store, "b2", max_rows=2)
    assert [ids(store, batch) for batch in ("b0", "b1", "b2")] == [[early], [late], [never]]  # none ends for another
    assert (get(store, "b0").leave_by, get(store, "b1").leave_by) == (SOON, LATE)


def test_the_rows_come_in_pages_and_in_order(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_rows, "_ROWS_A_PAGE", 3)
    made = add(store, *(job() for _ in range(7)))
    packed(store)
    assert ids(store, "b") == made
    assert batch_rows.rows_at(store, "b", (1, 7, 8)) == {1: (made[0], 1), 7: (made[6], 1)}
    assert len(batch_rows.open_rows(store, "b", 5)) == 5
    assert batch_rows.holds(store, "b", made[0], 1)
    assert not batch_rows.holds(store, "b", made[0], 2)


# ---- leases ----


def test_one_worker_at_a_time(store: Store) -> None:
    add(store, job())
    packed(store)
    assert [one.id for one in batches.take(store, "me", LATE, SOON)] == ["b"]
    assert batches.take(store, "other", LATE, SOON) == []
    assert [one.id for one in batches.take(store, "other", LATE, LATE + timedelta(seconds=1))] == ["b"]
    batches.release(store, "b", "me")
    assert batches.take(store, "third", LATE, SOON) == []
    batches.release(store, "b", "other")
    assert len(batches.take(store, "third", LATE, SOON)) == 1


def test_where_creates_cannot_be_told_apart_one_goes_at_a_time(store: Store) -> None:
    add(store, job(), job())
    for name in ("a", "b"):
        packed(store, name, max_rows=1)
        batches.uploaded(store, name, None)
    assert batches.intend_create(store, get(store, "a"), NOW, only=True)
    assert not batches.intend_create(store, get(store, "b"), NOW, only=True)
    assert get(store, "b").create_tries == 0
    assert created(store, "a")
    assert batches.intend_create(store, get(store, "b"), NOW, only=True)


# ---- moves ----


def test_the_way_of_a_batch(store: Store) -> None:
    add(store, job())
    packed(store)
    batch = sent(store)
    assert (batch.state, batch.file_id, batch.provider_batch_id, batch.create_tries) == (
        "submitted",
        "file-b",
        "p-b",
        1,
    )
    assert batches.polled(store, get(store), status="in_progress", done=3, expires_at=None, next_poll_at=LATE)
    assert (get(store).done, get(store).expires_at) == (3, LATE)
    assert batches.cancelling(store, "b", SOON)
    files: dict[str, Any] = {"output_file_id": "out", "error_file_id": ""}
    assert batches.ended(store, get(store), status="completed", done=1, error=None, now=LATE, **files)
    assert (get(store).state, get(store).output_file_id, get(store).error_file_id) == ("ended", "out", None)
    assert batches.imported(store, "b", LATE)
    assert not batches.imported(store, "b", LATE)
    assert get(store).lease_by is None


@pytest.mark.parametrize("move", ["intend_upload", "intend_create"])
def test_one_of_two_wins_the_right_to_post(store: Store, move: str) -> None:
    add(store, job())
    packed(store)
    if move == "intend_create":
        batches.uploaded(store, "b", "file")
    seen = get(store)
    arguments: Sequence[Any] = (seen, 1, NOW) if move == "intend_upload" else (seen, NOW)
    assert getattr(batches, move)(store, *arguments)
    assert not getattr(batches, move)(store, *arguments)


def test_what_was_created_is_known_under_its_first_id(store: Store) -> None:
    add(store, job())
    packed(store)
    sent(store)
    assert not created(store, provider="another")
    assert get(store).provider_batch_id == "p-b"
    assert not batches.intend_create(store, get(store), NOW)
    assert not batches.forget_intent(store, get(store), NOW)


@pytest.mark.parametrize("state", [None, batches.BatchState.UNSURE])
def test_what_was_seen_before_it_was_created_is_said_too_late(store: Store, state: Any) -> None:
    add(store, job())
    packed(store)
    batches.uploaded(store, "b", None)
    batches.intend_create(store, get(store), NOW)
    stale = get(store)
    created(store)
    assert not batches.wait(store, stale, LATE, error="unclear", state=state)
    found = get(store)
    assert (found.state, found.next_poll_at, found.error) == ("submitted", SOON, None)
    assert batches.wait(store, found, LATE, error="unclear")


def test_what_was_seen_of_an_earlier_create_is_not_of_this_one(store: Store) -> None:
    """The provider's queue was full, and the file was sent again, while another worker still looked at the first."""
    add(store, job())
    packed(store)
    stale = sent(store)
    assert batches.held_up(store, stale, NOW, "full")
    assert batches.intend_create(store, get(store), NOW)
    assert created(store, provider="p-second")
    files: dict[str, Any] = {"output_file_id": None, "error_file_id": None}
    assert not batches.ended(store, stale, status="failed", done=0, error="full", now=LATE, **files)
    assert not batches.polled(store, stale, status="cancelling", done=0, expires_at=None, next_poll_at=LATE)
    assert not batches.wait(store, stale, LATE)
    assert (get(store).state, get(store).status, get(store).next_poll_at) == ("submitted", "validating", SOON)
    assert batches.ended(store, get(store), status="completed", done=1, error=None, now=LATE, **files)


@pytest.mark.parametrize("state", [None, batches.BatchState.UNSURE])
def test_a_dead_file_sends_it_back_to_its_start(store: Store, state: Any) -> None:
    add(store, job())
    packed(store)
    batches.intend_upload(store, get(store), 1, NOW)
    batches.uploaded(store, "b", "file")
    batches.intend_create(store, get(store), NOW)
    batches.wait(store, get(store), SOON, error="unclear", state=state)
    assert batches.upload_anew(store, get(store))
    again = get(store)
    assert (again.state, again.file_id, again.upload_intent_at, again.create_intent_at) == ("packed", None, None, None)
    assert again.create_tries == 1


def test_a_file_of_somebody_else_is_not_forgotten(store: Store) -> None:
    add(store, job())
    packed(store)
    batches.uploaded(store, "b", "file")
    stale = get(store)
    stale.file_id = "older"
    assert not batches.upload_anew(store, stale)


def test_a_clear_refusal_gives_the_right_back(store: Store) -> None:
    add(store, job())
    packed(store)
    before = get(store)
    batches.intend_upload(store, before, 1, NOW)
    assert not batches.forget_intent(store, before, LATE)  # the intent of somebody else
    assert batches.forget_intent(store, before, NOW)
    assert get(store).upload_intent_at is None
    batches.intend_upload(store, get(store), 1, NOW)
    batches.uploaded(store, "b", "file")
    before = get(store)
    batches.intend_create(store, before, NOW)
    assert not batches.forget_intent(store, before, LATE)  # the intent of somebody else
    assert batches.forget_intent(store, before, NOW)
    assert get(store).create_intent_at is None
    assert get(store).upload_intent_at is not None


def test_what_is_given_up_before_it_was_sent_is_neither_posted_nor_created(store: Store) -> None:
    add(store, job())
    packed(store)
    before = get(store)
    end: dict[str, Any] = {"status": "cancelled", "error": "cancelled: called off", "now": SOON}
    assert batches.intend_upload(store, before, 1, NOW)
    assert not batches.unsent(store, before, **end)  # another worker's POST
    batches.uploaded(store, "b", "file")
    uploaded = get(store)
    assert batches.unsent(store, uploaded, **end)
    assert not batches.unsent(store, uploaded, **end)
    assert not batches.intend_create(store, uploaded, SOON)
    assert not created(store)  # so that who made it cancels it
    assert (get(store).state, get(store).status, get(store).error) == ("ended", "cancelled", "cancelled: called off")


def test_an_unclear_create_is_seen_by_the_others_of_its_provider(store: Store) -> None:
    add(store, job(), job(model="gpt-4o"))
    packed(store)
    packed(store, "c", Waiting("openai", "gpt-4o", 1))
    batches.uploaded(store, "b", None)
    batches.intend_create(store, get(store), NOW)
    assert batches.unresolved_create(store, get(store, "c"))
    assert not batches.unresolved_create(store, get(store))
    created(store)
    assert not batches.unresolved_create(store, get(store, "c"))


def test_the_newest_first(store: Store) -> None:
    for name in "abc":
        add(store, job())
        packed(store, name)
    assert [one.id for one in batches.recent(store, 2)] == ["c", "b"]
    assert replace(Waiting("a", "b", 1), rows=2).rows == 2


def test_a_file_of_many_pages_has_every_row_once_and_in_order(store: Store) -> None:
    """Bodies are read page by page, on the connection that streams the rows."""
    many = 3 * batch_rows._ROWS_A_PAGE + 7
    add(store, *(job() for _ in range(many)))
    assert packed(store, max_rows=many, max_bytes=10**9) == many
    found = ids(store, "b")
    assert len(set(found)) == len(found) == many
    last = batch_rows.rows_at(store, "b", [1, many, many + 1])
    assert {line: ident for line, (ident, _) in last.items()} == {1: found[0], many: found[-1]}
