"""The one place that draws. What is drawn are the values of the JSON contracts: `--json` says all that can be seen."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from db.ids import copied
from router.batching import batch, batches
from router.diagnosis import doctor
from router.figures import ago, count, moment, money, money_column
from router.plots import plot as plot_report
from router.reporting import account, budgets, forecasts, report, report_csv
from router.terminal import (
    RIGHT,
    SHRINK,
    WIDE,
    WRAP,
    clean,
    complain,
    console,
    csv,
    data,
    fields,
    progress,
    say,
    sign,
    state,
    styled,
    table,
    text,
)
from router.when import span

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

__all__ = ["account", "batch", "batches", "budgets", "complain", "console", "csv", "data", "decision", "doctor",
           "facts", "forecasts", "job", "jobs", "money", "plot_report", "policy", "progress", "report",
           "report_csv", "say", "text"]  # fmt: skip

View = Mapping[str, Any]


def plan(steps: Sequence[View]) -> str:
    """The lanes of a plan in order: "batch → sync"; a tier that is not the usual one is named."""
    words = [" ".join([step["lane"], *_special(step)]) for step in steps]
    return f" {sign('→', '->')} ".join(words)


def _special(step: View) -> list[str]:
    """The window of a step, and its tier where that is not the usual one."""
    return [word for word in (step.get("window"), step["tier"]) if word and word != "default"]


# ---- decisions ----


def decision(value: View, since: datetime | None = None) -> None:
    """Explain a decision in its JSON form: why, then every road with its cost and its time, counted from `since`."""
    out, since = console(), since or datetime.now(UTC)
    tokens = value["expected_output_tokens"]
    out.print(clean(value["reason"]))
    out.print()
    out.print(_options(value, since, wide=out.width >= WIDE))
    out.print()
    out.print(
        fields(
            [
                ("class", value["class"]),
                ("rule", value["rule"] + (f", policy {value['policy']}" if value.get("policy") else "")),
                ("request", _sent(value.get("rests_on"))),
                ("answer", f"about {count(tokens['p50'], 'token')}, 9 of 10 times at most {tokens['p90']:,}"),
                ("cost", f"about {money(value['cost_usd'])}" if value["cost_usd"] else "unknown"),
                ("done by", moment(value["finish_by"])),
                ("rests on", _grounds(value.get("rests_on"))),
            ]
        )
    )


def _sent(rests_on: View | None) -> str | None:
    """How many tokens it is, and how that is known."""
    if rests_on is None:
        return None
    tokens, vocabulary = count(rests_on["input_tokens"], "token"), rests_on["counted_with"]
    if vocabulary is None:
        return f"about {tokens}, estimated"
    if rests_on["counted_whole"]:
        return f"{tokens}, counted with {vocabulary}"
    return f"about {tokens}, its beginning counted with {vocabulary}"


def _grounds(rests_on: View | None) -> str | None:
    """What its times were learned from."""
    if rests_on is None:
        return None
    kinds = (("batches_seen", "batch", "batches"), ("calls_seen", "call", "calls"))
    seen = [f"{rests_on[key]} {one if rests_on[key] == 1 else many}" for key, one, many in kinds if rests_on[key]]
    if not seen:
        return "what the policy assumes of times: nothing of this kind was seen here yet"
    return f"{' and '.join(seen)} seen here, and what the policy assumes"


def _options(value: View, since: datetime, *, wide: bool) -> "Table":
    names = ("p50 done in", "p95 done in") if wide else ("p50 in", "p95 in")
    made = table("", "plan", ("cost", RIGHT), *((name, RIGHT) for name in names), ("", WRAP))
    costs = money_column([option["cost_usd"] for option in value["options"]])
    for option, cost in zip(value["options"], costs, strict=True):
        taken = option["plan"] == value["plan"]
        finish = [datetime.fromisoformat(option[name]) for name in ("finish_p50", "finish_p95")]
        times = [span((time - since).total_seconds()) for time in finish]
        why = option["why_not"] or ""
        cells = [sign("▶", ">") if taken else "", plan(option["plan"]), cost, *times,
                 ("taken" + (f", though {why}" if why else "")) if taken else why]  # fmt: skip
        style = "bold green" if taken else "" if option["feasible"] else "dim"
        made.add_row(*(styled(cell, style) for cell in cells))
    return made


# ---- jobs ----


def job(view: View) -> None:
    """One job: what it is, how it was decided, each attempt with its cost, and its answer."""
    out, now = console(), datetime.now(UTC)
    out.print(fields(_about(view, now)))
    if view["attempts"]:
        out.print()
        out.print(_attempts(view, now))
    _answer(out, view)


def _about(view: View, now: datetime) -> list[tuple[str, "RenderableType | None"]]:
    error, tier = view["error"], view["tier"]
    return [
        ("job", view["id"]),
        ("key", view["client_key"]),
        ("state", state(view["state"])),
        ("lane", f"{view['lane']}{f' {tier}' if tier != 'default' else ''} ({view['class']})"),
        ("model", f"{view['model']} at {view['provider']}"),
        ("submitted", moment(view["submitted_at"], now)),
        ("deadline", moment(view["deadline_at"], now) if view["deadline_at"] else None),
        ("finished", moment(view["finished_at"], now) if view["finished_at"] else None),
        ("batch", view["batch"]),
        ("tags", ", ".join(f"{key}={value}" for key, value in view["tags"].items()) or None),
        ("cost", money(view["cost_usd"])),
        ("error", styled(f"{error['message']} ({error['code']})", "red") if error else None),
        ("why", view["decision"]["reason"]),
    ]


def _attempts(view: View, now: datetime) -> "Table":
    attempts = view["attempts"]
    made = table(("try", RIGHT), "state", "lane", "sent", ("took", RIGHT), ("tokens", RIGHT), ("cost", RIGHT),
                 ("", WRAP))  # fmt: skip
    for one, cost in zip(attempts, money_column([one["cost_usd"] for one in attempts]), strict=True):
        took = span(one["total_ms"] / 1000) if one["total_ms"] is not None else "-"
        tokens = f"{one['tokens']['input'] or 0:,}+{one['tokens']['output'] or 0:,}" if one["tokens"] else "-"
        lane = one["lane"] + (f" {one['tier']}" if one["tier"] not in ("default", "standard", one["lane"]) else "")
        n, again = copied(one["n"])
        number = f"{n} again" if again else str(n)
        made.add_row(number, state(one["state"]), lane, ago(one["sent_at"], now), took, tokens, cost,
                     styled(_note(one, view["error"]), "dim"))  # fmt: skip
    return made


def _note(attempt: View, above: View | None) -> str:
    """How it ended, what its cost is by, what may have been billed, the error (in a word where it stands above the
    table), and how a stream came.
    """
    risk = f"may have cost up to {money(attempt['at_risk_usd'])}" if attempt["at_risk_usd"] else ""
    held = f"{money(attempt['reserved_usd'])} of a budget held for it" if attempt["reserved_usd"] else ""
    error = attempt["error"] or {"message": ""}
    said = error["code"] if attempt["error"] == above and above else error["message"]
    ended = "" if attempt["error"] or attempt["outcome"] in (None, "complete") else attempt["outcome"]
    return "; ".join(note for note in (ended, _by(attempt), risk, held, said, _pace(attempt)) if note)


def _by(attempt: View) -> str:
    """What is not plain about its cost: the figure from before it was re-priced, or that it is the provider's own."""
    if attempt["first_cost_usd"] != attempt["cost_usd"]:
        return f"re-priced, at first {money(attempt['first_cost_usd'])}"
    return "cost as the provider reported it" if attempt["cost_source"] == "reported" else ""


