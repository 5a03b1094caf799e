"""The log: one JSON line an event, by level, on stderr or in a file, and not a word of what was asked or answered."""

import asyncio
import json
import logging
import os
import pty
import select
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from db import workers
from db.engine import Store
from jobs import presence, worker
from jobs.errors import Transient
from jobs.observing import JobsRescued, Watchers, log
from jobs.worker import Told
from router import logs, terminal
from router.journal import Journal
from router.settings import load
from tests.commands import Shell
from tests.gateways import serving, settings_for
from tests.lanes import KEY, World

WORDS = "Where does the marmot sleep in winter?"
ANSWER = "[sandbox]"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """What `configure` sets up is taken back."""
    names = [log.name, *logs._OTHERS]
    kept = [(logging.getLogger(name), [*logging.getLogger(name).handlers], logging.getLogger(name).level,
             logging.getLogger(name).propagate) for name in names]  # fmt: skip
    yield
    terminal.talk = None
    for handler in log.handlers:
        handler.close()
    for logger, handlers, level, propagate in kept:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture
def lines(tmp_path: Path) -> Any:
    """Log to a file from a level on; a call of what this gives reads it."""
    path = tmp_path / "log.jsonl"

    def read(*events: str) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in path.read_text().splitlines()]
        return [line for line in found if not events or line["event"] in events]

    def begin(level: str) -> Any:
        logs.configure(load({}), level, str(path))
        return read

    return begin


def watched(world: World, **more: Any) -> Any:
    return world.context(tell=Watchers(Journal()), **more)


def run(world: World, context: Any) -> None:
    async def work() -> None:
        await worker.once(context, Told(), asyncio.Event())
        await context.close()

    asyncio.run(work())


# ---- what is told ----


