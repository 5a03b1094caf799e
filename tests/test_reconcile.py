"""Bills in the forms that providers give them against the ledger: what is missing, doubled or different is named."""

import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from db import queue, settle
from db.engine import Store
from db.ledger import Charge
from db.settle import Settlement, Succeeded, Text
from db.states import AttemptState, Lane
from jobs import outcome
from jobs.chat import Answer, Choice, Outcome, Usage
from jobs.errors import UsageError
from router.reconcile import Reconciled, Verdict, against
from router.reconcile_read import read
from router.repricing import OWN
from tests.commands import Shell
from tests.lanes import CLAUDE, MODEL, World, add, job

DAY = datetime(2026, 11, 20, tzinfo=UTC)
NEXT = DAY + timedelta(days=1)


def called(store: Store, usage: Usage, *, model: str = MODEL, at: datetime = DAY, request: str | None = None,
           lost: bool = False) -> None:  # fmt: skip
    """One plain call that ended at this time."""
    (ident,) = add(store, job(lane="sync", now=at, model=model), now=at)
    provider = "anthropic" if model.startswith("claude") else "openai"
    (claim,) = queue.claim(store, "me", at + timedelta(hours=1), 1, at, [provider])
    answer = Answer((Choice("yes"),), Outcome.COMPLETE, usage=usage, model=model, request_id=request)
    charge = outcome.charge(answer, Lane.SYNC, "default", model, OWN[provider], at)
    charge = Charge(AttemptState.UNKNOWN, at_risk_nano=9) if lost else charge
    settle.settle(store, [Settlement(ident, claim.n, charge, Succeeded(Text("yes", "stop")))], at + timedelta(hours=1))


def held(store: Store, tmp_path: Path, bill: Any) -> Reconciled:
    path = tmp_path / "bill.json"
    path.write_text(bill if isinstance(bill, str) else json.dumps(bill))
    return against(store, read(path))


def verdicts(found: Reconciled) -> list[tuple[str, Any]]:
    return [(one.verdict.value, one.what.get("model")) for one in found.findings]


def openai_page(*results: dict[str, Any], at: datetime = DAY) -> dict[str, Any]:
    """A page of OpenAI's usage API."""
    times = {"start_time": int(at.timestamp()), "end_time": int((at + timedelta(days=1)).timestamp())}
    listed = [{"object": "organization.usage.completions.result", "project_id": None, **one} for one in results]
    return {"object": "page", "data": [{"object": "bucket", **times, "results": listed}], "has_more": False}


def used(requests: int, tokens: int, output: int, cached: int = 0, **more: Any) -> dict[str, Any]:
    return {"num_model_requests": requests, "input_tokens": tokens, "output_tokens": output,
            "input_cached_tokens": cached, **more}  # fmt: skip


@pytest.mark.both
def test_openais_usage(store: Store, tmp_path: Path) -> None:
    for model in ("gpt-6-luna", "gpt-6-sol", "gpt-5-mini", "gpt-5-nano", "gpt-4.1"):
        for n in (1, 2):
            called(store, Usage(1000 * n, 10, 100), model=model)
    called(store, Usage(7, 7), model="gpt-6-luna", at=NEXT)  # of another day
    found = held(
        store,
        tmp_path,
        openai_page(
            used(1, 1000, 10, 100, model="gpt-6-luna", project_id="a", batch=False),
            used(1, 2000, 10, 100, model="gpt-6-luna", project_id="b", batch=False),
            used(4, 6000, 40, 400, model="gpt-6-sol", batch=False),
            used(2, 3000, 21, 200, model="gpt-5-mini-2025-08-07", batch=False),
            used(1, 50, 5, model="gpt-5-nano", batch=True),
            used(1, 50, 5, model="o3", batch=False),
        ),
    )
    assert not found.agrees
    assert verdicts(found) == [
        ("same", "gpt-6-luna"), ("not in the ledger", "gpt-5-nano"), ("not in the ledger", "o3"),
        ("not on the bill", "gpt-4.1"), ("not on the bill", "gpt-5-nano"), ("doubled", "gpt-6-sol"),
        ("different", "gpt-5-mini"),
    ]  # fmt: skip
    view = found.view()
    assert (view["compared"], view["same"], view["not_here"], view["not_billed"]) == (7, 1, 2, 2)
    different = view["rows"][-1]
    assert (different["billed"]["output_tokens"], different["ledger"]["output_tokens"]) == (21, 20)
    assert view["rows"][-2]["note"] == "the bill has 2 times what the ledger has"


