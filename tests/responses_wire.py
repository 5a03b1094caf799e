"""Events and bodies of the Responses API, as its wire tests feed them."""

from typing import Any

from jobs.chat import Answer, Delta, Usage
from jobs.providers.failures import Told
from jobs.providers.responses_wire import Accumulator

USAGE = {
    "input_tokens": 20,
    "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 4},
    "output_tokens": 9,
    "output_tokens_details": {"reasoning_tokens": 5},
    "total_tokens": 29,
}
COUNTED = Usage(20, 9, cached=8, cache_write=4, reasoning=5)


def event(kind: str, index: int | None = 0, **more: Any) -> dict[str, Any]:
    place = {} if index is None else {"output_index": index}
    return {"type": f"response.{kind}", **place, **more}


def text(piece: str, index: int | None = 0, part: int = 0, **more: Any) -> dict[str, Any]:
    return event("output_text.delta", index, content_index=part, delta=piece, **more)


def arguments(piece: str, index: int | None = 0, **more: Any) -> dict[str, Any]:
    return event("function_call_arguments.delta", index, delta=piece, **more)


def message(*texts: str, identity: str = "msg_0") -> dict[str, Any]:
    return {"type": "message", "id": identity, "content": [{"type": "output_text", "text": each} for each in texts]}


def refused(said: str) -> dict[str, Any]:
    return {"type": "message", "id": "msg_0", "content": [{"type": "refusal", "refusal": said}]}


def call(name: str, given: Any = "", **more: Any) -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": f"fc_{name}",
        "call_id": f"call_{name}",
        "name": name,
        "arguments": given,
    } | more


def added(item: dict[str, Any], index: int | None = 0) -> dict[str, Any]:
    return event("output_item.added", index, item=item)


def done(item: dict[str, Any], index: int | None = 0) -> dict[str, Any]:
    return event("output_item.done", index, item=item)


def response(status: str, *output: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"object": "response", "status": status, "error": None, "output": list(output), **more}


def end(status: str = "completed", *output: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": f"response.{status}", "response": response(status, *output, **more)}


def joined(*events: Any) -> tuple[list[Delta], Answer]:
    """What was shown, and the answer; an error that an event tells is the answer's."""
    wire, deltas = Accumulator(), []
    for each in events:
        try:
            deltas += wire.feed(each)
        except Told:
            break
    return deltas, wire.finish()
