"""Head-room: what a provider's batch queue takes is learned from its refusals, reserved by packing, given back."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from db import batches, headroom, packing
from db.engine import Store
from db.headroom import Headroom
from db.packing import Room, Waiting
from jobs import polling, worker
from jobs.sandbox.server import Sandbox, running
from jobs.sandbox.settings import SandboxSettings
from tests import lanes
from tests.lanes import MODEL, NOW, World, add, job, rows

URL = "http://x"
WHERE = ("openai", URL, MODEL)
GROUP = Waiting("openai", MODEL, 1)


def cut(store: Store, **room: int) -> list[int]:
    """The sizes of the batches that the due rows make."""
    limits = Room(**{"rows": 100, "bytes": 10**6, **room})
    return [len(one.ids) for one in packing.cuts(store, GROUP, limits, NOW)]


def jobs(store: Store, count: int, tokens: int) -> None:
    add(store, *(job() for _ in range(count)), input_tokens=tokens)


def test_nothing_is_known_before_a_refusal(store: Store) -> None:
    assert headroom.left(store, *WHERE, NOW) is None


def test_what_was_learned_holds_for_a_week_and_the_newest_counts(store: Store) -> None:
    headroom.learn(store, *WHERE, 1000, NOW)
    assert headroom.left(store, *WHERE, NOW) == Headroom(900, 900)
    headroom.learn(store, *WHERE, 2000, NOW)
    assert headroom.left(store, *WHERE, NOW + timedelta(days=6)) == Headroom(1800, 1800)
    assert headroom.left(store, *WHERE, NOW + timedelta(days=8)) is None
    assert headroom.left(store, "openai", URL, "another", NOW) is None


def test_open_batches_reserve_their_tokens_and_give_them_back(store: Store) -> None:
    headroom.learn(store, *WHERE, 1000, NOW)
    jobs(store, 4, tokens=100)
    lanes.pack(store, "b", GROUP, base_url=URL, max_rows=9, max_bytes=10**6, now=NOW)
    assert headroom.left(store, *WHERE, NOW) == Headroom(500, 900)
    batches.imported(store, "b", NOW)
    assert headroom.left(store, *WHERE, NOW) == Headroom(900, 900)


def test_batches_are_cut_at_what_the_queue_still_takes(store: Store) -> None:
    jobs(store, 10, tokens=100)
    assert cut(store) == [10]
    assert cut(store, tokens=450, most=900) == [4]
    assert cut(store, tokens=99, most=900) == []
    assert cut(store, rows=3, tokens=700, most=900) == [3, 3, 1]


def test_a_row_larger_than_the_whole_queue_goes_alone_when_that_is_empty(store: Store) -> None:
    jobs(store, 2, tokens=5000)
    assert cut(store, tokens=900, most=900) == [1]
    assert cut(store, tokens=800, most=900) == []


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("Enqueued token limit reached for m in organization o. Limit: 1,350,000 enqueued tokens. Please", "1,350,000"),
        ("Enqueued token limit reached for m. Limit: 90000 enqueued tokens.", "90000"),
        ("limit 200,000 tokens", "200,000"),
        ("Limit: 0 enqueued tokens", None),
        ("the queue is full", None),
    ],
)
def test_the_limit_is_read_from_the_refusal(text: str, limit: str | None) -> None:
    found = polling._LIMIT.search(text)
    assert (found[1] if found else None) == limit


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A provider whose queue takes about five of the prompts below."""
    with running(SandboxSettings(batch_seconds=0.1, queued_token_limit=150)) as server:
        yield server


@pytest.mark.parametrize("counted", [50, 25])  # tokens a row as estimated; the provider counts more than 30
def test_a_queue_too_small_for_all_of_it_is_learned_and_filled_again_and_again(world: World, counted: int) -> None:
    ids = world.add(*(f"Name the capital of country number {n}, in one word." for n in range(12)))
    with world.store.write() as connection:
        connection.exec_driver_sql(f"UPDATE decision SET input_tokens = {counted}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "LINGER_S", 0.5)
        for _ in range(60):
            world.work()
            world.clock.ahead += 61
            if world.states() == {"succeeded": 12}:
                break
    world.even()
    world.batch_rows_once()
    sizes = [row[0] for row in rows(world.store, "SELECT rows FROM batch ORDER BY id")]
    assert sizes[0] == 12  # refused as a whole, and nobody's failure
    assert max(sizes[1:]) <= 150 * 0.9 // counted
    assert {world.job(ident)["state"] for ident in ids} == {"succeeded"}
    assert set(world.attempts()) == {"ok", "cancelled"}
    assert world.troubles == []


def test_a_full_queue_is_somebody_elses_and_the_file_waits(world: World) -> None:
    """What we learned says that it fits, yet it is refused: the same file is sent again, with longer pauses."""
    world.sandbox.faults([{"kind": "token_limit", "times": 2}])
    world.add("one", "two")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "LINGER_S", 0.25)
        for state in ("submitted", "submitted"):
            world.work()
            assert world.states() == {state: 2}
            world.clock.ahead += 125
    world.work()
    assert world.attempts() == {"ok": 2}
    assert world.made("/v1/files") == 1
    world.even()
