"""Chat completions as OpenAI writes them: a whole answer, and chunks."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import orjson

from jobs.chat import CallPiece, Delta
from jobs.follow import Anew, Heard
from router.web.errors import HTTPError
from router.web.finals import Final, finish_reason, usage
from router.web.running import Last, News, Waiting
from router.web.streams import check_patience

DONE = b"data: [DONE]\n\n"
Ending = Callable[[Last], Awaitable[Final]]


class Names:
    """What every piece of one answer says."""

    def __init__(self, job_id: str, model: str, created: int, free_tools: frozenset[str]) -> None:
        self.id, self.model, self.created = f"chatcmpl-{job_id}", model, created
        self.free_tools = free_tools  # whose input is any text

    def call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        """A whole tool call."""
        name, raw = call["name"], call["raw"]
        if name in self.free_tools:
            return {"id": call["id"], "type": "custom", "custom": {"name": name, "input": raw}}
        return {"id": call["id"], "type": "function", "function": {"name": name, "arguments": raw}}


def completion(names: Names, final: Final) -> dict[str, Any]:
    """A whole answer. HTTPError where there is none."""
    check_answered(final)
    return {
        "id": names.id,
        "object": "chat.completion",
        "created": names.created,
        "model": names.model,
        "choices": [_whole(names, index, choice) for index, choice in enumerate(final.choices)],
        "usage": usage(final.tokens),
    }


def check_answered(final: Final) -> None:
    """HTTPError unless the job has an answer."""
    if not final.answered:
        raise final.error or HTTPError(499, "the job was cancelled", code="cancelled")


def _whole(names: Names, index: int, choice: Mapping[str, Any]) -> dict[str, Any]:
    calls = [names.call(call) for call in choice.get("tool_calls") or ()]
    message: dict[str, Any] = {"role": "assistant", "content": choice["text"] or (None if calls else "")}
    message["refusal"] = choice.get("refusal")
    if calls:
        message["tool_calls"] = calls
    probs = choice.get("logprobs")
    return {"index": index, "message": message, "logprobs": probs, "finish_reason": finish_reason(choice)}


class Chunks:
    """The chunks of one answer. With `held`, all of it comes at the end: a structured answer is checked first."""

    quiet = b": keep-alive\n\n"

    def __init__(self, names: Names, headers: Mapping[str, str], final: Ending, *, choices: int, counted: bool,
                 held: bool) -> None:  # fmt: skip
        self._names, self._headers, self._final = names, headers, final
        self._choices, self._counted, self._held = choices, counted, held
        self._heard = False
        fixed = {"id": names.id, "object": "chat.completion.chunk", "created": names.created, "model": names.model}
        self._before = b"data: " + orjson.dumps(fixed)[:-1] + b',"choices":'
        self._after = b',"usage":null}\n\n' if counted else b"}\n\n"

    def headers(self) -> Mapping[str, str]:
        """What the head says."""
        return self._headers

    def open(self) -> bytes:
        """Each choice begins with its role."""
        first = {"role": "assistant", "content": "", "refusal": None}
        return b"".join(self._chunk(index, first) for index in range(self._choices))

    def news(self, burst: Sequence[News]) -> bytes:
        """A chunk for each delta; HTTPError where what was sent already is no longer what holds."""
        pieces = []
        for one in burst:
            if isinstance(one, Waiting):
                check_patience(one)
            elif isinstance(one, Anew) and self._heard:
                raise HTTPError(502, "the answer broke off, and a new one replaces it: ask again", code="restarted")
            elif isinstance(one, Heard) and not self._held:
                self._heard = True
                delta = one.delta
                pieces.append(self._chunk(delta.choice, _delta(self._names, delta), logprobs=delta.logprobs))
        return b"".join(pieces)

    def _chunk(self, index: int, delta: Mapping[str, Any], reason: str | None = None, logprobs: Any = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return b"".join((self._before, orjson.dumps([choice]), self._after))

    async def last(self, last: Last) -> bytes:
        """What was held back, a finish reason for each choice, the usage, [DONE]."""
        final = await self._final(last)
        check_answered(final)
        pieces = []
        for index, choice in enumerate(final.choices):
            if not self._heard:
                said = _at_once(self._names, choice)
                pieces.append(self._chunk(index, said, logprobs=choice.get("logprobs")))
            pieces.append(self._chunk(index, {}, finish_reason(choice)))
        if self._counted and (used := usage(final.tokens)):
            pieces.append(self._before + b'[],"usage":' + orjson.dumps(used) + b"}\n\n")
        return b"".join((*pieces, DONE))

    async def trouble(self, error: HTTPError) -> bytes:
        """The form that OpenAI's clients raise as an error; no [DONE]."""
        return b"data: " + orjson.dumps({"error": error.error}) + b"\n\n"


def _delta(names: Names, delta: Delta) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if delta.text:
        said["content"] = delta.text
    if delta.refusal:
        said["refusal"] = delta.refusal
    if delta.reasoning:
        said["reasoning_content"] = delta.reasoning
    if delta.calls:
        said["tool_calls"] = [call_piece(piece) for piece in delta.calls]
    return said


def call_piece(piece: CallPiece) -> dict[str, Any]:
    """A piece of a tool call: id, type and name come once."""
    function = {"arguments": piece.arguments}
    if piece.id or piece.name:
        return {"index": piece.index, "id": piece.id, "type": "function",
                "function": {"name": piece.name, **function}}  # fmt: skip
    return {"index": piece.index, "function": function}


def _at_once(names: Names, choice: Mapping[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {"content": choice["text"]} if choice["text"] else {}
    if choice.get("refusal"):
        said["refusal"] = choice["refusal"]
    if choice.get("tool_calls"):
        calls = enumerate(names.call(call) for call in choice["tool_calls"])
        said["tool_calls"] = [{"index": index, **call} for index, call in calls]
    return said
