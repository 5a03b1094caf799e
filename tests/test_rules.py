"""Policies as files: what rules can ask and do, and every mistake named."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from db.states import Lane
from jobs.chat import Request
from jobs.errors import Refused, UsageError
from router.conditions import FACTS
from router.estimate import Size, estimate
from router.policy import Decision, Facts, Policy, decide
from router.rules import SHIPPED, load

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)

LAST = '[[rule]]\nname = "rest"\nclass = "interactive-long"\nwhy = "the answer will be long"\n'
HEAD = SHIPPED.read_text(encoding="utf-8").split("[[rule]]")[0]


def facts(**given: Any) -> Facts:
    request = Request(model="gpt-6-luna", messages=[{"role": "user", "content": "Go."}])
    return Facts.of(request, Size(1000, 300, 700), provider="openai", has_batch=None)._replace(**given)


def way(given: Facts, policy: Policy) -> Decision:
    size = Size(given.input_tokens, given.output_p50, given.output_p90)
    there = {name: getattr(given, name) for name in ("has_batch", "has_background", "has_flex")}
    times = policy.priors.times(size)
    lanes = estimate(size, cost=lambda usage, lane, tier: None, times=times, with_fast=policy.has_fast, **there)
    return decide(given, lanes, policy, NOW)


def lanes(decision: Decision) -> list[str]:
    return [step.lane.value for step in decision.plan]


@pytest.fixture
def policy(tmp_path: Path) -> Any:
    """Loads the shipped numbers with these rules before a last one."""

    def read(rules: str, head: str = HEAD, last: str = LAST) -> Any:
        file = tmp_path / "mine.toml"
        file.write_text(f"{head}\n{rules}\n{last}", encoding="utf-8")
        return load(file)

    return read


def rule(**keys: str) -> str:
    words = {"name": '"mine"', "why": '"so it is"', **keys}
    return "[[rule]]\n" + "\n".join(f"{key} = {value}" for key, value in words.items()) + "\n"


def test_the_shipped_policy_has_the_four_classes() -> None:
    shipped = load()
    assert [one.class_ for one in shipped.rules] == ["bulk", "structured-output", "short", "interactive-long"]
    assert shipped.confidence_z == pytest.approx(1.645, abs=0.001)
    assert (shipped.timeouts.first_token, shipped.timeouts.idle, shipped.timeouts.total) == (120, 60, 900)


def test_every_fact_is_one_of_the_request_and_is_explained() -> None:
    inside = {"deadline", "lane_asked", "max_cost_nano", "changed", "counted"}  # what the choice looks at, and no rule
    assert set(FACTS) == {*Facts._fields, "seconds_left"} - inside
    assert all(fact.says for fact in FACTS.values())


@pytest.mark.parametrize(
    ("when", "yes", "no"),
    [
        ("interactive = true", {"interactive": True}, {}),
        ("has_batch = true", {"has_batch": True}, {"has_batch": None}),
        ("has_background = true", {"has_background": True}, {}),
        ("output_p50_below = 100", {"output_p50": 99}, {"output_p50": 100}),
        ("input_tokens_at_least = 100", {"input_tokens": 100}, {"input_tokens": 99}),
        ("priority = 5", {"priority": 5}, {"priority": 6}),
        ('model = ["a", "b"]', {"model": "b"}, {"model": "c"}),
        ('provider = "anthropic"', {"provider": "anthropic"}, {"provider": "openai"}),
        ('tags = { team = "x" }', {"tags": (("team", "x"), ("z", "1"))}, {"tags": (("team", "y"),)}),
        ("seconds_left_below = 60", {"deadline": NOW + timedelta(seconds=59)}, {}),
        ("seconds_left_at_least = 60", {}, {"deadline": NOW + timedelta(seconds=59)}),
    ],
)
def test_conditions(policy: Any, when: str, yes: dict[str, Any], no: dict[str, Any]) -> None:
    mine = policy(rule(when=f"{{ {when} }}", **{"class": '"short"'}))
    assert way(facts(**yes), mine).rule == "mine"
    assert way(facts(**no), mine).rule == "rest"


def test_the_first_rule_that_fits_wins(policy: Any) -> None:
    mine = policy(rule(**{"class": '"short"'}) + rule(name='"second"', **{"class": '"bulk"'}))
    assert way(facts(), mine).rule == "mine"


def test_a_rule_can_force_a_lane_and_leave_the_class_to_others(policy: Any) -> None:
    mine = policy(rule(lane='"sync"'))
    decision = way(facts(), mine)
    assert (decision.rule, decision.class_, lanes(decision)) == ("mine", "interactive-long", ["sync"])
    assert "so it is" in decision.reason
    assert way(facts(lane_asked=Lane.BATCH), mine).rule == "asked"


def test_a_rule_for_the_batch_lane_leaves_alone_who_waits(policy: Any) -> None:
    mine = policy(rule(lane='"batch"'))
    assert lanes(way(facts(deadline=datetime(2026, 11, 22, 13, tzinfo=UTC)), mine)) == ["batch"]
    for other in (facts(interactive=True), facts(tool_loop_step=True), facts(has_batch=False)):
        assert lanes(way(other, mine)) in (["stream"], ["sync"])


def test_a_rule_can_refuse(policy: Any) -> None:
    mine = policy(rule(when='{ tags = { team = "x" } }', refuse="true"))
    assert way(facts(), mine)
    for asked in (None, Lane.SYNC):
        with pytest.raises(Refused, match=r"'mine'.*so it is"):
            way(facts()._replace(tags=(("team", "x"),), lane_asked=asked), mine)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (rule(when="{ interactve = true }", **{"class": '"short"'}), "rule 1 ('mine').*'interactve'"),
        (rule(when="{ interactive_below = 1 }", **{"class": '"short"'}), "'interactive_below'"),
        (rule(when="{ seconds_left = 1 }", **{"class": '"short"'}), "'seconds_left'"),
        (rule(when='{ interactive = "yes" }', **{"class": '"short"'}), "'interactive' must be true or false"),
        (rule(when="{ priority = 1.5 }", **{"class": '"short"'}), "'priority' must be a whole number"),
        (rule(when="{ model = [1] }", **{"class": '"short"'}), "'model' must be a text"),
        (rule(**{"class": '"fast"'}), "'class' must be one of interactive-long, short"),
        (rule(lane='"siding"'), "'lane' must be one of stream, sync, batch, background"),
        (rule(), "no effect"),
        (rule(clas='"short"', refuse="true"), "unknown key 'clas'"),
        ('[[rule]]\nclass = "short"\n', "rule 1: 'name' is missing"),
        ('[[rule]]\nname = "x"\nclass = "short"\n', "'why' is missing"),
        ("[[rule]\n", "line"),
    ],
)
def test_a_mistake_in_a_rule_is_named(policy: Any, rules: str, words: str) -> None:
    with pytest.raises(UsageError, match=rf"mine\.toml.*{words.replace('(', '.').replace(')', '.')}"):
        policy(rules)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("confidence = 0.95", "confidence = 1.5", "'confidence' must be more than 0.5 and at most 0.999"),
        ("confidence = 0.95", "confidence = true", "'confidence' must be a number"),
        ("confidence = 0.95", "", "'confidence' is missing"),
        ("confidence = 0.95", "confidence = nan", "'confidence' must be"),
        ("idle = 60", "idle = 0", "timeouts: 'idle' must be more than 0"),
        ("idle = 60", "idel = 60", "timeouts: 'idle' is missing"),
        ("connect = 5", "connect = 5\nread = 5", "timeouts: unknown key 'read'"),
        ("p50 = 2400", "p50 = 90000", "'p95' is the slow end"),
    ],
)
def test_a_mistake_in_a_number_is_named(policy: Any, old: str, new: str, words: str) -> None:
    assert old in HEAD
    with pytest.raises(UsageError, match=words):
        policy("", head=HEAD.replace(old, new))


MISTAKES = """
[[rule]]
name = "one"
why = '''
class = "a text, not a key"'''
clas = "short"
when = { interactve = true, priority = "high" }

