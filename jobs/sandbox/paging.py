"""One page of a list, by the providers' two ways of asking (pure)."""

from typing import Any

from jobs.sandbox.errors import ApiError, invalid


def _limit(query: dict[str, str], usual: int, most: int) -> int:
    text = query.get("limit", str(usual))
    if not text.isdigit() or not 1 <= int(text) <= most:
        raise invalid(
            f"Invalid 'limit': expected an integer from 1 to {most}, but got '{text}'.", "limit", "invalid_value"
        )
    return int(text)


def _after(items: list[dict[str, Any]], ident: str, name: str) -> int:
    for at, item in enumerate(items):
        if item["id"] == ident:
            return at
    raise ApiError(400, f"Invalid '{name}': no object '{ident}' in this list.", param=name)


def page(items: list[dict[str, Any]], query: dict[str, str], usual: int = 20, most: int = 100) -> dict[str, Any]:
    """OpenAI's: `limit` and `after`."""
    limit = _limit(query, usual, most)
    if query.get("after"):
        items = items[_after(items, query["after"], "after") + 1 :]
    shown = items[:limit]
    ends = {"first_id": shown[0]["id"], "last_id": shown[-1]["id"]} if shown else {"first_id": None, "last_id": None}
    return {"object": "list", "data": shown, **ends, "has_more": len(items) > limit}


def message_page(items: list[dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
    """Anthropic's: `limit`, `after_id` and `before_id`."""
    limit = _limit(query, 20, 1000)
    if query.get("before_id"):
        earlier = items[: _after(items, query["before_id"], "before_id")]
        shown, more = earlier[-limit:], len(earlier) > limit
    else:
        if query.get("after_id"):
            items = items[_after(items, query["after_id"], "after_id") + 1 :]
        shown, more = items[:limit], len(items) > limit
    return {
        "data": shown,
        "has_more": more,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
    }
