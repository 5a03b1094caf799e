"""Every fault drill of the sandbox that touches an answer, and how a call ends under it in each format."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jobs.chat import Outcome
from jobs.providers import Timeouts
from tests.conformance import Format
from tests.conformance_calls import FIRST, IDLE, SOON
from tests.stream_wire import SLOW

Ended = tuple[Outcome, str | None]  # with its error code

COMPLETE: Ended = Outcome.COMPLETE, None
TRUNCATED: Ended = Outcome.TRUNCATED, None
REFUSED: Ended = Outcome.REFUSED, None
FILTERED: Ended = Outcome.FILTERED, None
CUT: Ended = Outcome.CUT, "cut"
MALFORMED: Ended = Outcome.MALFORMED, "malformed"
NO_FIRST: Ended = Outcome.TIMED_OUT, "first_token_timeout"
IDLED: Ended = Outcome.TIMED_OUT, "idle_timeout"
TOO_LONG: Ended = Outcome.TIMED_OUT, "total_timeout"


def told(code: str) -> Ended:
    return Outcome.PROVIDER_ERROR, code


@dataclass(frozen=True, slots=True)
class Drill:
    """A fault, how a streamed and a plain call end under it, and which formats end otherwise (streamed, plain)."""

    spec: str
    streamed: Ended
    plain: Ended
    timeouts: Timeouts = SLOW
    but: Mapping[str, tuple[Ended, Ended]] = field(default_factory=dict)
    words: bool | None = None  # whether a stream has shown some; None: as for a call without a drill
    usage: bool = True  # whether a usable answer tells its tokens

    def ended(self, form: Format, *, plain: bool) -> Ended:
        return self.but.get(form.name, (self.streamed, self.plain))[plain]

    def within(self, *, plain: bool) -> Timeouts:
        """A plain call has one time, the total."""
        return replace(self.timeouts, total=SOON) if plain and self.plain == TOO_LONG else self.timeouts

    @property
    def kind(self) -> str:
        return self.spec.partition(";")[0]


OVERLOADED = told("overloaded_error")


def _drills(*drills: Drill) -> dict[str, Drill]:
    return {drill.spec: drill for drill in drills}


DRILLS = _drills(
    Drill("status;status=429;retry_after=3", told("rate_limit_exceeded"), told("rate_limit_exceeded"), words=False,
          but={"anthropic": (told("rate_limit_error"),) * 2}),
    Drill("status;status=500", told("server_error"), told("server_error"), words=False,
          but={"anthropic": (told("api_error"),) * 2}),
    Drill("drop;how=fin", CUT, CUT, words=False),
    Drill("drop;how=rst", CUT, CUT, words=False),
    Drill("drop;how=hang", NO_FIRST, TOO_LONG, FIRST, words=False),
    Drill("null_body", MALFORMED, MALFORMED, words=False),
    Drill("html_body", MALFORMED, MALFORMED, words=False),
    Drill("slow_first_token;seconds=0.05", COMPLETE, COMPLETE),
    Drill("slow_first_token;seconds=60", NO_FIRST, TOO_LONG, FIRST, words=False),
    Drill("cut;how=fin", CUT, CUT, words=False),
    Drill("cut;after=3;how=fin", CUT, CUT, words=True),
    Drill("cut;after=3;how=rst", CUT, CUT, words=True),
    Drill("silence", NO_FIRST, TOO_LONG, FIRST, words=False),
    Drill("silence;after=3", IDLED, TOO_LONG, IDLE, words=True),
    Drill("malformed", MALFORMED, MALFORMED, words=False),
    Drill("malformed;after=3", MALFORMED, MALFORMED, words=True),
    Drill("no_usage", COMPLETE, COMPLETE, usage=False),
    Drill("no_finish", CUT, CUT),
    Drill("refusal", REFUSED, REFUSED),
    Drill("length", TRUNCATED, TRUNCATED, words=True),
    Drill("content_filter", FILTERED, FILTERED, words=True, but={"anthropic": (REFUSED, REFUSED)}),
    Drill("stream_error", told("server_is_overloaded"), COMPLETE, words=False,
          but={"anthropic": (OVERLOADED, COMPLETE)}),
    Drill("stream_error;after=3", told("server_is_overloaded"), COMPLETE, words=True,
          but={"anthropic": (OVERLOADED, COMPLETE)}),
    Drill("stream_error;after=3;shape=flat", told("server_is_overloaded"), COMPLETE, words=True,
          but={"anthropic": (OVERLOADED, COMPLETE)}),
    Drill("no_done", COMPLETE, COMPLETE, but={"responses": (CUT, COMPLETE)}),  # its end is its finish
    Drill("empty_stream", CUT, COMPLETE, words=False),
    Drill("malformed_arguments", COMPLETE, COMPLETE),
)  # fmt: skip
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}  # fmt: skip
FORCED: dict[str, Any] = {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "weather"}}}
