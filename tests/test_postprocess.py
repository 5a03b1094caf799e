"""A whole answer given to a command: its output kept, its failures told, the answer never lost."""

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest

from db.settle import Ending, Failed, Succeeded, Text
from jobs import postprocess

ANSWER = Succeeded(Text("grüße\nzwei", "stop"))


def apply(command: str | None, ending: Ending = ANSWER) -> Ending:
    return asyncio.run(postprocess.apply(ending, command))


def test_no_command_changes_nothing() -> None:
    assert apply(None) is ANSWER


def test_what_did_not_succeed_is_not_given_to_it() -> None:
    failed = Failed("x", "why", Text("half"))
    assert apply("exit 9", failed) is failed


def test_its_output_is_kept_beside_the_answer() -> None:
    assert apply("cat") == Succeeded(Text("grüße\nzwei", "stop", output="grüße\nzwei"))


def test_a_command_that_does_not_read() -> None:
    assert apply("true") == Succeeded(Text("grüße\nzwei", "stop", output=""))


def test_a_large_answer_and_a_large_output() -> None:
    words = "x" * 2_000_000
    end = apply("cat; cat /dev/null", Succeeded(Text(words)))
    assert isinstance(end, Succeeded)
    assert end.result.output == words


def test_output_that_is_not_utf_8() -> None:
    end = apply(r"printf '\377a'")
    assert isinstance(end, Succeeded)
    assert end.result.output == "\ufffda"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("echo so; echo no >&2; exit 3", "ended with 3: no"),
        ("exit 1", "it said nothing on stderr"),
        ("no-such-command-here", "not found"),
        ("kill -9 $$", "ended with -9"),
    ],
)
def test_a_failure_keeps_the_answer(command: str, says: str) -> None:
    end = apply(command)
    assert isinstance(end, Failed)
    assert end.code == "post_process"
    assert says in end.error
    assert end.result is not None
    assert end.result.text == ANSWER.result.text


def test_one_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postprocess, "_LIMIT_S", 0.2)
    end = apply(f"{sys.executable} -c 'import time; time.sleep(60)'")
    assert isinstance(end, Failed)
    assert "time-out" in end.error


@pytest.mark.parametrize("ticks", range(12))
def test_one_whose_owner_is_stopped_at_any_moment_of_its_start(tmp_path: Path, ticks: int) -> None:
    """Its pipes are opened one after the other while it runs already; whatever it started is ended with it."""
    held = tmp_path / "held"
    os.mkfifo(held)
    reader = os.open(held, os.O_RDONLY | os.O_NONBLOCK)

    async def stopped() -> None:
        working = asyncio.create_task(postprocess.apply(ANSWER, f"exec 3> {held}; sleep 60 & wait"))
        for _ in range(ticks):
            await asyncio.sleep(0)
            time.sleep(0.01)  # noqa: ASYNC251 - the command runs on while the loop does not
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working

    try:
        asyncio.run(stopped())
        assert os.read(reader, 1) == b"", "somebody has it open still"
    finally:
        os.close(reader)
