"""Responses as OpenAI writes them: a whole one, and the events of a stream."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from db.states import JobState
from jobs.follow import Anew, Heard
from router.web.chat_form import Ending
from router.web.errors import HTTPError
from router.web.finals import Final, finish_reason
from router.web.running import Last, News, Waiting
from router.web.streams import check_patience

_STATUS = {
    JobState.QUEUED: "queued",
    JobState.SUBMITTED: "queued",
    JobState.RUNNING: "in_progress",
    JobState.SUCCEEDED: "completed",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
}
PREFIX = "resp_"


def response(job_id: str, model: str, created: int, final: Final, asked: Mapping[str, Any]) -> dict[str, Any]:
    """A response as it stands; `asked` are the fields of its request that it repeats."""
    status, stopped = _status(final)
    error = None
    if status == "failed" and final.error is not None:
        error = {"code": final.error.code or "server_error", "message": str(final.error)}
    output = [item for choice in final.choices[:1] for item in _output(job_id, choice)] if final.choices else []
    return {
        "id": f"{PREFIX}{job_id}",
        "object": "response",
        "created_at": created,
        "status": status,
        "background": bool(asked.get("background")),
        "error": error,
        "incomplete_details": {"reason": stopped} if stopped else None,
        "instructions": asked.get("instructions"),
        "max_output_tokens": asked.get("max_output_tokens"),
        "max_tool_calls": asked.get("max_tool_calls"),
        "metadata": asked.get("metadata") or {},
        "model": model,
        "output": output,
        "parallel_tool_calls": asked.get("parallel_tool_calls") is not False,
        "previous_response_id": asked.get("previous_response_id"),
        "prompt_cache_key": asked.get("prompt_cache_key"),
        "reasoning": _with({"effort": None, "summary": None}, asked.get("reasoning")),
        "safety_identifier": asked.get("safety_identifier"),
        "store": asked.get("store") is not False,
        "temperature": asked.get("temperature"),
        "text": _with({"format": {"type": "text"}}, asked.get("text")),
        "tool_choice": asked.get("tool_choice") or "auto",
        "tools": asked.get("tools") or [],
        "top_logprobs": asked.get("top_logprobs") or 0,
        "top_p": asked.get("top_p"),
        "truncation": asked.get("truncation") or "disabled",
        "usage": _usage(final.tokens),
        "user": asked.get("user"),
    }


def _status(final: Final) -> tuple[str, str | None]:
    """How it stands, and why it is incomplete if it is."""
    if not final.answered:
        return _STATUS[final.state], None
    ends = finish_reason(final.choices[0]) if final.choices else "stop"
    stopped = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(ends)
    return "incomplete" if stopped else "completed", stopped


def _with(usual: dict[str, Any], asked: Any) -> dict[str, Any]:
    return {**usual, **asked} if isinstance(asked, Mapping) else usual


def _usage(tokens: Mapping[str, int] | None) -> dict[str, Any] | None:
    if tokens is None:
        return None
    sent, written = tokens["input"], tokens["output"] or 0
    cached = {"cached_tokens": tokens["cached"] or 0, "cache_write_tokens": tokens["cache_write"] or 0}
    return {
        "input_tokens": sent,
        "input_tokens_details": cached,
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": tokens["reasoning"] or 0},
        "total_tokens": sent + written,
    }


def _output(job_id: str, choice: Mapping[str, Any]) -> list[dict[str, Any]]:
    calls = choice.get("tool_calls") or ()
    items = [_message(job_id, choice)] if choice["text"] or choice.get("refusal") or not calls else []
    return items + [_call(job_id, number, call) for number, call in enumerate(calls)]


def _message(job_id: str, choice: Mapping[str, Any]) -> dict[str, Any]:
    parts = [{"type": "refusal", "refusal": choice["refusal"]}] if choice.get("refusal") else []
    if choice["text"] or not parts:
        parts.insert(0, text_part(choice["text"], _likely(choice.get("logprobs"))))
    return message(job_id, "completed", parts)


def message(job_id: str, status: str, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An output message."""
    return {"id": f"msg_{job_id}", "type": "message", "status": status, "role": "assistant", "content": parts}


