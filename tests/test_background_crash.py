"""A worker that is killed at points of the background lane: only what was being posted is ever repeated."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import Queue

import pytest

from db.engine import connect
from db.migrations import migrate
from jobs.sandbox.server import running
from jobs.sandbox.settings import SandboxSettings
from tests.crash_worker import LEASE_S
from tests.fleets import fleet, until
from tests.lanes import World, balanced, rows
from tests.test_background import PROMPTS, attempts, billed, send
from tests.test_crash import Nursery, Point, nursery

PROVIDER = "jobs.providers.openai_background:OpenAIBackground"
PACK, POSTS = "background.pack", ("background.intend", ".submit")
POINTS: list[Point] = [
    ("after", "jobs.background:background.pack", 1),
    ("after", "jobs.background:background.intend", 2),
    ("before", f"{PROVIDER}.submit", 3),
    ("after", f"{PROVIDER}.submit", 3),
    ("after", "jobs.background:background.created", 2),
    ("after", f"{PROVIDER}.poll", 2),
    ("after", "jobs.importing:settle.settle", 2),
]
AT_ONCE = 2


def killed_then_done(nurseries: "Queue[Nursery]", folder: Path, point: Point) -> None:
    """Killed at the point, then started again until nothing is left."""
    workers = nurseries.get()
    try:
        _killed_then_done(workers, folder, point)
    finally:
        nurseries.put(workers)


def _killed_then_done(workers: Nursery, folder: Path, point: Point) -> None:
    store = connect(f"sqlite:///{folder / 'shunter.db'}")
    migrate(store)
    with running(SandboxSettings(background_seconds=0.02)) as sandbox:
        world = World(store, sandbox, folder)
        send(world)
        assert workers.start(world, *point) == -signal.SIGKILL
        balanced(store)
        for _ in range(4):
            time.sleep(LEASE_S + 0.05)  # the dead one's lease is a matter of time and of nothing else
            assert workers.start(world) == 0
            if set(world.states()) == {"succeeded"}:
                break
        _check(world, point[1])
    store.close()


def _check(world: World, point: str) -> None:
    """Only what was being posted, four at a time, can have been made without anybody knowing."""
    unknown = world.attempts()["unknown"]
    died = sum(row[4] == "owner_died" for row in attempts(world))
    assert world.states() == {"succeeded": len(PROMPTS)}
    assert int(point.endswith(POSTS)) <= died <= (0 if point.endswith(PACK) else 4)
    assert len(PROMPTS) <= billed(world) <= len(PROMPTS) + unknown
    assert not rows(world.store, "SELECT 1 FROM attempt WHERE state = 'sent'")
    world.at_risk()
    if not unknown:
        world.even()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Point, Future[None]]]:
    """Every point at once: most of the time of each is waiting."""
    nurseries: Queue[Nursery] = Queue()
    with ExitStack() as stack, ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in range(AT_ONCE):
            nurseries.put(stack.enter_context(nursery()))
        folder = tmp_path_factory.mktemp
        yield {point: pool.submit(killed_then_done, nurseries, folder("crash"), point) for point in POINTS}


@pytest.mark.parametrize("point", POINTS, ids=lambda point: f"{point[0]} {point[1]} {point[2]}")
def test_killed(runs: dict[Point, Future[None]], point: Point) -> None:
    runs[point].result(110)


@pytest.mark.both
def test_a_worker_that_runs_on_sends_them_and_looks_at_them(world: World, database_url: str) -> None:
    send(world)
    with fleet(world, database_url) as workers:
        worker = workers.start()
        until(lambda: world.states() == {"succeeded": len(PROMPTS)}, worker)
        assert worker.stop() == 0
    world.even()
    assert world.sandbox.bill(kind="background")["totals"]["rows"] == len(PROMPTS)
