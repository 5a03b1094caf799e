"""Workers in processes of their own that are killed or stopped at a named point; tests/chaos.py says which, and when.

Each line of JSON on stdin starts one: {"number", "database", "url", "folder", "acts", …}. An act is [what, when,
"MODULE:NAME", count]: the real functions run, and the process gets SIGKILL (`kill`) or SIGSTOP (`pause`) before or
after the count-th call of one of them. Workers are forks of this process, which has loaded everything; each line on
stdout, [number, event], says what became of one: its pid, then `stopped`, then how it ended.

`"fleet": true` makes it `shunter worker`, which runs until it is told to stop; else it is `worker --once`. `busy_ms`
and `spare_pages` make a SQLite file that is locked, or full, soon.
"""

import asyncio
import faulthandler
import json
import os
import select
import signal
import sqlite3
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial, wraps
from importlib import import_module
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

CONCURRENCY = 4
LEASE_S = 2.0  # a busy machine must not look like a dead worker
GRACE_S = 3.0  # bounds a POST, too: a busy machine must have the time for one
DEAD_S = 6.0
LOADED = ("jobs.worker", "jobs.workflows", "router.working", "jobs.providers.openai_batch", "db.postgres",
          "jobs.providers.anthropic_batch", "genai_prices.data_snapshot")  # fmt: skip
Do = Callable[[], None]
STORES: list[Any] = []
LIMIT: dict[str, int] = {}


def owner_of(point: str) -> tuple[Any, str]:
    """The module or class that holds a function, and its name there."""
    module, _, name = point.partition(":")
    owner: Any = import_module(module)
    *path, name = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    return owner, name


def arm(when: str, point: str, count: int, do: Do) -> None:
    """Have `do` done around one call of a function."""
    owner, name = owner_of(point)
    setattr(owner, name, _armed(getattr(owner, name), when, count, do))


