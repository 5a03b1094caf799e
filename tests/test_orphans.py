"""What lies at a provider and answers to nobody here, made by hand through the real SDKs: found, told apart, booked."""

from collections.abc import Iterator
from typing import Any

import pytest

from db import batches, stuck
from db.ids import copied, copy
from db.packing import Waiting
from jobs import worker
from jobs.errors import UsageError
from jobs.orphans import Kind
from jobs.sandbox.server import Sandbox, running
from tests.lanes import CLAUDE, MODEL, World, pack, rows, settled
from tests.strays import SLOW, adopt, by_hand, claude_by_hand, finish, first_tries, sdk, survey

pytestmark = pytest.mark.both
PROMPTS = [f"Name the capital of country number {n}, in one word." for n in range(4)]


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """One whose batches end when a test says so; workers do what is due, and wait for nothing."""
    monkeypatch.setattr(worker, "LINGER_S", -1.0)
    with running(SLOW) as server:
        yield server


def found(world: World, name: str = "openai") -> list[tuple[str, str]]:
    return [(one.kind.value, one.remote.id) for one in survey(world, name).orphans]


def the_batch(world: World) -> str:
    [(batch_id,)] = rows(world.store, "SELECT id FROM batch")
    return str(batch_id)


def counted(world: World) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in rows(world.store, "SELECT n, state FROM attempt ORDER BY n, job_id")]


def test_copies_of_a_try_have_numbers_of_their_own() -> None:
    numbers = {copy(n, k) for n in range(1, 10) for k in range(1, 10)}
    assert len(numbers) == 81
    assert min(numbers) > 1000
    assert {copied(copy(n, k)) for n in (1, 3) for k in (1, 2)} == {(1, 1), (1, 2), (3, 1), (3, 2)}
    assert copied(3) == (3, 0)


def test_nothing_is_found_where_all_is_known(world: World) -> None:
    world.add(*PROMPTS)
    finish(world)
    assert found(world) == []


# ---- a batch that was created twice ----


def test_a_second_bill_for_every_row_is_on_the_ledger_once(world: World) -> None:
    ids = world.add(*PROMPTS)
    finish(world)
    world.even()
    stray = by_hand(world.sandbox, first_tries(ids), shunter_install="here", shunter_batch=the_batch(world))
    world.sandbox.advance(600)
    (orphan,) = survey(world).orphans
    assert (orphan.kind, orphan.remote.id, orphan.batch_id) == (Kind.STRAY, stray, the_batch(world))
    assert orphan.worth_nano is not None
    assert orphan.remote.done == 4
    done = adopt(world, orphan)
    assert (done.rows, done.settled, done.again, done.strangers) == (4, 0, 4, 0)
    assert done.spent_nano > 0
    world.even()  # the ledger is the provider's bill, the second one of each row included
    assert counted(world) == [(1, "ok")] * 4 + [(1001, "ok")] * 4
    assert world.states() == {"succeeded": 4}
    assert found(world) == []
    assert adopt(world, orphan) == done
    world.even()
    assert len(counted(world)) == 8


def test_two_strays_of_the_same_rows_are_two_more_bills(world: World) -> None:
    ids = world.add(*PROMPTS[:1])
    finish(world)
    for _ in range(2):
        by_hand(world.sandbox, first_tries(ids), shunter_install="here")
    world.sandbox.advance(600)
    for orphan in survey(world).orphans:
        adopt(world, orphan)
    assert [n for n, _ in counted(world)] == [1, 1001, 2001]
    world.even()


def test_the_first_answer_is_the_result_also_when_it_is_a_strays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.sandbox.faults([{"kind": "stall", "fraction": 0.5, "times": 1}])
    ids = world.add(*PROMPTS)
    world.work()
    assert world.states() == {"submitted": 4}
    known = the_batch(world)
    by_hand(world.sandbox, first_tries(ids), shunter_install="here", shunter_batch=known)
    world.sandbox.advance(600)
    (orphan,) = survey(world).orphans
    done = adopt(world, orphan)
    assert (done.settled, done.again) == (0, 4)  # the batch that is open settles its own tries
    assert world.states() == {"succeeded": 4}
    batches.cancelling(world.store, known, world.clock.now())
    finish(world)
    assert world.attempts() == {"ok": 6, "cancelled": 2}  # half of its rows were done, and are paid twice
    assert world.states() == {"succeeded": 4}
    world.even()


# ---- a batch whose rows were given up ----


