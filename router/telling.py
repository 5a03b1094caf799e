"""What submit, worker and demo say in words while they run and at their end."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from db.tables import Batch
from router.bulk import Summary
from router.figures import count, money, money_column
from router.show import plan
from router.terminal import RIGHT, WRAP, clean, complain, console, say, table
from router.when import span

View = Mapping[str, Any]


def ending(job: View) -> None:
    """One line about how a job ended: lane, time, cost and id; an error in its own line."""
    if job["error"] and job["state"] == "failed":
        complain(f"{job['error']['message']} (job {job['id']})")
        return
    if job["state"] in ("queued", "running", "submitted"):
        reason, planned = job["decision"]["reason"], plan(job["decision"]["plan"])
        say(f"{job['state']} for {planned}: {reason} Job {job['id']}; `shunter worker --once` moves it.")
        return
    facts = [job["lane"], *_times(job), money(job["cost_usd"]), f"job {job['id']}"]
    flags = [word for word in ("truncated", "partial") if job[word]]
    say(" · ".join([*([] if job["state"] == "succeeded" else [job["state"]]), *flags, *facts]))


def _times(job: View) -> list[str]:
    last = job["attempts"][-1] if job["attempts"] else None
    if last is None or last["total_ms"] is None:
        return []
    first = [f"first token {span(last['first_token_ms'] / 1000)}"] if last["first_token_ms"] is not None else []
    tokens = [f"{last['tokens']['output']:,} tokens"] if last["tokens"] else []
    return [*first, f"all of it {span(last['total_ms'] / 1000)}", *tokens]


def submitted(summary: Summary) -> None:
    """What became of a file's rows."""
    lanes = ", ".join(f"{number:,} {lane}" for lane, number in sorted(summary.lanes.items()))
    say(f"{count(summary.accepted, 'job')} accepted" + (f" ({lanes})" if lanes else ""))
    if summary.accepted:
        say("`shunter worker --once` moves them; `shunter jobs list` shows them")


def groups(found: Mapping[tuple[str, str], int], costs: Mapping[tuple[str, str], int]) -> None:
    """The decisions on a file's rows, most frequent first."""
    out = console()
    made = table(("rows", RIGHT), "lane", ("about", RIGHT), ("why", WRAP))
    ordered = Counter(found).most_common()
    amounts = money_column([f"{costs[group] / 1e9:.9f}" for group, _ in ordered])
    for ((lane, reason), number), amount in zip(ordered, amounts, strict=True):
        made.add_row(f"{number:,}", lane, amount, clean(reason))
    out.print(made)


def counted(states: Mapping[str, int]) -> None:
    """How many jobs are in each state that has any."""
    say(", ".join(f"{number:,} {state}" for state, number in states.items() if number) or "no jobs")


def worked(summary: View) -> None:
    """What a worker did, and what is left."""
    done = ", ".join(f"{number:,} {state}" for state, number in summary["done"].items() if number)
    left = ", ".join(f"{number:,} {state}" for state, number in summary["left"].items() if number)
    say(f"done: {done or 'nothing was due'}" + (f"; left: {left}" if left else "; nothing is left"))


def batch_line(batch: Batch) -> str:
    """How a provider batch stands, in a line."""
    there = f" ({batch.status} there, {batch.done:,} done)" if batch.status and batch.state == "submitted" else ""
    why = f": {batch.error}" if batch.error else ""
    return f"batch {batch.id}: {count(batch.rows, 'row')} of {batch.model} {batch.state}{there}{why}"
