"""Facts go into a decision, and a Decision comes out: the values, and their JSON. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from typing import Any, NamedTuple

import orjson

from db.money import usd
from db.states import Lane, Tier
from jobs.chat import Request
from router.estimate import Size
from router.vocabulary import Counted


def iso(moment: datetime | None) -> str | None:
    """ISO 8601 in UTC, to the second, with a Z."""
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds")[:-6] + "Z"


class Facts(NamedTuple):  # a tuple: one is made for every row of a file, and asked whether it was seen before
    """Everything that a rule may look at. Equal facts get equal decisions."""

    interactive: bool  # a person is waiting
    deadline: datetime | None
    structured: bool  # the answer is of use only as a whole
    tool_loop_step: bool  # a program waits for the answer to take its next step
    input_tokens: int
    output_p50: int  # expected tokens of the answer
    output_p90: int
    provider: str
    model: str
    priority: int
    tags: tuple[tuple[str, str], ...]
    lane_asked: Lane | None  # from --lane
    max_cost_nano: int | None  # from --max-cost
    has_batch: bool | None  # None: not known yet
    has_background: bool = False  # there are windows, and the request can be answered in one
    has_flex: bool = False  # the model is sold in the flex tier there
    schema: bool = False  # the answer must fit a JSON Schema
    tools: int = 0
    images: bool = False  # this, the hour and what was spent are found out only where a rule asks for them
    post_process: bool = False
    group: int = 1  # rows that came in with it
    hour: int = 0  # of the day, in this machine's time zone
    spent_today_usd: float = 0.0
    changed: str = ""  # what rules have changed of the request already, in a sentence
    counted: Counted | None = None  # None: its input tokens are estimated

    @classmethod
    def of(
        cls,
        request: Request,
        size: Size,
        *,
        provider: str,
        has_batch: bool | None,
        has_background: bool = False,
        has_flex: bool = False,
        lane_asked: Lane | None = None,
        max_cost_nano: int | None = None,
        group: int = 1,
        **around: Any,
    ) -> "Facts":
        """The facts of a request; `around` are those that it does not say itself.

        By place, in the order of the fields: it is half as quick by name.
        """
        made = cls(
            request.interactive,
            request.deadline,
            request.structured,
            request.tool_loop_step,
            *size,
            provider,
            request.model,
            request.priority,
            tuple(sorted(request.tags.items())) if request.tags else (),
            lane_asked,
            max_cost_nano,
            has_batch,
            has_background,
            has_flex,
            request.schema_ is not None,
            len(request.tools or ()),
            False,
            request.post_process is not None,
            group,
        )
        return made._replace(**around) if around else made

    @property
    def waits(self) -> bool:
        """Whether somebody, a person or a program, waits for the answer."""
        return self.interactive or self.tool_loop_step


@dataclass(frozen=True, slots=True)
class Step:
    """One lane of a plan, and when to leave it for the next one; None: stay to the end. `window`: background's own."""

    lane: Lane
    tier: Tier
    leave_by: datetime | None = None
    window: str | None = None

    def json(self) -> dict[str, Any]:
        facts = {"lane": self.lane.value, "tier": self.tier.value, "leave_by": iso(self.leave_by)}
        return facts | {"window": self.window}


Plan = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Option:
    """A plan that was weighed: its expected cost, its finish, and why it cannot be."""

    plan: Plan
    feasible: bool
    why_not: str | None
    cost_nano: int | None
    finish_p50: datetime
    finish_p95: datetime

    def json(self) -> dict[str, Any]:
        return {
            "plan": [step.json() for step in self.plan],
            "feasible": self.feasible,
            "why_not": self.why_not,
            "cost_usd": usd(self.cost_nano),
            "finish_p50": iso(self.finish_p50),
            "finish_p95": iso(self.finish_p95),
        }


class Told(NamedTuple):
    """What a decision says when somebody asks: its plan, and the roads not taken."""

    plan: Plan
    reason: str
    finish_by: datetime
    options: tuple[Option, ...]
    rests_on: dict[str, Any]
    at: datetime


@dataclass(eq=False)
class Decision:
    """Which way a request goes and why. `lane` and `tier` are the plan's first.

    A decision takes microseconds and its words ten times as long: they are made when they are asked for.
    """

    class_: str
    lane: Lane
    tier: Tier
    rule: str
    input_tokens: int
    output_p50: int
    output_p90: int
    cost_nano: int | None
    cost_p90_nano: int | None  # what an attempt puts at risk
    policy: str
    tell: Callable[[], Told]

    @cached_property
    def _told(self) -> Told:
        return self.tell()

    @property
    def plan(self) -> Plan:
        """The lanes that it tries, in order."""
        return self._told.plan

    @property
    def reason(self) -> str:
        """Why, in a sentence."""
        return self._told.reason

    @property
    def finish_by(self) -> datetime:
        """When it is done, 19 times of 20."""
        return self._told.finish_by

    @property
    def options(self) -> tuple[Option, ...]:
        """Every plan that was weighed."""
        return self._told.options

    @property
    def rests_on(self) -> dict[str, Any]:
        """The numbers behind its estimates."""
        return self._told.rests_on

    @property
    def at(self) -> datetime:
        """When it was decided."""
        return self._told.at

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Decision) and self._content == other._content

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def _content(self) -> list[Any]:
        return [self._json, self.input_tokens, self.policy]

    @property
    def id(self) -> str:
        """A hash of the content: equal decisions have one id."""
        return sha256(orjson.dumps(self._content, option=orjson.OPT_SORT_KEYS)).hexdigest()[:24]

    def json(self) -> dict[str, Any]:
        """The decision in its documented JSON form."""
        return {**self._json}

    @cached_property
    def _json(self) -> dict[str, Any]:
        return {
            "class": self.class_,
            "lane": self.lane.value,
            "tier": self.tier.value,
            "plan": [step.json() for step in self.plan],
            "rule": self.rule,
            "reason": self.reason,
            "expected_output_tokens": {"p50": self.output_p50, "p90": self.output_p90},
            "cost_usd": usd(self.cost_nano),
            "finish_by": iso(self.finish_by),
            "options": [option.json() for option in self.options],
        }
