"""The short report at the end of a worker's run: to the terminal, and to a file or a command of the user's."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from router.figures import count, moment, money, money_column

View = Mapping[str, Any]

_LIMIT_S = 60.0  # for the command
_SAID = 300  # characters of what it said on stderr that are repeated


def lines(value: View) -> Iterator[str]:
    """The digest for a terminal, a line for each thing there is to say."""
    if value["attempts"]:
        yield f"cost: {_cost(value)}"
    if before := value.get("before"):
        yield f"before that: {_before(before)}"
    for one in value["failures"]:
        yield f"failed: {count(one['jobs'], 'job')} of {one['error'] or 'no known cause'}"
    if value["waiting"]:
        yield f"waits: {', '.join(map(_waiting, value['waiting']))}"


def markdown(value: View) -> str:
    """The digest as a Markdown document."""
    parts = [
        "# Shunter: what was done",
        f"From {_time(value['began_at'])} to {_time(value['ended_at'])}.",
        f"- Jobs: {done(value) or 'none ended'}",
        f"- Cost: {_cost(value) if value['attempts'] else 'nothing was sent'}",
        *([f"- Before that: {_before(before)}"] if (before := value.get("before")) else []),
    ]
    text = "\n".join([parts[0], "", parts[1], "", *parts[2:], ""])
    for title, head, rows in (
        ("By lane", ("lane", "model", "attempts", "cost"), _lanes(value["lanes"])),
        ("Failures by cause", ("error", "jobs", "for example"), [_failure(row) for row in value["failures"]]),
        ("What waits", ("state", "lane", "jobs", "next deadline"), [_left(row) for row in value["waiting"]]),
    ):
        if rows:
            table = [head, ["---"] * len(head), *rows]
            text += f"\n## {title}\n\n" + "".join(f"| {' | '.join(map(_cell, row))} |\n" for row in table)
    return text


def done(value: View) -> str:
    """How many jobs ended how."""
    return ", ".join(f"{number:,} {state}" for state, number in value["done"].items() if number)


def _before(value: View) -> str:
    """What ended between the last digest and this one's window."""
    cost = f", {_cost(value)}" if value["attempts"] else ""
    return f"{done(value) or 'no job ended'} since {_time(value['began_at'])}{cost}"


def _cost(value: View) -> str:
    parts = [f"{money(value['cost_usd'])} for {count(value['attempts'], 'attempt')}"]
    if value["saved_percent"]:
        parts.append(f"{money(value['saved_usd'])} ({value['saved_percent']:g} %) less than plain calls")
    if value["unknown_attempts"]:
        unknown, risk = count(value["unknown_attempts"], "attempt"), money(value["at_risk_usd"])
        parts.append(f"{unknown} of unknown cost, up to {risk} at risk")
    return ", ".join(parts)


def _waiting(row: View) -> str:
    due = f" (next deadline {moment(row['next_deadline'])})" if row["next_deadline"] else ""
    return f"{row['jobs']:,} {row['state']} in {row['lane']}{due}"


def _lanes(rows: Sequence[View]) -> list[list[str]]:
    costs = money_column([row["cost_usd"] for row in rows])
    return [
        [row["lane"], row["model"], f"{row['attempts']:,}", cost + _unknown(row)]
        for row, cost in zip(rows, costs, strict=True)
    ]


def _unknown(row: View) -> str:
    return f" and {row['unknown_attempts']:,} unknown" if row["unknown_attempts"] else ""


def _failure(row: View) -> list[str]:
    return [row["error"] or "", f"{row['jobs']:,}", (row["example"] or "")[:200]]


def _left(row: View) -> list[str]:
    return [row["state"], row["lane"], f"{row['jobs']:,}", _time(row["next_deadline"])]


def _time(iso: str | None) -> str:
    return f"{iso[:16].replace('T', ' ')} UTC" if iso else ""


def _cell(words: str) -> str:
    """What stands in a table's cell: a model's or a server's words must not end it."""
    return " ".join(words.split()).replace("|", "\\|")


def hand_over(value: View, file: str | None, command: str | None) -> list[str]:
    """Write it to the file (JSON where its name ends so, else Markdown), and give the Markdown to the command's stdin,
    with the JSON in SHUNTER_DIGEST_JSON; what went wrong, a line each.
    """
    troubles = [_written(value, Path(file).expanduser())] if file else []
    return [trouble for trouble in [*troubles, _run(value, command) if command else None] if trouble]


def _written(value: View, path: Path) -> str | None:
    """In one piece: whoever reads it meanwhile sees the old one or the new one."""
    text = json.dumps(value, indent=2) + "\n" if path.suffix.lower() == ".json" else markdown(value)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as out:
            out.write(text)
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        return f"the digest could not be written to {path}: {error.strerror}; see the setting digest_file"
    return None


def _run(value: View, command: str) -> str | None:
    process = subprocess.Popen(  # noqa: S602 (the command is the user's own)
        command, shell=True, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env=os.environ | {"SHUNTER_DIGEST_JSON": json.dumps(value)}, start_new_session=True,
    )  # fmt: skip
    try:
        _, said = process.communicate(markdown(value).encode(), timeout=_LIMIT_S)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what the shell has started, too
        process.communicate()
        return f"the digest's command {command!r} took longer than {_LIMIT_S:.0f} s and was ended"
    if process.returncode:
        why = said.decode(errors="replace").strip()[-_SAID:] or "it said nothing on stderr"
        return f"the digest's command {command!r} ended with {process.returncode}: {why}"
    return None
