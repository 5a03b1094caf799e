"""Which model names the sandbox takes, and what each may be asked (pure)."""

import re
from typing import Any

from jobs.sandbox.errors import ApiError, invalid, missing, unknown_model, wrong_type

OPENAI = re.compile(r"(gpt-|o1|o3|o4|chatgpt-|sandbox-)")
ANTHROPIC = re.compile(r"(claude-|sandbox-)")
REASONING = re.compile(r"(o1|o3|o4|gpt-5|gpt-6)")
NO_FLEX = re.compile(r"(gpt-4|gpt-3|chatgpt-|gpt-6\.2-|gpt-5-pro)")
TIERS = ("auto", "default", "flex", "scale", "priority", "fast")
LISTED = (
    "gpt-6-luna", "gpt-6-sol", "gpt-6-astra", "gpt-5.6-luna", "gpt-5.5", "gpt-5.4", "gpt-5.4-mini", "gpt-4o",
    "gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini", "o3", "sandbox-1",
)  # fmt: skip
CLAUDES = ("claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5", "claude-haiku-4-5", "sandbox-1")
CREATED = 1_790_000_000


def check(model: Any, *, anthropic: bool = False) -> str:
    if model is None or model == "":
        raise ApiError(400, "model: Field required") if anthropic else missing("model")
    if not isinstance(model, str):
        raise (
            ApiError(400, "model: Input should be a valid string")
            if anthropic
            else wrong_type("model", "a string", model)
        )
    if not (ANTHROPIC if anthropic else OPENAI).match(model):
        raise unknown_model(model, anthropic)
    return model


def served_tier(asked: Any, model: str) -> str:
    """The tier the answer names: `fast` is called `priority`, and `auto` and `scale` are served as `default`."""
    if asked is None or asked in ("auto", "default", "scale"):
        return "default"
    if asked not in TIERS:
        raise invalid(
            f"Invalid value: '{asked}'. Supported values are: {', '.join(map(repr, TIERS))}.",
            "service_tier",
            "invalid_value",
        )
    if asked == "flex":
        if NO_FLEX.match(model):
            raise invalid("Invalid service_tier argument", "service_tier")
        return "flex"
    return "priority"


def openai_list() -> dict[str, Any]:
    return {"object": "list", "data": [openai_model(name) for name in LISTED]}


def openai_model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "shunter-sandbox"}


def anthropic_list() -> dict[str, Any]:
    data = [anthropic_model(name) for name in CLAUDES]
    return {"data": data, "has_more": False, "first_id": CLAUDES[0], "last_id": CLAUDES[-1]}


def anthropic_model(name: str) -> dict[str, Any]:
    return {"type": "model", "id": name, "display_name": f"{name} (sandbox)", "created_at": "2026-09-21T00:00:00Z"}
