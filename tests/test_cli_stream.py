"""submit's answer in a terminal and in a pipe while it comes; whoever reads it may leave, and the job is settled."""

import json
import re
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from db import lookup
from db.engine import Store
from jobs.sandbox.server import Sandbox, running
from jobs.sandbox.settings import SandboxSettings
from router.when import span
from tests.commands import Shell
from tests.lanes import rows
from tests.screens import Start, Terminal, starting, terminal, until

LONG = "Explain in 900 words how a railway signal works."
MIDDLING = "Explain in 50 words how a railway signal works."
SHORT = "Explain in 12 words how a railway signal works."
STREAM = ("submit", "--lane", "stream")
CUT = {"kind": "cut", "after": 5, "times": 1}
KEPT = "cancelled: the connection is closed; what came is kept:"
LEFT = ("cancelled", "unknown", "cancelled")
WAITING = re.compile(r"stream · gpt-6-luna · waiting \d\.\d s")


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A model that writes 50 words a second."""
    with running(SandboxSettings(tokens_per_second=50.0)) as server:
        yield server


@pytest.fixture(autouse=True)
def _at_the_sandbox(monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox, store: Store, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{sandbox.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-sandbox")
    monkeypatch.setenv("SHUNTER_DATABASE_URL", f"sqlite:///{tmp_path / 'shunter.db'}")
    monkeypatch.delenv("NO_COLOR")


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    return Shell(monkeypatch, capsys, tmp_path)


@pytest.fixture
def start() -> Iterator[Start]:
    with starting() as made:
        yield made


@pytest.fixture
def screen() -> Iterator[Terminal]:
    with terminal() as made:
        yield made


def job(store: Store, which: int = 0) -> dict[str, Any]:
    """The newest job, or an older one."""
    found = lookup.job(store, lookup.jobs(store)["jobs"][which]["id"])
    assert found is not None
    return found


def state(found: dict[str, Any]) -> tuple[str, str, str]:
    """Of the job and of its only attempt, and how that ended."""
    (attempt,) = found["attempts"]
    return found["state"], attempt["state"], attempt["outcome"]


# ---- leaving ----


def test_a_signal_before_the_first_token(start: Start, store: Store, sandbox: Sandbox) -> None:
    sandbox.faults([{"kind": "slow_first_token", "seconds": 30}])
    command = start(*STREAM, "--json", LONG)
    assert json.loads(command.line())["event"] == "decision"
    until(lambda: bool(sandbox.requests()["requests"]))
    command.signal(signal.SIGTERM)
    done = command.ended()
    left, last = (json.loads(line) for line in done.out.splitlines()[-2:])
    assert (left["event"], left["on_leave"]) == ("left", "cancel")
    assert (last["event"], last["state"]) == ("job", "cancelled")
    assert (done.code, state(job(store))) == (130, LEFT)


def test_what_goes_on_without_a_reader(start: Start, store: Store) -> None:
    """Drained, carried on, and carried on until a second Ctrl-C; side by side, for they take their time."""

    def case(policy: str, again: bool, code: int, ended: tuple[str, str, str]) -> None:
        command = start(*STREAM, "--json", "--on-leave", policy, LONG if again else MIDDLING)
        job_id = json.loads(command.line())["job"]
        assert '"delta"' in command.line()
        command.signal(signal.SIGINT)
        assert any('"left"' in line for line in iter(command.line, ""))
        if again:
            command.signal(signal.SIGHUP)  # of the terminal, and of the shell in it: no second thought
            time.sleep(0.05)
            command.signal(signal.SIGINT)
        done, found = command.ended(), lookup.job(store, job_id)
        assert found is not None
        assert (done.code, state(found)) == (code, ended)
        assert json.loads(done.out)["state"] == ended[0], "nothing comes between leaving and the job"
        assert "Ctrl-C again stops" in done.err

    with ThreadPoolExecutor() as pool:
        drained = pool.submit(case, "drain", False, 130, ("cancelled", "ok", "complete"))
        carried_on = pool.submit(case, "continue", False, 0, ("succeeded", "ok", "complete"))
        stopped = pool.submit(case, "continue", True, 130, LEFT)
    for done in (drained, carried_on, stopped):
        done.result()


def test_a_closed_pipe_is_leaving_though_nothing_is_written(start: Start, store: Store, sandbox: Sandbox) -> None:
    """`| head`: its end is noticed while the model is silent."""
    sandbox.faults([{"kind": "silence", "after": 5}])
    command = start(*STREAM, LONG)
    command.heard(9)
    command.leave()
    assert sandbox.billed(1)["rows"][0]["disconnected"]
    done = command.ended()
    assert (done.code, state(job(store))) == (141, LEFT)
    assert (done.err.startswith(KEPT), done.err.count("\n")) == (True, 1)


def test_a_reader_who_does_not_read_holds_nothing_up(
    start: Start, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pager that was left alone: the call ends, the process waits to show it, and Ctrl-C ends that."""
    with running(SandboxSettings()) as quick:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{quick.url}/v1")
        command = start(*STREAM, "--json", "Explain in 3000 words.")
        command.line()
        until(lambda: job(store)["state"] == "succeeded")
        assert command.process.poll() is None
        command.signal(signal.SIGINT)
        assert command.process.wait(10) == 130


# ---- on a terminal ----


