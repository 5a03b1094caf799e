"""Why a request goes the way it does, in one sentence for a person. Pure."""

from datetime import UTC, datetime

from db.states import Lane
from router.decision import Facts
from router.options import Weighed


def reason(facts: Facts, why: str, forced_by: str | None, chosen: Weighed, weighed: list[Weighed]) -> str:
    """Who waits, what kind of request it is, and what follows from it; `forced_by` is the rule that named a lane."""
    if forced_by == "asked":
        return f"The {chosen.lane.value} lane was asked for{_late(facts, chosen)}."
    start = f"{_who(facts)} and {why}"
    if forced_by:
        return f"{start}: the rule sends it to the {chosen.lane.value} lane{_late(facts, chosen)}."
    if facts.waits:
        return f"{start}: {_live(facts, chosen)}{_late(facts, chosen)}."
    return f"{start}: {_unhurried(facts, chosen, weighed)}."


def _who(facts: Facts) -> str:
    if facts.interactive:
        return "A person is waiting"
    return "A tool loop is waiting for this step" if facts.tool_loop_step else "Nobody is waiting"


def _live(facts: Facts, chosen: Weighed) -> str:
    if chosen.lane is Lane.STREAM:
        return f"it is streamed, so that the first of about {facts.output_p50} tokens are there at once"
    return f"one plain call brings all of about {facts.output_p50} tokens"


def _unhurried(facts: Facts, chosen: Weighed, weighed: list[Weighed]) -> str:
    due = f"it is due by {_clock(facts.deadline)}" if facts.deadline else "with no deadline"
    if chosen.late:
        fastest = "the fastest way" if facts.max_cost_nano is None else "the fastest way that the cap allows"
        return f"{due}, and nothing is sure to be done by then, so it takes {fastest}, the {chosen.lane.value} lane"
    if chosen.lane is Lane.BACKGROUND:
        why, window = _no_batch(weighed), chosen.option.plan[0].window
        start = f"{due}{', but' if facts.deadline else ' it could wait, but'} {why}, so it goes to the {window} window"
        return f"{start} of the background lane{_saved(chosen, weighed)}{_left(chosen)}"
    if chosen.lane is not Lane.BATCH:
        return (
            f"{due}{', but' if facts.deadline else ' it could wait, but'} {_no_batch(weighed)}, so a plain call is made"
        )
    saved = _saved(chosen, weighed)
    if left := _left(chosen):
        return f"{due}, so it goes to the Batch API first{saved}{left}"
    return f"{due}{', so' if facts.deadline else ''} it goes to the Batch API{saved}"


def _left(chosen: Weighed) -> str:
    """When a slow lane is left, if it is."""
    leave_by = chosen.option.plan[0].leave_by
    return f", and to a plain call if it is not done by {_clock(leave_by)}" if leave_by else ""


def _no_batch(weighed: list[Weighed]) -> str:
    """Why a request that could have gone to a batch does not."""
    batch = next(one for one in weighed if one.lane is Lane.BATCH)
    if not batch.possible:
        return f"{batch.option.why_not}"
    return "that is too soon for the Batch API" if batch.late else "the Batch API would not be cheaper"


def _saved(chosen: Weighed, weighed: list[Weighed]) -> str:
    """What the choice saves against a plain call, in words."""
    cost = chosen.option.cost_nano
    plain = next(one for one in weighed if one.lane is Lane.SYNC).option.cost_nano
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
