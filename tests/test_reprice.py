"""Re-pricing: what differs is shown, then appended; the first figure stays, and every total follows."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from db import adjustments, lookup, queue, reports, settle, standing
from db.adjustments import Adjustment, Repricing
from db.engine import Store
from db.ledger import Charge
from db.money import usd
from db.settle import Again, Failed, Settlement, Succeeded, Text
from db.states import AttemptState, CostSource, Lane
from jobs import outcome
from jobs.chat import Answer, Choice, Outcome, Usage
from jobs.prices_table import PriceTable
from jobs.pricing import version
from jobs.providers import Endpoint
from router.price_table import read
from router.repricing import OWN, Repriced, reprice
from tests.commands import Shell
from tests.lanes import NOW, add, balanced, job, rows
from tests.purses import budget, purse
from tests.purses import sums as of_budget

LATER = NOW + timedelta(hours=1)
ENDPOINTS = {"openai": OWN["openai"]}
OURS = Endpoint("openai", "http://gpu:8000/v1", own=False, key_env="")


def table(tmp_path: Path, **prices: float) -> PriceTable:
    """Models and what a million tokens of them cost, in and out alike."""
    path = tmp_path / "prices.toml"
    rows = (f'[[price]]\nmodel = "{model}"\ninput = {price}\noutput = {price}\n' for model, price in prices.items())
    path.write_text("".join(rows))
    return read(path)


def answered(store: Store, usage: Usage | None = None, *, model: str = "gpt-6-luna", endpoint: Endpoint = OURS,
             now: datetime = NOW, tier: str = "default", **more: Any) -> str:  # fmt: skip
    """A job with one answer, charged by the prices that are known; its id."""
    (ident,) = add(store, job(lane="sync", now=now, model=model, **more), now=now)
    found = queue.claim(store, "me", now + timedelta(hours=1), 9, now, ["openai"], purse=purse(10**9))
    answer = Answer((Choice("yes"),), Outcome.COMPLETE, usage=usage or Usage(1000, 500), model=model)
    charge = outcome.charge(answer, Lane.SYNC, tier, model, endpoint, now)
    done = [Settlement(one.job_id, one.n, charge, Succeeded(Text("yes", "stop"))) for one in found]
    settle.settle(store, done, now + timedelta(seconds=1))
    return ident


def anew(store: Store, prices: PriceTable | None, *, write: bool = True, since: datetime = NOW,
         until: datetime | None = None) -> Repriced:  # fmt: skip
    return reprice(store, {"openai": OURS}, prices, since, until, LATER, write=write)


def first(store: Store) -> list[tuple[Any, ...]]:
    """What was said of each attempt when it was settled."""
    query = "SELECT job_id, n, cost_nano, standard_nano, cost_source, price FROM attempt ORDER BY 1, 2"
    return [tuple(row) for row in rows(store, query)]


def changes(store: Store, job_id: str) -> list[tuple[Any, ...]]:
    """What re-pricings did to a job: before, after, the difference, the price and the prices it is of."""
    query = """SELECT before_nano, after_nano, difference_nano, price, prices FROM adjustment
        JOIN repricing ON repricing.id = repricing_id WHERE job_id = :id ORDER BY made_at"""
    return [tuple(row) for row in rows(store, query, id=job_id)]


def total(store: Store) -> str:
    """The total of the report; it is that of the ledger, and each budget and rollup holds its part."""
    balanced(store)
    assert standing.audit(store) == []
    found = reports.cost(store, ["model"])["total_usd"]
    first, differences = (rows(store, f"SELECT coalesce(sum({what}), 0) FROM {where}")[0][0]
                          for what, where in (("cost_nano", "attempt"), ("difference_nano", "adjustment")))  # fmt: skip
    assert found == usd(int(first) + int(differences))
    return str(found)


@pytest.mark.both
def test_what_differs_is_shown_and_only_then_appended(store: Store, tmp_path: Path) -> None:
    budget(store, 10**12)
    ident = answered(store, model="a")
    known = answered(store, model="gpt-6-luna")
    before = first(store)
    assert total(store) == "0.00035"  # `a` has no price
    prices = table(tmp_path, a=2, **{"gpt-6-luna": 1})

    looked = anew(store, prices, write=False).view()
    assert (looked["written"], looked["changed"], looked["became_known"]) == (None, 2, 1)
    assert (looked["before_usd"], looked["after_usd"], looked["difference_usd"]) == ("0.00035", "0.0045", "0.00415")
    assert [(row["model"], row["before_usd"]) for row in looked["rows"]] == [("a", None), ("gpt-6-luna", "0.00035")]
    assert total(store) == "0.00035"

    done = anew(store, prices).view()
    assert (done["written"], done["difference_usd"]) == (2, "0.00415")
    assert done["prices"] == f"{prices.name} + {version()}"
    assert first(store) == before  # the old figures stay
    assert total(store) == "0.0045"
    assert of_budget(store) == (4_500_000, 0)  # and what was set aside for an unknown cost is free again
    report = reports.cost(store, ["model"])
    assert (report["unknown_attempts"], report["at_risk_usd"]) == (0, "0")
    (attempt,) = lookup.job(store, ident)["attempts"]  # type: ignore[index]
    assert (attempt["cost_usd"], attempt["first_cost_usd"], attempt["at_risk_usd"]) == ("0.003", None, None)
    assert (attempt["cost_source"], attempt["price"]) == ("computed", f"{prices.name} a standard")
    (change,) = changes(store, known)
    assert change == (350_000, 1_500_000, 1_150_000, f"{prices.name} gpt-6-luna standard", done["prices"])

    assert anew(store, prices).view()["written"] == 0  # nothing differs any more
    back = anew(store, table(tmp_path, a=2)).view()
    assert (back["written"], back["difference_usd"]) == (1, "-0.00115")
    assert total(store) == "0.00335"
    assert len(changes(store, known)) == 2


def test_what_a_provider_reported_stays_and_what_has_no_price_too(store: Store, tmp_path: Path) -> None:
    ident = answered(store)
    answered(store, model="nobody-knows")
    with store.write() as connection:
        connection.exec_driver_sql(
            f"UPDATE attempt SET cost_source = 'reported', cost_nano = 77 WHERE job_id = '{ident}'"
        )
    done = anew(store, table(tmp_path, **{"gpt-6-luna": 9})).view()
    assert (done["written"], done["reported"], done["unpriced"]) == (0, 1, 1)
    assert first(store)[0][2] == 77


def test_the_time_of_the_call_and_the_model_that_answered_count(store: Store, tmp_path: Path) -> None:
    july = datetime(2026, 7, 29, 23, tzinfo=UTC)  # an hour before its price fell to a fifth
    answered(store, model="gpt-5.6-luna", now=july)
    answered(store, model="gpt-5.6-luna", now=july + timedelta(hours=2))
    assert anew(store, None, since=july).view()["written"] == 0
    assert total(store) == usd(4_000_000 + 800_000)
    (ident,) = add(store, job(lane="sync", model="mine"))
    (claim,) = queue.claim(store, "me", LATER, 1, NOW, ["openai"])
    answer = Answer((Choice("yes"),), Outcome.COMPLETE, usage=Usage(1000, 500), model="gpt-6-luna", tier="priority")
    charge = outcome.charge(answer, Lane.SYNC, "default", "mine", OURS, NOW)
    settle.settle(store, [Settlement(ident, claim.n, charge, Succeeded(Text("yes", "stop")))], NOW)
    assert (charge.cost_nano, charge.served_model, charge.tier) == (700_000, "gpt-6-luna", "priority")
    assert anew(store, None).view()["written"] == 0


def test_a_batch_is_priced_by_the_hour_it_was_submitted_and_by_what_each_row_used(store: Store) -> None:
    usage = Usage(5000, 100, 1000, 3000, 50, cache_write_1h=2000, audio_input=0, searches=2)
    answer = Answer((Choice("yes"),), Outcome.COMPLETE, usage=usage, model="claude-opus-5")
    (ident,) = add(store, job(lane="sync", model="claude-opus-5"))
    (claim,) = queue.claim(store, "me", LATER, 1, NOW, ["anthropic"])
    charge = outcome.charge(answer, Lane.SYNC, "standard", "claude-opus-5", OWN["anthropic"], NOW)
    settle.settle(store, [Settlement(ident, claim.n, charge, Succeeded(Text("yes", "stop")))], NOW)
    assert charge.cost_nano == 1000 * 5000 + 1000 * 500 + 1000 * 6250 + 2000 * 10_000 + 100 * 25_000 + 20_000_000
    assert anew(store, None).view()["written"] == 0  # all that its price depends on was kept


def test_since_and_until_say_which(store: Store, tmp_path: Path) -> None:
    answered(store, now=NOW - timedelta(days=2))
    answered(store)
    prices = table(tmp_path, **{"gpt-6-luna": 1})
    assert anew(store, prices, since=NOW - timedelta(days=3), until=NOW).view()["written"] == 1
    assert anew(store, prices, since=NOW).view()["written"] == 1
    assert total(store) == "0.003"


def test_a_second_writer_changes_nothing_twice(store: Store, tmp_path: Path) -> None:
    answered(store)
    ((one,),) = adjustments.paid(store, NOW)
    change = Adjustment(one.job_id, one.n, one.cost_nano, 1_500_000, one.standard_nano, 7, CostSource.COMPUTED, "p")
    repricing = Repricing("r1", "p", NOW, None, LATER)
    assert adjustments.apply(store, repricing, [change]) == 1
    assert adjustments.apply(store, repricing._replace(id="r2"), [change]) == 0
    assert total(store) == "0.0015"


class History:
    """What may happen to jobs and to prices, in any order, a minute after the other."""

    def __init__(self, dice: Random, store: Store, tmp_path: Path) -> None:
        self.dice, self.store, self.tmp_path, self.now = dice, store, tmp_path, NOW

    def step(self) -> None:
        self.now += timedelta(minutes=1)
        self.dice.choice([self.answer, self.answer, self.crash, self.refuse, self.reprice])()

    def _end(self, charge: Charge, *endings: Any) -> None:
        new = [job(lane="sync", model=self.dice.choice(MODELS), now=self.now) for _ in range(self.dice.randint(1, 3))]
        add(self.store, *new, now=self.now)
        until = self.now + timedelta(days=1)
        found = queue.claim(self.store, "me", until, 9, self.now, ["openai"], purse=purse(10**7))
        some = found[: self.dice.randint(0, len(found))]  # of a batch, perhaps only a part comes back
        done = [Settlement(one.job_id, one.n, charge, self.dice.choice(endings)) for one in some]
        settle.settle(self.store, done, self.now + timedelta(seconds=self.dice.randint(1, 59)))

    def answer(self) -> None:
        usage = Usage(self.dice.randint(1, 9999), self.dice.randint(0, 999))
        done = Answer((Choice("x"),), self.dice.choice((Outcome.COMPLETE, Outcome.REFUSED)), usage=usage)
        where = self.dice.choice((OURS, OWN["openai"]))
        charge = outcome.charge(done, Lane.SYNC, "default", self.dice.choice(MODELS), where, self.now)
        self._end(charge, Succeeded(Text("x", "stop")), Again(self.now, "cut", "cut"), Failed("no", "no"))

    def crash(self) -> None:
        charge = Charge(AttemptState.UNKNOWN, at_risk_nano=self.dice.randint(0, 999))
        self._end(charge, Again(self.now, "cut", "cut"), Failed("x", "x"))

    def refuse(self) -> None:
        free = Charge.free(AttemptState.FAILED, code="busy", error="busy")
        self._end(free, Again(self.now, "busy", "busy"))

    def reprice(self) -> None:
        known = {model: self.dice.choice((0, 1, 2.5)) for model in MODELS if self.dice.random() < 0.7}
        since = self.now - timedelta(minutes=self.dice.choice((5, 500)))
        prices = table(self.tmp_path, **known) if known else None
        anew(self.store, prices, since=since, write=self.dice.random() < 0.8)


MODELS = ("a", "b", "gpt-6-luna")


@pytest.mark.both
@pytest.mark.parametrize("seed", range(5))
def test_attempts_and_adjustments_are_always_the_report(store: Store, tmp_path: Path, seed: int) -> None:
    history = History(Random(seed), store, tmp_path)
    budget(store, 10**15)
    for _ in range(20):
        history.step()
        total(store)
    while not rows(store, "SELECT count(*) FROM adjustment")[0][0]:
        history.answer()
        history.reprice()
    total(store)


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    return Shell(monkeypatch, capsys, tmp_path)


def test_the_command_shows_then_writes(shell: Shell, store: Store, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    ident = answered(store, now=now - timedelta(minutes=5))
    assert "re-priced" not in shell("jobs", "show", ident).out
    path = tmp_path / "mine.toml"
    path.write_text('[[price]]\nmodel = "gpt-6-luna"\ninput = 1\noutput = 1\n')
    told = shell("db", "reprice", "--since", "1h", "--prices", str(path))
    assert told.code == 0
    assert "--yes appends the differences" in told.err
    assert "gpt-6-luna" in told.out
    assert "0.0015" in told.out
    done = shell("db", "reprice", "--since", "1h", "--prices", str(path), "--yes", "--json").json
    assert (done["written"], done["difference_usd"], done["rows"][0]["model"]) == (1, "0.00115", "gpt-6-luna")
    assert shell("report", "cost", "--json").json["total_usd"] == "0.0015"
    shown = " ".join(shell("jobs", "show", ident).out.split())
    assert "$0.0015" in shown
    assert "re-priced, at first $0.00035" in shown
    wrong = shell("db", "reprice", "--since", "1h", "--prices", str(tmp_path / "none.toml"))
    assert (wrong.code, wrong.out) == (2, "")


@pytest.mark.both
def test_the_same_table_gives_the_same_price_on_a_server_of_ones_own(store: Store, tmp_path: Path) -> None:
    prices = table(tmp_path, **{"gpt-5-mini": 2})
    where = Endpoint("openai", "http://gpu:8000/v1", own=False, key_env="", prices=prices)
    ident = answered(store, model="gpt-5-mini", endpoint=where, tier="flex")
    assert first(store)[0][4] == "computed"
    found = reprice(store, {"openai": where}, prices, NOW, None, LATER, write=True)
    assert (found.written, changes(store, ident)) == (0, [])  # at a provider's own address it would be half of it
    by_list = reprice(store, {"openai": where}, None, NOW, None, LATER, write=True)
    assert by_list.written == 1
    assert rows(store, "SELECT cost_source FROM adjustment") == [("assumed",)]
