"""What the worker's line says, and what is said while nobody works."""

from datetime import timedelta

import pytest

from db import progress, workers
from router import waiting
from router.waiting import Absence
from router.watching import Watch
from tests.lanes import World

PROMPTS = [f"Name the capital of country number {n}, in one word." for n in range(4)]


def line(world: World, calls: int = 0) -> str:
    watch = Watch(world.store)
    for _ in range(calls):
        watch.call()
    watch._far = progress.progress(world.store, world.clock.now())
    return watch.line()


def test_it_says_what_there_is(world: World) -> None:
    assert line(world) == "nothing is due"
    world.add(*PROMPTS)
    world.add(PROMPTS[0], lane="sync")
    assert line(world) == "1 live to go · 4 wait for a batch"
    world.work()
    assert line(world, calls=1).startswith("1 call · $0.0")


def test_it_says_how_far_open_batches_are(world: World) -> None:
    world.sandbox.faults([{"kind": "stall"}])
    world.add(*PROMPTS)
    world.work()
    assert line(world).startswith("0 of 4 rows in 1 batch, about ")


def test_no_line_is_drawn_into_a_pipe(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    watch = Watch(world.store)
    with watch.aside():
        pass
    assert capsys.readouterr() == ("", "")


def test_the_absence_of_workers_is_said_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_LOOK_S", 0.0)
    absence = Absence(world.store)
    assert absence.news() == "no worker runs: start one with `shunter worker`, or `shunter worker --once`"
    assert absence.news() is None
    workers.register(world.store, "a", "here", 1, world.clock.now())
    assert absence.news() == "a worker runs now"
    assert absence.news() is None


def test_when_the_last_one_beat_is_said(world: World) -> None:
    workers.register(world.store, "a", "here", 1, world.clock.now() - timedelta(minutes=3))
    assert "no worker has beaten since" in str(Absence(world.store).news())
    assert "3 min ago" in str(Absence(world.store).news())
