"""A policy as data: its values, and how they are read from TOML with every mistake named."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from statistics import NormalDist
from typing import Any

from db.states import Lane, Tier
from jobs.chat import Handling, Request
from jobs.errors import UsageError
from jobs.providers import PROVIDERS, Timeouts
from router.conditions import Condition, conditions_of
from router.decision import Facts
from router.estimate import Z95, Priors, Spread
from router.tables import Source, Table
from router.when import duration

CLASSES = ("interactive-long", "short", "structured-output", "bulk")
LANES = (Lane.STREAM, Lane.SYNC, Lane.BATCH, Lane.BACKGROUND)
SHIPPED = Path(__file__).with_name("policy.toml")
WINDOWS = {"2h": "background_2h_s", "8h": "background_8h_s"}  # to the key of their prior
NEWER = {
    "leave": ("cancel_background_s", "sure_alone"),
    "priors": (*WINDOWS.values(), "flex_times", "flex_refused", "batch_lost"),
}  # than files that people may have


@dataclass(frozen=True, slots=True)
class Rule:
    """What holds for the requests that meet all its conditions: its effects, of which it has at least one.

    `model`, `provider`, `deadline_s` and `timeouts` change the request itself, before it is decided.
    """

    name: str
    why: str
    when: tuple[Condition, ...] = ()
    class_: str | None = None
    lane: Lane | None = None
    tier: Tier | None = None
    refuse: bool = False
    model: str | None = None
    provider: str | None = None
    deadline_s: float | None = None  # from now, for a request without one
    timeouts: Mapping[str, float] = field(default_factory=dict)  # seconds, for a request that does not say them
    forces_slow: bool = field(init=False)

    def __post_init__(self) -> None:
        slow = self.lane in (Lane.BATCH, Lane.BACKGROUND) or self.tier is Tier.FLEX
        object.__setattr__(self, "forces_slow", slow)

    def fits(self, facts: Facts, seconds_left: float) -> bool:
        """Whether all conditions hold; a rule that forces a slow lane or tier fits only where that can be."""
        if self.forces_slow and not self._can_force(facts):
            return False
        for condition in self.when:  # noqa: SIM110 - quicker, and asked of every rule for every request
            if not condition.holds(facts, seconds_left):
                return False
        return True

    def _can_force(self, facts: Facts) -> bool:
        """Whether the slow lane or tier is there, and nobody waits."""
        if facts.waits or (self.lane is Lane.BATCH and facts.has_batch is False):
            return False
        if self.lane is Lane.BACKGROUND and not facts.has_background:
            return False
        return self.tier is not Tier.FLEX or facts.has_flex

    @property
    def changes_request(self) -> bool:
        """Whether it changes the request itself."""
        return bool(self.model or self.provider or self.deadline_s or self.timeouts)

    @property
    def effective(self) -> bool:
        """Whether it has any effect."""
        return bool(self.class_ or self.lane or self.tier or self.refuse or self.changes_request)


@dataclass(frozen=True)
class Policy:
    """The rules and the numbers that decisions rest on; `router.rules.load` reads one from a file."""

    name: str
    confidence: float  # the wanted chance to be done by the deadline
    confidence_z: float  # the same as a quantile of the standard normal distribution
    cancel_s: float  # what leaving a batch takes, until the rows without an answer are known
    cancel_background_s: float  # the same for a response in the background
    sync_times: float  # how many slow plain calls must still fit in after leaving a batch
    sure_alone: float  # the chance that a slow lane must have to be done by the deadline where it is never left
    least_chance: float  # a batch that is less likely than this to be done before it is left is not begun
    timeouts: Timeouts
    priors: Priors
    rules: tuple[Rule, ...]

    @cached_property
    def looks_at(self) -> frozenset[str]:
        """The facts that some rule asks for: others need not be found out."""
        return frozenset(condition.fact for rule in self.rules for condition in rule.when)

    @cached_property
    def changes_requests(self) -> bool:
        """Whether a rule may change a request."""
        return any(rule.changes_request for rule in self.rules)

    @cached_property
    def has_fast(self) -> bool:
        """Whether a rule may force the fast tier."""
        return any(rule.tier is Tier.FAST for rule in self.rules)


def changed_by(rules: Sequence[Rule], request: Request, now: datetime) -> Request:
    """The request as these rules want it; the first one counts that names a thing, and the request's own word first."""
    model = next((rule.model for rule in rules if rule.model), request.model)
    after_s = next((rule.deadline_s for rule in rules if rule.deadline_s), None)
    deadline = request.deadline or (now + timedelta(seconds=after_s) if after_s else None)
    timeouts = {name: seconds for rule in reversed(rules) for name, seconds in rule.timeouts.items()}
    handling = Handling.model_validate(timeouts | request.handling.model_dump(exclude_none=True))
    return request.model_copy(update={"model": model, "deadline": deadline, "handling": handling})


def told(rules: Sequence[Rule]) -> str:
    """What these rules change, in words."""
    words = []
    for rule in rules:
        effects = {
            "model": rule.model,
            "provider": rule.provider,
            "deadline": rule.deadline_s and f"{rule.deadline_s:g} s",
            "timeouts": rule.timeouts and "timeouts",
        }
        said = ", ".join(name if name == value else f"{name} {value}" for name, value in effects.items() if value)
        words.append(f"Rule '{rule.name}' gives it {said}, since {rule.why}.")
    return " ".join(words)


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
        confidence=confidence,
        confidence_z=Z95 if confidence == 0.95 else NormalDist().inv_cdf(confidence),
        cancel_s=leave.number("cancel_s", 0),
        cancel_background_s=leave.number("cancel_background_s", 0),
        sync_times=leave.number("sync_times", 0),
        sure_alone=leave.number("sure_alone", 0, 1),
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
    flex = Spread(*_pair(table, "flex_times"))
    shares = [table.number(name, 0, 0.5) for name in ("flex_refused", "batch_lost")]
    table.end()
    return Priors(Spread(*first), Spread(1 / median, 1 / slow), Spread(*batch), windows, flex, *shares)


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
        when=tuple(conditions_of(table)),
        class_=table.word("class", CLASSES),
        lane=Lane(word) if (word := table.word("lane", [lane.value for lane in LANES])) else None,
        tier=Tier(word) if (word := table.word("tier", [tier.value for tier in Tier])) else None,
        refuse=table.take("refuse", bool, default=False),
        model=table.take("model", str, default="") or None,
        provider=table.word("provider", tuple(PROVIDERS)),
        deadline_s=_deadline(table),
        timeouts=_some_timeouts(table),
    )
    table.end()
    if before == table.source.found:
        if not rule.effective:
            table.wrong("has no effect; give it a class, a lane, a tier, a model, a deadline … or refuse = true")
        elif rule.tier not in (None, Tier.DEFAULT) and rule.lane in (Lane.BATCH, Lane.BACKGROUND):
            table.wrong(f"the {rule.lane.value} lane has no tiers; leave out the lane or the tier", "tier")
    return rule


def _deadline(table: Table) -> float | None:
    text = table.take("deadline", str, default="")
    if not text:
        return None
    try:
        return duration(text).total_seconds()
    except UsageError:
        table.wrong(f"deadline is {text!r}: write how long after its submit, such as 30m, 6h or 2d", "deadline")
        return None


def _some_timeouts(rule: Table) -> dict[str, float]:
    table = Table(rule.source, rule.take("timeouts", dict, default={}), (*rule.where, "timeouts"), rule.name)
    found: dict[str, float] = {}
    for name in ("first_token", "idle", "total"):
        if name in table.data:
            found[name] = table.number(name, 0)
    table.end()
    return found
