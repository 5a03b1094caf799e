"""Attributes by OpenTelemetry's conventions for generative AI, as they are in development, and our own beside them.

They are written down at https://github.com/open-telemetry/semantic-conventions-genai, docs/gen-ai/gen-ai-spans.md and
gen-ai-metrics.md. Whatever begins with `shunter.` is ours: money in USD, and how it is known.
"""

from typing import Any
from urllib.parse import urlsplit

import orjson

from db.claims import Claim
from db.ledger import Charge
from db.money import NANO
from db.settle import Text
from db.states import AttemptState, Lane
from jobs.chat import Request
from jobs.observing import Served

Attributes = dict[str, Any]

_PARAMS = {
    "temperature": ("gen_ai.request.temperature", float),
    "top_p": ("gen_ai.request.top_p", float),
    "top_k": ("gen_ai.request.top_k", float),
    "frequency_penalty": ("gen_ai.request.frequency_penalty", float),
    "presence_penalty": ("gen_ai.request.presence_penalty", float),
    "seed": ("gen_ai.request.seed", int),
}
_PORTS = {"http": 80, "https": 443}


def call(provider: str, model: str, address: str, operation: str = "chat") -> Attributes:
    """What is known of a call before it is made, and what tells metrics apart."""
    where = urlsplit(address)
    server: Attributes = {}
    if where.hostname:
        server = {"server.address": where.hostname, "server.port": where.port or _PORTS.get(where.scheme, 443)}
    names = {"gen_ai.operation.name": operation, "gen_ai.provider.name": provider, "gen_ai.request.model": model}
    return names | server


def job(claim: Claim) -> Attributes:
    """Whose attempt it is, and which."""
    known = {"shunter.job.id": claim.job_id, "shunter.lane": claim.lane, "shunter.tier": claim.tier}
    return known | ({"shunter.class": claim.class_} if claim.class_ else {})


def asked(claim: Claim, request: Request) -> Attributes:
    """How the request is to be answered; nothing of what it says."""
    found: Attributes = {"gen_ai.request.stream": True} if claim.lane == Lane.STREAM else {}
    if request.max_tokens:
        found["gen_ai.request.max_tokens"] = request.max_tokens
    if (request.response_format or {}).get("type") in ("json_object", "json_schema"):
        found["gen_ai.output.type"] = "json"
    for name, (attribute, kind) in _PARAMS.items():
        value = request.params.get(name)
        if isinstance(value, int | float):
            found[attribute] = kind(value)
    choices = request.params.get("n")
    if isinstance(choices, int) and choices != 1:
        found["gen_ai.request.choice.count"] = choices
    return found


def failure(charge: Charge) -> str | None:
    """Why an attempt brought no answer, in a word of few kinds."""
    if charge.state == AttemptState.OK:
        return None
    return charge.error_code or charge.outcome or charge.state.value


def answering(model: str, charge: Charge) -> Attributes:
    """The model that answered: the one that was asked, where it gave itself no other name."""
    named = charge.served_model or (model if charge.state == AttemptState.OK else None)
    return {"gen_ai.response.model": named} if named else {}


def answered(model: str, charge: Charge, result: Text | None) -> Attributes:
    """What an attempt came to of which this model was asked."""
    found: Attributes = {
        "error.type": failure(charge),
        "gen_ai.response.finish_reasons": _reasons(result),
        "gen_ai.usage.input_tokens": charge.input_tokens,
        "gen_ai.usage.output_tokens": charge.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": charge.cached_tokens or None,
        "gen_ai.usage.cache_creation.input_tokens": charge.cache_write_tokens or None,
        "gen_ai.usage.reasoning.output_tokens": charge.reasoning_tokens or None,
        "gen_ai.usage.audio.input_tokens": charge.input_audio_tokens or None,
        "gen_ai.usage.audio.output_tokens": charge.output_audio_tokens or None,
        "shunter.state": charge.state.value,
        "shunter.served_tier": charge.tier,
        "shunter.request_id": charge.request_id,
        **answering(model, charge),
        **money(charge),
    }
    return {name: value for name, value in found.items() if value is not None}


def money(charge: Charge) -> Attributes:
    """What it cost and how that is known; unknown is no figure, but what it may have cost."""
    if charge.cost_nano is not None:
        return {"shunter.cost_usd": charge.cost_nano / NANO, "shunter.cost_known": charge.cost_source.value}
    risk = {} if charge.at_risk_nano is None else {"shunter.at_risk_usd": charge.at_risk_nano / NANO}
    return {"shunter.cost_known": charge.cost_source.value} | risk


def served(request: Served) -> Attributes:
    """A request to the gateway, as far as it has come."""
    found: Attributes = {"http.request.method": request.method, "url.scheme": "http"}
    if request.route:
        found["http.route"] = request.route
    if request.status:
        found["http.response.status_code"] = request.status
    if request.broke:
        found["error.type"] = str(request.status)
    return found


def _reasons(result: Text | None) -> list[str] | None:
    if result is None:
        return None
    choices = result.choices or [{"finish_reason": result.finish_reason}]
    return [choice["finish_reason"] for choice in choices if choice.get("finish_reason")] or None


# ---- what was said, where that is asked for ----


def prompt(request: Request) -> Attributes:
    """The messages, in the form of the conventions."""
    messages = [
        {"role": message.role, "parts": [*_said(message.content), *_called(message.model_extra or {})]}
        for message in request.messages
    ]
    return {"gen_ai.input.messages": orjson.dumps(messages).decode()}


def reply(result: Text | None) -> Attributes:
    """The answers, likewise."""
    if result is None:
        return {}
    whole = {
        "text": result.text or result.refusal,
        "tool_calls": result.tool_calls,
        "finish_reason": result.finish_reason,
    }
    messages = [
        {
            "role": "assistant",
            "parts": [*_said(choice.get("text")), *_calls(choice.get("tool_calls"))],
            "finish_reason": choice.get("finish_reason") or "",
        }
        for choice in result.choices or [whole]
    ]
    return {"gen_ai.output.messages": orjson.dumps(messages).decode()}


def _said(content: str | list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Text as it is; of anything else, that it was there."""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) and content else content or []
    return [
        {"type": "text", "content": part.get("text")} if part.get("type") == "text" else {"type": str(part.get("type"))}
        for part in parts
        if isinstance(part, dict)
    ]


def _called(extra: dict[str, Any]) -> list[dict[str, Any]]:
    calls = extra.get("tool_calls") or []
    found = [{"id": one.get("id"), **(one.get("function") or {})} for one in calls if isinstance(one, dict)]
    return _calls([{"id": one["id"], "name": one.get("name"), "raw": one.get("arguments")} for one in found])


def _calls(calls: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    return [
        {"type": "tool_call", "id": one.get("id"), "name": one.get("name"), "arguments": one.get("raw")}
        for one in calls or []
    ]
