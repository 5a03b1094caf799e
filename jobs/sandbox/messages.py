"""Anthropic messages: the request read, the answer whole and as a stream (pure)."""

import re
from collections.abc import Iterator
from typing import Any

import orjson

from jobs.sandbox import models, tokens
from jobs.sandbox.answers import Answer, Ask
from jobs.sandbox.bill import Usage
from jobs.sandbox.errors import ApiError
from jobs.sandbox.frames import Frame, Tag, named

STOPS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "refusal": "refusal",
}
TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}\Z")
GONE = ("temperature", "top_p", "top_k")


def refused(message: str) -> ApiError:
    return ApiError(400, message)


def read(body: dict[str, Any], version: str = "2026-10-21") -> Ask:
    """The request as an Ask; ApiError with Anthropic's wording where it would refuse."""
    model = models.check(body.get("model"), anthropic=True)
    cap = body.get("max_tokens")
    if cap is None:
        raise refused("max_tokens: Field required")
    if isinstance(cap, bool) or not isinstance(cap, int):
        raise refused("max_tokens: Input should be a valid integer")
    if cap < 1:
        raise refused("max_tokens: must be greater than or equal to 1")
    for name in GONE:
        if name in body and version >= "2026-10-21":
            raise refused(f"{name}: Extra inputs are not permitted")
    prompt, last, said_by_user, size = conversation(body.get("messages"), body.get("system"))
    tools = _tools(body.get("tools"))
    choice, parallel = _choice(body.get("tool_choice"), tools)
    schema = _schema(body.get("output_config"))
    if not isinstance(body.get("stream", False), bool):
        raise refused("stream: Input should be a valid boolean")
    return Ask(
        "messages",
        model,
        prompt,
        last,
        said_by_user,
        size + tokens.of_json(body.get("tools")) + tokens.of_json(schema),
        cap=cap,
        schema=schema,
        tools=tools,
        tool_choice=choice,
        parallel=parallel,
        stream=body.get("stream", False),
    )


def conversation(messages: Any, system: Any) -> tuple[str, str, bool, int]:
    """All text, the last message's text, whether a user (not a tool) said it, and the input tokens."""
    if messages is None:
        raise refused("messages: Field required")
    if not isinstance(messages, list):
        raise refused("messages: Input should be a valid list")
    if not messages:
        raise refused("messages: at least one message is required")
    size = tokens.REQUEST_FRAME
    texts: list[str] = []
    by_user = False
    if system:
        texts.append(_content(system, "system")[0])
        size += tokens.MESSAGE_FRAME + tokens.of_text(texts[0])
    for at, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("user", "assistant", "system"):
            raise refused(f"messages.{at}.role: Input should be 'user' or 'assistant'")
        text, images, from_tool = _content(message.get("content"), f"messages.{at}.content")
        by_user = role == "user" and not from_tool
        size += tokens.MESSAGE_FRAME + tokens.of_text(text) + images * tokens.IMAGE
        texts.append(text)
    return "\0".join(texts), texts[-1], by_user, size


def _content(value: Any, where: str) -> tuple[str, int, bool]:
    if isinstance(value, str):
        if not value and where != "system":
            raise refused(f"{where}: text content must be non-empty")
        return value, 0, False
    if not isinstance(value, list):
        raise refused(f"{where}: Input should be a valid list")
    texts: list[str] = []
    images, from_tool = 0, False
    for at, block in enumerate(value):
        match block.get("type") if isinstance(block, dict) else None:
            case "text":
                texts.append(str(block.get("text", "")))
            case "image" | "document":
                images += 1
            case "tool_use":
                texts.append(orjson.dumps(block.get("input", {})).decode())
            case "tool_result":
                from_tool = True
                inner = block.get("content") or ""
                texts.append(inner if isinstance(inner, str) else _content(inner, f"{where}.{at}.content")[0])
            case "thinking" | "redacted_thinking":
                pass
            case other:
                raise refused(
                    f"{where}.{at}: Input tag '{other}' found using 'type' does not match any of the expected tags"
                )
    return "\n".join(texts), images, from_tool


