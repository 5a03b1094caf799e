"""/metrics: Prometheus' text with the reports' own numbers, for the installation's own token."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from db import metrics, reports, standing, workers
from db.budgets import Budget
from db.engine import Store
from db.metrics import Reader
from db.states import Lane
from jobs import worker
from jobs.sandbox.server import Sandbox, running
from jobs.sandbox.settings import SandboxSettings
from jobs.worker import Told
from router.web.metrics import families
from tests.commands import finish, packed
from tests.gateways import Served, serving, settings_for
from tests.lanes import World, add, job
from tests.lanes import rows as asked

BY = ("lane", "model", "provider")
Values = dict[tuple[str, ...], float]


class Scraped:
    """What a scrape says, by the name of the sample."""

    def __init__(self, body: str, parse: Any = text_string_to_metric_families) -> None:
        self.families = {family.name: family for family in parse(body)}
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def values(self, name: str, *labels: str) -> Values:
        found = [one for one in self.samples if one.name == name]
        return {tuple(one.labels[label] for label in labels): one.value for one in found}

    def one(self, name: str, **labels: str) -> float:
        [value] = [one.value for one in self.samples if one.name == name and labels.items() <= one.labels.items()]
        return value


def read(reader: Reader, now: datetime | None = None) -> Scraped:
    """A scrape without its HTTP."""
    from prometheus_client.exposition import generate_latest

    class Given:
        def collect(self) -> Iterator[Any]:
            return families(reader.read(now or datetime.now(UTC), 60.0))

    return Scraped(generate_latest(Given()).decode())  # type: ignore[arg-type]


def nano(usd: float) -> int:
    return round(usd * 1_000_000_000)


@pytest.fixture(scope="module")
def behind() -> Iterator[Sandbox]:
    with running(SandboxSettings(batch_seconds=0.1)) as sandbox:
        yield sandbox


@pytest.fixture
def gateway(behind: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setattr("router.web.metrics.FRESH_S", 0.0)
    with serving(settings_for(behind.url, tmp_path)) as served:
        yield served


# ---- the form ----


def test_the_text_is_prometheus_and_openmetrics_is_given_to_who_asks(gateway: Served) -> None:
    finish(gateway.router.store)
    with gateway.client() as client:
        plain = client.get("/metrics")
        asked_for = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert plain.headers["content-type"].startswith("text/plain; version=")
    assert Scraped(plain.text).families["shunter_attempts"].type == "counter"
    assert asked_for.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert Scraped(asked_for.text, open_families).one("shunter_attempts_total", state="ok") == 1


def test_it_takes_the_installations_own_token(gateway: Served) -> None:
    from router import keyring

    _, key = keyring.create(gateway.router.store, "ci", usd=None, per="day", per_minute=None, lanes=None)
    with httpx2.Client(base_url=gateway.url) as client:
        assert client.get("/metrics").status_code == 401
        theirs = client.get("/metrics", headers={"Authorization": f"Bearer {key}"})
        assert theirs.status_code == 403
        assert "shunter_" not in theirs.text


def test_an_installation_without_a_job_has_metrics_too(gateway: Served) -> None:
    with gateway.client() as client:
        scraped = Scraped(client.get("/metrics").text)
    assert scraped.values("shunter_jobs", "state") == {
        (state,): 0 for state in ("queued", "running", "submitted", "succeeded", "failed", "cancelled")
    }
    assert scraped.one("shunter_workers") == 0


# ---- the numbers ----


def test_money_tokens_and_attempts_are_those_of_the_report(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.sandbox.faults([{"kind": "status", "status": 500, "times": 2}, {"kind": "no_usage", "times": 1}])
    world.add(*[f"live {n}" for n in range(4)], lane="sync")
    world.add(*[f"words {n}" for n in range(3)], lane="stream")
    world.add(*[f"rows {n}" for n in range(5)])

    async def work() -> None:
        context = world.context()
        await worker.once(context, Told(), asyncio.Event())
        await context.close()

    asyncio.run(work())
    add(world.store, job(), now=datetime.now(UTC))
    packed(world.store)
    scraped, report = read(Reader(world.store)), reports.cost(world.store, BY)
    tokens = {name: scraped.values(f"shunter_{name}_tokens_total", *BY) for name in ("input", "cached", "output")}
    assert len(report["rows"]) >= 3
    for row in report["rows"]:
        kind = tuple(row[name] for name in BY)
        assert nano(scraped.values("shunter_cost_usd_total", *BY)[kind]) == int(
            Decimal(row["cost_usd"] or 0) * 1_000_000_000
        )
        assert scraped.values("shunter_attempts_unpriced", *BY)[kind] == row["unknown_attempts"]
        for name, values in tokens.items():
            assert values[kind] == row[f"{name}_tokens"]
    ended = sum(scraped.values("shunter_attempts_total", *BY, "state").values())
    unsettled = scraped.values("shunter_attempts_open", *BY, "state")
    assert ended + sum(unsettled.values()) == sum(row["attempts"] for row in report["rows"])
    assert sum(value for kind, value in unsettled.items() if kind[-1] == "sent") == report["open_attempts"] == 3
    assert nano(sum(scraped.values("shunter_at_risk_usd", *BY).values())) == int(
        Decimal(report["at_risk_usd"]) * 1_000_000_000
    )


@pytest.mark.both
def test_a_counter_of_money_does_not_fall_when_the_past_is_priced_anew(store: Store) -> None:
    finish(store)
    finish(store)
    reader = Reader(store)
    before = read(reader)
    [(job_id, n, cost)] = asked(store, "SELECT job_id, n, cost_nano FROM attempt LIMIT 1")
    with store.write() as connection:
        now = {"now": datetime.now(UTC)}
        connection.execute(
            text("INSERT INTO repricing (id, prices, since, made_at) VALUES ('r', 'p', :now, :now)"), now
        )
        connection.execute(
            text("""INSERT INTO adjustment (repricing_id, job_id, n, before_nano, after_nano, difference_nano,
                cost_source, price) VALUES ('r', :id, :n, :cost, 45, 45 - :cost, 'computed', 'p')"""),
            {"id": job_id, "n": n, "cost": cost},
        )
        connection.execute(text("UPDATE attempt SET adjusted_nano = 45 WHERE job_id = :id"), {"id": job_id})
        connection.execute(text("UPDATE rollup SET cost_nano = cost_nano + 45 - :cost"), {"cost": cost})
    after = read(reader)
    total = reports.cost(store, [])["total_usd"]
    assert after.one("shunter_cost_usd_total") == before.one("shunter_cost_usd_total")
    assert nano(after.one("shunter_cost_adjustments_usd")) == 45 - cost
    both = after.one("shunter_cost_usd_total") + after.one("shunter_cost_adjustments_usd")
    assert nano(both) == int(Decimal(total) * 1_000_000_000)


@pytest.mark.both
def test_times_are_histograms_that_only_grow_and_hold_every_attempt(store: Store) -> None:
    reader, now = Reader(store), datetime.now(UTC)
    for n in range(3):
        finish(store)
        assert read(reader, now).one("shunter_call_seconds_count") == n + 1
    later = now + timedelta(days=30)
    assert read(reader, later).one("shunter_call_seconds_count") == 3  # not read any more, and not forgotten
    assert read(Reader(store), later).values("shunter_call_seconds_count") == {}  # a new process begins anew
    scraped = read(Reader(store), now)
    assert scraped.one("shunter_call_seconds_bucket", le="0.05") == 3  # each took 40 ms
    assert scraped.one("shunter_call_seconds_bucket", le="+Inf") == 3
    assert scraped.one("shunter_call_seconds_sum") == pytest.approx(0.12, rel=0.01)
    assert scraped.one("shunter_turnaround_seconds_bucket", le="1.0") == 0  # each took 2 s
    assert scraped.one("shunter_turnaround_seconds_bucket", le="2.5") == 3


def test_only_what_has_changed_is_looked_into(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(store)
    finish(store, model="gpt-6-nova")
    reader, poured = Reader(store), []
    pour = metrics.pour
    monkeypatch.setattr(metrics, "pour", lambda stored, into: (poured.append(stored), pour(stored, into)))
    read(reader)
    first, poured[:] = len(poured), []
    read(reader)
    assert poured == []
    finish(store)
    read(reader)
    assert 0 < len(poured) <= first  # one kind's old and new sketches


@pytest.mark.both
def test_how_things_stand_is_told_in_gauges(store: Store) -> None:
    now = datetime.now(UTC)
    finish(store, failed=True)
    batch = packed(store, 3)
    add(store, job(), job(), now=now)
    workers.register(store, "alive", "host", 1, now)
    workers.register(store, "dead", "host", 2, now - timedelta(minutes=10))
    workers.serve(store, "server", "host", 3, now)
    standing.put(store, Budget("", "daily", 2_500_000_000, "day", None, None, "UTC", now))
    scraped = read(Reader(store))
    assert batch
    assert scraped.values("shunter_jobs", "state") == {
        ("queued",): 2, ("running",): 0, ("submitted",): 3, ("succeeded",): 0, ("failed",): 1, ("cancelled",): 0,
    }  # fmt: skip
    assert scraped.one("shunter_batches_open", state="packed") == 1
    assert scraped.one("shunter_batch_rows_open", state="packed") == 3
    assert scraped.one("shunter_workers") == 1
    assert scraped.one("shunter_budget_limit_usd", budget="daily", per="day") == 2.5
    assert scraped.one("shunter_budget_spent_usd", budget="daily") == 0
    lanes = {lane for (lane,) in scraped.values("shunter_attempts_open", "lane")}
    assert lanes == {Lane.BATCH.value}
