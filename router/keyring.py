"""Keys of the gateway as people make and see them; a key's budget is a budget of its tag."""

from collections.abc import Sequence
from typing import Any

from db import keys, standing
from db.engine import Store
from db.money import usd as dollars
from db.words import iso
from jobs.clock import Clock
from jobs.errors import UsageError
from router import budgets
from router.asking import LANES
from router.terminal import RIGHT, clean, console, say, styled, table

KEY_TAG = "gateway_key"  # what a key sends has its id under this tag


def create(
    store: Store, name: str, *, usd: str | None, per: str, per_minute: int | None, lanes: Sequence[str] | None
) -> tuple[str, str]:
    """Make a key, with its budget; its id and its words."""
    if not name.strip() or len(name) > 80 or not name.isprintable():
        raise UsageError("write a name of at most 80 characters: whose key it is, or what for")
    if unknown := [lane for lane in lanes or () if lane not in LANES]:
        raise UsageError(f"--lane is {unknown[0]!r}: it must be one of {', '.join(LANES)}")
    now = Clock().now()
    key, words = keys.new(name, lanes, per_minute, now)
    budget = budgets.wanted(f"key-{key.id}", usd, per, f"{KEY_TAG}={key.id}", None, now) if usd else None
    keys.create(store, key, words)
    if budget is not None:
        standing.put(store, budget)
    return key.id, words


def listed(store: Store) -> list[dict[str, Any]]:
    """Every key in its JSON form, the newest last."""
    now = Clock().now()
    kept = {one.budget.tag_value: one for one in standing.standing(store, now) if one.budget.tag_key == KEY_TAG}
    return [_view(key, kept.get(key.id)) for key in keys.listed(store)]


def _view(key: keys.Key, budget: standing.Standing | None) -> dict[str, Any]:
    limit = {"limit_usd": dollars(budget.budget.limit_nano), "per": budget.budget.period} if budget else None
    return {
        "id": key.id,
        "name": key.name,
        "lanes": list(key.lanes) if key.lanes else None,
        "requests_per_minute": key.requests_per_minute,
        "budget": {**limit, "left_usd": dollars(budget.left_nano)} if budget and limit else None,
        "created_at": iso(key.created_at),
        "revoked_at": iso(key.revoked_at),
    }


def revoke(store: Store, key_id: str) -> None:
    """End a key. UsageError when there is none in force."""
    if not keys.revoke(store, key_id, Clock().now()):
        raise UsageError(f"there is no key {key_id!r} in force; `shunter keys list` shows them", code="not_found")


def shown(views: Sequence[dict[str, Any]]) -> None:
    """The keys as a table."""
    if not views:
        say("no keys: make one with `shunter keys create NAME`")
        return
    made = table("key", "name", "lanes", ("a minute", RIGHT), "budget", "state")
    for one in views:
        budget, rate = one["budget"], one["requests_per_minute"]
        left = f"${budget['left_usd']} of ${budget['limit_usd']} left, {budget['per']}" if budget else "-"
        state = styled("revoked", "dim") if one["revoked_at"] else "in force"
        made.add_row(one["id"], clean(one["name"]), ", ".join(one["lanes"] or ["all"]), str(rate or "-"), left, state)
    console().print(made)