def _armed(function: Callable[..., Any], when: str, count: int, do: Do) -> Callable[..., Any]:
    calls = 0

    def reached(now: str, number: int) -> None:
        if when == now and number == count:
            do()

    @wraps(function)
    async def later(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        number = calls
        reached("before", number)
        try:
            return await function(*args, **options)
        finally:
            reached("after", number)

    @wraps(function)
    def at_once(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        number = calls
        reached("before", number)
        try:
            return function(*args, **options)
        finally:
            reached("after", number)

    return later if iscoroutinefunction(function) else at_once


def strike(what: str) -> None:
    """Die or stop, here and now."""
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    with ExitStack() as turns:  # in no transaction of another thread: its locks would stop every other worker, too
        for store in STORES:
            turns.enter_context(store.turn)
            if store.path:
                _between_others(store.path.parent)
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)  # before this thread goes on


def _between_others(folder: Path) -> None:
    """DBOS has its own file: be there when nobody writes it."""
    for path in folder.glob("*dbos*.db"):
        with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")


def known_stores(*, pausing: bool) -> None:
    """Remember each store that is opened."""
    from db.engine import Store

    made = Store.__init__

    def remembered(self: Store, *args: Any) -> None:
        made(self, *args)
        if pausing and self.path is None:  # on PostgreSQL writers take no turns by themselves
            self.turn = threading.Lock()
        STORES.append(self)

    Store.__init__ = remembered  # type: ignore[method-assign]


def soon_full(pages: int) -> None:
    """Let SQLite's file grow by so many pages only."""
    from db import engine

    connected = engine._on_connect

    def limited(connection: Any, record: Any) -> None:
        connected(connection, record)
        now = connection.execute("PRAGMA page_count").fetchone()[0]
        LIMIT.setdefault("pages", now + pages)
        connection.execute(f"PRAGMA max_page_count={LIMIT['pages']}")

    engine._on_connect = limited


def blind() -> None:
    """A worker without its guard: it sees nothing of what an unclear POST has made, and waits for nothing."""
    from jobs import batch
    from jobs.providers.openai_batch import OpenAIBatches

    async def nothing(*_: Any) -> list[Any]:
        return []

    async def now(*_: Any) -> bool:
        return False

    OpenAIBatches.find = OpenAIBatches.find_file = nothing  # type: ignore[method-assign, assignment]
    batch._too_early = now


def prepare(spec: dict[str, Any]) -> None:
    """What is different from real life: less patience, smaller pages, and the accidents."""
    from db import engine
    from jobs import batch, context, importing, polling

    batch._SOON_S, polling._FIRST_POLL_S = 0.2, 0.05
    context.LATEST_START = batch.LATEST_START = 0.5  # type: ignore[attr-defined]
    importing._ROWS_A_WRITE = 5
    engine.BUSY_MS = spec.get("busy_ms", engine.BUSY_MS)
    known_stores(pausing=any(what == "pause" for what, *_ in spec["acts"]))
    if "spare_pages" in spec:
        soon_full(spec["spare_pages"])
    if spec.get("blind"):
        blind()
    for what, *point in spec["acts"]:
        arm(*point, partial(strike, what))


async def once(spec: dict[str, Any]) -> None:
    from db.engine import connect
    from jobs import worker
    from jobs.context import Context
    from jobs.providers import Endpoint

    store, url = connect(spec["database"]), spec["url"]
    endpoints = {
        "openai": Endpoint("openai", f"{url}/v1", own=False, key_env="OPENAI_API_KEY"),
        "anthropic": Endpoint("anthropic", url, own=False, key_env="ANTHROPIC_API_KEY"),
    }
    context = Context(
        store=store, endpoints=endpoints, owner=f"pid-{os.getpid()}", install="here", folder=Path(spec["folder"]),
        concurrency=CONCURRENCY, lease_s=LEASE_S, grace_s=GRACE_S, dead_s=DEAD_S,
        has_batch={"openai": True, "anthropic": True},
    )  # fmt: skip
    told = worker.Told(trouble=lambda message: print(os.getpid(), message, file=sys.stderr, flush=True))
    try:
        await worker.once(context, told, asyncio.Event())
    finally:
        await context.close()
        store.close()


def fleet(spec: dict[str, Any]) -> int:
    from router.working import work

    seconds = {"POLL": 1.0, "LEASE": LEASE_S, "GRACE": GRACE_S, "DEAD": DEAD_S}
    os.environ |= {f"SHUNTER_{name}_SECONDS": str(value) for name, value in seconds.items()}
    os.environ |= {"SHUNTER_DATABASE_URL": spec["database"], "XDG_DATA_HOME": spec["folder"],
                   "OPENAI_BASE_URL": f"{spec['url']}/v1", "ANTHROPIC_BASE_URL": spec["url"]}  # fmt: skip
    return work(once=False, concurrency=CONCURRENCY, json=False)


def run(spec: dict[str, Any]) -> int:
    """One worker's life, in its own process."""
    with (Path(spec["folder"]) / "workers.log").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    faulthandler.register(signal.SIGUSR1, file=2)  # where it stands, when it is waited for in vain
    try:
        prepare(spec)
        if spec.get("fleet"):
            return fleet(spec)
        asyncio.run(once(spec))
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        return 1
    return 0


class Nursery:
    """Forks a worker for each line, and says what becomes of it."""

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}
        self.rung, self.bell = os.pipe()
        os.set_blocking(self.bell, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.bell)

    def fork(self, spec: dict[str, Any]) -> None:
        child = os.fork()
        if child == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os._exit(run(spec))
        self.numbers[child] = spec["number"]
        self.say(spec["number"], child)

    def say(self, number: int, event: int | str) -> None:
        print(json.dumps([number, event]), flush=True)

    def look(self) -> None:
        """Every child that has stopped or ended since."""
        os.read(self.rung, 4096)
        while self.numbers:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            if pid == 0:
                return
            if os.WIFSTOPPED(status):
                self.say(self.numbers[pid], "stopped")
            else:
                self.say(self.numbers.pop(pid), f"ended {os.waitstatus_to_exitcode(status)}")

    def serve(self) -> None:
        pending = b""
        while True:
            for source in select.select([0, self.rung], [], [])[0]:
                if source == self.rung:
                    self.look()
                    continue
                given = os.read(0, 1 << 16)
                if not given:
                    return
                *lines, pending = (pending + given).split(b"\n")
                for line in lines:
                    self.fork(json.loads(line))


def main() -> None:
    for module in LOADED:
        import_module(module)
    import_module("jobs.providers.connection").transport("https://api.openai.com")
    nursery = Nursery()
    nursery.serve()
    for pid in nursery.numbers:
        os.kill(pid, signal.SIGKILL)
    os._exit(0)  # nothing is left to tidy up, and tidying takes seconds


if __name__ == "__main__":
    main()