def _pace(attempt: View) -> str:
    """The first token and the gaps between deltas of a stream, and what its connection took where it was new."""
    if attempt["first_token_ms"] is None:
        return ""
    parts = [f"first token {span(attempt['first_token_ms'] / 1000)}"]
    if attempt["connect_ms"] is not None:
        parts.append(f"connect {span(attempt['connect_ms'] / 1000)}")
    gaps = attempt["gap_ms"]
    if gaps and gaps["max"] is not None:
        parts.append("gaps " + ", ".join(f"{name} {span(value / 1000)}" for name, value in gaps.items()))
    if attempt["tokens_per_second"]:
        parts.append(f"{attempt['tokens_per_second']:,.0f} tokens/s")
    return ", ".join(parts)


def _answer(out: "Console", view: View) -> None:
    if view["pruned"]:
        out.print(styled("what was asked and answered was pruned", "dim"))
    if view["text"] is None:
        return
    flags = ", ".join(word for word in ("truncated", "partial") if view[word])
    out.print()
    out.print(styled(f"answer ({flags})" if flags else "answer", "dim"))
    out.print(clean(view["text"] or view["refusal"] or ""))
    if view["tool_calls"]:
        out.print(clean(json.dumps(view["tool_calls"], indent=2, ensure_ascii=False)))
    if view["output"] is not None:
        out.print(styled("post-processed", "dim"))
        out.print(clean(view["output"]))


