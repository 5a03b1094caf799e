"""doctor: what it finds at the providers, among the workers and at risk, and what it does there only when told to."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from db import facts, queue, settle, workers
from db.ledger import Charge
from db.settle import Again, Settlement
from db.states import AttemptState
from db.workers import WORKER
from jobs import worker
from jobs.sandbox.server import Sandbox, running
from tests.commands import Shell, refused
from tests.lanes import CLAUDE, World, add, job, rows
from tests.strays import SLOW, by_hand, claude_by_hand, finish, first_tries, sdk

pytestmark = pytest.mark.both
PROMPTS = [f"Name the capital of country number {n}, in one word." for n in range(4)]


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """One whose batches end when a test says so; workers do what is due, and wait for nothing."""
    monkeypatch.setattr(worker, "LINGER_S", -1.0)
    with running(SLOW) as server:
        yield server


@pytest.fixture
def run(
    world: World,
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    database_url: str,
) -> Shell:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{sandbox.url}/v1")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", sandbox.url)
    world.settings["install"] = facts.install(world.store)
    shell = Shell(monkeypatch, capsys, tmp_path)
    monkeypatch.setenv("SHUNTER_DATABASE_URL", database_url)
    return shell


def stray(world: World, ids: list[str]) -> str:
    """A second batch of rows that were answered already."""
    made = by_hand(world.sandbox, first_tries(ids), shunter_install=world.settings["install"])
    world.sandbox.advance(600)
    return made


def narrow(out: str) -> None:
    assert max(map(len, out.splitlines())) <= 80, out


def test_its_json_is_a_contract(world: World, run: Shell) -> None:
    ids = world.add(*PROMPTS)
    finish(world)
    made = stray(world, ids)
    told = run("doctor", "--json")
    assert told.code == 1
    view = told.json
    assert set(view) == {
        "ok", "problems", "notes", "settings", "database", "account", "risk", "rescued", "overdue_batches", "workers",
        "providers", "orphans", "files", "done", "budgets", "servers",
    }  # fmt: skip
    assert set(view["risk"]) == {"attempts", "unpriced", "at_risk_usd", "oldest_at", "lanes"}
    (orphan,) = view["orphans"]
    assert {**orphan, "created_at": "", "worth_usd": ""} == {
        "id": made, "provider": "openai", "kind": "stray", "batch": None, "status": "completed", "ended": True,
        "rows": 4, "done": 4, "created_at": "", "worth_usd": "",
    }  # fmt: skip
    files, _ = sorted(view["files"], key=lambda one: one["provider"], reverse=True)
    assert set(files) == {"provider", "count", "bytes", "oldest_at", "alike", "spare"}
    assert {frozenset(one) for one in files["spare"]} == {frozenset(("id", "name", "bytes", "created_at", "batch"))}
    account = view["account"]
    held = ("queued", "running", "submitted", "succeeded", "failed", "cancelled")
    assert account["accepted"] == sum(account[state] for state in held) == 4
    assert account["attempts_usd"] == account["report_usd"]
    drawn = run("doctor")
    narrow(drawn.out)
    for word in ("stray", "--adopt", "--delete-files", "none runs"):
        assert word in drawn.out


def test_nothing_is_changed_at_a_provider_unasked(world: World, run: Shell) -> None:
    stray(world, world.add(*PROMPTS))
    run("doctor")
    changed = [one for one in world.sandbox.requests()["requests"] if one["method"] != "GET"]
    assert [(one["method"], one["path"]) for one in changed] == [("POST", "/v1/files"), ("POST", "/v1/batches")]  # ours


def test_adopt_books_an_orphan_and_a_second_time_finds_none(world: World, run: Shell) -> None:
    ids = world.add(*PROMPTS)
    finish(world)
    made = stray(world, ids)
    told = run("doctor", "--adopt", made)
    assert told.code == 0, told
    narrow(told.out)
    assert "4 paid a second time" in " ".join(told.out.split())
    world.even()
    view = run("doctor", "--json").json
    assert (view["ok"], view["orphans"]) == (True, [])
    refused(run("doctor", "--adopt", made), 2, made, "not among")
    first = world.job(ids[0])["attempts"]
    assert [one["n"] for one in first] == [1, 1001]
    shown = run("jobs", "show", ids[0]).out
    assert "1 again" in shown
    narrow(shown)


def test_cancel_stops_what_is_ours_and_runs(world: World, run: Shell) -> None:
    world.sandbox.faults([{"kind": "stall", "fraction": 0.5}])
    ids = world.add(*PROMPTS)
    made = by_hand(world.sandbox, first_tries(ids), shunter_install=world.settings["install"])
    theirs = by_hand(world.sandbox, ["theirs"], shunter_install="elsewhere")
    world.sandbox.advance(600)
    assert run("doctor", "--adopt-orphans", "--json").json["done"] == []  # it still runs
    told = run("doctor", "--cancel-orphans", "--json").json
    assert [(one["id"], one["action"]) for one in told["done"]] == [(made, "cancelled")]
    refused(run("doctor", "--cancel", theirs), 2, theirs)
    world.sandbox.advance(700)
    assert run("doctor", "--adopt-orphans", "--json").json["done"][0]["paid_again"] == 2
    world.even()
    with sdk(world.sandbox) as client:
        assert client.batches.retrieve(theirs).status == "in_progress"


def test_files_that_nothing_needs_are_deleted_when_asked(world: World, run: Shell) -> None:
    world.add(*PROMPTS)
    finish(world)
    with sdk(world.sandbox) as client:
        mine = client.files.create(file=("notes.jsonl", b"{}\n", "application/jsonl"), purpose="batch")
    told = run("doctor", "--json").json
    (files,) = [one for one in told["files"] if one["provider"] == "openai"]
    assert files["spare"]
    assert told["ok"]  # no trouble, only worth knowing
    refused(run("doctor", "--delete", mine.id), 2, mine.id, "not among the files")
    first = files["spare"][0]["id"]
    assert [one["id"] for one in run("doctor", "--delete", first, "--json").json["done"]] == [first]
    run("doctor", "--delete-files")
    with sdk(world.sandbox) as client:
        assert [file.id for file in client.files.list()] == [mine.id]
    assert world.job(rows(world.store, "SELECT id FROM job")[0][0])["text"]


def test_claude_orphans_are_found_too(world: World, run: Shell) -> None:
    ids = world.add(*PROMPTS, model=CLAUDE)
    finish(world)
    made = claude_by_hand(world.sandbox, first_tries(ids))
    world.sandbox.advance(600)
    assert [one["id"] for one in run("doctor", "--json").json["orphans"]] == [made]
    assert run("doctor", "--adopt-orphans").code == 0
    world.even()


@pytest.mark.parametrize("path", ["/v1/batches", "/v1/files"])
def test_a_server_that_fails_at_its_lists_is_a_problem_and_no_end(world: World, run: Shell, path: str) -> None:
    world.sandbox.faults([{"kind": "status", "status": 500, "match": {"path": path, "method": "GET"}}])
    told = run("doctor", "--json")
    assert told.code == 1
    assert any("openai" in problem or "500" in problem for problem in told.json["problems"])
    assert told.json["account"]["balances"]


def test_money_at_risk_is_told_by_lane(world: World, run: Shell) -> None:
    now = datetime.now(UTC)
    (live,) = add(world.store, job(lane="sync", now=now, decision_id="live"), now=now)
    (claim,) = queue.claim(world.store, "me", now + timedelta(hours=1), 1, now, ["openai"])
    lost = Charge(AttemptState.UNKNOWN, error_code="cut", error="cut")
    settle.settle(world.store, [Settlement(live, claim.n, lost, Again(now, "cut", "cut"))], now)
    view = run("doctor", "--json").json
    assert view["risk"]["lanes"] == [{"lane": "sync", "attempts": 1, "at_risk_usd": "0.01"}]
    assert (view["risk"]["attempts"], view["risk"]["at_risk_usd"]) == (1, "0.01")
    assert any("may have been billed" in note for note in view["notes"])
    drawn = run("doctor").out
    assert "1 sync" in drawn
    narrow(drawn)


def test_workers_alive_and_dead(world: World, run: Shell) -> None:
    now = datetime.now(UTC)
    facts_: dict[str, Any] = {"host": "box", "started_at": now - timedelta(hours=1)}
    beats = {"dead": now - timedelta(minutes=5), "alive": now}
    with world.store.write() as connection:
        for n, (name, beat) in enumerate(beats.items()):
            connection.execute(insert(WORKER).values(id=name, pid=100 + n, beat_at=beat, **facts_))
        old = {"beat_at": beats["dead"], **facts_}
        connection.execute(insert(WORKER).values(id="gone", pid=200, stopped_at=now, **old))
    told = run("doctor", "--json")
    assert [(one["id"], one["alive"]) for one in told.json["workers"]] == [("dead", False), ("alive", True)]
    assert any("100 on box" in problem for problem in told.json["problems"])
    drawn = run("doctor").out
    assert "101 on box: alive" in drawn
    assert "servers" not in drawn
    narrow(drawn)


def test_a_server_is_listed_and_is_no_worker(world: World, run: Shell) -> None:
    workers.serve(world.store, "dead", "box", 100, datetime.now(UTC) - timedelta(minutes=5))
    workers.serve(world.store, "alive", "box", 101, datetime.now(UTC))
    told = run("doctor", "--json").json
    assert (told["workers"], [one["alive"] for one in told["servers"]]) == ([], [False, True])
    assert any("server 100 on box" in problem and "`shunter serve`" in problem for problem in told["problems"])
    drawn = run("doctor").out
    assert "none runs" in drawn
    assert "101 on box: alive" in drawn
    narrow(drawn)


def test_a_batch_that_a_worker_will_adopt_is_no_problem(
    world: World, run: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = {"kind": "status", "status": 500, "match": {"path": "/v1/batches", "method": "POST"}, "times": 1}
    world.sandbox.faults([create])
    ids = world.add(*PROMPTS)
    world.work()
    [(batch_id,)] = rows(world.store, "SELECT id FROM batch")
    made = by_hand(world.sandbox, first_tries(ids), shunter_batch=batch_id)
    told = run("doctor", "--json").json
    assert [(one["id"], one["kind"]) for one in told["orphans"]] == [(made, "pending")]
    assert told["ok"]
    assert run("doctor", "--cancel-orphans", "--json").json["done"] == []
    (done,) = run("doctor", "--adopt", made, "--json").json["done"]
    assert (done["action"], done["batch"]) == ("adopted", batch_id)
    world.clock.ahead += 1
    finish(world)
    assert world.states() == {"succeeded": 4}
    world.even()
