"""Why a request goes the way it does, in one sentence for a person. Pure."""

from datetime import UTC, datetime

from db.states import Lane, Tier
from router.decision import Facts
from router.options import Weighed


def reason(
    facts: Facts, why: str, forced_by: str | None, chosen: Weighed, weighed: list[Weighed], now: datetime
) -> str:
    """Who waits, what kind of request it is, and what follows from it; `forced_by` is the rule that named a lane."""
    before = f"{facts.changed} " if facts.changed else ""
    if forced_by == "asked":
        return f"{before}The {_way(chosen)} was asked for{_late(facts, chosen)}."
    start = f"{before}{_who(facts)} and {why}"
    if forced_by:
        return f"{start}: the rule sends it to the {_way(chosen)}{_late(facts, chosen)}."
    if facts.waits:
        return f"{start}: {_live(facts, chosen)}{_late(facts, chosen)}."
    return f"{start}: {_unhurried(facts, chosen, weighed, now)}."


def shown(facts: Facts) -> str:
    """Why an answer is streamed that would else come in one piece."""
    before = f"{facts.changed} " if facts.changed else ""
    return f"{before}{_who(facts)} and reads along: it is streamed, though one plain call would do."


def _way(chosen: Weighed) -> str:
    tier = "" if chosen.tier is Tier.DEFAULT else f" in the {chosen.tier.value} tier"
    return f"{chosen.lane.value} lane{tier}"


def _who(facts: Facts) -> str:
    if facts.interactive:
        return "A person is waiting"
    return "A tool loop is waiting for this step" if facts.tool_loop_step else "Nobody is waiting"


def _live(facts: Facts, chosen: Weighed) -> str:
    if chosen.lane is Lane.STREAM:
        return f"it is streamed, so that the first of about {facts.output_p50} tokens are there at once"
    return f"one plain call brings all of about {facts.output_p50} tokens"


def _unhurried(facts: Facts, chosen: Weighed, weighed: list[Weighed], now: datetime) -> str:
    due = f"it is due by {_clock(facts.deadline)}" if facts.deadline else "with no deadline"
    if chosen.late:
        fastest = "the fastest way" if facts.max_cost_nano is None else "the fastest way that the cap allows"
        return f"{due}, and nothing is sure to be done by then, so it takes {fastest}, the {_way(chosen)}"
    if chosen.lane is Lane.BACKGROUND:
        why, window = _no_batch(facts, weighed, now), chosen.first.window
        start = f"{due}{', but' if facts.deadline else ' it could wait, but'} {why}, so it goes to the {window} window"
        return f"{start} of the background lane{_saved(chosen, weighed)}{_left(chosen, now)}"
    if chosen.lane is not Lane.BATCH:
        but = f"{due}{', but' if facts.deadline else ' it could wait, but'} {_no_batch(facts, weighed, now)}"
        if chosen.tier is not Tier.FLEX:
            return f"{but}, so a plain call is made"
        return f"{but}, so a call of the flex tier is made{_saved(chosen, weighed)}{_left(chosen, now)}"
    saved = _saved(chosen, weighed)
    if left := _left(chosen, now):
        return f"{due}, so it goes to the Batch API first{saved}{left}"
    return f"{due}{', so' if facts.deadline else ''} it goes to the Batch API{saved}"


def _left(chosen: Weighed, now: datetime) -> str:
    """When a slow lane is left, if it is."""
    leave_by = chosen.plan(now)[0].leave_by
    return f", and to a plain call if it is not done by {_clock(leave_by)}" if leave_by else ""


def _no_batch(facts: Facts, weighed: list[Weighed], now: datetime) -> str:
    """Why a request that could have gone to a batch does not."""
    batch = next(one for one in weighed if one.lane is Lane.BATCH)
    if not batch.possible:
        return f"{batch.option(now, facts.max_cost_nano).why_not}"
    return "that is too soon for the Batch API" if batch.late else "the Batch API would not be cheaper"


def _saved(chosen: Weighed, weighed: list[Weighed]) -> str:
    """What the choice saves against a plain call, in words."""
    cost = chosen.cost
    plain = next(one for one in weighed if one.lane is Lane.SYNC).cost
    if cost is None or plain is None:
        return ", usually at half the price"
    if cost >= plain:
        return ""
    percent = round(100 * (1 - cost / plain))
    return " at about half the price" if 47 <= percent <= 53 else f", about {percent} % cheaper"


def _late(facts: Facts, chosen: Weighed) -> str:
    return f", though it may not be done by {_clock(facts.deadline)}" if facts.deadline and chosen.late else ""


def _clock(moment: datetime) -> str:
    return f"{moment.astimezone(UTC).isoformat(' ')[:16]} UTC"
