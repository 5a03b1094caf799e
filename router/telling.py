"""What submit, worker and demo say in words while they run and at their end."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from db.tables import Batch
from jobs.chat import OnLeave
from router.bulk import Summary
from router.figures import count, money, money_column
from router.show import plan
from router.statusline import columns
from router.terminal import RIGHT, WRAP, clean, complain, console, say, table
from router.when import span

View = Mapping[str, Any]

_FLAGS = {"truncated": "truncated at the token limit", "partial": "partial"}


def ending(job: View) -> None:
    """One line about how a job ended: lane, times, tokens, cost and id; an error in its own line."""
    if job["error"] and job["state"] == "failed":
        said = f": {job['refusal']}" if job["refusal"] else ""
        paid = "" if job["cost_usd"] == "0" else f"; {_cost(job)}"
        complain(f"{job['error']['message']}{said}{paid} (job {job['id']})")
        return
    if job["state"] in ("queued", "running", "submitted"):
        reason, planned = job["decision"]["reason"], plan(job["decision"]["plan"])
        say(f"{job['state']} for {planned}: {reason} Job {job['id']}; `shunter worker --once` moves it.")
        return
    state = [] if job["state"] == "succeeded" else [job["state"]]
    flags = [said for word, said in _FLAGS.items() if job[word]]
    _line([*state, *flags, job["lane"], *_times(job), _cost(job), f"job {job['id']}"], " · ")


def leaving(on_leave: OnLeave | None, job_id: str) -> None:
    """What becomes of a job whose reader has left; None for one that waits for a worker."""
    match on_leave:
        case OnLeave.CANCEL:
            parts = ["cancelled: the connection is closed; what came is kept:", f"`shunter jobs show {job_id}`"]
        case OnLeave.DRAIN:
            parts = ["cancelled: the rest is read for the true bill, and not shown;", "Ctrl-C again stops that"]
        case OnLeave.CONTINUE:
            parts = [f"it goes on: `shunter jobs show --follow {job_id}` shows it;", "Ctrl-C again stops it"]
        case None:
            parts = ["not waited for any longer; the job stays:", f"`shunter jobs wait {job_id}`"]
    _line(parts, " ")


def _line(parts: Sequence[str], between: str) -> None:
    """Say them in one line; a terminal that is too narrow breaks it between them, not within an id."""
    width, lines = columns(sys.stderr) if sys.stderr.isatty() else sys.maxsize, [parts[0]]
    for part in parts[1:]:
        if len(lines[-1] + between + part) > width:
            lines.append(part)
        else:
            lines[-1] += between + part
    say("\n".join(lines))


def _times(job: View) -> list[str]:
    last = job["attempts"][-1] if job["attempts"] else None
    if last is None or last["total_ms"] is None:
        return []
    tokens = [f"{last['tokens']['output']:,} tokens"] if last["tokens"] else []
    if last["first_token_ms"] is None:
        return [f"all of it {span(last['total_ms'] / 1000)}", *tokens]
    if tokens and last["tokens_per_second"]:
        tokens[0] += f" at {last['tokens_per_second']:,.0f}/s"
    return [f"first token {span(last['first_token_ms'] / 1000)}", *tokens]


def _cost(job: View) -> str:
    """What it cost; where that is not known, what it may have cost at most."""
    if job["cost_usd"] is not None:
        return f"cost {money(job['cost_usd'])}" if job["state"] == "failed" else money(job["cost_usd"])
    known = sum(float(one["cost_usd"] or 0) for one in job["attempts"])
    risk = sum(float(one["at_risk_usd"] or 0) for one in job["attempts"] if one["cost_usd"] is None)
    parts = [money(f"{known:.9f}")] if known else []
    return " and ".join([*parts, f"at most {money(f'{risk:.9f}')} at risk" if risk else "unknown cost"])


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
