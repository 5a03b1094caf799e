"""What is drawn: money, width, signs, pipes, and nothing that a model or a server can steer the terminal with."""

import io
import json
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import figures, show, terminal

AT = "2026-11-22T12:00:00.000Z"
STEP = {"lane": "batch", "tier": "default", "leave_by": None}
SYNC = {"lane": "sync", "tier": "flex", "leave_by": None}


def option(plan: list[dict[str, Any]], why_not: str | None = None, cost: str | None = "0.000118") -> dict[str, Any]:
    return {"plan": plan, "feasible": why_not is None, "why_not": why_not, "cost_usd": cost, "finish_p50": AT,
            "finish_p95": AT}  # fmt: skip


DECISION = {
    "class": "bulk", "lane": "batch", "tier": "default", "plan": [STEP, SYNC], "rule": "bulk",
    "reason": "Nobody waits.",
    "expected_output_tokens": {"p50": 470, "p90": 1000}, "cost_usd": "0.000118", "finish_by": AT, "policy": "shipped",
    "options": [option([STEP, SYNC]), option([SYNC], "it may not be done by the deadline", None)],
}  # fmt: skip
JOB = {
    "id": "1a204d321aa74056c4b16355b0", "client_key": "invoice-17", "state": "failed", "class": "bulk", "lane": "batch",
    "tier": "default", "model": "claude-haiku-5-5-20270131", "provider": "anthropic", "tags": {"team": "a"},
    "batch": "1a204d3419c5d805a5060bdf02", "submitted_at": AT, "deadline_at": None, "finished_at": AT, "cost_usd": None,
    "error": {"code": "cut", "message": "[bold]cut[/bold]\x1b[2J"}, "text": "word " * 50 + "\x1b]0;owned\x07",
    "refusal": None, "tool_calls": None, "truncated": True, "partial": False, "output": None, "pruned": False,
    "decision": DECISION,
    "attempts": [
        {"n": 1, "state": "unknown", "lane": "batch", "tier": "default", "sent_at": AT, "total_ms": None,
         "first_token_ms": None, "outcome": None, "tokens": None, "cost_usd": None, "first_cost_usd": None,
         "cost_source": "unknown", "at_risk_usd": "0.01", "reserved_usd": None,
         "error": {"code": "cut", "message": "[bold]cut[/bold]\x1b[2J"}},
    ],
}  # fmt: skip
BATCH = {
    "id": "1a204d3419c5d805a5060bdf02", "state": "submitted", "model": "gpt-6-luna", "provider": "openai",
    "rows": 50_000,
    "done": 12_345, "status": "in_progress", "provider_batch_id": "batch_1", "packed_at": AT, "submitted_at": AT,
    "cancel_at": None, "ended_at": None, "imported_at": None, "expires_at": AT, "leave_by": None, "next_poll_at": AT,
    "error": "busy", "jobs": {"submitted": 50_000}, "cost_usd": "1.25", "expected_usd": "12", "at_risk_usd": "30.5",
    "eta_at": AT, "eta_by": "history",
}  # fmt: skip


@pytest.mark.parametrize(
    ("usd", "words"),
    [("0", "$0"), (None, "unknown"), ("0.000012", "$0.000012"), ("0.000000012", "<$0.000001"), ("12.5", "$12.50"),
     ("1", "$1.00"), ("0.0000123456", "$0.000012"), ("1234.567", "$1,234.57"), ("-0.5", "-$0.50")],
)  # fmt: skip
def test_money_has_at_most_six_decimals_and_unknown_is_not_zero(usd: str | None, words: str) -> None:
    assert figures.money(usd) == words


def test_a_column_of_money_has_one_number_of_decimals() -> None:
    assert figures.money_column(["0.5", "0.000012", None, "0"]) == ["$0.500000", "$0.000012", "unknown", "$0"]
    assert figures.money_column(["1200", "0.000012"]) == ["$1,200.00", "<$0.01"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0"),
        (9_999, "9,999"),
        (12_345, "12.3k"),
        (50_000, "50k"),
        (999_499, "999k"),
        (999_900, "1M"),
        (1_250_000, "1.25M"),
    ],
)
def test_counts_of_a_narrow_column_are_short(number: int, words: str) -> None:
    assert figures.short(number) == words


