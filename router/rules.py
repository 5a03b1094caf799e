"""A policy as data: its values, and how they are read from TOML with every mistake named."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

from db.states import Lane
from jobs.errors import UsageError
from jobs.providers import Timeouts
from router.decision import Facts
from router.estimate import Priors, Spread

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
    """The policy in a file, or the shipped one; UsageError names the file, the rule and the key of a mistake."""
    path = path or SHIPPED
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise _mistake(f"{path}: cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise _mistake(f"{path}: {error}") from error
    return _policy(_Table(data if path == SHIPPED else _up_to_date(data), str(path)))


def _up_to_date(data: dict[str, Any]) -> dict[str, Any]:
    """The policy with the shipped numbers for what was not known when its file was written."""
    shipped = tomllib.loads(SHIPPED.read_text(encoding="utf-8"))
    tables = [name for name in NEWER if isinstance(data.get(name), dict)]
    return data | {name: {key: shipped[name][key] for key in NEWER[name]} | data[name] for name in tables}


def _mistake(message: str) -> UsageError:
    return UsageError(message, code="policy")


class _Table:
    """A TOML table that is read key by key; what is left over at the end was misspelt."""

    def __init__(self, data: dict[str, Any], where: str) -> None:
        self.data = dict(data)
        self.where = where
        self.known: list[str] = []

    def take(self, key: str, *kinds: type, default: Any = None) -> Any:
        """The value of a key, of one of these kinds; a key without a default must be there."""
        self.known.append(key)
        value = self.data.pop(key, default)
        if value is None:
            raise _mistake(f"{self.where}: '{key}' is missing")
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise _mistake(f"{self.where}: '{key}' must be {_article(kinds[0])}, not {value!r}")
        return value

    def number(self, key: str, low: float, high: float = float("inf")) -> float:
        """A number above `low` and up to `high`."""
        value = float(self.take(key, float, int))
        if not low < value <= high:
            limit = f" and at most {high:g}" if high < float("inf") else ""
            raise _mistake(f"{self.where}: '{key}' must be more than {low:g}{limit}, not {value:g}")
        return value

    def word(self, key: str, words: tuple[str, ...]) -> str | None:
        """One of these words, or None where the key is absent."""
        value = self.take(key, str, default="")
        if value and value not in words:
            raise _mistake(f"{self.where}: '{key}' must be one of {', '.join(words)}, not {value!r}")
        return value or None

    def table(self, key: str) -> "_Table":
        """A table inside this one."""
        return _Table(self.take(key, dict), f"{self.where}: {key}")

    def end(self) -> None:
        """Refuse what nobody asked for."""
        for key in self.data:
            raise _mistake(f"{self.where}: unknown key '{key}' (known: {', '.join(self.known)})")


def _article(kind: type) -> str:
    return {str: "a text", float: "a number", int: "a whole number", bool: "true or false", dict: "a table"}.get(
        kind, "a list"
    )


def _policy(top: _Table) -> Policy:
    name, confidence = top.take("name", str), top.number("confidence", 0.5, 0.999)
    leave = top.table("leave")
    rules = [_rule(_Table(rule, f"{top.where}: rule {n}")) for n, rule in enumerate(_tables(top, "rule"), 1)]
    policy = Policy(
        name=name,
        confidence_z=NormalDist().inv_cdf(confidence),
        cancel_s=leave.number("cancel_s", 0),
        cancel_background_s=leave.number("cancel_background_s", 0),
        sync_times=leave.number("sync_times", 0),
        least_chance=leave.number("least_chance", 0, 1),
        timeouts=_timeouts(top.table("timeouts")),
        priors=_priors(top.table("priors")),
        rules=tuple(rules),
    )
    leave.end()
    top.end()
    if not rules or rules[-1].when or rules[-1].class_ is None:
        raise _mistake(f"{top.where}: the last rule must name a class and have no 'when', so that it fits everything")
    return policy


def _tables(top: _Table, key: str) -> list[dict[str, Any]]:
    tables: list[Any] = top.take(key, list)
    if not all(isinstance(table, dict) for table in tables):
        raise _mistake(f"{top.where}: write each rule as a table, [[{key}]]")
    return tables


def _timeouts(table: _Table) -> Timeouts:
    timeouts = Timeouts(**{name: table.number(name, 0) for name in ("first_token", "idle", "total", "connect")})
    table.end()
    return timeouts


def _priors(table: _Table) -> Priors:
    first, (median, slow), batch = (_pair(table.table(key)) for key in ("first_token_s", "tokens_per_s", "batch_s"))
    windows = {window: Spread(*_pair(table.table(key))) for window, key in WINDOWS.items()}
    table.end()
    priors = Priors(Spread(*first), Spread(1 / median, 1 / slow), Spread(*batch), windows)
    spreads = (priors.first_token_s, priors.token_s, priors.batch_s, *windows.values())
    if any(spread.p95 < spread.p50 for spread in spreads):
        raise _mistake(f"{table.where}: 'p95' is the slow end, so it cannot be quicker than 'p50'")
    return priors


def _pair(table: _Table) -> tuple[float, float]:
    pair = table.number("p50", 0), table.number("p95", 0)
    table.end()
    return pair


def _rule(table: _Table) -> Rule:
    name = table.take("name", str)
    table.where = f"{table.where} ('{name}')"
    rule = Rule(
        name=name,
        why=table.take("why", str),
        when=tuple(_conditions(table.take("when", dict, default={}), table.where)),
        class_=table.word("class", CLASSES),
        lane=Lane(word) if (word := table.word("lane", LANES)) else None,
        refuse=table.take("refuse", bool, default=False),
    )
    table.end()
    if not (rule.class_ or rule.lane or rule.refuse):
        raise _mistake(f"{table.where}: has no effect; give it a class, a lane or refuse = true")
    return rule


def _conditions(when: dict[str, Any], where: str) -> list[Condition]:
    return [_condition(key, value, where) for key, value in when.items()]


def _condition(key: str, value: Any, where: str) -> Condition:
    fact = key
    test: Test = "is"
    for ending in ENDINGS:
        if key.endswith(f"_{ending}"):
            fact, test = key.removesuffix(f"_{ending}"), ending
    kind = CONDITIONS.get(fact)
    numeric = kind in (int, float)
    if kind is None or (test != "is" and not numeric) or (fact == "seconds_left" and test == "is"):
        raise _mistake(f"{where}: unknown condition '{key}' (facts: {', '.join(CONDITIONS)})")
    if kind is dict:
        return Condition(fact, "has", tuple(_Table({"tags": value}, where).take("tags", dict).items()))
    if isinstance(value, list) and test == "is":
        return Condition(fact, "any", tuple(_checked(key, one, kind, where) for one in value))
    return Condition(fact, test, _checked(key, value, kind, where))


def _checked(key: str, value: Any, kind: type, where: str) -> Any:
    return _Table({key: value}, where).take(key, kind, *((int,) if kind is float else ()))
