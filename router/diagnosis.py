"""What doctor found, as a person reads it: what was looked at, then every trouble with what to do."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from router.figures import ago, count, money, money_column, size
from router.reporting import account
from router.terminal import RIGHT, SHRINK, clean, console, fields, sign, styled, table
from router.when import span

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

View = Mapping[str, Any]


def doctor(view: View) -> None:
    """Everything, the troubles last."""
    out, now = console(), datetime.now(UTC)
    pairs = [*_settings(view), *((one["provider"], _provider(one)) for one in view["providers"])]
    pairs += [(f"files at {one['provider']}", _files(one, now)) for one in view["files"] if one["count"]]
    pairs += [("workers", _present(view, "workers", now)), ("servers", _present(view, "servers", now))]
    pairs += [("at risk", _risk(view["risk"], now)), ("budgets", _budgets(view))]
    out.print(fields(pairs))
    if view["account"]:
        out.print()
        account(view["account"])
    if view["orphans"]:
        out.print()
        out.print(_orphans(view, now))
    if view["rescued"]:
        out.print(f"{count(view['rescued'], 'job')} of dead processes taken back")
    _end(out, view)


def _settings(view: View) -> list[tuple[str, "RenderableType | None"]]:
    now, base = view["settings"], view["database"]
    mode = f", mode {base['mode']}" if base and base["mode"] else ""
    return [
        ("config", f"{now['config']}{'' if now['config_exists'] else ' (not there: defaults)'}"),
        ("keys", ", ".join(f"{name} {word}" for name, word in now["keys"].items())),
        ("policy", now["policy"] or "shipped"),
        ("limits", f"{now['concurrency']} calls at a time, lease {span(now['lease_seconds'])}, "
                   f"grace {span(now['grace_seconds'])}, poll every {span(now['poll_seconds'])}"),
        ("database", f"{base['path']}, schema {base['schema']}{mode}" if base else None),
    ]  # fmt: skip


def _provider(one: View) -> str:
    key = f"key {one['key']}" + {True: " and accepted", False: ", REFUSED", None: ""}[one["key_accepted"]]
    api = {True: "has a Batch API", False: "no Batch API", None: ""}[one["batch_api"]]
    there = "reachable" if one["reachable"] else "NOT REACHABLE"
    return ", ".join(word for word in (one["base_url"], there, key, api) if word)


def _files(one: View, now: datetime) -> str:
    spare = f", {len(one['spare']):,} of ours not needed" if one["spare"] else ""
    alike = f", {one['alike']:,} of another installation" if one["alike"] else ""
    return f"{one['count']:,}, {size(one['bytes'])}, oldest {ago(one['oldest_at'], now)}{spare}{alike}"


def _present(view: View, kind: str, now: datetime) -> str | None:
    def about(one: View) -> str:
        beat = f"beat {ago(one['beat_at'], now)}"
        return f"{one['pid']} on {one['host']}: {'alive' if one['alive'] else 'DEAD'}, {beat}"

    if view["database"] is None:
        return None
    return "\n".join(about(one) for one in view[kind]) or ("none runs" if kind == "workers" else None)


def _risk(risk: View | None, now: datetime) -> str | None:
    if not risk or not risk["attempts"]:
        return None
    lanes = ", ".join(f"{one['attempts']:,} {one['lane']}" for one in risk["lanes"])
    blind = f" and {risk['unpriced']:,} without a price" if risk["unpriced"] else ""
    most = f"at most {money(risk['at_risk_usd'])}{blind}"
    return f"{count(risk['attempts'], 'attempt')} ({lanes}), {most}, the oldest of {ago(risk['oldest_at'], now)}"


def _budgets(view: View) -> str | None:
    def about(one: View) -> str:
        held = f" and {money(one['reserved_usd'])} set aside" if one["reserved_usd"] != "0" else ""
        return f"{one['name']}: {money(one['spent_usd'])} spent{held} of {money(one['limit_usd'])}"

    return "\n".join(map(about, view["budgets"])) or None


def _orphans(view: View, now: datetime) -> "Table":
    made = table(("at the provider", SHRINK), "kind", "status", ("done", RIGHT), ("made", RIGHT), ("worth", RIGHT))
    for one, worth in zip(view["orphans"], money_column([one["worth_usd"] for one in view["orphans"]]), strict=True):
        rows = f"{one['done']:,}/{one['rows']:,}" if one["rows"] else f"{one['done']:,}"
        made.add_row(clean(one["id"]), one["kind"], clean(one["status"]), rows, ago(one["created_at"], now), worth)
    return made


def _end(out: "Console", view: View) -> None:
    out.print()
    gone = [one["bytes"] for one in view["done"] if one["action"] == "deleted"]
    said = [_done(one) for one in view["done"] if one["action"] not in ("failed", "deleted")]
    said += [f"{count(len(gone), 'file')} deleted ({size(sum(gone))})"] if gone else []
    for line in said:
        out.print(f"{sign('✓', '+')} {line}")
    for note in view["notes"]:
        out.print(styled(f"{sign('·', '-')} {note}", "yellow"))
    for problem in view["problems"]:
        out.print(styled(f"{sign('✗', 'x')} {problem}", "red"))
    if view["ok"]:
        out.print(styled(f"{sign('✓', '+')} all is well", "green"))


def _done(one: View) -> str:
    if one["action"] == "cancelled":
        return f"{one['id']} is {one['status']}; adopt it when it has ended"
    if not one["rows"]:
        return f"{one['id']} is batch {one['batch']}; a worker goes on with it"
    strange = f"{one['strangers']:,} of jobs that are not here ({money(one['strangers_usd'])})"
    kinds = [
        (one["settled"], f"{one['settled']:,} settled"),
        (one["paid_again"], f"{one['paid_again']:,} paid a second time"),
        (one["strangers"], strange),
    ]
    rows = ", ".join(words for number, words in kinds if number)
    return f"{one['id']} adopted: {rows or 'nothing was billed'}; {money(one['cost_usd'])} on the ledger"
