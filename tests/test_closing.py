"""The digest at the end of a window: once over all workers, also when the one that writes it dies."""

import asyncio
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from threading import Barrier

import pytest

from db import digests, facts, queue, settle
from db.engine import Store
from db.settle import Settlement, Succeeded, Text
from jobs import closing, windows, worker
from router import digest
from tests.fleets import fleet, until
from tests.lanes import World, add, job
from tests.test_digest import PAID

pytestmark = pytest.mark.both
HOUR = timedelta(hours=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}+00:00")


class Told:
    """What workers were asked to write."""

    def __init__(self, world: World, *, dies: bool = False) -> None:
        self.world, self.dies = world, dies
        self.asked: list[tuple[datetime, ...]] = []
        self.notes: list[str] = []

    def closed(self, *times: datetime) -> Iterable[str]:
        self.asked.append(times)
        if self.dies:
            raise SystemError("killed")
        return ["told"]

    def look(self, now: datetime) -> None:
        """A worker looks at this time."""
        self.world.clock.now = lambda: now  # type: ignore[method-assign]
        told = worker.Told(note=self.notes.append, closed=self.closed)
        asyncio.run(closing.look(self.world.context(), told))


@pytest.fixture
def told(world: World) -> Told:
    facts.put(world.store, windows.KEY, "22:00-06:00 UTC")
    closing.begin(world.store, at("2026-11-22T12:00"))
    return Told(world)


NIGHT = (at("2026-11-22T06:00"), at("2026-11-22T22:00"), at("2026-11-23T06:00"))


def test_once_when_it_closes_and_from_then_on_from_there(told: Told) -> None:
    for time in ("22T13:00", "22T22:01", "23T05:59"):
        told.look(at(f"2026-11-{time}"))
    assert told.asked == []
    for time in ("23T06:00", "23T06:01", "23T23:00"):
        told.look(at(f"2026-11-{time}"))
    assert (told.asked, told.notes) == ([NIGHT], ["told"])
    told.look(at("2026-11-26T09:00"))  # no worker ran for two nights
    assert told.asked[1:] == [(NIGHT[2], at("2026-11-25T22:00"), at("2026-11-26T06:00"))]


def test_a_writer_that_dies_is_followed_by_another(told: Told) -> None:
    told.dies = True
    with pytest.raises(SystemError):
        told.look(at("2026-11-23T06:00"))
    told.dies = False
    told.look(at("2026-11-23T06:02"))  # it may still be at it
    assert told.asked == [NIGHT]
    told.look(at("2026-11-23T06:04"))
    told.look(at("2026-11-23T06:05"))
    assert told.asked == [NIGHT, NIGHT]


def test_one_that_was_never_written_is_in_the_next(told: Told) -> None:
    told.dies = True
    with pytest.raises(SystemError):
        told.look(at("2026-11-23T06:00"))
    told.dies = False
    told.look(at("2026-11-24T06:00"))
    assert told.asked[1:] == [(NIGHT[0], at("2026-11-23T22:00"), at("2026-11-24T06:00"))]


def test_of_many_workers_one_writes_it(told: Told) -> None:
    now, gate = at("2026-11-23T06:00"), Barrier(6)

    def claim(_: int) -> object:
        gate.wait()
        return closing._claim(told.world.store, NIGHT[1], NIGHT[2], now)

    with ThreadPoolExecutor(6) as pool:
        assert sorted(map(str, pool.map(claim, range(6)))) == [str(NIGHT[0]), *["None"] * 5]


def test_without_a_window_there_is_none(world: World) -> None:
    told = Told(world)
    for text in (None, windows.ALWAYS):
        if text:
            facts.put(world.store, windows.KEY, text)
        closing.begin(world.store, NIGHT[0])
        told.look(NIGHT[2])
    assert told.asked == []


def test_what_came_between_two_windows_is_told_beside(store: Store) -> None:
    last, opened, closed = NIGHT
    for when in (opened - HOUR, opened + HOUR, opened + HOUR):
        add(store, job(lane="sync", now=when), now=when)
        (claim,) = queue.claim(store, "me", when + HOUR, 1, when, ["openai"])
        settle.settle(store, [Settlement(claim.job_id, claim.n, PAID, Succeeded(Text("yes")))], when)
    value = digests.of_window(store, last, opened, closed)
    assert (value["done"]["succeeded"], value["before"]["done"]["succeeded"]) == (2, 1)
    assert "- Before that: 1 succeeded since 2026-11-22 06:00 UTC, $0.005 for 1 attempt" in digest.markdown(value)
    assert any(line.startswith("before that: 1 succeeded") for line in digest.lines(value))
    assert digests.of_window(store, last, last, closed)["before"] is None


def test_a_worker_writes_it_and_leaves_it_when_it_stops(
    world: World, database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "night.json"
    monkeypatch.setenv("SHUNTER_DIGEST_FILE", str(file))
    now = world.clock.now()
    open_for = f"{now - 3 * HOUR:%H:%M}-{now - HOUR:%H:%M} UTC"
    facts.put(world.store, windows.KEY, open_for)
    facts.put(world.store, "digest", str(closing._Kept(now - 20 * HOUR)))
    for hours in (2, 0):
        when = now - timedelta(hours=hours)
        add(world.store, job(lane="sync", now=when), now=when)
        if hours:
            (claim,) = queue.claim(world.store, "me", when + HOUR, 1, when, ["openai"])
            settle.settle(world.store, [Settlement(claim.job_id, claim.n, PAID, Succeeded(Text("yes")))], when)
    with fleet(world, database_url) as workers:
        one = workers.start()
        until(file.exists, one)
        until(lambda: world.states() == {"succeeded": 2}, one)
        assert one.stop() == 0
    assert "the window closed at" in one.words
    value = json.loads(file.read_text())
    assert (value["done"]["succeeded"], value["cost_usd"]) == (1, "0.005")  # what it did after the end is not in it
