"""A store, a sandbox and workers that die or stop where they are told to; then the audit."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from pathlib import Path
from queue import Empty, Queue
from random import Random
from typing import Any
from urllib.request import Request, urlopen

from db.engine import connect
from db.migrations import migrate
from db.rescue import rescue
from jobs.retry import MAX_ATTEMPTS
from jobs.sandbox.server import running
from jobs.sandbox.settings import SandboxSettings
from tests.chaos_audit import Audit, audit
from tests.chaos_worker import CONCURRENCY, LEASE_S
from tests.lanes import ENDED, KEY, World, rows
from tests.postgres import Postgres

ROOT = Path(__file__).parent.parent
PATIENCE_S = 240.0  # for one worker, on a busy machine
TRIES = 12  # workers that live, until everything is done
KILLED, STOPPED, ENDED_WELL, ENDED_BADLY = f"ended {-signal.SIGKILL}", "stopped", "ended 0", "ended 1"
LAST = 150  # lines of the workers' log: a thread that waits in vain takes twenty
OPEN_BATCH = "SELECT 1 FROM batch WHERE state <> 'imported'"
Point = tuple[str, str, int]  # "before" or "after", "MODULE:NAME", which call


@dataclass(eq=False)
class Worker:
    """One worker process; `next` waits for what becomes of it."""

    pid: int
    events: "Queue[Any]"

    def next(self) -> str:
        try:
            return str(self.events.get(timeout=PATIENCE_S))
        except Empty:
            self.signal(signal.SIGUSR1)
            time.sleep(1)
            raise AssertionError(
                f"{PATIENCE_S:.0f} s without a word of worker {self.pid}; the log says where it stands"
            ) from None

    def now(self) -> str | None:
        """The same, if anything has become of it since."""
        with suppress(Empty):
            return str(self.events.get(timeout=0.05))
        return None

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)


@dataclass
class Nursery:
    """A process that has loaded everything and makes workers."""

    process: "subprocess.Popen[str]"
    events: "dict[int, Queue[Any]]" = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=count)
    turn: threading.Lock = field(default_factory=threading.Lock)

    def start(self, **spec: Any) -> Worker:
        assert self.process.stdin is not None
        with self.turn:
            assert self.process.poll() is None, "the nursery has ended"
            number = next(self.numbers)
            events = self.events[number] = Queue()
            self.process.stdin.write(json.dumps({"number": number, **spec}) + "\n")
            self.process.stdin.flush()
        return Worker(int(events.get(timeout=PATIENCE_S)), events)

    def listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            number, event = json.loads(line)
            self.events[number].put(event)
        for events in list(self.events.values()):  # it is gone, and nothing will be heard of them any more
            events.put("the nursery ended")


@contextmanager
def nursery() -> Iterator[Nursery]:
    keys = {"OPENAI_API_KEY": KEY, "ANTHROPIC_API_KEY": KEY}
    command = [sys.executable, "-m", "tests.chaos_worker"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | keys, text=True, **pipes) as process:
        made = Nursery(process)
        listener = threading.Thread(target=made.listen, daemon=True)
        listener.start()
        try:
            yield made
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()
            listener.join()


@dataclass
class Chaos:
    """A world whose workers meet with accidents; every one of them counts."""

    world: World
    nursery: Nursery
    url: str  # of the database, with its password
    server: Postgres | None = None  # where it is the world's own
    random: Random = field(default_factory=Random)
    kills: int = 0
    pauses: int = 0
    broken: int = 0  # workers that ended because of the database
    must_reach: bool = True  # every point that is named
    guarded: bool = True  # False: the control, whose workers do not look before they post again

    def start(self, *acts: Sequence[Any], **more: Any) -> Worker:
        world = self.world
        where = {"database": self.url, "url": world.sandbox.url, "folder": str(world.folder)}
        return self.nursery.start(**where, acts=acts, blind=not self.guarded, **more)

    def reach(self, what: str, point: Point) -> Worker | None:
        """A worker that died or stopped at the point.

        Those before it may end well: what was due was the lease of a dead one for a while.
        """
        wanted = {"kill": KILLED, "pause": STOPPED}[what]
        for _ in range(TRIES):
            worker = self.start((what, *point))
            event = worker.next()
            if event == wanted:
                self.count(event)
                return worker
            assert event == ENDED_WELL, f"{point}: {event}; {self.log()}"
            if self.done():
                break
            time.sleep(LEASE_S / 2)
        assert not self.must_reach, f"no worker came to {point}; {self.log()}"
        return None

    def count(self, event: str) -> None:
        self.kills += event == KILLED
        self.pauses += event == STOPPED
        self.broken += event == ENDED_BADLY

    def bury(self) -> None:
        """The dead one's lease is a matter of time and of nothing else."""
        time.sleep(LEASE_S + 0.05)

    def wake(self, *workers: Worker) -> None:
        """Workers that were stopped go on, beside each other, to their ends."""
        for worker in workers:
            worker.signal(signal.SIGCONT)
        for worker in workers:
            event = worker.next()
            assert event == ENDED_WELL, f"{event}; {self.log()}"

    def done(self) -> bool:
        """Every job and batch has come to its end."""
        world = self.world
        return set(world.states()) <= set(ENDED) and not rows(world.store, OPEN_BATCH)

    def finish(self) -> None:
        """Workers that live, one after another, until everything is done."""
        for _ in range(TRIES):
            event = self.start().next()
            assert event == ENDED_WELL, f"{event}; {self.log()}"
            if self.done():
                return
            time.sleep(LEASE_S / 2)
        raise AssertionError(f"{self.world.states()} after {TRIES} workers; {self.log()}")

    def standing(self) -> str:
        """Every batch as it stands, here and at the provider, and every worker."""
        tables = {"batch": "packed_at", "worker": "started_at"}
        here = [(name, dict(row._mapping)) for name, by in tables.items()
                for row in rows(self.world.store, f"SELECT * FROM {name} ORDER BY {by}")]  # fmt: skip
        there, keys = [], {"Authorization": f"Bearer {KEY}", "x-api-key": KEY, "anthropic-version": "2023-06-01"}
        for path in ("/v1/batches", "/v1/messages/batches"):
            ask = Request(f"{self.world.sandbox.url}{path}?limit=100", headers=keys)
            with urlopen(ask, timeout=30) as answer:
                there += [(path, one) for one in json.load(answer)["data"]]
        return "\n".join(f"{name}: {one}" for name, one in [*here, *there])

    def log(self) -> str:
        """What the workers said last."""
        path = self.world.folder / "workers.log"
        return "\n" + "\n".join(path.read_text().splitlines()[-LAST:]) if path.exists() else "no word of a worker"

    def audit(self) -> Audit:
        """Two hours later: a call whose job was ended by another answer, and whose worker died, has nobody by then."""
        rescue(self.world.store, self.world.clock.now() + timedelta(hours=2), MAX_ATTEMPTS)
        stopped = self.kills + self.pauses + self.broken
        return audit(self.world.store, self.world.sandbox, stopped=stopped, concurrency=CONCURRENCY)


@contextmanager
def chaos(nursery: Nursery, url: str, folder: Path, sandbox: Mapping[str, Any], **more: Any) -> Iterator[Chaos]:
    """A world on this database; its sandbox ends with the block."""
    store = connect(url)
    try:
        migrate(store)
        with running(SandboxSettings(**{"batch_seconds": 0.2, **sandbox})) as server:
            yield Chaos(World(store, server, folder), nursery, url, **more)
    finally:
        store.close()
