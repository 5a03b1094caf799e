"""Whatever dies or stops, and wherever: nothing is lost, no batch row is paid twice, the ledger is the bill."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.chaos import chaos, nursery
from tests.chaos_audit import audit
from tests.chaos_plans import PLANS, Plan
from tests.chaos_run import Ran, run
from tests.lanes import World
from tests.postgres import Postgres

pytestmark = pytest.mark.timeout(300)
AT_ONCE = 8
RUNS = [(plan, database) for plan in PLANS for database in plan.on]
Key = tuple[str, str]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, server: Postgres) -> Iterator[dict[Key, "Future[Ran]"]]:
    """Every plan at once: most of the time of each is waiting."""
    with nursery() as workers, ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            (plan.name, database): pool.submit(run, workers, server, plan, database, tmp_path_factory.mktemp("chaos"))
            for plan, database in RUNS
        }


@pytest.mark.parametrize(("plan", "database"), RUNS, ids=lambda given: getattr(given, "name", given))
def test_chaos(runs: dict[Key, "Future[Ran]"], plan: Plan, database: str) -> None:
    ran = runs[plan.name, database].result(280)
    assert not ran.wrong, f"{ran.wrong}\n{ran.found}"


# ---- the audit itself: it must see what it is there for ----


def test_a_worker_that_does_not_look_pays_twice(tmp_path: Path) -> None:
    """The control: answers to POSTs are lost, and the guard is off."""
    with nursery() as workers, ExitStack() as stack:
        plan = next(plan for plan in PLANS if plan.name == "answers lost")
        url = f"sqlite:///{tmp_path / 'shunter.db'}"
        made = stack.enter_context(chaos(workers, url, tmp_path, plan.sandbox, guarded=False))
        replace(plan, acts=[], jobs={"batch": 14}).play(made)
        found = made.audit()
        assert (found.rows_twice, found.batches_twice) == (14, 14)
        assert any("billed twice" in wrong for wrong in found.wrong)


@pytest.mark.parametrize(
    ("wrong", "sql"),
    [
        ("jobs lost", "DELETE FROM result WHERE job_id = (SELECT min(job_id) FROM result)"),
        ("was billed", "UPDATE attempt SET cost_nano = cost_nano + 1 WHERE lane = 'batch'"),
        ("was billed", "UPDATE attempt SET cost_nano = cost_nano - 1 WHERE lane = 'sync'"),
        ("billed to nobody", "DELETE FROM attempt WHERE lane = 'sync'"),
        ("not on the ledger", "DELETE FROM attempt WHERE lane = 'batch'"),
        ("the bill less the ledger", "UPDATE attempt SET cost_nano = 0"),
        ("still open", "UPDATE attempt SET state = 'sent', ended_at = NULL, cost_nano = NULL, cost_source = 'unknown'"),
        ("still open", "UPDATE batch SET state = 'ended', imported_at = NULL"),
    ],
)
def test_the_audit_sees(world: World, wrong: str, sql: str) -> None:
    world.add("a", "b")
    world.add("c", "d", lane="sync")
    world.work()
    assert not audit(world.store, world.sandbox, stopped=0, concurrency=4).wrong
    with world.store.write() as connection:
        connection.execute(text(sql))
    found = audit(world.store, world.sandbox, stopped=0, concurrency=4)
    assert any(wrong in one for one in found.wrong), found


def test_the_audit_sees_a_repeated_call(world: World) -> None:
    world.add("a", lane="sync")
    world.work()
    with world.store.write() as connection:
        connection.execute(text("UPDATE attempt SET state = 'unknown', cost_nano = NULL, cost_source = 'unknown', "
                                "at_risk_nano = 9000000"))  # fmt: skip
    assert audit(world.store, world.sandbox, stopped=0, concurrency=4).live_repeated == 1
    assert any("repeated" in one for one in audit(world.store, world.sandbox, stopped=0, concurrency=4).wrong)
