"""Responses in the background as the real OpenAI SDK sees them: queued, over by the clock, billed once at the end."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from jobs.sandbox.server import Sandbox, running
from jobs.sandbox.settings import SandboxError, SandboxSettings

MINUTE = 60.0  # of the sandbox's clock, for a response that is wanted soonest


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with running(SandboxSettings(background_seconds=MINUTE)) as sandbox:
        yield sandbox


def ask(client: Any, window: str | None = "2h", **more: Any) -> Any:
    options = {"background_options": {"completion_window": window}} if window else {}
    facts = {"model": "gpt-6-luna", "input": "Tell me about points.", "background": True, "store": True}
    return client.responses.create(**facts | options | more)


def total(sandbox: Sandbox, **wanted: str) -> int:
    return int(sandbox.bill(**wanted)["totals"]["cost_nano_usd"])


@pytest.mark.parametrize(("window", "times"), [(None, 1), ("soonest", 1), ("2h", 2), ("8h", 8)])
def test_it_waits_runs_and_is_done_by_the_clock(client: Any, sandbox: Sandbox, window: str | None, times: int) -> None:
    made = ask(client, window, metadata={"mine": "7"})
    assert (made.status, made.background, made.output, made.usage) == ("queued", True, [], None)
    sandbox.advance(MINUTE * times * 0.5)
    assert client.responses.retrieve(made.id).status == "in_progress"
    assert sandbox.bill()["totals"]["rows"] == 0
    sandbox.advance(MINUTE * times * 0.5)
    done = client.responses.retrieve(made.id)
    assert (done.status, done.metadata) == ("completed", {"mine": "7"})
    assert done.output_text.startswith("[sandbox]")
    plain = client.responses.create(model="gpt-6-luna", input="Tell me about points.")
    assert (done.output_text, done.usage) == (plain.output_text, plain.usage)


@pytest.mark.parametrize(
    ("window", "tier", "percent"), [("soonest", "default", 100), ("2h", "2h", 70), ("8h", "8h", 60)]
)
def test_it_is_billed_once_at_its_end_at_the_price_of_its_window(
    client: Any, sandbox: Sandbox, window: str, tier: str, percent: int
) -> None:
    made = ask(client, window)
    sandbox.advance(8 * MINUTE)
    assert [client.responses.retrieve(made.id).status for _ in range(3)] == ["completed"] * 3
    [row] = sandbox.bill(kind="background")["rows"]
    assert (row["id"], row["tier"]) == (made.id, tier)
    client.responses.create(model="gpt-6-luna", input="Tell me about points.")
    assert total(sandbox, kind="background") == pytest.approx(total(sandbox, kind="plain") * percent / 100, abs=1)


def test_a_cancel_ends_it_unbilled_and_a_second_one_changes_nothing(client: Any, sandbox: Sandbox) -> None:
    made = ask(client)
    assert [client.responses.cancel(made.id).status for _ in range(2)] == ["cancelled"] * 2
    sandbox.advance(3 * MINUTE)
    assert client.responses.retrieve(made.id).status == "cancelled"
    assert sandbox.bill()["totals"]["rows"] == 0


def test_what_is_over_is_not_cancelled(client: Any, sandbox: Sandbox) -> None:
    made = ask(client)
    sandbox.advance(3 * MINUTE)
    assert client.responses.cancel(made.id).status == "completed"


def test_an_id_that_nobody_gave_is_not_found(client: Any) -> None:
    for call in (client.responses.retrieve, client.responses.cancel):
        with pytest.raises(openai.NotFoundError, match="resp_nope"):
            call("resp_nope")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"background_options": {"completion_window": "1h"}}, "'soonest', '2h', and '8h'"),
        ({"stream": True}, "does not support 'stream'"),
        ({"service_tier": "flex"}, "Standard processing"),
        ({"service_tier": "fast"}, "Standard processing"),
        ({"background": False}, "requires 'background'"),
        ({"input": []}, "empty array"),
    ],
)
def test_what_does_not_go_with_a_window_is_refused(client: Any, sandbox: Sandbox, more: Any, words: str) -> None:
    with pytest.raises(openai.BadRequestError, match=words):
        ask(client, **more)
    sandbox.advance(8 * MINUTE)
    assert sandbox.bill()["totals"]["rows"] == 0


def test_a_stream_in_the_background_is_a_stream(client: Any) -> None:
    assert [event.type for event in ask(client, None, stream=True)][-1] == "response.completed"


def test_what_asked_not_to_be_stored_is_soon_gone(client: Any, sandbox: Sandbox) -> None:
    made = ask(client, store=False)
    sandbox.advance(2 * MINUTE)
    assert client.responses.retrieve(made.id).status == "completed"
    sandbox.advance(601)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


# ---- drills ----


@pytest.mark.parametrize(
    ("fault", "status", "rows"),
    [
        ({"kind": "response_failed"}, "failed", 0),
        ({"kind": "response_failed", "billed": True}, "failed", 1),
        ({"kind": "length"}, "incomplete", 1),
        ({"kind": "content_filter"}, "incomplete", 1),
        ({"kind": "refusal"}, "completed", 1),
        ({"kind": "no_usage"}, "completed", 1),
        ({"kind": "expire"}, "cancelled", 0),
        ({"kind": "stall"}, "in_progress", 0),
    ],
)
def test_ends_as_a_drill_wants(client: Any, sandbox: Sandbox, fault: Any, status: str, rows: int) -> None:
    sandbox.faults([fault | {"match": {"lane": "background"}}])
    made = ask(client)
    sandbox.advance(86_400)
    got = client.responses.retrieve(made.id)
    assert got.status == status
    assert (got.error is not None) is (status == "failed")
    assert (got.usage is None) is (rows == 0 or fault["kind"] == "no_usage")
    assert sandbox.bill()["totals"]["rows"] == rows


def test_a_forgotten_response_is_not_found_but_billed(client: Any, sandbox: Sandbox) -> None:
    sandbox.faults([{"kind": "forget", "seconds": 30}])
    made = ask(client)
    assert client.responses.retrieve(made.id).status == "queued"
    sandbox.advance(30)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    sandbox.advance(90)
    assert sandbox.bill()["totals"]["rows"] == 1


def test_a_create_whose_answer_is_lost_was_made(client: Any, sandbox: Sandbox) -> None:
    sandbox.faults([{"kind": "lost_create", "match": {"path": "/v1/responses"}}])
    with pytest.raises(openai.APIConnectionError):
        ask(client)
    sandbox.advance(2 * MINUTE)
    assert sandbox.bill()["totals"]["rows"] == 1


# ---- what outlives the process ----


def test_responses_outlive_the_sandbox_and_are_billed_once(tmp_path: Path) -> None:
    told = SandboxSettings(folder=tmp_path, background_seconds=MINUTE)

    def client(sandbox: Sandbox) -> Any:
        return openai.OpenAI(base_url=sandbox.url + "/v1", api_key="sk-test", max_retries=0)

    with running(told) as sandbox, client(sandbox) as first:
        done, waiting, stopped = (ask(first, window).id for window in ("2h", "8h", "8h"))
        first.responses.cancel(stopped)
        sandbox.advance(2 * MINUTE)
        assert sandbox.bill()["totals"]["rows"] == 1
    journal = tmp_path / "state.jsonl"  # as if it had been killed between the bill and the state
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))
    with running(told) as sandbox, client(sandbox) as second:
        assert second.responses.retrieve(done).status == "completed"
        assert second.responses.retrieve(waiting).status == "in_progress"
        assert second.responses.retrieve(stopped).status == "cancelled"
        assert sandbox.bill()["totals"]["rows"] == 1
        sandbox.advance(8 * MINUTE)
        assert second.responses.retrieve(waiting).status == "completed"
        assert sorted(row["id"] for row in sandbox.bill()["rows"]) == sorted([done, waiting])


def test_a_reset_forgets_them(client: Any, sandbox: Sandbox) -> None:
    made = ask(client)
    sandbox.reset()
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    sandbox.advance(8 * MINUTE)
    assert sandbox.bill()["totals"]["rows"] == 0


def test_the_seconds_cannot_be_negative() -> None:
    with pytest.raises(SandboxError, match="background_seconds"):
        SandboxSettings(background_seconds=-1)