def test_a_batch_that_was_given_up_and_comes_back_settles_what_was_unknown(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add(*PROMPTS)
    world.work()
    batch_id = the_batch(world)
    assert stuck.resubmit(world.store, batch_id, world.clock.now()) == 4
    assert world.attempts() == {"unknown": 4}
    world.at_risk()
    world.sandbox.advance(600)
    (orphan,) = survey(world).orphans
    assert (orphan.kind, orphan.batch_id) == (Kind.RETURNED, batch_id)
    done = adopt(world, orphan)
    assert (done.settled, done.again) == (4, 0)
    assert world.states() == {"succeeded": 4}  # queued again, and not sent: the late answers are the results
    world.even()
    assert found(world) == []


def test_rows_that_a_returned_batch_never_ran_cost_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.sandbox.faults([{"kind": "fail_rows", "fraction": 0.5, "variant": "missing", "times": 1}])
    world.add(*PROMPTS)
    world.work()
    stuck.resubmit(world.store, the_batch(world), world.clock.now())
    world.sandbox.advance(600)
    (orphan,) = survey(world).orphans
    done = adopt(world, orphan)
    assert 0 < done.settled < 4
    assert world.states() == {"succeeded": done.settled, "queued": 4 - done.settled}
    world.even()


def test_a_create_that_nobody_heard_of_settles_its_own_tries(world: World) -> None:
    ids, batch_id = world.add(*PROMPTS), "0" * 25 + "b"
    group, now = Waiting("openai", MODEL, 4), world.clock.now()
    url = world.context().endpoints["openai"].base_url
    assert pack(world.store, batch_id, group, base_url=url, max_rows=9, max_bytes=10**6, now=now) == 4
    stray = by_hand(world.sandbox, first_tries(ids), shunter_install="here", shunter_batch=batch_id)
    assert found(world) == [("pending", stray)]  # a worker will adopt it
    stuck.resubmit(world.store, batch_id, world.clock.now())
    world.sandbox.advance(600)
    (orphan,) = survey(world).orphans
    assert orphan.kind is Kind.STRAY
    done = adopt(world, orphan)
    assert (done.settled, done.again) == (4, 0)
    assert [n for n, _ in counted(world)] == [1] * 4
    world.even()


# ---- whose it is ----


def test_rows_of_no_job_here_are_told_and_not_charged(world: World) -> None:
    stray = by_hand(world.sandbox, first_tries(["0" * 26, "1" * 26]), shunter_install="here")
    world.sandbox.advance(600)
    (orphan,) = survey(world).orphans
    done = adopt(world, orphan)
    assert (done.batch_id, done.rows, done.strangers, done.spent_nano) == (None, 2, 2, 0)
    assert done.strange_nano == world.sandbox.bill()["totals"]["cost_nano_usd"]
    assert rows(world.store, "SELECT * FROM attempt") == []
    assert found(world) == [("stray", stray)]


def test_what_carries_another_mark_is_left_alone(world: World) -> None:
    by_hand(world.sandbox, ["a", "b"])
    by_hand(world.sandbox, ["a", "b"], shunter_install="elsewhere", shunter_batch="f" * 26)
    world.sandbox.advance(600)
    assert found(world) == []


def test_one_that_runs_is_not_adopted_and_one_that_ran_nothing_is_no_matter(world: World) -> None:
    world.sandbox.faults([{"kind": "stall"}])
    stray = by_hand(world.sandbox, first_tries(world.add(*PROMPTS)), shunter_install="here")
    (orphan,) = survey(world).orphans
    assert not orphan.remote.terminal
    with pytest.raises(UsageError, match="cancel it"):
        adopt(world, orphan)
    with sdk(world.sandbox) as client:
        client.batches.cancel(stray)
    world.sandbox.advance(700)
    assert found(world) == []


# ---- Anthropic: nothing but the custom_ids ----


def test_a_claude_batch_is_ours_by_its_results(world: World) -> None:
    ids = world.add(*PROMPTS, model=CLAUDE)
    finish(world)
    world.even()
    stray = claude_by_hand(world.sandbox, first_tries(ids))
    claude_by_hand(world.sandbox, ["theirs-1", "theirs-2"])
    world.sandbox.advance(600)
    world.sandbox.faults([{"kind": "stall"}])
    claude_by_hand(world.sandbox, ["who-knows"])
    seen = survey(world, "anthropic")
    assert (seen.untold, seen.files.count) == (1, 0)
    (orphan,) = seen.orphans
    assert (orphan.remote.id, orphan.kind, orphan.batch_id) == (stray, Kind.STRAY, the_batch(world))
    assert adopt(world, orphan).again == 4
    assert world.states() == {"succeeded": 4}
    paid, theirs = settled(world.store)[0], world.sandbox.bill(custom_id="theirs-1")["totals"]["cost_nano_usd"]
    theirs += world.sandbox.bill(custom_id="theirs-2")["totals"]["cost_nano_usd"]
    assert paid + theirs == world.sandbox.bill()["totals"]["cost_nano_usd"]
    assert found(world, "anthropic") == []


# ---- files ----


def test_only_files_of_ours_that_no_batch_needs_are_spare(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add(*PROMPTS[:2])
    finish(world)
    finished = the_batch(world)
    world.sandbox.faults([{"kind": "stall", "times": 1}])
    world.add(*PROMPTS[2:])
    world.work()
    with sdk(world.sandbox) as client:
        again = client.files.create(file=(f"{finished}.jsonl", b"{}\n", "application/jsonl"), purpose="batch")
        other = client.files.create(file=(f"{'e' * 26}.jsonl", b"{}\n", "application/jsonl"), purpose="batch")
        notes = client.files.create(file=("notes.jsonl", b"{}\n", "application/jsonl"), purpose="batch")
        every = {file.id for file in client.files.list()}
    seen = survey(world)
    spare = {one.file.id: one.batch_id for one in seen.spare}
    assert spare[again.id] == finished
    [(output,)] = rows(world.store, "SELECT output_file_id FROM batch WHERE id = :id", id=finished)
    assert set(spare) == {again.id, output}
    assert {other.id, notes.id} <= every - set(spare)
    assert (seen.files.count, seen.files.alike) == (len(every), 1)
    assert seen.files.bytes > 0
    assert seen.files.oldest_at is not None


def test_a_file_of_a_batch_that_does_not_know_of_it_yet_is_needed(world: World) -> None:
    world.add(*PROMPTS)
    batch_id, now = "0" * 25 + "c", world.clock.now()
    url = world.context().endpoints["openai"].base_url
    pack(world.store, batch_id, Waiting("openai", MODEL, 4), base_url=url, max_rows=9, max_bytes=10**6, now=now)
    with sdk(world.sandbox) as client:
        client.files.create(file=(f"{batch_id}.jsonl", b"{}\n", "application/jsonl"), purpose="batch")
    assert survey(world).spare == []
