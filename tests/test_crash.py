"""A worker that is killed at each named point, then started again: nothing is lost, no batch row is billed twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

import pytest

from db.engine import connect
from db.migrations import migrate
from jobs.sandbox.server import running
from jobs.sandbox.settings import SandboxSettings
from tests.crash_worker import LEASE_S
from tests.lanes import CLAUDE, KEY, World, balanced, rows

ROOT = Path(__file__).parent.parent
Point = tuple[str, str, int]
AT_ONCE = 4
OPENAI = "jobs.providers.openai_batch:OpenAIBatches"
ANTHROPIC = "jobs.providers.anthropic_batch:AnthropicBatches"
PROMPTS = [f"Name the capital of country number {n}, in one word." for n in range(14)]

FILES: list[Point] = [
    ("before", "db.packing:pack", 1),
    ("after", "db.packing:pack", 1),
    ("after", "db.batches:intend_upload", 1),
    ("before", f"{OPENAI}.upload", 1),
    ("after", f"{OPENAI}.upload", 1),
    ("after", "db.batches:uploaded", 1),
    ("after", "db.batches:intend_create", 1),
    ("before", f"{OPENAI}.submit", 1),
    ("after", f"{OPENAI}.submit", 1),
    ("after", "db.batches:created", 1),
    ("after", f"{OPENAI}.poll", 1),
    ("after", "db.batches:ended", 1),
    ("before", "db.settle:settle_rows", 1),
    ("after", "db.settle:settle_rows", 1),
    ("after", "db.settle:settle_rows", 2),
    ("before", "db.batches:imported", 1),
    ("after", "db.batches:imported", 1),
]
MESSAGES: list[Point] = [  # with points of its own: a point names its lane
    ("after", "jobs.batch:batches.intend_create", 1),
    ("before", f"{ANTHROPIC}.submit", 1),
    ("after", f"{ANTHROPIC}.submit", 1),
    ("after", "jobs.batch:batches.created", 1),
    ("after", "jobs.importing:settle.settle_rows", 1),
]
LIVE: list[Point] = [
    ("after", "db.queue:claim", 1),
    ("before", "jobs.providers.openai:OpenAIChat.complete", 3),
    ("after", "jobs.providers.openai:OpenAIChat.complete", 3),
    ("before", "jobs.runner:settle.settle", 2),
    ("after", "jobs.runner:settle.settle", 2),
]


@dataclass
class Nursery:
    """A process that makes workers."""

    process: "subprocess.Popen[str]"

    def start(self, world: World, *point: object) -> int:
        """Run a worker; how it ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([world.store.url, world.sandbox.url, str(world.folder), *point]) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@contextmanager
def nursery() -> Iterator[Nursery]:
    keys = {"OPENAI_API_KEY": KEY, "ANTHROPIC_API_KEY": KEY}
    command = [sys.executable, "-m", "tests.crash_worker"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | keys, text=True, **pipes) as process:
        yield Nursery(process)
        assert process.stdin is not None
        process.stdin.close()


def killed_then_done(nurseries: "Queue[Nursery]", folder: Path, point: Point, **jobs: str) -> None:
    """Killed at the point, then started again until nothing is left."""
    workers = nurseries.get()
    try:
        _killed_then_done(workers, folder, point, **jobs)
    finally:
        nurseries.put(workers)


def _killed_then_done(workers: Nursery, folder: Path, point: Point, **jobs: str) -> None:
    store = connect(f"sqlite:///{folder / 'shunter.db'}")
    migrate(store)
    with running(SandboxSettings(batch_seconds=0.1)) as sandbox:
        world = World(store, sandbox, folder)
        world.add(*PROMPTS, **jobs)
        assert workers.start(world, *point) == -signal.SIGKILL
        balanced(store)
        for _ in range(4):
            time.sleep(LEASE_S + 0.05)  # the dead one's lease is a matter of time and of nothing else
            assert workers.start(world) == 0
            if set(world.states()) == {"succeeded"}:
                break
        _check(world, point)
    store.close()


def _check(world: World, point: Point) -> None:
    assert world.states() == {"succeeded": len(PROMPTS)}
    world.batch_rows_once()
    world.at_risk()
    assert not rows(world.store, "SELECT 1 FROM attempt WHERE state = 'sent'")
    if point in LIVE:  # at most the calls in flight are repeated, each as an attempt of its own
        assert world.sandbox.bill()["totals"]["rows"] <= len(PROMPTS) + 4
        assert world.attempts()["unknown"] <= 4
    else:  # in this lane nothing at all is paid twice, and nothing stays unknown
        world.even()
        assert len(rows(world.store, "SELECT 1 FROM batch")) == 1
    if point in MESSAGES:
        assert world.made("/v1/messages/batches") == 1


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Point, Future[None]]]:
    """Every point at once: most of the time of each is waiting."""
    kinds: list[tuple[list[Point], dict[str, str]]] = [
        (FILES, {}),
        (MESSAGES, {"model": CLAUDE}),
        (LIVE, {"lane": "sync"}),
    ]
    nurseries: Queue[Nursery] = Queue()
    with ExitStack() as stack, ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in range(AT_ONCE):
            nurseries.put(stack.enter_context(nursery()))
        yield {
            point: pool.submit(killed_then_done, nurseries, tmp_path_factory.mktemp("crash"), point, **jobs)
            for points, jobs in kinds
            for point in points
        }


@pytest.mark.parametrize("point", [*FILES, *MESSAGES, *LIVE], ids=lambda point: f"{point[0]} {point[1]} {point[2]}")
def test_killed(runs: dict[Point, Future[None]], point: Point) -> None:
    runs[point].result(110)
