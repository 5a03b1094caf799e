"""What both wire formats share: JSON that forgives, tool calls and endings. No I/O."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from jobs.chat import Answer, Choice, Outcome, ToolCall
from jobs.errors import CallError

KEPT_HEADERS = ("x-ratelimit-", "anthropic-ratelimit-", "retry-after", "llm_provider-", "openai-processing-ms")
ENDINGS = {
    **dict.fromkeys(("stop", "tool_calls", "function_call", "eos", "eos_token", "stop_sequence"), Outcome.COMPLETE),
    **dict.fromkeys(("length", "max_tokens", "model_length"), Outcome.TRUNCATED),
    **dict.fromkeys(("content_filter", "safety", "recitation"), Outcome.FILTERED),
}  # an unknown word is the provider's failure: what it does not call an end is not one
BROKEN = {
    "cut": Outcome.CUT,
    "malformed": Outcome.MALFORMED,
    **dict.fromkeys(("first_token_timeout", "idle_timeout", "total_timeout", "timed_out"), Outcome.TIMED_OUT),
}  # how an answer ended whose reading failed with this code
_MOST = 2**53  # beyond which a double, and so JSON elsewhere, skips numbers
_WORST_FIRST = (Outcome.PROVIDER_ERROR, Outcome.FILTERED, Outcome.REFUSED, Outcome.TRUNCATED)


@dataclass(frozen=True, slots=True)
class Head:
    """What the response's head says that an Answer keeps."""

    request_id: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def head_of(raw: Iterable[tuple[bytes, bytes]]) -> Head:
    """The request id, and the headers that rate limits are learned from."""
    request_id, kept = None, {}
    for key, value in raw:
        name = key.decode("latin-1").lower()
        if name in ("x-request-id", "request-id"):
            request_id = value.decode("latin-1")[:200]
        elif name.startswith(KEPT_HEADERS):
            kept[name] = value.decode("latin-1")
    return Head(request_id, kept)


def encode(value: Any) -> bytes:
    """JSON; where orjson is too strict (lone surrogates, integers over 64 bits) the standard library's."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value).encode()


def decode(data: bytes | str) -> Any:
    """JSON in; NaN and half surrogate pairs are taken as servers send them. ValueError when it is none."""
    try:
        return orjson.loads(data)
    except ValueError:
        return decode_exactly(data)


def decode_exactly(data: bytes | str) -> Any:
    """The same, slower, and with integers over 64 bits as they are: orjson makes floats of them."""
    try:
        value = json.loads(data)
        text = json.dumps(value, ensure_ascii=False)
    except RecursionError as error:
        raise ValueError("JSON nested too deep") from error
    return json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def text_of(value: Any) -> str:
    """Text from a string, or from a list of parts as some servers send it."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(text_of(part.get("text")) for part in value if isinstance(part, dict))
    return ""


def listed(value: Any) -> list[Any]:
    """The list that should be there; empty when something else is."""
    return value if isinstance(value, list) else []


def count(value: Any) -> int:
    """A number of tokens; 0 for anything else."""
    if type(value) is int:  # the usual one, ten times a row
        return value if 0 <= value < _MOST else 0
    return int(value) if isinstance(value, int | float) and 0 <= value < _MOST else 0


def tool_call(identity: str, name: str, raw: str, *, whole: bool) -> ToolCall:
    """A call with its arguments parsed; `whole`: the model ended it, so that no arguments means none wanted."""
    if whole and not raw.strip():
        return ToolCall(identity, name, raw, arguments={})
    try:
        return ToolCall(identity, name, raw, arguments=decode_exactly(raw))
    except ValueError as error:
        return ToolCall(identity, name, raw, error=f"the arguments are not JSON: {error}")


def outcome_of(choices: Sequence[Choice]) -> Outcome:
    """The worst ending of the choices, which all have a finish reason."""
    seen = {_ending(choice) for choice in choices}
    return next((outcome for outcome in _WORST_FIRST if outcome in seen), Outcome.COMPLETE)


def _ending(choice: Choice) -> Outcome:
    outcome = ENDINGS.get((choice.finish_reason or "").lower(), Outcome.PROVIDER_ERROR)
    if outcome is Outcome.COMPLETE and choice.refusal and not choice.text and not choice.tool_calls:
        return Outcome.REFUSED
    return outcome


def ending(choices: Sequence[Choice], failure: CallError | None) -> tuple[Outcome, str | None, str | None]:
    """How an answer that is not whole ended: outcome, code and text."""
    if failure is None:
        return Outcome.CUT, "cut", "the answer ended without a finish reason"
    return BROKEN.get(failure.code, Outcome.PROVIDER_ERROR), failure.code, str(failure)


def error_of(body: Any) -> tuple[str, str, str] | None:
    """Code, type and text of the error object in a body, whatever shape servers give it; None when there is none."""
    if not isinstance(body, dict):
        return None
    error = body.get("error") or body.get("detail")
    if not error:
        return None
    if not isinstance(error, dict):
        return "", "", error if isinstance(error, str) else encode(error).decode()
    details = error.get("details")
    code = (details.get("error_code") if isinstance(details, dict) else None) or error.get("code")
    message = error.get("message") or error.get("error") or encode(error).decode()
    return _word(code), _word(error.get("type")), str(message)


def _word(value: Any) -> str:
    return str(value)[:100] if isinstance(value, str | int) and not isinstance(value, bool) else ""


def no_answer(head: Head, outcome: Outcome, code: str, error: str) -> Answer:
    """What a response with status 200 is that holds no answer."""
    text = f"the answer with status 200 is {error}" if outcome is Outcome.MALFORMED else error
    return Answer((), outcome, request_id=head.request_id, error_code=code, error=text, headers=head.headers)


def start_of(data: bytes | str) -> str:
    """The first characters of what should have been an answer."""
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    return repr(text[:80])