def test_a_bill_without_models_is_held_against_all_of_the_day(store: Store, tmp_path: Path) -> None:
    called(store, Usage(1000, 10), model="gpt-6-luna")
    called(store, Usage(500, 10), model="gpt-6-sol", at=DAY + timedelta(hours=20))
    assert held(store, tmp_path, openai_page(used(2, 1500, 20))).agrees
    called(store, Usage(1, 1), model="gpt-6-sol", lost=True)
    lost = held(store, tmp_path, openai_page(used(3, 1501, 21)))
    assert verdicts(lost) == [("different", None)]
    assert lost.view()["rows"][0]["note"] == "1 attempts here do not say what they used"
    assert lost.view()["unknown_attempts"] == 1


def test_openais_costs_are_alike_to_the_last_digit_that_is_written(store: Store, tmp_path: Path) -> None:
    called(store, Usage(1234, 567), model="gpt-6-luna")  # $0.0004069
    item = {"object": "organization.costs.result", "project_id": None}

    def bill(*values: str) -> str:
        times = f'"start_time": {DAY.timestamp():.0f}, "end_time": {NEXT.timestamp():.0f}'
        told = [{**item, "line_item": f"gpt-6-luna, {kind}", "amount": {"value": "V", "currency": "usd"}}
                for kind in ("input", "output")]  # fmt: skip
        rows = ", ".join(json.dumps(one).replace('"V"', value) for one, value in zip(told, values, strict=False))
        return f'{{"object": "page", "data": [{{"object": "bucket", {times}, "results": [{rows}]}}]}}'

    assert held(store, tmp_path, bill("0.0001234", "0.0002835")).agrees
    assert held(store, tmp_path, bill("0.00012", "0.00028")).agrees
    wrong = held(store, tmp_path, bill("0.0001234", "0.0002838"))
    assert [one.verdict for one in wrong.findings] == [Verdict.DIFFERENT]
    assert wrong.view()["billed_usd"] == "0.0004072"
    with pytest.raises(UsageError, match="is in eur"):
        held(store, tmp_path, bill("1").replace("usd", "eur"))


def test_anthropics_usage_and_costs(store: Store, tmp_path: Path) -> None:
    called(store, Usage(1000, 50, 200, 300, cache_write_1h=100), model="claude-opus-5")
    bucket = {"starting_at": "2026-11-20T00:00:00Z", "ending_at": "2026-11-21T00:00:00Z"}
    usage = {
        "uncached_input_tokens": 500, "cache_read_input_tokens": 200, "output_tokens": 50, "service_tier": "standard",
        "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 100},
        "model": "claude-opus-5",
    }  # fmt: skip
    assert held(store, tmp_path, {"data": [{**bucket, "results": [usage]}], "has_more": False}).agrees
    nano = 500 * 5000 + 200 * 500 + 200 * 6250 + 100 * 10_000 + 50 * 25_000
    cost = {"currency": "USD", "amount": str(nano / 1e7), "model": "claude-opus-5", "service_tier": "standard"}  # cents
    assert held(store, tmp_path, {"data": [{**bucket, "results": [cost]}]}).agrees
    again = held(store, tmp_path, [{"data": [{**bucket, "results": [cost]}]}] * 2)
    assert not again.agrees
    assert again.view()["repeated_lines"] == ["page 1, 2, 1, 1 is page 1, 1, 1, 1 once more"]
    assert [one.verdict for one in again.findings] == [Verdict.SAME]


def test_the_consoles_csv(store: Store, tmp_path: Path) -> None:
    called(store, Usage(1000, 50, 200, 300, cache_write_1h=100), model="claude-opus-5")
    called(store, Usage(1000, 50, 200), model="gpt-6-luna")
    path = tmp_path / "bill.csv"

    def written(row: dict[str, Any]) -> Path:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, row)
            writer.writeheader()
            writer.writerow(row)
        return path

    claude = {
        "usage_date_utc": "2026-11-20", "model_version": "claude-opus-5", "usage_type": "message",
        "usage_input_tokens_no_cache": 500, "usage_input_tokens_cache_write_5m": 200,
        "usage_input_tokens_cache_write_1h": 100, "usage_input_tokens_cache_read": 200, "usage_output_tokens": 50,
    }  # fmt: skip
    assert against(store, read(written(claude))).agrees
    luna = {"start_time": int(DAY.timestamp()), "end_time": int(NEXT.timestamp()), **used(1, 1000, 50, 200),
            "model": "gpt-6-luna", "batch": "False"}  # fmt: skip
    assert against(store, read(written(luna))).agrees
    assert not against(store, read(written(luna | {"batch": "true"}))).agrees