[[rule]]
name = "two"
class = "fast"
[rule.when]
model = [
  1,
]
"""


def test_every_mistake_is_named_with_its_line(policy: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        policy(MISTAKES, head=HEAD.replace("idle = 60", "idle = 0").replace("connect = 5", "connect = 5\nread = 5"))
    lines = (tmp_path / "mine.toml").read_text().splitlines()
    said = []
    for told in str(caught.value).splitlines():
        line, table, text = told.rsplit("mine.toml:", 1)[1].split(":", 2)
        said.append((lines[int(line) - 1].split(" =")[0], table.strip(), text.split(" (")[0].strip()))
    assert said == [
        ("idle", "timeouts", "'idle' must be more than 0, not 0"),
        ("read", "timeouts", "unknown key 'read'"),
        ("clas", "rule 1 ('one')", "unknown key 'clas'"),
        ("when", "rule 1 ('one')", "'priority' must be a whole number, not 'high'"),
        ("when", "rule 1 ('one')", "unknown condition 'interactve'"),
        ("[[rule]]", "rule 2 ('two')", "'why' is missing"),
        (
            "class",
            "rule 2 ('two')",
            "'class' must be one of interactive-long, short, structured-output, bulk, not 'fast'",
        ),
        ("model", "rule 2 ('two')", "'model' must be a text, not 1"),
    ]


def test_the_last_rule_must_fit_everything(policy: Any) -> None:
    for last in (rule(when="{ interactive = true }", **{"class": '"short"'}), rule(lane='"sync"')):
        with pytest.raises(UsageError, match="last rule"):
            policy("", last=last)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.toml"):
        load(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"bad\.toml"):
        load(tmp_path / "bad.toml")
