"""The background windows among the options: when they are there, what they cost, when they are taken and when not."""

from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.states import Lane
from jobs.errors import Refused, UsageError
from router.estimate import beyond_lost
from router.policy import Decision, Facts
from router.rules import SHIPPED, load
from tests.test_policy import ANY_FACTS, HOUR, NOW, POLICY, PRICE, facts, lanes, way

NIGHT_S = 13 * 3600.0  # until the window for bulk work opens


def there(**given: Any) -> Facts:
    return facts(has_background=True, **given)


def windows(decision: Decision) -> list[str | None]:
    return [step.window for step in decision.plan]


def names(decision: Decision) -> list[str]:
    return ["-".join(f"{step.lane}{step.window or ''}" for step in option.plan) for option in decision.options]


def test_each_window_is_an_option_alone_and_left_in_time() -> None:
    decision = way(there(deadline=NOW + 24 * HOUR))
    singles = ["stream", "sync", "batch", "background2h", "background8h"]
    assert names(decision) == [*singles, "batch-sync", "background2h-sync", "background8h-sync"]
    costs = {name: option.cost_nano for name, option in zip(names(decision), decision.options, strict=True)}
    assert (costs["sync"], costs["background2h"], costs["background8h"]) == (250_000, 175_000, 150_000)
    assert names(way(there())) == singles
    assert names(way(facts())) == singles[:3]


def test_the_json_of_a_step_names_its_window() -> None:
    shown = way(there(deadline=NOW + 9 * HOUR), wait_s=NIGHT_S).json()
    assert shown["lane"] == "background"
    assert shown["plan"][0] == {"lane": "background", "tier": "default", "leave_by": ANY, "window": "8h"}
    assert {step["window"] for option in shown["options"] for step in option["plan"]} == {None, "2h", "8h"}


@pytest.mark.parametrize(
    ("hours", "plan", "window"),
    [
        (12, ["background"], "8h"),
        (9, ["background", "sync"], "8h"),
        (7, ["background", "sync"], "8h"),
        (4, ["background"], "2h"),
        (1.5, ["background", "sync"], "2h"),
        (0.4, ["sync"], None),
    ],
)
@pytest.mark.parametrize("why", ["no Batch API", "closed until the night"])
def test_the_cheapest_window_that_meets_the_deadline(hours: float, plan: list[str], window: str, why: str) -> None:
    there_is = {"has_batch": False} if why == "no Batch API" else {}
    decision = way(there(deadline=NOW + hours * HOUR, **there_is), wait_s=0 if there_is else NIGHT_S)
    assert (lanes(decision), windows(decision)[0]) == (plan, window)
    assert decision.finish_by <= NOW + hours * HOUR


def test_a_batch_that_may_be_submitted_now_is_cheaper() -> None:
    assert lanes(way(there())) == ["batch"]
    assert lanes(way(there(deadline=NOW + 24 * HOUR))) == ["batch", "sync"]
    assert lanes(way(there(deadline=NOW + 6 * HOUR))) == ["batch", "sync"]


def test_the_wait_for_the_window_counts() -> None:
    deadline = NOW + timedelta(seconds=NIGHT_S)
    assert lanes(way(facts(deadline=deadline))) == ["batch", "sync"]
    assert lanes(way(facts(deadline=deadline), wait_s=NIGHT_S)) == ["sync"]
    later = way(facts(deadline=deadline + 24 * HOUR), wait_s=NIGHT_S)
    assert lanes(later) == ["batch", "sync"]
    middle = beyond_lost(0.0, POLICY.priors.batch_lost)
    assert later.options[2].finish_p50 == NOW + timedelta(seconds=NIGHT_S + POLICY.priors.batch_s.quantile(middle))
    assert lanes(way(facts(), wait_s=NIGHT_S)) == ["batch"]  # without a deadline there is time to wait


def test_a_plan_is_left_early_enough() -> None:
    deadline = NOW + 1.5 * HOUR
    decision = way(there(deadline=deadline, has_batch=False))
    leave_by, sync = decision.plan[0].leave_by, decision.options[1]
    assert leave_by is not None
    slow_call = sync.finish_p95 - NOW
    assert leave_by + timedelta(seconds=POLICY.cancel_background_s) + POLICY.sync_times * slow_call <= deadline
    done = POLICY.priors.windows_s["2h"].chance((leave_by - NOW).total_seconds())
    assert decision.cost_nano == round(175_000 * done + 250_000 * (1 - done))


@pytest.mark.parametrize("given_", [{"interactive": True}, {"tool_loop_step": True}])
def test_nobody_is_made_to_wait_for_a_window(given_: dict[str, Any]) -> None:
    decision = way(there(has_batch=False, **given_))
    assert lanes(decision) in (["stream"], ["sync"])
    assert all(not option.feasible for option in decision.options if option.plan[0].window)