@pytest.mark.both
def test_a_sandboxs_own_bill_line_by_line(world: World, tmp_path: Path) -> None:
    world.add("a", "b", "c")
    world.add("x", "y", model=CLAUDE)
    world.add("live", lane="sync")
    world.work()
    bill = world.sandbox.bill()
    assert (len(bill["rows"]), held(world.store, tmp_path, bill).agrees) == (6, True)
    lines = "\n".join(json.dumps(row) for row in bill["rows"])
    assert held(world.store, tmp_path, lines).agrees

    first, second, third, *rest = bill["rows"]
    wrong = held(world.store, tmp_path, {"rows": [
        {**first, "cost_nano_usd": first["cost_nano_usd"] + 1}, second, {**second, "id": "other"},
        {**third, "custom_id": None, "request_id": "req_strange"}, *rest,
    ]})  # fmt: skip
    assert [one.verdict.name for one in wrong.findings] == [
        "SAME", "SAME", "SAME", "SAME", "NOT_HERE", "NOT_BILLED", "DOUBLED", "DIFFERENT"
    ]  # fmt: skip
    assert wrong.findings[-2].note == "billed 2 times"
    assert wrong.findings[5].what["custom_id"] == third["custom_id"] or third["custom_id"] is None


def test_a_bill_without_times_ran_as_long_as_what_it_names(world: World, tmp_path: Path) -> None:
    world.add("a", "b", "c")
    world.work()
    kept = ("custom_id", "model", "usage", "cost_nano_usd")
    lines = [{name: row[name] for name in kept} for row in world.sandbox.bill()["rows"]]
    assert held(world.store, tmp_path, lines).agrees
    short = held(world.store, tmp_path, lines[:2])
    assert [one.verdict.name for one in short.findings] == ["SAME", "SAME", "NOT_BILLED"]
    assert short.findings[-1].what["custom_id"] == lines[2]["custom_id"]


def test_each_batch_against_what_its_provider_says_it_used(world: World, tmp_path: Path, shell: Shell) -> None:
    world.add("a", "b", "c")
    world.add("x", model=CLAUDE)
    world.work()
    asked = shell("report", "reconcile", "--since", "1d", "--json")
    assert (asked.code, asked.json["agrees"], asked.json["same"]) == (0, True, 1)
    assert len(asked.json["without_usage"]) == 1  # Anthropic shows none
    (row,) = asked.json["rows"]
    page = {"object": "list", "data": [{
        "id": row["provider_batch_id"], "object": "batch", "created_at": 1, "model": MODEL,
        "usage": {"input_tokens": row["ledger"]["input_tokens"], "output_tokens": 2 + row["ledger"]["output_tokens"]},
    }]}  # fmt: skip
    assert [one.verdict for one in held(world.store, tmp_path, page).findings] == [Verdict.DIFFERENT]


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], world: World) -> Shell:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{world.sandbox.url}/v1")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", world.sandbox.url)
    return Shell(monkeypatch, capsys, world.folder)


def test_the_command_draws_what_does_not_agree(shell: Shell, world: World, tmp_path: Path) -> None:
    called(world.store, Usage(1000, 10), model="gpt-6-luna")
    path = tmp_path / "bill.json"
    path.write_text(json.dumps(openai_page(used(1, 1000, 11, model="gpt-6-luna"), used(1, 1, 1, model="o3"))))
    told = shell("report", "reconcile", "--bill", str(path))
    assert told.code == 1
    for words in ("different", "2026-11-20", "gpt-6-luna", "not in the ledger", "1,000"):
        assert words in told.out
    assert "0 of 2 lines agree" in told.err
    path.write_text(json.dumps(openai_page(used(1, 1000, 10, model="gpt-6-luna"))))
    assert shell("report", "reconcile", "--bill", str(path)).code == 0


@pytest.mark.parametrize(
    "text", ["", "{", "{}", '{"data": []}', '[{"a": 1}]', "a,b\n1,2\n", '{"rows": [{"request_id": "x", "at": "soon"}]}']
)
def test_what_is_no_bill_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bill.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"bill\.json: "):
        read(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path / "none")