def jobs(page: View) -> None:
    """A page of jobs, newest first."""
    out, now = console(), datetime.now(UTC)
    if not page["jobs"]:
        say("no jobs")
        return
    wide = out.width >= WIDE
    made = table(("job", {"min_width": 26}), "state", "lane", *(["class"] if wide else []), ("model", SHRINK),
                 ("submitted", RIGHT), ("cost", RIGHT), *([("key", SHRINK)] if wide else []))  # fmt: skip
    for one, cost in zip(page["jobs"], money_column([one["cost_usd"] for one in page["jobs"]]), strict=True):
        extra = [[styled(one[name] or "", "dim")] if wide else [] for name in ("class", "client_key")]
        made.add_row(one["id"], state(one["state"]), one["lane"], *extra[0], clean(one["model"]),
                     ago(one["submitted_at"], now), cost, *extra[1])  # fmt: skip
    out.print(made)
    if page["next"]:
        say(f"older ones: --after {page['next']}")


# ---- policy ----


def policy(view: View) -> None:
    """The rules in order, with their reasons, and the numbers."""
    out = console()
    out.print(fields([("policy", view["name"]), ("file", view["file"]), ("confidence", f"{view['confidence']:.0%}")]))
    out.print()
    made = table(("", RIGHT), "rule", ("when", WRAP), "then", ("because", WRAP))
    for n, rule in enumerate(view["rules"], 1):
        conditions = "\n".join(
            f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in rule["when"].items()
        )
        made.add_row(str(n), clean(rule["name"]), clean(conditions) or "always", clean(_then(rule)), clean(rule["why"]))
    out.print(made)
    out.print()
    numbers = [
        (name, ", ".join(f"{key} {value:g}" for key, value in view[name].items())) for name in ("leave", "timeouts")
    ]
    windows = {f"background {name}": one for name, one in view["priors"]["windows_s"].items()}
    believed = {name: one for name, one in view["priors"].items() if name != "windows_s"} | windows
    priors = [(name, _believed(name, one)) for name, one in believed.items()]
    out.print(fields([*numbers, *priors]))


def _then(rule: View) -> str:
    """What a rule does, a line each."""
    if rule["refuse"]:
        return "refuse"
    named = [f"{name} {rule[name]}" for name in ("tier", "model", "provider") if rule[name]]
    named += [f"deadline {span(rule['deadline_s'])}"] if rule["deadline_s"] else []
    named += [f"{name} {span(seconds)}" for name, seconds in rule["timeouts"].items()]
    return "\n".join([*(word for word in (rule["class"], rule["lane"]) if word), *named])


def _believed(name: str, one: Any) -> str:
    if isinstance(one, float | int):
        return f"{one:.0%}"
    if name == "flex_times":
        return f"p50 {one['p50']:g}, p95 {one['p95']:g} plain calls"
    return f"p50 {span(one['p50'])}, p95 {span(one['p95'])}"


def facts(view: Sequence[View]) -> None:
    """What a rule may look at."""
    made = table("fact", ("value", WRAP), ("what it says", WRAP))
    for one in view:
        made.add_row(one["fact"], one["kind"], one["says"])
    console().print(made)
