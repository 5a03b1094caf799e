"""What a drill does to the frames of a stream and to a plain body (pure)."""

from collections.abc import Iterator
from typing import Any

from jobs.sandbox.errors import ANTHROPIC_TYPES
from jobs.sandbox.faults import Fault, only
from jobs.sandbox.frames import Cut, Frame, Pause, Step, Tag, named, unnamed

TRIGGERS = ("cut", "silence", "malformed", "stream_error")


def spoiled(frames: Iterator[Frame], faults: list[Fault], api: str) -> Iterator[Step]:
    """The frames as the drills leave them; one strikes when its deltas are out, or at the end if there are fewer."""
    dropped = _dropped(faults, api)
    waiting = [fault for fault in faults if fault.kind in TRIGGERS]
    seen = 0
    if only(faults, "empty_stream"):
        return
    for frame in frames:
        ending = frame.tag in (Tag.FINISH, Tag.USAGE, Tag.DONE)
        if frame.tag is Tag.DELTA or ending:
            for fault in [fault for fault in waiting if ending or seen >= fault["after"]]:
                waiting.remove(fault)
                yield from strike(fault, api)
                if fault.kind in ("cut", "stream_error"):
                    return
        if frame.tag in dropped:
            continue
        seen += frame.tag is Tag.DELTA
        yield frame


def _dropped(faults: list[Fault], api: str) -> set[Tag]:
    """On the Responses API the last event is the finish and the end in one."""
    dropped: set[Tag] = set()
    if only(faults, "no_done"):
        dropped.add(Tag.DONE)
    if only(faults, "no_finish"):
        dropped |= {Tag.FINISH, Tag.DONE} if api == "responses" else {Tag.FINISH}
    return dropped


def strike(fault: Fault, api: str) -> Iterator[Step]:
    match fault.kind:
        case "cut":
            yield Cut(fault["how"])
        case "silence":
            yield Pause(fault["seconds"])
        case "malformed":
            event = {"messages": b"event: content_block_delta\n", "responses": b"event: response.output_text.delta\n"}
            yield Frame(Tag.OPEN, event.get(api, b"") + b'data: {"id": "sandbox", "choices": [{"delta": {"cont\n\n')
        case "stream_error":
            yield Frame(Tag.OPEN, error_event(fault, api))


def error_event(fault: Fault, api: str) -> bytes:
    """OpenAI names an overloaded server so inside a stream; the Responses API has a nested and a flat shape."""
    message = fault["message"] or "The sandbox was told to fail in mid-stream: the server is overloaded."
    if api == "messages":
        kind = fault["code"] or ANTHROPIC_TYPES[529]
        return named("error", {"type": "error", "error": {"type": kind, "message": message}})
    code = fault["code"] or "server_is_overloaded"
    error = {"message": message, "type": "service_unavailable_error", "param": None, "code": code}
    if api == "chat":
        return unnamed({"error": error})
    if fault["shape"] == "flat":
        return named("error", {"type": "error", "code": code, "message": message, "param": None, "sequence_number": 0})
    return named("error", {"type": "error", "error": error, "sequence_number": 0})


def unfinished(body: dict[str, Any]) -> dict[str, Any]:
    """A plain body without its finish reason."""
    for choice in body.get("choices", []):
        choice["finish_reason"] = None
    if "stop_reason" in body:
        body["stop_reason"] = None
    if body.get("object") == "response":
        body["status"] = "in_progress"
    return body
