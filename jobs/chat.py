"""Request, Delta, Usage, Answer: the words every provider speaks. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator

MAX_TOKENS = 10_000_000  # no model writes more; a larger number is a slip of the hand

LONGEST_TIMEOUT = 86_400.0  # seconds

_IN_BODY = ("model", "messages", "max_tokens", "tools", "tool_choice", "response_format")

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]


class Message(BaseModel):
    """One turn; `content` is text or the API's list of parts, other fields are passed on as they are."""

    model_config = ConfigDict(extra="allow", frozen=True)
    role: Role
    content: str | list[dict[str, Any]] | None = None


class OnCut(StrEnum):
    """What is done when a stream breaks after its first words."""

    KEEP = "keep"  # the job fails with what came
    RESTART = "restart"  # a new attempt, whose text replaces the old


class OnLeave(StrEnum):
    """What is done when the last reader of a stream leaves."""

    CANCEL = "cancel"  # close the connection at once; the job is cancelled
    DRAIN = "drain"  # the job is cancelled, its stream is read to the end for the true bill
    CONTINUE = "continue"  # carry on as if somebody read


IMAGES = ("image_url", "input_image", "image")  # types of a message's part


class Handling(BaseModel):
    """How a job's calls are watched over; timeouts in seconds, None for the policy's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    on_cut: OnCut = OnCut.KEEP
    on_leave: OnLeave = OnLeave.CANCEL
    first_token: float | None = Field(default=None, gt=0, le=LONGEST_TIMEOUT)
    idle: float | None = Field(default=None, gt=0, le=LONGEST_TIMEOUT)
    total: float | None = Field(default=None, gt=0, le=LONGEST_TIMEOUT)
    background: bool = False  # its client asks for the answer later, by its id
    repeats: dict[str, Any] | None = None  # what its response says of its request, where chat has no word for it

    def stored(self) -> str | None:
        """JSON of what differs from the defaults; None when nothing does."""
        return None if self is USUAL or self == USUAL else self.model_dump_json(exclude_defaults=True)

    @classmethod
    def read(cls, stored: str | None) -> "Handling":
        """What `stored` made."""
        return USUAL if stored is None else cls.model_validate_json(stored)


USUAL = Handling()


class Request(BaseModel):
    """One chat request in provider-neutral form, plus what its sender knows about it.

    `params` holds every further parameter of OpenAI's chat completions, passed on unchanged.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    model: str = Field(min_length=1, max_length=200)
    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1, le=MAX_TOKENS)
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    params: dict[str, Any] = Field(default_factory=dict)

    interactive: bool = False
    deadline: datetime | None = None
    post_process: str | None = None
    whole: bool = False
    tags: dict[str, str] = Field(default_factory=dict)
    priority: int = Field(default=0, ge=-1000, le=1000)
    client_key: str | None = Field(default=None, max_length=512)
    handling: Handling = USUAL

    @field_validator("messages")
    @classmethod
    def _says_something(cls, messages: list[Message]) -> list[Message]:
        if not any(message.content for message in messages if message.role != "system"):
            raise ValueError("the prompt is empty")
        return messages

    @classmethod
    def from_body(cls, body: Mapping[str, Any], **sender: Any) -> "Request":
        """The request of a body in OpenAI's chat form; `sender` is what its sender knows. ValidationError when bad."""
        known = {name: body[name] for name in _IN_BODY if name in body}
        return cls(**known, params={name: value for name, value in body.items() if name not in _IN_BODY}, **sender)

    @property
    def schema_(self) -> Mapping[str, Any] | None:
        """The JSON Schema that the answer must fit, or None."""
        wanted = self.response_format or {}
        if wanted.get("type") != "json_schema":
            return None
        named = wanted.get("json_schema")
        schema = named.get("schema") if isinstance(named, dict) else None
        return schema if isinstance(schema, dict) else None

    @property
    def forced_tool(self) -> bool:
        """Whether the answer must be a tool call."""
        return bool(self.tools) and (isinstance(self.tool_choice, dict) or self.tool_choice == "required")

    @property
    def tool_loop_step(self) -> bool:
        """Whether a program waits for this answer to take its next step: the last turn is a tool's result."""
        return self.messages[-1].role in ("tool", "function")

    @property
    def images(self) -> bool:
        """Whether a message has an image in it."""
        parts = (part for message in self.messages if isinstance(message.content, list) for part in message.content)
        return any(part.get("type") in IMAGES for part in parts)

    @property
    def structured(self) -> bool:
        """Whether the answer is of use only as a whole."""
        wanted = (self.response_format or {}).get("type")
        return wanted in ("json_schema", "json_object") or self.forced_tool or self.whole or bool(self.post_process)

    def body(self) -> dict[str, Any]:
        """What is sent, in OpenAI's chat form with `max_tokens` as its name for the cap; no field of the sender's."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [message.model_dump(exclude_unset=True) for message in self.messages],
        }
        for name in _IN_BODY[2:]:
            value = getattr(self, name)
            if value is not None:
                body[name] = value
        return {**self.params, **body}


class Usage(NamedTuple):  # a tuple, as a Choice is: an import makes tens of thousands of them
    """Tokens of one call. `input` includes cached, written and heard ones, `output` includes reasoning and spoken ones.

    `cache_write` includes those written for an hour; `searches` are of the web, and billed one by one. `reported` is
    what the server itself says it costs, in nano-dollars.
    """

    input: int
    output: int
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0
    cache_write_1h: int = 0
    audio_input: int = 0
    audio_output: int = 0
    searches: int = 0
    reported: int | None = None


@dataclass(frozen=True, slots=True)
class CallPiece:
    """A piece of a tool call; `id` and `name` come once, with its first piece."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class Delta(NamedTuple):  # a tuple, as what follows it on its way is: an answer has hundreds
    """A piece of a streaming answer, as it came."""

    text: str = ""
    refusal: str = ""
    reasoning: str = ""
    choice: int = 0
    calls: tuple[CallPiece, ...] = ()
    logprobs: Mapping[str, Any] | None = None  # of these tokens, in OpenAI's form


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model asks for; `arguments` is None and `error` says why when `raw` is not JSON."""

    id: str
    name: str
    raw: str
    arguments: Any = None
    error: str | None = None


class Outcome(StrEnum):
    """How a call ended."""

    COMPLETE = "complete"
    TRUNCATED = "truncated"  # stopped at the length limit
    REFUSED = "refused"
    FILTERED = "filtered"
    CUT = "cut"  # the connection ended, or the stream ended without a finish reason
    TIMED_OUT = "timed_out"
    MALFORMED = "malformed"
    PROVIDER_ERROR = "provider_error"
    CANCELLED = "cancelled"  # left by its reader


USABLE = (Outcome.COMPLETE, Outcome.TRUNCATED)


class Choice(NamedTuple):
    """One of the answers to a request."""

    text: str = ""
    refusal: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None
    logprobs: Mapping[str, Any] | None = None  # of every token, in OpenAI's form


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call brought. `usage` is None when the provider did not say it: unknown, not zero.

    `tier` is the service tier that was served, in the provider's own word; `model` likewise. `lasting`: the same
    request would break again.
    """

    choices: tuple[Choice, ...]
    outcome: Outcome
    usage: Usage | None = None
    model: str | None = None
    tier: str | None = None
    request_id: str | None = None
    error_code: str | None = None
    error: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    lasting: bool = False

    @property
    def first(self) -> Choice:
        """The first choice; an empty one when there is none."""
        return self.choices[0] if self.choices else Choice()

    @property
    def usable(self) -> bool:
        """Whether the job has succeeded with this answer."""
        return self.outcome in USABLE