def text_part(text: str, logprobs: Sequence[Any] = ()) -> dict[str, Any]:
    """The words of a message, and how likely each of its tokens was."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def _likely(probs: Mapping[str, Any] | None) -> Sequence[Any]:
    """Of the tokens of a text, as chat completions say it; nothing where nobody asked."""
    return (probs and probs["content"]) or ()


def _call(job_id: str, number: int, call: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": f"fc_{job_id}_{number}", "type": "function_call", "status": "completed", "call_id": call["id"],
            "name": call["name"], "arguments": call["raw"]}  # fmt: skip


class ResponseEvents:
    """The events of one response, after a number. Text comes as it is said, all else whole at the end.

    A piece of text has the number of its last character, so that whatever pieces the text comes in, also days later, a
    number means the same place. `lasting`: a response that failed is an event, not an error of the request.
    """

    quiet = b": keep-alive\n\n"

    def __init__(self, job_id: str, model: str, created: int, asked: Mapping[str, Any], headers: Mapping[str, str],
                 final: Ending, *, held: bool, lasting: bool = False, after: int = -1) -> None:  # fmt: skip
        self._job_id, self._model, self._created = job_id, model, created
        self._asked, self._headers, self._final, self._held = asked, headers, final, held
        self._lasting, self._after = lasting, after
        self._number = 1  # the two events of `open` are made when the head goes, after the first of `news`
        self._said: list[str] = []

    def _event(self, kind: str, **facts: Any) -> bytes:
        self._number += 1
        return self._numbered(self._number, kind, **facts)

    def _numbered(self, number: int, kind: str, **facts: Any) -> bytes:
        if number <= self._after:
            return b""
        data = {"type": kind, "sequence_number": number, **facts}
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(data))

    def _response(self, final: Final) -> dict[str, Any]:
        return response(self._job_id, self._model, self._created, final, self._asked)

    def headers(self) -> Mapping[str, str]:
        """What the head says."""
        return self._headers

    def open(self) -> bytes:
        """It begins."""
        begun = self._response(Final(JobState.RUNNING))
        kinds = enumerate(("response.created", "response.in_progress"))
        return b"".join(self._numbered(number, kind, response=begun) for number, kind in kinds)

    def news(self, burst: Sequence[News]) -> bytes:
        """An event for each piece of text; HTTPError where what was sent is no longer what holds."""
        pieces = []
        for one in burst:
            if isinstance(one, Waiting):
                check_patience(one)
            elif isinstance(one, Anew) and self._said:
                raise HTTPError(502, "the answer broke off, and a new one replaces it: ask again", code="restarted")
            elif isinstance(one, Heard) and one.delta.text and not self._held:
                pieces.append(self._text(one.delta.text, _likely(one.delta.logprobs)))
        return b"".join(pieces)

    def _text(self, text: str, logprobs: Sequence[Any]) -> bytes:
        item = {"item_id": f"msg_{self._job_id}", "output_index": 0, "content_index": 0}
        begun = b""
        if not self._said:
            begun = self._event("response.output_item.added", output_index=0,
                                item=message(self._job_id, "in_progress", []))  # fmt: skip
            begun += self._event("response.content_part.added", **item, part=text_part(""))
        self._said.append(text)
        known = max(self._after - self._number, 0)
        self._number += len(text) - 1
        told = () if known else logprobs  # they are of the whole piece
        return begun + self._event("response.output_text.delta", **item, delta=text[known:], logprobs=told)

    async def last(self, last: Last) -> bytes:
        """What was not said yet, and the end. HTTPError for a job that failed before its first word."""
        final = await self._final(last)
        if not final.answered and self._lasting:
            return self._event("response.failed", response=self._response(final))
        if not final.answered:
            raise final.error or HTTPError(499, "the job was cancelled", code="cancelled")
        whole, pieces = self._response(final), []
        for index, item in enumerate(whole["output"]):
            ended = self._message(index, item) if item["type"] == "message" else self._called(index, item)
            pieces.append(ended + self._event("response.output_item.done", output_index=index, item=item))
        pieces.append(self._event(f"response.{whole['status']}", response=whole))
        return b"".join(pieces)

    def _message(self, index: int, item: Mapping[str, Any]) -> bytes:
        pieces = []
        for number, part in enumerate(item["content"]):
            where = {"item_id": item["id"], "output_index": index, "content_index": number}
            if part["type"] == "output_text":
                if not self._said:
                    pieces.append(self._text(part["text"], part["logprobs"]))
                said = {"text": part["text"], "logprobs": part["logprobs"]}
                pieces.append(self._event("response.output_text.done", **where, **said))
            else:
                if number == 0:
                    pieces.append(self._event("response.output_item.added", output_index=index, item=item))
                pieces.append(self._event("response.content_part.added", **where, part={**part, "refusal": ""}))
                pieces.append(self._event("response.refusal.delta", **where, delta=part["refusal"]))
                pieces.append(self._event("response.refusal.done", **where, refusal=part["refusal"]))
            pieces.append(self._event("response.content_part.done", **where, part=part))
        return b"".join(pieces)

    def _called(self, index: int, item: Mapping[str, Any]) -> bytes:
        where, kind = {"item_id": item["id"], "output_index": index}, "response.function_call_arguments"
        begun = {**item, "arguments": "", "status": "in_progress"}
        return b"".join(
            (
                self._event("response.output_item.added", output_index=index, item=begun),
                self._event(f"{kind}.delta", **where, delta=item["arguments"]),
                self._event(f"{kind}.done", **where, arguments=item["arguments"], name=item["name"]),
            )
        )

    async def trouble(self, error: HTTPError) -> bytes:
        """The response has failed."""
        failed = self._response(Final(JobState.FAILED, error=error))
        return self._event("response.failed", response=failed)
