"""A policy as data: its values, and how they are read from TOML with every mistake named."""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

from db.states import Lane
from jobs.providers import Timeouts
from router.decision import Facts
from router.estimate import Priors, Spread
from router.tables import Source, Table

CLASSES = ("interactive-long", "short", "structured-output", "bulk")
LANES = (Lane.STREAM, Lane.SYNC, Lane.BATCH, Lane.BACKGROUND)
SHIPPED = Path(__file__).with_name("policy.toml")
WINDOWS = {"2h": "background_2h_s", "8h": "background_8h_s"}  # to the key of their prior
NEWER = {"leave": ("cancel_background_s",), "priors": tuple(WINDOWS.values())}  # than files that people may have
Test = Literal["is", "any", "below", "at_least", "has"]
ENDINGS: tuple[Test, ...] = ("below", "at_least")

# What a condition may look at. Numbers take `_below` and `_at_least`; words take a list, any of which will do.
CONDITIONS: dict[str, type] = {
    "interactive": bool,
    "structured": bool,
    "tool_loop_step": bool,
    "has_batch": bool,
    "has_background": bool,
    "seconds_left": float,  # to the deadline; endless without one
    "input_tokens": int,
    "output_p50": int,
    "output_p90": int,
    "priority": int,
    "provider": str,
    "model": str,
    "tags": dict,  # all of these tags
}


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that a rule asks of a fact; `fact` is a field of Facts, or `seconds_left` to the deadline."""

    fact: str
    test: Test
    value: Any

    def holds(self, facts: Facts, seconds_left: float) -> bool:
        """Whether the fact is as asked."""
        fact: Any = seconds_left if self.fact == "seconds_left" else getattr(facts, self.fact)
        match self.test:
            case "is":
                return bool(fact == self.value)
            case "any":
                return fact in self.value
            case "below":
                return bool(fact < self.value)
            case "at_least":
                return bool(fact >= self.value)
            case "has":
                return all(pair in fact for pair in self.value)


@dataclass(frozen=True, slots=True)
class Rule:
    """What holds for the requests that meet all its conditions: a class, a lane that is forced, or a refusal."""

    name: str
    why: str
    when: tuple[Condition, ...] = ()
    class_: str | None = None
    lane: Lane | None = None
    refuse: bool = False

    def fits(self, facts: Facts, seconds_left: float) -> bool:
        """Whether all conditions hold; a rule that forces a slow lane fits only where that can be."""
        if self.lane is Lane.BATCH and (facts.waits or facts.has_batch is False):
            return False
        if self.lane is Lane.BACKGROUND and (facts.waits or not facts.has_background):
            return False
        return all(condition.holds(facts, seconds_left) for condition in self.when)


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules and the numbers that decisions rest on; `router.rules.load` reads one from a file."""

    name: str
    confidence_z: float  # the wanted confidence, as a quantile of the standard normal distribution
    cancel_s: float  # what leaving a batch takes, until the rows without an answer are known
    cancel_background_s: float  # the same for a response in the background
    sync_times: float  # how many slow plain calls must still fit in after leaving a batch
    least_chance: float  # a batch that is less likely than this to be done before it is left is not begun
    timeouts: Timeouts
    priors: Priors
    rules: tuple[Rule, ...]


def load(path: Path | None = None) -> Policy:
    """The policy in a file, or the shipped one; UsageError names every mistake with its file, line, rule and key."""
    source = Source(path or SHIPPED, "policy")
    policy = _policy(Table(source, source.data if source.path == SHIPPED else _up_to_date(source.data)))
    source.end()
    return policy


def _up_to_date(data: dict[str, Any]) -> dict[str, Any]:
    """The policy with the shipped numbers for what was not known when its file was written."""
    shipped = tomllib.loads(SHIPPED.read_text(encoding="utf-8"))
    tables = [name for name in NEWER if isinstance(data.get(name), dict)]
    return data | {name: {key: shipped[name][key] for key in NEWER[name]} | data[name] for name in tables}


