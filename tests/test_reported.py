"""Costs that a server reports itself: read with care, taken as they are, in the ledger and on the bill."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db import lookup, reports
from db.engine import Store
from db.ledger import Charge
from db.states import AttemptState, CostSource, Lane
from jobs import outcome
from jobs.chat import Answer, Choice, Outcome
from jobs.providers import Endpoint
from jobs.providers.openai_wire import usage_of
from jobs.providers.reported import nano_of
from jobs.sandbox.server import Sandbox, running
from jobs.sandbox.settings import SandboxSettings
from router.repricing import OWN, reprice
from tests.commands import Shell
from tests.lanes import KEY, MODEL, NOW, World

TOKENS = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
OURS = Endpoint("openai", "http://gpu:8000/v1", own=False, key_env="")


@pytest.mark.parametrize(
    ("usage", "nano"),
    [
        ({"cost": 0.00014}, 140_000),
        ({"cost": 1e-09}, 1),
        ({"cost": 2}, 2_000_000_000),
        ({"cost": 0.95, "cost_details": {"upstream_inference_cost": 19}}, 950_000_000),
        ({"cost": 0.5, "is_byok": True, "cost_details": {"upstream_inference_cost": 19}}, 19_500_000_000),
        ({"cost": 0, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.001}}, 1_000_000),
        ({"cost": 0.5, "is_byok": True, "cost_details": {}}, None),  # only the fee is known
        ({"cost": 0, "cost_details": {"upstream_inference_cost": None}}, 0),  # a model that is free
        ({"cost": 0}, None),
        ({"cost": {"input_tokens_cost": 0.001, "total_cost": 0.006}}, 6_000_000),
        ({"cost": {"currency": "EUR", "total_cost": 0.006}}, None),
        ({"cost": {}}, None),
        *(({"cost": bad}, None) for bad in (-0.1, "0.1", True, None, [], float("nan"), float("inf"), 1e9)),
    ],
)
def test_what_is_clearly_a_cost_is_taken(usage: dict[str, Any], nano: int | None) -> None:
    assert nano_of(usage) == nano
    told = usage_of(TOKENS | usage)
    assert told is not None
    assert (told.reported, told.input, told.output) == (nano, 10, 5)


@given(st.integers(1, 10**14))
def test_it_is_exact_to_the_nano_dollar(nano: int) -> None:
    assert nano_of({"cost": float(Decimal(nano) / 10**9)}) == nano


@pytest.mark.parametrize(("endpoint", "source"), [(OURS, CostSource.REPORTED), (OWN["openai"], CostSource.COMPUTED)])
def test_a_provider_s_own_address_is_priced_by_its_list(endpoint: Endpoint, source: CostSource) -> None:
    told = usage_of(TOKENS | {"cost": 0.5})
    answer = Answer((Choice("yes"),), Outcome.COMPLETE, usage=told, model=MODEL)
    charge: Charge = outcome.charge(answer, Lane.SYNC, "default", MODEL, endpoint, NOW)
    assert (charge.state, charge.cost_source) == (AttemptState.OK, source)
    assert (charge.cost_nano == 500_000_000) is (source is CostSource.REPORTED)
    assert charge.standard_nano == outcome.priced(told, MODEL, MODEL, endpoint, Lane.SYNC, "default", NOW)[1].nano  # type: ignore[arg-type]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """One that resells at 105 % of the list."""
    with running(SandboxSettings(resold_percent=105)) as server:
        yield server


@pytest.mark.both
def test_on_the_wire_it_is_the_bill_and_no_re_pricing_changes_it(world: World, store: Store) -> None:
    ids = [*world.add("One.", lane="sync"), *world.add("Two.", lane="stream")]
    world.work()
    world.even()
    tries = [lookup.job(store, ident)["attempts"][0] for ident in ids]  # type: ignore[index]
    assert [one["cost_source"] for one in tries] == ["reported", "reported"]
    assert all(Decimal(one["cost_usd"]) > Decimal(one["standard_usd"]) for one in tries)
    done = reprice(
        store, {"openai": OURS}, None, world.clock.now().replace(hour=0), None, world.clock.now(), write=True
    )
    assert (done.written, done.reported) == (0, 2)
    assert reports.cost(store, [])["unknown_attempts"] == 0
    world.even()


def test_a_person_sees_that_it_was_reported(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = Shell(monkeypatch, capsys, tmp_path)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{sandbox.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert run("submit", "Hello").code == 0
    (job,) = run("jobs", "list", "--json").json["jobs"]
    assert "cost as the provider reported it" in " ".join(run("jobs", "show", job["id"]).out.split())
