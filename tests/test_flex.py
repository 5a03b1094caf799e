"""The flex tier: served when the provider has room; its 429 is no failure and no bill, and its plan leads out of it."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from db.engine import Store
from jobs.retry import MAX_ATTEMPTS
from jobs.sandbox.server import running
from jobs.sandbox.settings import SandboxSettings
from tests.lanes import KEY, World, rows

FULL = {"kind": "status", "status": 429, "code": "resource_unavailable", "match": {"contains": '"service_tier":"flex"'}}
ALONE = [{"lane": "sync", "tier": "flex", "leave_by": None}]


@pytest.fixture
def full(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A provider that has no room in its flex tier, and as much as one likes elsewhere."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("jobs.worker.LINGER_S", -1.0)
    with running(SandboxSettings(faults=[FULL])) as sandbox:
        yield World(store, sandbox, tmp_path)


def tiers(world: World) -> list[tuple[str, str]]:
    found = rows(world.store, "SELECT tier, state FROM attempt ORDER BY n")
    return [(tier, state) for tier, state in found]


def test_flex_is_asked_for_and_paid_as_flex(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with running(SandboxSettings()) as sandbox:
        world = World(store, sandbox, tmp_path)
        world.add("a", lane="sync", tier="flex", plan=ALONE)
        world.work()
        assert world.states() == {"succeeded": 1}
        assert [row["tier"] for row in sandbox.bill()["rows"]] == ["flex"]
        world.even()


def test_no_room_is_no_failure_however_often(full: World) -> None:
    full.add("a", lane="sync", tier="flex", plan=ALONE)
    for _ in range(MAX_ATTEMPTS + 2):
        full.work()
        full.clock.ahead += 600
    assert full.states() == {"queued": 1}
    assert tiers(full) == [("flex", "failed")] * (MAX_ATTEMPTS + 2)
    full.even()
    assert full.sandbox.bill()["totals"]["cost_nano_usd"] == 0


def test_at_its_hour_it_goes_on_as_a_plain_call(full: World) -> None:
    leave_by = full.clock.now() + timedelta(minutes=5)
    out = {"lane": "sync", "tier": "default", "leave_by": None}
    plan = [{"lane": "sync", "tier": "flex", "leave_by": leave_by.isoformat()}, out]
    full.add("a", lane="sync", tier="flex", plan=plan, leave_by=leave_by)
    full.work()
    assert full.states() == {"queued": 1}
    full.clock.ahead += 301
    full.work()  # it leaves, whatever else looks for it at the same moment
    full.work()
    assert full.states() == {"succeeded": 1}
    assert tiers(full) == [("flex", "failed"), ("default", "ok")]
    full.even()