@given(st.integers(0, 10**12 - 10**9))
def test_no_count_is_longer_than_six_signs(number: int) -> None:
    assert len(figures.short(number)) <= 6


@given(st.integers(0, 10**15))
def test_no_amount_above_nothing_is_shown_as_nothing(nano: int) -> None:
    shown = figures.money(f"{nano // 10**9}.{nano % 10**9:09d}")
    assert (shown == "$0") == (nano == 0)
    assert shown.strip("<$0.,") or nano == 0 or shown.startswith("<")


@given(st.text())
def test_nothing_that_is_shown_steers_the_terminal(words: str) -> None:
    kept = terminal.clean(words)
    assert not any((ord(sign) < 32 and sign not in "\n\t") or 127 <= ord(sign) < 160 for sign in kept)
    assert terminal.clean(kept) == kept


def test_a_complaint_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    show.complain("it went\n  wrong\x1b[31m")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "shunter: error: it went wrong[31m\n")


@pytest.mark.parametrize("columns", [80, 160])
def test_every_table_fits_its_terminal_and_says_what_matters(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    show.decision(DECISION, datetime(2026, 11, 22, 11, 20, tzinfo=UTC))
    show.job(JOB)
    show.jobs({"jobs": [JOB, JOB], "next": JOB["id"]})
    show.batches([BATCH])
    show.batch(BATCH)
    drawn = capsys.readouterr().out
    assert max(len(line) for line in drawn.splitlines()) <= columns
    for words in ("batch → sync flex", "taken", "40 min", "unknown", "[bold]cut[/bold]", "12,345 of 50,000", "~$13.25",
                  JOB["id"], "may have cost up", "answer (truncated)"):  # fmt: skip
        assert str(words) in drawn
    assert "\x1b" not in drawn


def test_a_pipe_gets_whole_lines_without_padding(capsys: pytest.CaptureFixture[str]) -> None:
    show.job(JOB)
    show.jobs({"jobs": [JOB], "next": None})
    drawn = capsys.readouterr().out
    assert f"{JOB['model']}" in drawn
    assert not any(line.endswith(" ") for line in drawn.splitlines() if not line.startswith("word"))


def test_an_encoding_without_fine_signs_gets_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", errors="strict"))
    show.decision(DECISION)
    show.batches([BATCH])
    show.text("Müller 🚂")
    show.data({"name": "Müller 🚂"})
    sys.stdout.flush()
    drawn = raw.getvalue().decode("ascii")
    assert "batch -> sync" in drawn
    assert json.loads(drawn[drawn.index("{") :]) == {"name": "Müller 🚂"}


def test_progress_is_silent_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with show.progress("working", total=3) as told:
        told(3)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("no_color", [True, False])
def test_a_terminal_gets_colour_unless_it_wants_none(no_color: bool) -> None:
    code = (
        "import json, sys; from router import show\n"
        "with show.progress('working', 3) as told: told(2)\n"
        "show.complain('bad'); show.batches([json.loads(sys.argv[1])])"
    )
    env = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm-256color"}
    ours, theirs = pty.openpty()
    env |= {"NO_COLOR": "1"} if no_color else {}
    command = [sys.executable, "-c", code, json.dumps(BATCH)]
    done = subprocess.run(command, env=env, stdin=theirs, stdout=theirs, stderr=theirs, check=True, timeout=60)
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:
            break
        if not part:
            break
        seen += part
    os.close(ours)
    assert done.returncode == 0
    assert b"working" in seen
    assert (b"\x1b[1;31m" in seen) is not no_color
    assert (b"\x1b[34m" in seen) is not no_color  # a state in its colour
