"""db prune as a person meets it: what there is to take away, and what is gone."""

from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from db import prune as old
from db.lookup import iso
from router import show
from router.opening import open_store
from router.when import local, moment

_DO = "--yes takes them away"


def prune(older_than: str, *, write: bool) -> dict[str, Any]:
    """The words of the jobs that ended before that: {"before", "jobs", "bytes", "pruned"}; with `write` they go."""
    before = moment(older_than, datetime.now(UTC), past=True)
    with closing(open_store()) as store:
        jobs, size = old.words(store, before)
        if write:
            with show.progress("pruning", total=jobs) as told:
                done = 0
                for some in old.prune(store, before):
                    done += some
                    told(done)
    return {"before": iso(before), "jobs": jobs, "bytes": size, "pruned": write}


def said(view: dict[str, Any]) -> str:
    """The same in a sentence."""
    if view["pruned"]:
        return f"the words of {view['jobs']:,} jobs are gone, {view['bytes']:,} bytes; new ones take their place"
    words = f"{view['jobs']:,} jobs have {view['bytes']:,} bytes of words"
    return f"{words} from before {local(datetime.fromisoformat(view['before']), datetime.now(UTC))}; {_DO}"
