"""explain, and submit --dry-run: what would be done, with nothing sent and nothing kept."""

import asyncio
from collections import Counter

from router import bulk, looking, show, telling
from router.asking import Asked, opened
from router.dispatch import Router
from router.intake import Reject

DONE, WRONG, SOME_REFUSED = 0, 2, 4


def explain(asked: Asked, *, json: bool) -> int:
    """The decision of a prompt, or one a line of a file."""
    router = Router()
    try:
        if asked.file is None:
            view, at = looking.explained(router, asked)
            show.data(view) if json else show.decision(view, at)
            return DONE
        asked.check_file()
        return _explain_file(router, asked, asked.file, json=json)
    finally:
        asyncio.run(router.close())


def _explain_file(router: Router, asked: Asked, name: str, *, json: bool) -> int:
    groups: Counter[tuple[str, str]] = Counter()
    costs: Counter[tuple[str, str]] = Counter()
    rejected = known = rows = 0
    with opened(name) as source:
        for item in bulk.dry_run(router, asked.reader(source, router), asked.wish()):
            if isinstance(item, Reject):
                rejected += 1
                show.complain(f"line {item.line}: {item.reason}")
                continue
            row, decision, is_known = item
            known += is_known
            if json:
                facts = {"client_key": row.request.client_key, "line": row.line, "known": is_known}
                show.data(facts | decision.json(), line=True)
            elif not is_known:
                group = (decision.lane.value, decision.reason)
                groups[group] += 1
                costs[group] += decision.cost_nano or 0
            rows += 1
    if not json:
        telling.groups(groups, costs)
    if known:
        show.say(f"{known} known already: they would be skipped (--again runs them again)")
    return (SOME_REFUSED if rows else WRONG) if rejected else DONE
