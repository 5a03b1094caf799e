"""Batches of responses, batches whose window is over, and result files that are wanted for a while."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import openai
import pytest
from sqlalchemy import update

from db import expiring, gateway_batches
from db import facts as known
from db.ledger import JOB
from tests.gateways import Served, facts_of, sandbox_of
from tests.lanes import MODEL, World, add, balanced, job
from tests.test_web_batches import line, rows, until, upload, work

HOUR = timedelta(hours=1)
sandbox = sandbox_of(answer_tokens=5)
facts = facts_of(has_batch={"openai": False})


def asks(custom_id: str, **body: Any) -> str:
    """A line for the Responses API."""
    whole = {"model": MODEL, "input": f"Say {custom_id}", **body}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/responses", "body": whole})


def create(asked: openai.OpenAI, *lines: str, endpoint: Any = "/v1/responses", **more: Any) -> Any:
    made = asked.batches.create(input_file_id=upload(asked, *lines), endpoint=endpoint, completion_window="24h",
                                **more)  # fmt: skip
    return until(asked, made.id, "in_progress", "failed")


# ---- responses ----


def test_a_batch_of_responses_is_answered_with_responses(asked: openai.OpenAI, served: Served) -> None:
    tool = {"type": "function", "name": "get_weather", "parameters": {"type": "object", "properties": {}}}
    made = create(asked, asks("a", instructions="Be brief", max_output_tokens=4),
                  asks("b", tools=[tool], tool_choice="required"))  # fmt: skip
    assert made.endpoint == "/v1/responses"
    work(served)
    good = rows(asked, until(asked, made.id, "completed").output_file_id)
    answer = good["a"]["response"]["body"]
    assert (answer["object"], answer["status"]) == ("response", "incomplete")
    assert answer["output"][0]["content"][0]["text"]
    assert answer["usage"]["output_tokens"] == 4
    assert good["b"]["response"]["body"]["output"][0]["type"] == "function_call"
    kept = asked.responses.retrieve(answer["id"])
    assert kept.output_text == answer["output"][0]["content"][0]["text"]


def test_lines_that_no_response_is_made_of_are_told_apart(asked: openai.OpenAI, served: Served) -> None:
    bad = {"x": asks("x", input=3), "y": asks("y", previous_response_id="resp_1"), "z": line("z"),
           "t": asks("t", tools=[{"type": "web_search"}])}  # fmt: skip
    made = create(asked, asks("good"), *bad.values())
    assert (made.request_counts.total, made.request_counts.failed) == (5, 4)
    work(served)
    done = until(asked, made.id, "completed")
    said = {name: row["response"]["body"]["error"]["message"] for name, row in rows(asked, done.error_file_id).items()}
    assert said.keys() == bad.keys()
    for name, words in (("x", "input"), ("y", "previous_response_id"), ("z", "/v1/responses"), ("t", "web_search")):
        assert words in said[name]


def test_another_endpoint_is_refused_and_told_which_there_are(asked: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="/v1/chat/completions and /v1/responses"):
        create(asked, line("a"), endpoint="/v1/embeddings")


# ---- expired ----


def expired(served: Served, batch_id: str) -> None:
    """Its window is over."""
    gateway_batches.change(served.router.store, batch_id, expires_at=served.router.clock.now() - HOUR)


def test_what_has_no_answer_in_time_is_expired(asked: openai.OpenAI, served: Served) -> None:
    made = create(asked, line("early"), line("late"), endpoint="/v1/chat/completions")
    with served.router.store.write() as connection:
        later = served.router.clock.now() + HOUR
        connection.execute(update(JOB).where(JOB.c.client_key == "late").values(run_after=later))
    work(served)
    assert until(asked, made.id, "in_progress").request_counts.completed == 1
    expired(served, made.id)
    done = asked.batches.retrieve(made.id)
    assert (done.status, done.request_counts.completed, done.request_counts.failed) == ("expired", 1, 1)
    assert done.expired_at
    assert rows(asked, done.output_file_id)["early"]["response"]["status_code"] == 200
    assert rows(asked, done.error_file_id)["late"]["error"]["code"] == "batch_expired"
    with pytest.raises(openai.BadRequestError, match="expired already"):
        asked.batches.cancel(made.id)
    balanced(served.router.store)


def test_a_batch_that_ended_in_time_stays_completed(asked: openai.OpenAI, served: Served) -> None:
    made = create(asked, line("a"), endpoint="/v1/chat/completions")
    work(served)
    expired(served, made.id)
    assert asked.batches.retrieve(made.id).status == "completed"


def test_a_batch_that_nobody_asks_for_expires_as_well(asked: openai.OpenAI, served: Served) -> None:
    made = create(asked, line("a"), endpoint="/v1/chat/completions")
    store, now = served.router.store, served.router.clock.now()
    expired(served, made.id)
    assert gateway_batches.late(store, now - HOUR / 2, now) == []  # it was late before
    known.put(store, expiring.KEY, (now - 2 * HOUR).isoformat())
    expiring.expire(store, now)
    assert known.get(store, expiring.KEY) == now.isoformat()
    found = gateway_batches.find(store, made.id)
    assert found
    assert found.expired_at
    assert gateway_batches.standing(store, str(found.submission_id))[0] == {"cancelled": 1}


def test_a_worker_expires_what_no_server_is_there_for(world: World) -> None:
    now = datetime.now(UTC)
    ident, _ = add(world.store, job("late", now=now), job("later", now=now), now=now)
    submission = world.job(ident)["submission"]
    made = gateway_batches.Asked("batch_1", None, "file-1", "/v1/chat/completions", None, now - 25 * HOUR, now - HOUR)
    gateway_batches.create(world.store, made)
    gateway_batches.change(world.store, made.id, submission_id=submission, read_at=now)
    world.work()
    found = gateway_batches.find(world.store, made.id)
    assert found
    assert found.expired_at
    assert world.states() == {"cancelled": 2}
    assert world.sandbox.bill()["rows"] == []


# ---- result files ----


def test_result_files_are_given_out_for_as_long_as_they_are_wanted(asked: openai.OpenAI, served: Served) -> None:
    made = create(asked, line("a"), endpoint="/v1/chat/completions",
                  output_expires_after={"anchor": "created_at", "seconds": 3600})  # fmt: skip
    work(served)
    done = until(asked, made.id, "completed")
    file = asked.files.retrieve(done.output_file_id)
    assert file.expires_at
    assert done.completed_at
    assert file.expires_at - done.completed_at == 3600
    gateway_batches.change(served.router.store, made.id, output_seconds=0)
    for ask in (asked.files.retrieve, asked.files.content):
        with pytest.raises(openai.NotFoundError):
            ask(done.output_file_id)


@pytest.mark.parametrize(
    "wish",
    [3, {}, {"anchor": "created_at"}, {"anchor": "never", "seconds": 3600}, {"anchor": "created_at", "seconds": 3599},
     {"anchor": "created_at", "seconds": 2592001}, {"anchor": "created_at", "seconds": True}],
)  # fmt: skip
def test_a_wish_that_openai_would_not_take_is_refused(served: Served, wish: Any) -> None:
    body = {"endpoint": "/v1/responses", "completion_window": "24h", "input_file_id": "f", "output_expires_after": wish}
    with served.client() as client:
        answer = client.post("/v1/batches", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "output_expires_after")