def _policy(top: Table) -> Policy:
    name, confidence = top.take("name", str), top.number("confidence", 0.5, 0.999)
    leave = top.table("leave")
    policy = Policy(
        name=name,
        confidence_z=NormalDist().inv_cdf(confidence),
        cancel_s=leave.number("cancel_s", 0),
        cancel_background_s=leave.number("cancel_background_s", 0),
        sync_times=leave.number("sync_times", 0),
        least_chance=leave.number("least_chance", 0, 1),
        timeouts=_timeouts(top.table("timeouts")),
        priors=_priors(top.table("priors")),
        rules=tuple(_rules(top)),
    )
    leave.end()
    top.end()
    return policy


def _timeouts(table: Table) -> Timeouts:
    timeouts = Timeouts(**{name: table.number(name, 0) for name in ("first_token", "idle", "total", "connect")})
    table.end()
    return timeouts


def _priors(table: Table) -> Priors:
    first, (median, slow), batch = (
        _pair(table, "first_token_s"), _pair(table, "tokens_per_s", falling=True), _pair(table, "batch_s"),
    )  # fmt: skip
    windows = {window: Spread(*_pair(table, key)) for window, key in WINDOWS.items()}
    table.end()
    return Priors(Spread(*first), Spread(1 / median, 1 / slow), Spread(*batch), windows)


def _pair(table: Table, key: str, *, falling: bool = False) -> tuple[float, float]:
    """The median and the slow end: more seconds, or (`falling`) less a second."""
    pair, before = table.table(key), table.source.found
    p50, p95 = pair.number("p50", 0), pair.number("p95", 0)
    pair.end()
    if before == table.source.found and (p95 > p50 if falling else p95 < p50):
        pair.wrong("'p95' is the slow end, so it cannot be quicker than 'p50'", "p95")
    return p50, p95


def _rules(top: Table) -> list[Rule]:
    tables, before = top.tables("rule", "rule"), top.source.found
    rules = [_rule(table) for table in tables]
    if before == top.source.found and (not rules or rules[-1].when or rules[-1].class_ is None):
        where = tables[-1] if tables else top
        where.wrong("the last rule must name a class and have no 'when', so that it fits everything")
    return rules


def _rule(table: Table) -> Rule:
    before = table.source.found
    name = table.take("name", str)
    table.name += f" ('{name}')" if name else ""
    rule = Rule(
        name=name,
        why=table.take("why", str),
        when=tuple(_conditions(table)),
        class_=table.word("class", CLASSES),
        lane=Lane(word) if (word := table.word("lane", [lane.value for lane in LANES])) else None,
        refuse=table.take("refuse", bool, default=False),
    )
    table.end()
    if before == table.source.found and not (rule.class_ or rule.lane or rule.refuse):
        table.wrong("has no effect; give it a class, a lane or refuse = true")
    return rule


def _conditions(rule: Table) -> Iterator[Condition]:
    when = Table(rule.source, rule.take("when", dict, default={}), (*rule.where, "when"), rule.name)
    for key in when.data:
        if (condition := _condition(key, when)) is not None:
            yield condition


def _condition(key: str, when: Table) -> Condition | None:
    fact = key
    test: Test = "is"
    for ending in ENDINGS:
        if key.endswith(f"_{ending}"):
            fact, test = key.removesuffix(f"_{ending}"), ending
    kind = CONDITIONS.get(fact)
    numeric = kind in (int, float)
    if kind is None or (test != "is" and not numeric) or (fact == "seconds_left" and test == "is"):
        when.wrong(f"unknown condition '{key}' (facts: {', '.join(CONDITIONS)})", key)
        return None
    value = when.data[key]
    if kind is dict:
        return Condition(fact, "has", tuple(_checked(key, value, kind, when).items()))
    if isinstance(value, list) and test == "is":
        return Condition(fact, "any", tuple(_checked(key, one, kind, when) for one in value))
    return Condition(fact, test, _checked(key, value, kind, when))


def _checked(key: str, value: Any, kind: type, when: Table) -> Any:
    one = Table(when.source, {key: value}, when.where, when.name)
    return one.take(key, kind, *((int,) if kind is float else ()))
