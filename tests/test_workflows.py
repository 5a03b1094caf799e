"""Long-running workers in processes of their own: they share the work, end cleanly, and take over from the dead."""

import signal
import stat
from datetime import UTC, datetime, timedelta

import pytest

from db import facts
from jobs import windows
from tests.fleets import fleet, leases, until
from tests.lanes import World, rows

PROMPTS = [f"Name the capital of country number {n}, in one word." for n in range(12)]
both = pytest.mark.both


def done(world: World, count: int) -> bool:
    return world.states() == {"succeeded": count}


def private(world: World) -> None:
    """On SQLite the queues are a file beside ours, and nobody else may read either."""
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in world.folder.glob("shunter*")}
    assert ("shunter.dbos.db" in files) is (world.store.path is not None)
    assert set(files.values()) <= {0o600}


@both
def test_live_jobs_and_a_batch_to_the_end_and_a_clean_goodbye(world: World, database_url: str) -> None:
    world.add(*PROMPTS)
    world.add(*PROMPTS, lane="sync")
    with fleet(world, database_url) as workers:
        one = workers.start()
        until(lambda: done(world, 24), one)
        world.add(PROMPTS[0], lane="stream")  # while nothing is due any more
        until(lambda: done(world, 25), one)
        assert one.stop() == 0, one.words
        assert "25 succeeded; nothing is left" in one.words
        assert "dbos" not in one.words.lower()
    private(world)
    assert not leases(world)
    assert rows(world.store, "SELECT count(*) FROM worker WHERE stopped_at IS NOT NULL") == [(1,)]
    world.even()
    world.batch_rows_once()


@both
def test_two_workers_share_the_work(world: World, database_url: str) -> None:
    world.sandbox.faults([{"kind": "slow_first_token", "seconds": 0.7, "match": {"path": "/v1/chat/completions"}}])
    world.add(*PROMPTS)
    held: set[str] = set()

    def shared() -> bool:
        held.update(leases(world))
        if len(world.states()) < 2 or world.states().get("queued", 0) < 4:  # so that there is some for both of them
            world.add(*PROMPTS, lane="sync")
        return held >= {*first.names(), *second.names()}

    with fleet(world, database_url, concurrency=2) as workers:
        first, second = workers.start(), workers.start()
        until(shared, first, second)
        world.sandbox.faults([])
        until(lambda: set(world.states()) == {"succeeded"}, first, second)
        assert (first.stop(), second.stop()) == (0, 0)
    world.even()
    world.batch_rows_once()
    assert set(world.attempts()) == {"ok"}


@both
def test_one_is_killed_and_the_other_takes_over(world: World, database_url: str) -> None:
    world.sandbox.faults([{"kind": "slow_first_token", "seconds": 60.0}])
    world.add(*PROMPTS, lane="sync")
    with fleet(world, database_url, dead_seconds=4) as workers:
        first = workers.start()
        until(lambda: world.made("/v1/chat/completions") == 4, first)
        first.process.kill()
        world.sandbox.faults([])
        second = workers.start()
        until(lambda: done(world, 12), second)  # long before the leases of the dead would end
        assert second.stop() == 0
        assert f"took over from {first.names()[0]}" in second.words
    assert world.attempts() == {"ok": 12, "unknown": 4}
    world.at_risk()


def test_one_that_stood_still_begins_anew(world: World, database_url: str) -> None:
    with fleet(world, database_url, dead_seconds=3) as workers:
        paused, other = workers.start(), workers.start()
        paused.send(signal.SIGSTOP)
        until(lambda: "took over from" in other.words, other)
        assert other.stop() == 0
        world.add(*PROMPTS, lane="sync")
        paused.send(signal.SIGCONT)
        until(lambda: done(world, 12), paused)
        before, after = paused.names()
        assert before != after
        assert paused.stop() == 0
    world.even()


def test_told_twice_it_cuts_off_what_runs_and_settles_it(world: World, database_url: str) -> None:
    world.sandbox.faults([{"kind": "slow_first_token", "seconds": 60.0}])
    world.add(*PROMPTS, lane="sync")
    with fleet(world, database_url) as workers:
        one = workers.start()
        until(lambda: world.made("/v1/chat/completions") == 4, one)
        one.send(signal.SIGINT)
        until(lambda: "stopping" in one.words, one)
        assert world.states()["running"] == 4
        one.send(signal.SIGINT)
        assert one.process.wait(30) == 130
    assert world.states() == {"queued": 12}
    assert world.attempts() == {"unknown": 4}
    assert not leases(world)


def test_bulk_work_waits_for_the_window_and_live_jobs_do_not(world: World, database_url: str) -> None:
    now = datetime.now(UTC)
    later = f"{now + timedelta(hours=2):%H:%M}-{now + timedelta(hours=3):%H:%M} UTC"
    world.add(*PROMPTS)
    world.add(*PROMPTS, lane="sync")
    with fleet(world, database_url) as workers:
        one = workers.start("--window", later)
        assert facts.get(world.store, windows.KEY) == later
        until(lambda: world.states() == {"succeeded": 12, "queued": 12}, one)
        facts.put(world.store, windows.KEY, windows.ALWAYS)
        until(lambda: done(world, 24), one)
        assert one.stop() == 0
    world.even()
