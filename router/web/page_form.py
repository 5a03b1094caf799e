"""The page's stream: OpenAI's deltas, each with its position, and at the end what the answer was and cost."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import orjson

from db.states import JobState
from jobs.follow import Anew, Heard, Position
from router.web.chat_form import call_piece
from router.web.errors import HTTPError, of_code, told_of
from router.web.finals import Final, finish_reason
from router.web.running import Last, News

Found = Callable[[], Awaitable[Mapping[str, Any]]]


def meta(job: Mapping[str, Any], conversation: str | None) -> dict[str, Any]:
    """What the page shows under an answer, from a job in its JSON form."""
    last = job["attempts"][-1] if job["attempts"] else {}
    decision = job["decision"]
    return {
        "job": job["id"],
        "conversation": conversation,
        **{name: job[name] for name in ("state", "class", "lane", "tier", "model", "provider", "finish_reason")},
        "reason": decision["reason"],
        "rule": decision["rule"],
        "ttft_ms": _whole(last.get("first_token_ms")),
        "total_ms": _whole(last.get("total_ms")),
        "tokens_per_second": last.get("tokens_per_second"),
        "tokens": last.get("tokens"),
        "cost_usd": job["cost_usd"],
        "at_risk_usd": last.get("at_risk_usd"),
        "truncated": bool(job["truncated"]),
        "attempts": len(job["attempts"]),
        "error": told_of(job["error"]),
    }


def _whole(number: float | None) -> int | None:
    return None if number is None else round(number)


class PageForm:
    """The events of one answer, after a position. `found` gives the job as it is then."""

    quiet = b": keep-alive\n"

    def __init__(self, headers: Mapping[str, str], found: Found, conversation: str | None, after: Position) -> None:
        self._headers, self._found, self._conversation = headers, found, conversation
        self._at = after
        self._called = False
        self._choices: set[int] = set()  # those that were heard

    def headers(self) -> Mapping[str, str]:
        """What the head says."""
        return self._headers

    def open(self) -> bytes:
        """Nothing: the first piece comes first."""
        return b""

    def news(self, burst: Sequence[News]) -> bytes:
        """An event for each piece."""
        pieces = []
        for one in burst:
            if isinstance(one, Anew):
                self._at, self._called = Position(one.attempt), False
                pieces.append(self._event({"choices": [], "shunter": {"anew": one.attempt}}))
            elif isinstance(one, Heard):
                self._at = one.position
                self._choices.add(one.delta.choice)
                self._called = self._called or bool(one.delta.calls)
                pieces.append(self._choice(one.delta.choice, _delta(one)))
        return b"".join(pieces)

    def _event(self, data: Mapping[str, Any]) -> bytes:
        return b"id: %b\ndata: %b\n\n" % (str(self._at).encode(), orjson.dumps(data))

    async def last(self, last: Last) -> bytes:
        """What was not heard of the answer, its end, and everything about it. HTTPError for a failed one."""
        job = await self._found()
        final, about = Final.of_job(job), meta(job, self._conversation)
        if final.state is JobState.FAILED:
            heard = Final.of_ended(last.ended).error if last.ended else None
            error = heard or final.error or of_code(None, "the job failed")
            if not (self._choices or job["text"]):
                raise error
            return self._event({"error": error.error, "choices": [], "shunter": about})
        pieces = [piece for index, choice in enumerate(final.choices) for piece in self._rest(index, choice)]
        pieces.append(self._event({"choices": [], "shunter": about}))
        return b"".join((*pieces, b"id: %b\ndata: [DONE]\n\n" % str(self._at).encode()))

    def _rest(self, index: int, choice: Mapping[str, Any]) -> list[bytes]:
        """What of a choice no delta brought, and how it ended."""
        said: dict[str, Any] = {}
        if index == 0 and len(choice["text"]) > self._at.text:
            said["content"] = choice["text"][self._at.text :]
            self._at = Position(max(self._at.attempt, 1), len(choice["text"]), self._at.other)
        elif index and index not in self._choices:
            said["content"] = choice["text"]
        if choice.get("refusal") and not self._at.other:
            said["refusal"] = choice["refusal"]
        if choice.get("tool_calls") and not self._called:
            said["tool_calls"] = [_call(number, call) for number, call in enumerate(choice["tool_calls"])]
        told = [self._choice(index, said)] if said else []
        return [*told, self._choice(index, {}, finish_reason(choice))] if choice.get("finish_reason") else told

    def _choice(self, index: int, delta: Mapping[str, Any], reason: str | None = None) -> bytes:
        ended = {"finish_reason": reason} if reason else {}
        return self._event({"choices": [{"index": index, "delta": delta, **ended}]})

    async def trouble(self, error: HTTPError) -> bytes:
        """The error; no [DONE]."""
        about = meta(await self._found(), self._conversation)
        return self._event({"error": error.error, "choices": [], "shunter": about})


def _call(number: int, call: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": call["name"], "arguments": call["raw"]}
    return {"index": number, "id": call["id"], "type": "function", "function": function}


def _delta(heard: Heard) -> dict[str, Any]:
    delta = heard.delta
    said: dict[str, Any] = {}
    for name, text in (("content", delta.text), ("refusal", delta.refusal), ("reasoning_content", delta.reasoning)):
        if text:
            said[name] = text
    if delta.calls:
        said["tool_calls"] = [call_piece(piece) for piece in delta.calls]
    return said
