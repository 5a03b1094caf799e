"""Spend, savings, latency and the account over a real store: nothing lost, nothing counted twice, unknown never 0."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from db import batches, export, lookup, queue, reports, settle, summing
from db.engine import Store, connect
from db.ids import new_id
from db.ledger import Charge
from db.migrations import migrate
from db.packing import Waiting
from db.settle import Failed, Settlement, Succeeded, Text
from db.states import AttemptState, CostSource
from tests import lanes
from tests.lanes import CLAUDE, MODEL, NOW, RISK, add, job

pytestmark = pytest.mark.both

NANO = 1_000_000_000
BOTH = ["openai", "anthropic"]


@dataclass(frozen=True)
class Made:
    """An attempt as a test wants it."""

    cost: int | None = 100
    standard: int | None = 200
    lane: str = "sync"
    model: str = MODEL
    tags: tuple[tuple[str, str], ...] = ()
    days: int = 0
    open: bool = False
    total_ms: float | None = None
    first_ms: float | None = None

    def charge(self) -> Charge:
        known = self.cost is not None
        return Charge(
            AttemptState.OK if known else AttemptState.UNKNOWN, self.cost,
            CostSource.COMPUTED if known else CostSource.UNKNOWN, self.standard, input_tokens=3, output_tokens=5,
            total_ms=self.total_ms, first_token_ms=self.first_ms,
        )  # fmt: skip


def put(store: Store, *made: Made) -> list[str]:
    """A job with one attempt for each, sent a second after it was submitted and done ten seconds after that."""
    idents = []
    for one in made:
        now = NOW + timedelta(days=one.days)
        ident = add(store, job(lane=one.lane, model=one.model, tags=dict(one.tags), now=now), now=now)[0]
        idents.append(ident)
        sent = now + timedelta(seconds=1)
        (claim,) = queue.claim(store, "me", sent + timedelta(days=9), 1, sent, BOTH)
        ending = Succeeded(Text("yes", "stop")) if one.cost is not None else Failed("cut", "cut")
        if not one.open:
            settle.settle(store, [Settlement(ident, claim.n, one.charge(), ending)], sent + timedelta(seconds=10))
    return idents


@contextmanager
def fresh() -> Iterator[Store]:
    """A store for one example of a property."""
    with TemporaryDirectory() as folder:
        store = connect(f"sqlite:///{Path(folder) / 'x.db'}")
        migrate(store)
        yield store
        store.close()


def nano(usd: str | None) -> Fraction:
    return Fraction(usd or 0) * NANO


# ---- cost ----

amounts = st.none() | st.integers(0, 10**15)
tags: Any = st.sampled_from([(), (("team", "a"),), (("team", 'b"c'), ("x", "1"))])
attempts = st.builds(
    Made,
    cost=amounts,
    standard=amounts,
    lane=st.sampled_from(["sync", "stream"]),
    model=st.sampled_from([MODEL, CLAUDE]),
    tags=tags,
    days=st.integers(0, 2),
    open=st.booleans(),
)
words = st.lists(st.sampled_from([*summing.BY, "tag:team", "tag:none"]), unique=True, max_size=4)


@settings(max_examples=25, deadline=None)
@given(made=st.lists(attempts, max_size=8), by=words)
def test_rows_always_add_up_to_the_total_and_to_the_ledger(made: list[Made], by: list[str]) -> None:
    with fresh() as store:
        put(store, *made)
        report = reports.cost(store, by)
        known = [one for one in made if one.cost is not None and not one.open]
        assert nano(report["total_usd"]) == sum(one.cost or 0 for one in known)
        assert nano(report["total_usd"]) == sum(nano(row["cost_usd"]) for row in report["rows"])
        assert (
            report["unknown_attempts"] == len(made) - len(known) == sum(r["unknown_attempts"] for r in report["rows"])
        )
        assert sum(row["attempts"] for row in report["rows"]) == len(made)
        assert nano(report["at_risk_usd"]) == RISK * (len(made) - len(known))
        assert report["open_attempts"] == sum(one.open for one in made)
        assert reports.account(store)["balances"]
        keys = [tuple(row[word] for word in by) for row in report["rows"]]
        assert len(set(keys)) == len(keys)


@settings(max_examples=15, deadline=None)
@given(made=st.lists(attempts, max_size=8), by=words)
def test_savings_add_up_and_leave_out_what_is_not_known(made: list[Made], by: list[str]) -> None:
    with fresh() as store:
        put(store, *made)
        report = reports.savings(store, by)
        both = [one for one in made if not one.open and one.cost is not None and one.standard is not None]
        assert nano(report["saved_usd"]) == sum((one.standard or 0) - (one.cost or 0) for one in both)
        assert report["attempts"] == len(both)
        assert report["unknown_attempts"] == len(made) - len(both)
        for name in ("paid_usd", "standard_usd", "saved_usd"):
            assert nano(report[name]) == sum(nano(row[name]) for row in report["rows"])


def test_a_cost_that_is_not_known_is_null_and_never_zero(store: Store) -> None:
    put(store, Made(cost=None), Made(cost=0, lane="stream"))
    report = reports.cost(store, ["lane"])
    assert [(row["lane"], row["cost_usd"], row["unknown_attempts"]) for row in report["rows"]] == [
        ("stream", "0", 0),
        ("sync", None, 1),
    ]
    assert (report["total_usd"], report["unknown_attempts"], report["at_risk_usd"]) == ("0", 1, "0.01")


def test_the_contract_of_the_cost_report(store: Store) -> None:
    put(store, Made(cost=12_345, tags=(("team", "search"),)))
    assert reports.cost(store, ["lane", "class", "model", "provider", "tier", "day", "tag:team"]) == {
        "total_usd": "0.000012345",
        "unknown_attempts": 0,
        "open_attempts": 0,
        "at_risk_usd": "0",
        "rows": [
            {
                "lane": "sync", "class": "bulk", "model": MODEL, "provider": "openai", "tier": "default",
                "day": "2026-11-22", "tag:team": "search", "jobs": 1, "attempts": 1, "input_tokens": 3,
                "cached_tokens": 0, "cache_write_tokens": 0, "output_tokens": 5, "reasoning_tokens": 0,
                "cost_usd": "0.000012345", "standard_usd": "0.0000002", "unknown_attempts": 0,
            }
        ],
    }  # fmt: skip


def test_a_period_begins_with_since_and_ends_before_until(store: Store) -> None:
    put(store, Made(days=0), Made(days=1), Made(days=2))
    sent = [NOW + timedelta(days=n, seconds=1) for n in range(3)]
    assert [row["day"] for row in reports.cost(store, ["day"], sent[1], sent[2])["rows"]] == ["2026-11-23"]
    assert len(reports.cost(store, ["day"], sent[1])["rows"]) == 2
    assert len(reports.cost(store, ["day"], None, sent[1])["rows"]) == 1


@pytest.mark.parametrize("empty", ["cost", "savings", "latency"])
def test_nothing_sent_is_an_empty_report(store: Store, empty: str) -> None:
    for by in ([], ["lane", "tag:x"]):
        assert getattr(reports, empty)(store, by)["rows"] == []


def test_a_tag_is_never_taken_for_sql(store: Store) -> None:
    put(store, Made(tags=(("a'b\"; DROP TABLE job", "1"),)))
    (row,) = reports.cost(store, ["tag:a'b\"; DROP TABLE job"])["rows"]
    assert row["tag:a'b\"; DROP TABLE job"] == "1"
    for word in ("lanes", "tag:", "job.id"):
        with pytest.raises(ValueError, match="is not one of"):
            reports.cost(store, [word])


# ---- savings, latency ----


def test_savings_of_a_batch_at_half_the_price(store: Store) -> None:
    put(store, Made(cost=100, standard=200), Made(cost=50, standard=50, lane="stream"), Made(cost=5, standard=None))
    report = reports.savings(store, ["lane"])
    assert {name: report[name] for name in ("attempts", "unknown_attempts", "saved_usd", "saved_percent")} == {
        "attempts": 2, "unknown_attempts": 1, "saved_usd": "0.0000001", "saved_percent": 40.0,
    }  # fmt: skip
    assert [(row["lane"], row["saved_percent"]) for row in report["rows"]] == [("stream", 0.0), ("sync", 50.0)]


def test_times_are_measured_where_they_belong(store: Store) -> None:
    put(store, *(Made(lane="stream", first_ms=float(n), total_ms=10.0 * n) for n in range(1, 101)))
    put(store, Made(cost=None, total_ms=9e9))
    report = reports.latency(store, ["lane"])
    stream, sync = report["rows"]
    error = report["relative_error"]
    first = {"count": 100, "p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0}
    assert stream["first_token_ms"] == pytest.approx(first, rel=error)
    assert stream["call_ms"]["p99"] == pytest.approx(990.0, rel=error)
    times = [stream[name]["p50"] for name in ("wait_s", "turnaround_s")]
    assert times == pytest.approx([1, 11], rel=error, abs=0.001)
    assert (sync["call_ms"], sync["turnaround_s"], sync["wait_s"]["count"]) == (None, None, 1)  # it failed
    assert report["wait_s"]["count"] == 101


# ---- the account, the batches, the export ----


def test_the_account_balances_until_somebody_meddles(store: Store) -> None:
    put(store, Made(), Made(cost=None), Made(open=True))
    add(store, job())
    account = reports.account(store)
    states = {name: account[name] for name in ("accepted", "queued", "running", "succeeded", "failed")}
    assert states == {"accepted": 4, "queued": 1, "running": 1, "succeeded": 1, "failed": 1}
    assert (account["balances"], account["attempts_usd"], account["report_usd"]) == (True, "0.0000001", "0.0000001")
    assert (account["unknown_attempts"], account["open_attempts"], account["at_risk_usd"]) == (2, 1, "0.02")
    with store.write() as connection:
        connection.execute(text("UPDATE submission SET accepted = accepted + 1 WHERE accepted = 1"))
    assert not reports.account(store)["balances"]


def packed(store: Store, rows: int = 3) -> str:
    """A batch of so many jobs."""
    add(store, *(job() for _ in range(rows)))
    batch_id = new_id(NOW)
    group = Waiting("openai", MODEL, rows)
    assert lanes.pack(store, batch_id, group, base_url="http://x", max_rows=100, max_bytes=10**6, now=NOW) == rows
    return batch_id


def test_a_batch_is_found_by_id_beginning_and_the_providers_id(store: Store) -> None:
    ident = packed(store)
    batches.uploaded(store, ident, "file_1")
    batches.created(store, ident, provider_batch_id="batch_9", status="validating", expires_at=NOW, next_poll_at=NOW,
                    now=NOW)  # fmt: skip
    for word in (ident, ident[:25], "batch_9"):
        (row,) = reports.batch(store, word)
        assert (row["id"], row["jobs"], row["submitted_at"]) == (ident, {"submitted": 3}, "2026-11-22T12:00:00.000Z")
    assert reports.batch(store, "batch_") == []
    assert [row["id"] for row in reports.batches(store)] == [ident]
    assert len(reports.jobs_in(store, ident)) == 3


def test_an_export_has_every_job_once_in_the_order_they_came(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_PAGE", 2)
    idents = put(store, Made(), Made(cost=None), Made(), Made(open=True), Made(days=1))
    exported = list(export.export(store))
    assert [row["id"] for row in exported] == idents
    assert [row["cost_usd"] for row in exported] == ["0.0000001", None, "0.0000001", None, "0.0000001"]
    assert [row["text"] for row in exported] == ["yes", None, "yes", None, "yes"]
    assert exported[1]["error"] == {"code": "cut", "message": "cut"}
    assert [row["id"] for row in export.export(store, "failed")] == [idents[1]]
    assert [row["id"] for row in export.export(store, since=NOW + timedelta(hours=1))] == [idents[4]]


def test_an_export_says_of_a_job_what_the_contract_says(store: Store) -> None:
    (ident,) = put(store, Made())
    (row,) = export.export(store)
    view: dict[str, Any] = lookup.job(store, ident) or {}
    assert {name: view[name] for name in row} == row


def test_states_of_jobs_that_are_not_there_are_left_out(store: Store) -> None:
    first, second = put(store, Made(), Made(cost=None))
    assert reports.states(store, [second, first, "nobody"]) == {first: "succeeded", second: "failed"}


def test_a_report_imports_none_of_what_would_slow_its_start() -> None:
    code = "import sys, db.reports, router.cli.report, router.show; print([m for m in {} if m in sys.modules])"
    heavy = ["sqlmodel", "db.tables", "openai", "anthropic", "genai_prices", "fastapi", "router.dispatch", "rich"]
    done = subprocess.run(
        [sys.executable, "-c", code.format(heavy)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
