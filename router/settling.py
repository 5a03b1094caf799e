"""`jobs settle`: what a person has read in the provider's bill of an attempt whose cost nobody could tell."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from db import byhand
from db.byhand import Unknown
from db.engine import Store
from db.lookup import iso
from db.money import usd
from jobs.errors import UsageError
from router.asking import nano_of
from router.figures import ago, money, money_column
from router.terminal import RIGHT, SHRINK, clean, console, say, table

View = Mapping[str, Any]


def view(one: Unknown) -> dict[str, Any]:
    """An attempt of unknown cost in its JSON form."""
    return {
        "job": one.job_id,
        "attempt": one.n,
        "lane": one.lane,
        "model": one.model,
        "sent_at": iso(one.sent_at),
        "at_risk_usd": usd(one.at_risk_nano),
        "reserved_usd": usd(one.reserved_nano),
    }


def settle(store: Store, job_id: str, dollars: str, attempt: int | None, now: datetime) -> dict[str, Any]:
    """Book what the attempt has cost, and say it with what came back; UsageError where it is not clear which is meant.

    Without a number it is the job's only attempt of unknown cost.
    """
    nano = nano_of(dollars, "--usd", or_none=True)
    assert nano is not None
    found = byhand.unknown(store, job_id)
    chosen = [one for one in found if attempt in (None, one.n)]
    if not chosen:
        which = f"attempt {attempt} of job {job_id}" if attempt and found else f"any attempt of job {job_id}"
        raise UsageError(
            f"the cost of {which} is not unknown; `shunter jobs settle` lists those that are", code="known"
        )
    if len(chosen) > 1:
        numbers = ", ".join(f"{one.n} (sent {iso(one.sent_at)})" for one in chosen)
        raise UsageError(f"job {job_id} has several attempts of unknown cost: {numbers}; say which with --attempt N")
    (one,) = chosen
    if not byhand.settle(store, [(one.job_id, one.n)], nano, now):
        raise UsageError(f"the cost of attempt {one.n} of job {job_id} came in just now", code="known")
    return view(one) | {"cost_usd": usd(nano)}


def draw(found: Sequence[View]) -> None:
    """The attempts of unknown cost, the oldest first."""
    if not found:
        say("no attempt is of unknown cost")
        return
    now, names = datetime.now(UTC), ("at_risk_usd", "reserved_usd")
    made = table("job", ("n", RIGHT), "lane", ("model", SHRINK), ("sent", RIGHT), ("at risk", RIGHT),
                 ("set aside", RIGHT))  # fmt: skip
    for one, *sums in zip(found, *(money_column([one[name] for one in found]) for name in names), strict=True):
        words = clean(one["job"]), str(one["attempt"]), one["lane"], clean(one["model"]), ago(one["sent_at"], now)
        made.add_row(*words, *sums)
    console().print(made)
    say("`shunter jobs settle JOB --usd COST` says what one has cost; 0 where the provider's bill has nothing of it")


def told(settled: View) -> str:
    """What was settled, in a sentence."""
    back = f", and {money(settled['reserved_usd'])} is set aside no more" if settled["reserved_usd"] else ""
    return f"attempt {settled['attempt']} of job {settled['job']} has cost {money(settled['cost_usd'])}{back}"
