"""What rules change beside class and lane: tier, model, provider, deadline and timeouts; flex where nobody waits."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.states import Lane, Tier
from jobs.chat import Request
from jobs.errors import Refused, UsageError
from jobs.sandbox.server import Sandbox
from router import Router
from router.decided import Wish
from router.policy import Decision, Facts
from router.rules import SHIPPED, load
from tests.commands import Shell
from tests.lanes import KEY, rows
from tests.test_policy import ANY_FACTS, HOUR, NOW, facts, lanes, way
from tests.test_rules import policy as policy
from tests.test_rules import rule

MINUTE = timedelta(minutes=1)


def tiers(decision: Decision) -> list[str]:
    return [step.tier.value for step in decision.plan]


# ---- flex ----


def test_flex_is_left_in_time_for_a_plain_call() -> None:
    deadline = NOW + 30 * MINUTE
    decision = way(facts(has_flex=True, has_batch=False, deadline=deadline))
    assert (lanes(decision), tiers(decision)) == (["sync", "sync"], ["flex", "default"])
    leave_by = decision.plan[0].leave_by
    assert leave_by is not None
    assert NOW < leave_by < deadline - 3 * (decision.options[1].finish_p95 - NOW)
    assert "flex tier" in decision.reason
    assert "plain call if it is not done" in decision.reason


def test_flex_is_for_nobody_who_waits() -> None:
    for given_ in ({"interactive": True}, {"tool_loop_step": True}, {"interactive": True, "lane_asked": Lane.SYNC}):
        decision = way(facts(has_flex=True, **given_))
        assert Tier.FLEX not in [step.tier for step in decision.plan]
    assert tiers(way(facts(has_flex=True, lane_asked=Lane.SYNC))) == ["default"]


def test_flex_is_nowhere_unless_the_model_has_it() -> None:
    steps = [step for option in way(facts(deadline=NOW + HOUR)).options for step in option.plan]
    assert Tier.FLEX not in {step.tier for step in steps}


def test_bulk_with_time_goes_to_the_batch_api_before_flex() -> None:
    assert lanes(way(facts(has_flex=True)))[0] == "batch"
    assert lanes(way(facts(has_flex=True, deadline=NOW + 24 * HOUR)))[0] == "batch"
    assert tiers(way(facts(has_flex=True, deadline=NOW + HOUR)))[0] == "flex"


@given(ANY_FACTS, st.floats(0.1, 40), st.floats(1, 10))
def test_a_later_deadline_never_costs_more_with_flex(given_: Facts, hours: float, later: float) -> None:
    these = given_._replace(lane_asked=None, max_cost_nano=None, has_flex=True)
    sooner, after = (way(these._replace(deadline=NOW + h * HOUR)) for h in (hours, hours * later))
    if any(option.feasible for option in sooner.options):
        assert (after.cost_nano or 0) <= (sooner.cost_nano or 0) + 1


# ---- tiers that rules force ----


def test_a_rule_can_force_the_fast_tier(policy: Any) -> None:
    mine = policy(rule(when="{ interactive = true }", tier='"fast"'))
    decision = way(facts(interactive=True), policy=mine)
    assert (lanes(decision), tiers(decision), decision.rule) == (["stream"], ["fast"], "mine")
    assert "fast tier" in decision.reason
    assert decision.cost_nano == 2 * (way(facts(interactive=True)).cost_nano or 0)
    assert tiers(way(facts(), policy=mine)) == ["default"]  # never unasked


def test_a_rule_can_force_flex_where_it_can_be(policy: Any) -> None:
    mine = policy(rule(tier='"flex"'))
    assert tiers(way(facts(has_flex=True), policy=mine)) == ["flex"]
    assert tiers(way(facts(has_flex=True, interactive=True), policy=mine)) == ["default"]
    assert way(facts(), policy=mine).rule == "rest"


def test_a_rule_can_keep_flex_away(policy: Any) -> None:
    mine = policy(rule(tier='"default"'))
    assert tiers(way(facts(has_flex=True, has_batch=False, deadline=NOW + HOUR), policy=mine)) == ["default"]


@pytest.mark.parametrize(
    ("rules", "line", "words"),
    [
        (rule(tier='"quick"'), 4, "'tier' must be one of default, flex, fast"),
        (rule(tier='"flex"', lane='"batch"'), 4, "the batch lane has no tiers"),
        (rule(deadline='"soon"'), 4, "deadline is 'soon'"),
        (rule(deadline="7"), 4, "'deadline' must be a text"),
        (rule(timeouts="{ total = 0 }"), 4, "'total' must be more than 0"),
        (rule(timeouts="{ first = 3 }", refuse="true"), 4, "unknown key 'first'"),
        (rule(provider='"google"'), 4, "'provider' must be one of openai, anthropic"),
        (rule(timeouts="{}"), 1, "has no effect"),
    ],
)
def test_a_mistake_in_an_effect_is_named_with_its_line(
    policy: Any, tmp_path: Path, rules: str, line: int, words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        policy(rules)
    before = (tmp_path / "mine.toml").read_text().index("[[rule]]")
    first = (tmp_path / "mine.toml").read_text()[:before].count("\n")
    assert any(f"mine.toml:{first + line}: " in one and words in one for one in caught.value.each)  # type: ignore[attr-defined]


# ---- effects that change the request ----


@pytest.fixture
def router(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A router with these rules before the shipped ones."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{sandbox.url}/v1")
    monkeypatch.setenv("SHUNTER_DATABASE_URL", f"sqlite:///{tmp_path / 'shunter.db'}")

    def made(rules: str) -> Router:
        head, first, rest = SHIPPED.read_text(encoding="utf-8").partition("[[rule]]")
        (tmp_path / "mine.toml").write_text(head + rules + first + rest, encoding="utf-8")
        monkeypatch.setenv("SHUNTER_POLICY", str(tmp_path / "mine.toml"))
        return Router()

    return made


def ask(**more: Any) -> Request:
    return Request.model_validate({"model": "gpt-6-sol", "messages": [{"role": "user", "content": "Go."}], **more})


def submitted(router: Router, request: Request) -> tuple[dict[str, Any], Any]:
    async def work() -> tuple[dict[str, Any], Any]:
        try:
            job = await router.submit(request, Wish())
            return job, rows(router.store, "SELECT body.body, body.handling FROM body")[0]
        finally:
            await router.close()

    return asyncio.run(work())


def test_another_model_is_decided_sent_and_paid(router: Any, sandbox: Sandbox) -> None:
    mine = router(rule(when='{ model = "gpt-6-sol" }', model='"gpt-6-luna"'))
    job, (body, _) = submitted(mine, ask(interactive=True))
    assert (job["model"], job["state"]) == ("gpt-6-luna", "succeeded")
    assert json.loads(body)["model"] == "gpt-6-luna"
    assert {row["model"] for row in sandbox.bill()["rows"]} == {"gpt-6-luna"}
    assert job["decision"]["reason"].startswith("Rule 'mine' gives it model gpt-6-luna, since so it is. A person")


def test_a_deadline_for_those_that_have_none(router: Any) -> None:
    mine = router(rule(deadline='"6h"'))
    job, _ = submitted(mine, ask())
    assert job["deadline_at"] is not None
    assert len(job["decision"]["plan"]) == 2
    own = mine.clock.now() + 30 * HOUR
    assert mine.routed(ask(deadline=own), Wish(), mine.clock.now())[0].deadline == own


def test_timeouts_that_the_request_does_not_say_itself(router: Any) -> None:
    mine = router(rule(timeouts="{ total = 30, idle = 5 }") + rule(name='"late"', timeouts="{ idle = 9 }"))
    changed, _ = mine.routed(ask(handling={"total": 7.0}), Wish(), mine.clock.now())
    assert (changed.handling.total, changed.handling.idle, changed.handling.first_token) == (7.0, 5.0, None)


def test_what_was_spent_today_is_a_fact(router: Any) -> None:
    mine = router(rule(when="{ spent_today_usd_at_least = 0.0000001 }", refuse="true"))
    request = ask(interactive=True)

    async def work() -> None:
        try:
            assert (await mine.submit(request))["state"] == "succeeded"
            mine._spent = NOW - 24 * HOUR, 0.0  # as if it had been looked up a while ago
            with pytest.raises(Refused, match="'mine'"):
                mine.explain(request)
        finally:
            await mine.close()

    asyncio.run(work())


def test_a_file_is_changed_row_by_row_and_known_again(
    router: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Shell(monkeypatch, capsys, tmp_path)
    router(rule(when='{ model = "gpt-6-sol", group_at_least = 2 }', model='"gpt-6-luna"'))
    lines = [json.dumps({"custom_id": str(n), "model": "gpt-6-sol", "prompt": f"Say {n}."}) for n in range(3)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    for accepted in (3, 0):
        done = run("submit", "--file", str(tmp_path / "rows.jsonl"), "--json")
        assert done.code == 0, done.err
        assert json.loads(done.out)["accepted"] == accepted
    listed = run("jobs", "list", "--json")
    assert {job["model"] for job in json.loads(listed.out)["jobs"]} == {"gpt-6-luna"}


def test_the_shipped_policy_changes_no_request() -> None:
    assert not load().changes_requests
