"""Whoever stops the live lane, however often and at whatever moment: every slot comes to its end, and is settled."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from db.engine import Store
from jobs import live
from jobs.sandbox.server import running
from jobs.sandbox.settings import SandboxSettings
from tests.lanes import KEY, World, rows


@pytest.mark.parametrize("cancels", [1, 2, 3])
def test_cancelled_again_while_it_closes(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cancels: int
) -> None:
    """The answers are here and cannot be saved, the database being locked; whoever drains is cancelled, and again."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    async def drained(world: World, other: sqlite3.Connection) -> set[asyncio.Task[None]]:
        context = world.context(concurrency=4)
        draining = asyncio.ensure_future(live.drain(context, lambda claim, ended: None, asyncio.Event()))
        while not rows(store, "SELECT 1 FROM attempt"):  # noqa: ASYNC110 - a row has no event
            await asyncio.sleep(0.01)
        other.execute("BEGIN IMMEDIATE")
        await asyncio.to_thread(world.sandbox.billed, 4)
        await asyncio.sleep(0.5)  # for the last answer to come through
        for _ in range(cancels):
            draining.cancel()
            await asyncio.sleep(0.1)
        other.execute("ROLLBACK")
        await asyncio.gather(draining, return_exceptions=True)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        pending = (await asyncio.wait(left, timeout=20))[1] if left else set()
        await context.close()
        return pending

    with running(SandboxSettings(latency_s=0.2)) as sandbox, closing(sqlite3.connect(str(store.path))) as other:
        world = World(store, sandbox, tmp_path)
        world.add("a", "b", "c", "d", lane="sync")
        other.isolation_level = None
        assert not asyncio.run(drained(world, other))
        assert world.states() == {"succeeded": 4}
        world.even()
