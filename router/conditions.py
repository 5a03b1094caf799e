"""What a rule may look at: the facts of a request, in one table, and the conditions that are made of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import eq, ge, lt
from typing import Any, Literal, NamedTuple

from router.decision import Facts
from router.tables import Table

Test = Literal["is", "any", "below", "at_least", "has"]
ENDINGS: tuple[Test, ...] = ("below", "at_least")


class Fact(NamedTuple):
    """What kind of value a fact has, and what it says."""

    kind: type
    says: str


# Numbers take `_below` and `_at_least`; words take a list, any of which will do. `shunter policy facts` shows this.
FACTS: dict[str, Fact] = {
    "interactive": Fact(bool, "a person is waiting"),
    "tool_loop_step": Fact(bool, "a program waits for the answer to take its next step: a tool's result came last"),
    "seconds_left": Fact(float, "to the deadline; endless without one"),
    "priority": Fact(int, "-1000 to 1000, 0 if not given"),
    "tags": Fact(dict, 'the request has all of these: { team = "search" }'),
    "model": Fact(str, "as it was asked for"),
    "provider": Fact(str, "openai, or anthropic"),
    "has_batch": Fact(bool, "the server has a Batch API; neither true nor false fits while that is not known"),
    "has_background": Fact(bool, "it has OpenAI's windows (2h, 8h), and this request can be answered in one"),
    "has_flex": Fact(bool, "it sells this model in its flex tier"),
    "structured": Fact(bool, "the answer is of use only as a whole: a schema, JSON mode, a forced tool, …"),
    "schema": Fact(bool, "the answer must fit a JSON Schema"),
    "tools": Fact(int, "how many tools it offers"),
    "images": Fact(bool, "it has images in it"),
    "post_process": Fact(bool, "a command takes the answer"),
    "input_tokens": Fact(int, "what is sent: counted for a prompt where the vocabulary is known, else estimated"),
    "output_p50": Fact(int, "tokens of the answer: half of such answers have at most so many"),
    "output_p90": Fact(int, "tokens of the answer: nine of ten have at most so many"),
    "group": Fact(int, "rows of the file that it came with; 1 for a prompt"),
    "spent_today_usd": Fact(float, "what the attempts of this day have cost so far; unknown costs by what is at risk"),
    "hour": Fact(int, "of the day, 0 to 23, in this machine's time zone"),
}


def words(kind: type) -> str:
    """What values of a kind look like in the file."""
    return {bool: "true, false", str: "a word, or a list of words", dict: "a table"}.get(
        kind, "a number; _below, _at_least"
    )


_HOLDS: dict[Test, Callable[[Any, Any], object]] = {
    "is": eq,
    "any": lambda fact, wanted: fact in wanted,
    "below": lt,
    "at_least": ge,
    "has": lambda fact, wanted: all(pair in fact for pair in wanted),
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
        return bool(_HOLDS[self.test](fact, self.value))


def conditions_of(rule: Table) -> Iterator[Condition]:
    """The conditions under `when`; what is wrong with them is noted in the table's source."""
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
    kind = FACTS[fact].kind if fact in FACTS else None
    numeric = kind in (int, float)
    if kind is None or (test != "is" and not numeric) or (fact == "seconds_left" and test == "is"):
        when.wrong(f"unknown condition '{key}' (facts: {', '.join(FACTS)})", key)
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