@pytest.mark.parametrize(("hours", "window"), [(None, "8h"), (20, "8h"), (4, "2h"), (1, "2h")])
def test_who_asks_for_the_lane_gets_the_window_that_fits(hours: float | None, window: str) -> None:
    deadline = None if hours is None else NOW + hours * HOUR
    decision = way(there(lane_asked=Lane.BACKGROUND, deadline=deadline))
    assert (decision.rule, lanes(decision), windows(decision)) == ("asked", ["background"], [window])
    assert ("may not be done" in decision.reason) is (hours == 1)


def test_a_lane_that_is_not_there_or_too_dear_is_said() -> None:
    with pytest.raises(UsageError, match=r"no background lane here .*openai_background.* stream, sync, batch"):
        way(facts(lane_asked=Lane.BACKGROUND))
    with pytest.raises(Refused, match="over the cap"):
        way(there(lane_asked=Lane.BACKGROUND, max_cost_nano=200_000))


def test_a_cap_between_leaves_the_window_that_keeps_it() -> None:
    decision = way(there(has_batch=False, max_cost_nano=290_000, deadline=NOW + 9 * HOUR))  # 0.9 quantiles: 270, 315
    assert (lanes(decision), windows(decision)) == (["background"], ["8h"])


@pytest.mark.parametrize(
    ("hours", "words"),
    [
        (9, "but that is too soon for the Batch API, so it goes to the 8h window of the background lane, about 39 %"),
        (
            1.5,
            "goes to the 2h window of the background lane, about 24 % cheaper, and to a plain call if it is not done",
        ),
    ],
)
def test_the_reason_names_the_window(hours: float, words: str) -> None:
    assert words in way(there(deadline=NOW + hours * HOUR), wait_s=NIGHT_S).reason


def test_without_a_batch_api_the_window_is_taken_though_it_could_wait() -> None:
    reason = way(there(has_batch=False)).reason
    assert "with no deadline it could wait, but this server has no Batch API, so it goes to the 8h window" in reason


def test_a_rule_can_force_the_lane(tmp_path: Path) -> None:
    rule = '[[rule]]\nname = "night"\nlane = "background"\nwhy = "it is cheap"\n'
    file = tmp_path / "mine.toml"
    head, _, rest = SHIPPED.read_text(encoding="utf-8").partition("[[rule]]")
    file.write_text(f"{head}{rule}[[rule]]{rest}", encoding="utf-8")
    policy = load(file)
    assert windows(way(there(), policy=policy)) == ["8h"]
    for other in (there(interactive=True), there(tool_loop_step=True), facts()):
        assert lanes(way(other, policy=policy)) in (["stream"], ["sync"], ["batch"])


def test_a_policy_from_before_the_windows_gets_the_shipped_numbers(tmp_path: Path) -> None:
    lines = SHIPPED.read_text(encoding="utf-8").splitlines(keepends=True)
    old = [line for line in lines if not line.startswith(("background_", "cancel_background_s"))]
    (tmp_path / "old.toml").write_text("".join(old), encoding="utf-8")
    assert load(tmp_path / "old.toml") == POLICY


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("background_2h_s = { p50 = 3600, p95 = 60 }", "'p95' is the slow end"),
        ("background_8h_s = 7", "'background_8h_s' must be a table"),
    ],
)
def test_a_wrong_prior_is_named(tmp_path: Path, line: str, words: str) -> None:
    key = line.partition(" ")[0]
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    (tmp_path / "mine.toml").write_text("\n".join(line if one.startswith(key) else one for one in lines))
    with pytest.raises(UsageError, match=words):
        load(tmp_path / "mine.toml")


# ---- properties ----


@given(ANY_FACTS, PRICE, st.floats(0, 100_000))
def test_whoever_waits_never_waits_for_a_window(given_: Facts, nano: int | None, wait_s: float) -> None:
    decision = way(given_, nano=nano, wait_s=wait_s)
    if given_.waits or not given_.has_background:
        assert decision.lane is not Lane.BACKGROUND
    assert all((step.window is not None) == (step.lane is Lane.BACKGROUND) for step in decision.plan)


@given(ANY_FACTS, st.integers(0, 100_000), st.floats(0, 100_000), st.floats(1, 200_000), st.floats(1, 200_000))
def test_a_later_deadline_never_costs_more_behind_a_window(
    given_: Facts, nano: int, wait_s: float, one: float, other: float
) -> None:
    sooner, later = (NOW + timedelta(seconds=seconds) for seconds in sorted((one, other)))
    costs = [way(given_._replace(deadline=at), nano=nano, wait_s=wait_s).cost_nano or 0 for at in (sooner, later)]
    assert costs[1] <= costs[0]