def test_a_batch_is_summed_up_in_one_line_and_its_rows_are_told_at_debug_alone(
    world: World, lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = lines("info")
    world.add(*[f"{WORDS} {n}" for n in range(5)])
    run(world, watched(world))
    assert [line["event"] for line in read() if line["event"].startswith("batch_")][:2] == [
        "batch_packed", "batch_created",
    ]  # fmt: skip
    [end] = read("batch_imported")
    assert end["ended"] == {"ok": 5}
    assert end["input_tokens"] > 0
    assert end["unknown_attempts"] == 0
    assert float(end["cost_usd"]) > 0
    assert read("attempt_ended") == []
    assert [line["event"] for line in read("worker_started", "worker_stopped")] == ["worker_started", "worker_stopped"]

    read = lines("debug")
    world.add(f"{WORDS} again")
    run(world, watched(world))
    [row] = read("attempt_ended")
    assert (row["level"], row["lane"], row["state"], row["cost_source"]) == ("debug", "batch", "ok", "assumed")


def test_an_attempt_is_told_with_what_it_cost_and_how_long_it_took_and_a_retry_with_when(
    world: World, lines: Any
) -> None:
    read = lines("debug")
    world.sandbox.faults([{"kind": "status", "status": 500, "times": 1}])
    [job_id] = world.add(WORDS, lane="sync")
    run(world, watched(world))
    first, second = read("attempt_ended")
    assert [line["n"] for line in read("attempt_sent")] == [1, 2]
    assert (first["job_id"], first["n"], first["job"]) == (job_id, 1, "again")
    assert first["state"] in ("failed", "unknown")
    assert (second["n"], second["state"], second["job"]) == (2, "ok", "succeeded")
    assert second["total_ms"] > 0
    assert second["output_tokens"] > 0
    [retry] = read("job_retry")
    assert retry["job_id"] == job_id
    assert datetime.fromisoformat(retry["run_after"]).tzinfo is not None


def test_no_line_has_a_word_of_the_request_or_the_answer_or_a_key(world: World, lines: Any, tmp_path: Path) -> None:
    lines("debug")
    world.sandbox.faults([{"kind": "status", "status": 400, "times": 1}])
    world.add(WORDS, lane="sync")
    world.add(WORDS, lane="stream")
    world.add(WORDS)
    run(world, watched(world))
    text = (tmp_path / "log.jsonl").read_text()
    assert text.count("\n") > 8
    assert not any(word in text for word in (WORDS, "marmot", ANSWER, KEY, world.sandbox.url))


def test_a_level_leaves_out_what_is_below_it(world: World, lines: Any) -> None:
    read = lines("warning")
    world.add(WORDS, lane="sync")
    run(world, watched(world))
    assert read() == []
    Journal()(JobsRescued(2))
    assert [(line["level"], line["event"], line["jobs"]) for line in read()] == [("warning", "jobs_rescued", 2)]


def test_a_worker_that_is_taken_over_is_named(world: World, lines: Any) -> None:
    read = lines("warning")
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    workers.register(world.store, "dead-worker", "host", 1, long_ago)
    context = watched(world, dead_s=1.0)

    async def work() -> None:
        took_over = asyncio.Event()

        def note(text: str) -> None:
            took_over.set()

        async with presence.present(context, note, lost=lambda: None), asyncio.timeout(10):
            await took_over.wait()

    asyncio.run(work())
    [line] = read("lease_taken_over")
    assert (line["from"], line["worker"]) == ("dead-worker", context.owner)


def test_the_gateway_tells_the_route_and_not_the_path(world: World, lines: Any, tmp_path: Path) -> None:
    read = lines("info")
    with serving(settings_for(world.sandbox.url, tmp_path)) as gateway, gateway.client() as client:
        body = {"model": "gpt-6-luna", "messages": [{"role": "user", "content": WORDS}]}
        answered = client.post("/v1/chat/completions", json=body)
        client.get("/api/jobs/job_that_is_not_there?prompt=marmot")
        client.get("/nothing/marmot")
    done = {line.get("route"): line for line in read("request_done")}  # told after their clients have their answers
    assert {route: (line["method"], line["status"]) for route, line in done.items()} == {
        "/v1/chat/completions": ("POST", 200), "/api/jobs/{job}": ("GET", 404), None: ("GET", 404),
    }  # fmt: skip
    [accepted] = read("job_accepted")
    assert done["/v1/chat/completions"]["job_id"] == answered.headers["X-Shunter-Job"] == accepted["job_id"]
    assert all(line["ms"] > 0 for line in done.values())
    assert "marmot" not in (tmp_path / "log.jsonl").read_text()
    assert [line["event"] for line in read("server_started", "server_stopped")] == ["server_started", "server_stopped"]


# ---- its form ----


def test_a_failure_is_told_by_its_kind_and_place_and_not_by_its_words(lines: Any) -> None:
    read = lines("error")

    def broken(event: object) -> None:
        raise Transient(WORDS)

    Watchers(broken)(JobsRescued(1))
    [line] = read()
    assert (line["event"], line["on"], line["error"]) == ("watcher_failed", "JobsRescued", "Transient")
    assert "broken" in line["stack"][-1]
    assert "marmot" not in json.dumps(line)


def test_what_others_log_has_the_same_form_names_no_address_and_is_not_said_on_and_on(lines: Any) -> None:
    read = lines("info")
    logging.getLogger("uvicorn.error").info("Started server process [%d]", 7)
    for _ in range(3):
        logging.getLogger("opentelemetry.exporter").error("Failed to export to %s", "https://user:pass@host/?key=1")
    logging.getLogger("opentelemetry.exporter").warning("not worth a line")
    assert [(line["level"], line["logger"], line["text"]) for line in read()] == [
        ("info", "uvicorn.error", "Started server process [7]"),
        ("error", "opentelemetry.exporter", "Failed to export to …"),
    ]


def test_a_program_that_set_up_nothing_gets_not_a_word() -> None:
    program = "from jobs.observing import JobsRescued; from router.journal import Journal; Journal()(JobsRescued(1))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


# ---- the commands ----


@pytest.fixture
def shell(world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{world.sandbox.url}/v1")
    return Shell(monkeypatch, capsys, tmp_path)


def test_where_no_terminal_is_each_line_is_json_once_usual_events_are_told(world: World, shell: Shell) -> None:
    world.add(WORDS, lane="sync")
    done = shell("worker", "--once", "--log-level", "info")
    events = [json.loads(line)["event"] for line in done.err.splitlines()]
    assert done.code == 0
    assert {"worker_started", "attempt_ended", "said", "worker_stopped"} <= {*events}


def test_by_default_a_person_reads_words(world: World, shell: Shell) -> None:
    world.add(WORDS, lane="sync")
    done = shell("worker", "--once")
    assert done.code == 0
    assert "done: 1 succeeded" in done.err
    assert "{" not in done.err


def test_with_a_file_the_words_stay_on_stderr_and_the_events_go_there(
    world: World, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add(WORDS, lane="sync")
    monkeypatch.setenv("SHUNTER_LOG_LEVEL", "info")
    done = shell("worker", "--once", "--log-file", str(tmp_path / "own.log"))
    assert "done: 1 succeeded" in done.err
    assert "{" not in done.err
    assert '"attempt_ended"' in (tmp_path / "own.log").read_text()


def test_a_level_that_there_is_not_and_a_file_that_cannot_be_are_said(shell: Shell, tmp_path: Path) -> None:
    wrong = shell("worker", "--once", "--log-level", "loud")
    assert (wrong.code, "debug, info, warning, error" in wrong.err) == (2, True)
    wrong = shell("worker", "--once", "--log-file", str(tmp_path / "no" / "such" / "folder"))
    assert (wrong.code, "the log cannot be written to" in wrong.err) == (2, True)


def test_on_a_terminal_lines_stand_above_the_one_that_moves(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from router.watching import Watch

    ours, theirs = pty.openpty()
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "xterm")
    with os.fdopen(theirs, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr("router.watching.in_front", lambda: True)
        logs.configure(load({}), "info")
        watch = Watch(store)
        logs.beside(watch.aside)
        watch._draw()
        Journal()(JobsRescued(3))
        stream.flush()
        said = ""
        while select.select([ours], [], [], 0.5)[0]:  # it comes in pieces
            said += os.read(ours, 4096).decode()
    os.close(ours)
    before, _, after = said.partition("{")
    assert before.endswith("\r\x1b[K")  # the moving line was wiped first
    assert json.loads("{" + after.partition("\r\n")[0])["event"] == "jobs_rescued"
    assert "nothing is due" in after  # and drawn anew below
