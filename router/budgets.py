"""Budgets as people write and read them."""

import re
from datetime import datetime
from typing import Any

from db.budgets import Budget, Period
from db.money import usd
from db.standing import Standing
from db.words import iso
from jobs.errors import UsageError
from jobs.windows import local_zone
from router.asking import nano_of, tags_of
from router.when import zone_of

_NAME = re.compile(r"[\w.-]{1,64}")


def wanted(name: str, dollars: str, per: str, tag: str | None, zone: str | None, now: datetime) -> Budget:
    """The budget that the words mean; without a zone its days are this machine's. UsageError says what is wrong."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"the name {name!r} is not good: write up to 64 letters, digits, dots, dashes, underscores")
    if per not in list(Period):
        raise UsageError(f"--per is {per!r}: it must be one of {', '.join(Period)}")
    tags = tags_of((tag,)) if tag else {}
    limit = nano_of(dollars, "--usd")
    assert limit is not None
    key, value = next(iter(tags.items()), (None, None))
    return Budget("", name, limit, per, key, value, _zone(zone), now)


def _zone(name: str | None) -> str:
    if name is None:
        return str(getattr(local_zone(), "key", None) or "UTC")
    return zone_of(name)


def view(one: Standing) -> dict[str, Any]:
    """A budget in its JSON form."""
    budget = one.budget
    return {
        "name": budget.name,
        "limit_usd": usd(budget.limit_nano),
        "per": budget.period,
        "tag": f"{budget.tag_key}={budget.tag_value}" if budget.tag_key else None,
        "zone": budget.zone,
        "spent_usd": usd(one.spent_nano),
        "reserved_usd": usd(one.reserved_nano),
        "left_usd": usd(one.left_nano),
        "nearly_used": one.nearly,
        "starts_at": iso(one.starts_at),
        "ends_at": iso(one.ends_at),
    }
