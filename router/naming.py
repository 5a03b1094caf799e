"""Which job a person means."""

from db import lookup
from db.engine import Store
from jobs.errors import UsageError


def job_named(store: Store, word: str) -> str:
    """The one job that the word names: by its id, the beginning of it, or its client key."""
    found = lookup.find(store, word)
    if not found:
        raise UsageError(f"there is no job {word!r}; `shunter jobs list` shows them", code="not_found")
    if len(found) > 1:
        raise UsageError(f"{word!r} can be any of {', '.join(found[:5])}{', …' if len(found) > 2 else ''}; say which")
    return found[0]