def test_the_status_line_gives_way_to_the_text(start: Start, store: Store, sandbox: Sandbox, screen: Terminal) -> None:
    sandbox.faults([{"kind": "slow_first_token", "seconds": 1.0}])
    command = start(*STREAM, LONG, terminal=screen)
    until(lambda: len(set(WAITING.findall(screen.raw))) > 3, 20)
    assert all(WAITING.fullmatch(line) for line in screen.screen.lines)
    until(lambda: len(screen.screen.lines) > 1)
    screen.type(b"\x03")
    began = time.monotonic()
    row = sandbox.billed(1)["rows"][0]
    assert time.monotonic() - began < 0.5, "100 ms on an idle machine"
    assert (row["disconnected"], row["usage"]["output"] < 60) == (True, True)
    assert (command.ended().code, state(job(store))) == (130, LEFT)
    *text, cancelled, show = screen.screen.lines
    assert job(store)["text"].startswith("".join(text).removesuffix("^C").rstrip())
    assert (cancelled, show) == (KEPT, f"`shunter jobs show {job(store)['id']}`")


def test_the_status_line_stays_beside_a_file(
    shell: Shell, store: Store, screen: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with screen.opened() as err, (tmp_path / "out.txt").open("w") as out:
        monkeypatch.setattr(sys, "stderr", err)
        monkeypatch.setattr(sys, "stdout", out)
        assert shell(*STREAM, MIDDLING).code == 0
    assert (tmp_path / "out.txt").read_text() == f"{job(store)['text']}\n"
    assert re.search(r"stream · gpt-6-luna · \d+ tokens · \d+/s", screen.read())
    ended, which = screen.screen.lines
    [(first_ms,)] = rows(store, "SELECT first_token_ms FROM attempt")
    assert re.fullmatch(rf"stream · first token {span(first_ms / 1000)} · 50 tokens at \d+/s · \$0\.0\d+", ended)
    assert which == f"job {job(store)['id']}"


def test_a_terminal_that_goes_away_is_leaving(start: Start, store: Store) -> None:
    with terminal() as made:
        command = start(*STREAM, LONG, terminal=made, NO_COLOR="1")
        until(lambda: "[sandbox]" in made.raw)
    assert command.process.wait(10) == 130
    assert state(job(store)) == LEFT
    assert "\x1b" not in made.raw
    assert "waiting" not in made.raw


def test_markdown_is_for_terminals(
    shell: Shell, store: Store, screen: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shell(*STREAM, "--markdown", SHORT).out == f"{job(store)['text']}\n"
    with screen.opened() as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert shell(*STREAM, "--markdown", MIDDLING).code == 0
    screen.read()
    assert len(screen.screen.lines) > 3
    assert " ".join(screen.screen.lines) == job(store)["text"], "it is broken between words"


# ---- another attempt, and events ----


def test_a_new_attempt_is_not_glued_to_the_old(shell: Shell, sandbox: Sandbox) -> None:
    sandbox.faults([CUT])
    done = shell(*STREAM, "--on-cut", "restart", SHORT)
    first, second = done.out.splitlines()
    assert second.startswith(first)
    again, ended = done.err.splitlines()
    assert again.startswith("try 1 failed: ")
    assert again.endswith("; the answer begins anew")
    assert re.fullmatch(r"stream · first .* · \$0\.0\d+ and at most \$0\.0\d+ at risk · job \w+", ended)
    assert done.code == 0


def test_events_say_which_attempt_they_are_of(shell: Shell, sandbox: Sandbox) -> None:
    sandbox.faults([CUT])
    done = shell(*STREAM, "--on-cut", "restart", "--json", SHORT)
    events = [json.loads(line) for line in done.out.splitlines()]
    kinds = [(event["event"], event.get("attempt", event.get("n"))) for event in events]
    assert list(dict.fromkeys(kinds)) == [
        ("decision", None), ("delta", 1), ("attempt", 1), ("delta", 2), ("attempt", 2), ("job", None),
    ]  # fmt: skip
    broken, whole = (event for event in events if event["event"] == "attempt")
    assert (broken["state"], broken["outcome"], broken["again"], broken["chunks"]) == ("unknown", "cut", True, 5)
    assert (whole["state"], whole["outcome"], whole["again"], whole["error"]) == ("ok", "complete", False, None)
    assert 0 < whole["first_token_ms"] < whole["total_ms"]
    assert whole["cost_usd"] == events[-1]["attempts"][1]["cost_usd"]


def test_events_carry_tool_calls(shell: Shell, tmp_path: Path) -> None:
    tool = {"name": "find_train", "parameters": {"type": "object", "properties": {"to": {"type": "string"}}}}
    (tmp_path / "tool.json").write_text(json.dumps(tool))
    done = shell(*STREAM, "--json", "--tool", str(tmp_path / "tool.json"), "Use find_train.")
    events = [json.loads(line) for line in done.out.splitlines()]
    calls = [piece for event in events for piece in event.get("tool_calls") or () if event["event"] == "delta"]
    assert (calls[0]["index"], calls[0]["name"]) == (0, "find_train")
    (made,) = events[-1]["tool_calls"]
    assert "".join(piece.get("arguments", "") for piece in calls) == made["raw"]
    assert calls[0]["id"] == made["id"]


def test_the_last_line_says_why_and_at_what_risk(shell: Shell, sandbox: Sandbox) -> None:
    assert "truncated at the token limit · stream" in shell(*STREAM, "--max-tokens", "3", SHORT).err
    sandbox.faults([{"kind": "silence", "after": 3}])
    done = shell(*STREAM, "--idle-timeout", "0.2s", SHORT)
    assert done.code == 1
    assert re.search(r"nothing new for .*; at most \$0\.0\d+ at risk \(job \w+\)\n$", done.err)
    sandbox.faults([{"kind": "refusal"}])
    assert re.search(r"refused to answer: \[sandbox\] I cannot .*; cost \$0\.0", shell(*STREAM, SHORT).err)