def _tools(tools: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for at, tool in enumerate(tools or []):
        name = tool.get("name") if isinstance(tool, dict) else None
        if not isinstance(name, str) or not TOOL_NAME.match(name):
            raise refused(f"tools.{at}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
        if tool.get("type", "custom") != "custom":
            continue
        if not isinstance(tool.get("input_schema"), dict):
            raise refused(f"tools.{at}.custom.input_schema: Field required")
        found[name] = tool["input_schema"]
    return found


def _choice(choice: Any, tools: dict[str, Any]) -> tuple[str, bool]:
    if choice is None:
        return "auto", True
    kind = choice.get("type") if isinstance(choice, dict) else None
    parallel = not (isinstance(choice, dict) and choice.get("disable_parallel_tool_use"))
    if kind in ("auto", "none"):
        return str(kind), parallel
    if kind == "any" and tools:
        return "required", parallel
    if kind == "tool" and choice.get("name") in tools:
        return str(choice["name"]), parallel
    raise refused(f"tool_choice: {kind!r} names no tool of 'tools'")


def _schema(config: Any) -> Any:
    if config is None:
        return None
    wanted = config.get("format") if isinstance(config, dict) else None
    if wanted is None:
        return None
    if (
        not isinstance(wanted, dict)
        or wanted.get("type") != "json_schema"
        or not isinstance(wanted.get("schema"), dict)
    ):
        raise refused("output_config.format: Input should be of type 'json_schema' with a schema")
    return wanted["schema"]


def usage_body(usage: Usage, tier: str = "standard") -> dict[str, Any]:
    """Anthropic's `input_tokens` leaves out what was read from the cache."""
    return {
        "input_tokens": usage.input - usage.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.output,
        "service_tier": tier,
    }


def whole(ask: Ask, made: Answer, usage: Usage | None, ident: str, tier: str = "standard") -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": made.text}] if made.pieces else []
    for at, call in enumerate(made.calls):
        content.append(
            {"type": "tool_use", "id": f"toolu_{ident}_{at}", "name": call.name, "input": _parsed(call.arguments)}
        )
    body: dict[str, Any] = {
        "id": f"msg_{ident}",
        "type": "message",
        "role": "assistant",
        "model": ask.model,
        "content": content,
        "stop_reason": STOPS[made.finish],
        "stop_sequence": None,
    }
    if usage is not None:
        body["usage"] = usage_body(usage, tier)
    return body


def _parsed(arguments: str) -> Any:
    try:
        return orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
        return {}


def frames(ask: Ask, made: Answer, usage: Usage | None, ident: str) -> Iterator[Frame]:
    """message_start, a ping, the blocks, message_delta with the stop reason and cumulative usage, message_stop."""
    start = whole(ask, Answer([]), Usage(usage.input, 1, usage.cached) if usage else None, ident)
    start["stop_reason"] = None
    yield Frame(Tag.OPEN, named("message_start", {"type": "message_start", "message": start}))
    yield Frame(Tag.OPEN, named("ping", {"type": "ping"}))
    blocks: list[tuple[Any, str, str, list[str]]] = []
    if made.pieces or not made.calls:
        blocks.append(({"type": "text", "text": ""}, "text_delta", "text", made.pieces))
    for at, call in enumerate(made.calls):
        block: Any = {"type": "tool_use", "id": f"toolu_{ident}_{at}", "name": call.name, "input": {}}
        blocks.append((block, "input_json_delta", "partial_json", ["", *call.pieces]))
    for index, (block, kind, key, pieces) in enumerate(blocks):
        yield Frame(
            Tag.OPEN,
            named("content_block_start", {"type": "content_block_start", "index": index, "content_block": block}),
        )
        for piece in pieces:
            delta = {"type": "content_block_delta", "index": index, "delta": {"type": kind, key: piece}}
            yield Frame(Tag.DELTA, named("content_block_delta", delta))
        yield Frame(Tag.CLOSE, named("content_block_stop", {"type": "content_block_stop", "index": index}))
    ending: dict[str, Any] = {
        "type": "message_delta",
        "delta": {"stop_reason": STOPS[made.finish], "stop_sequence": None},
    }
    if usage is not None:
        ending["usage"] = usage_body(usage)
    yield Frame(Tag.FINISH, named("message_delta", ending))
    yield Frame(Tag.DONE, named("message_stop", {"type": "message_stop"}))
