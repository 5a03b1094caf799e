"""Chat as the page does it: streams, stops, comes back, goes on, and pays once."""

import json
import threading
from typing import Any

import httpx2
import pytest

from jobs.sandbox.server import Sandbox
from tests.gateways import Served, sandbox_of

ESSAY = "Write a long essay about rivers."
sandbox = sandbox_of(tokens_per_second=200, answer_tokens=60)


class Heard:
    """A stream as it was read: events with their ids."""

    def __init__(self, raw: str) -> None:
        self.events: list[tuple[str, Any]] = []
        for block in raw.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.splitlines() if line and not line.startswith(":"))
            if fields:
                self.events.append((fields["id"], fields["data"]))
        self.done = bool(self.events) and self.events[-1][1] == "[DONE]"
        self.data = [json.loads(data) for _, data in self.events if data != "[DONE]"]

    @property
    def text(self) -> str:
        choices = [choice for data in self.data for choice in data["choices"]]
        return "".join(choice["delta"].get("content", "") for choice in choices)

    @property
    def meta(self) -> dict[str, Any]:
        found: dict[str, Any] = self.data[-1]["shunter"]
        return found


def chat(http: httpx2.Client, **body: Any) -> Heard:
    answer = http.post("/api/chat/stream", json=body)
    assert answer.status_code == 200, answer.text
    return Heard(answer.text)


def resume(http: httpx2.Client, job: str, at: str | None = None) -> Heard:
    return Heard(http.get(f"/api/jobs/{job}/stream", headers={"Last-Event-ID": at} if at else {}).text)


def test_a_short_answer_is_streamed_too_and_says_why(http: httpx2.Client) -> None:
    heard = chat(http, message="What is the capital of Iceland? One word.")
    assert (heard.meta["class"], heard.meta["lane"]) == ("short", "stream")
    assert heard.meta["reason"].startswith("A person is waiting and reads along")


def test_a_message_is_answered_piece_by_piece_with_what_it_cost(http: httpx2.Client, sandbox: Sandbox) -> None:
    heard = chat(http, message=ESSAY)
    assert heard.done
    assert len(heard.events) > 20
    bill = sandbox.billed(1)["rows"]
    assert heard.meta["lane"] == "stream"
    assert heard.meta["state"] == "succeeded"
    assert round(float(heard.meta["cost_usd"]) * 10**9) == sum(row["cost_nano_usd"] for row in bill)
    assert heard.meta["ttft_ms"] >= 0
    assert heard.meta["reason"]
    assert [choice["finish_reason"] for data in heard.data for choice in data["choices"] if "finish_reason" in choice]


def test_a_list_of_messages_is_answered_and_no_conversation_kept(http: httpx2.Client) -> None:
    heard = chat(http, messages=[{"role": "user", "content": "Hello"}])
    assert heard.text
    assert heard.meta["conversation"] is None


def test_a_conversation_goes_on_with_what_was_said(http: httpx2.Client, served: Served) -> None:
    talk = chat(http, message="My name is Ada.").meta["conversation"]
    job = chat(http, message="What is my name?", conversation=talk).meta["job"]
    with served.router.store.read() as connection:
        (body,) = connection.exec_driver_sql("SELECT body FROM body WHERE job_id = ?", (job,)).one()
    assert [turn["role"] for turn in json.loads(body)["messages"]] == ["user", "assistant", "user"]
    kept = http.get(f"/api/conversations/{talk}").json()
    assert [turn["role"] for turn in kept["messages"]] == ["user", "assistant"] * 2
    assert kept["messages"][3]["job"] == job
    assert kept["messages"][3]["meta"]["state"] == "succeeded"
    assert http.get("/api/conversations").json()["conversations"][0]["id"] == talk


def test_a_retry_replaces_the_last_answer_and_both_are_paid(http: httpx2.Client, sandbox: Sandbox) -> None:
    first = chat(http, message="Hello").meta
    second = chat(http, conversation=first["conversation"], retry=True).meta
    kept = http.get(f"/api/conversations/{first['conversation']}").json()["messages"]
    assert [turn.get("job") for turn in kept] == [None, second["job"]]
    assert len(sandbox.billed(2)["rows"]) == 2


def test_a_retry_of_an_answer_that_others_have_followed_is_refused(http: httpx2.Client, sandbox: Sandbox) -> None:
    first = chat(http, message="Hello").meta
    talk, seen = first["conversation"], first["job"]
    second = chat(http, conversation=talk, message="And then?").meta
    answer = http.post("/api/chat/stream", json={"conversation": talk, "retry": True, "job": seen})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conversation_changed")
    assert [turn.get("job") for turn in http.get(f"/api/conversations/{talk}").json()["messages"][1::2]] == [
        seen, second["job"],
    ]  # fmt: skip
    assert len(sandbox.billed(2)["rows"]) == 2
    third = chat(http, conversation=talk, retry=True, job=second["job"]).meta
    assert http.get(f"/api/conversations/{talk}").json()["messages"][3]["job"] == third["job"]
    assert http.post("/api/chat/stream", json={"conversation": talk, "retry": True, "job": 3}).status_code == 400


def test_a_forgotten_conversation_is_gone_and_its_job_is_not(http: httpx2.Client) -> None:
    meta = chat(http, message="Hello").meta
    assert http.delete(f"/api/conversations/{meta['conversation']}").status_code == 204
    assert http.get(f"/api/conversations/{meta['conversation']}").status_code == 404
    assert http.get(f"/api/jobs/{meta['job']}").status_code == 200


def test_the_same_key_again_is_the_same_answer_and_one_bill(http: httpx2.Client, sandbox: Sandbox) -> None:
    first, again = (chat(http, message=ESSAY, key="one") for _ in range(2))
    assert (again.text, again.meta["job"]) == (first.text, first.meta["job"])
    assert len(sandbox.bill()["rows"]) == 1


def test_every_position_goes_on_to_the_same_text(http: httpx2.Client) -> None:
    heard = chat(http, message=ESSAY)
    for index in range(0, len(heard.events), 9):
        at, _ = heard.events[index]
        rest = resume(http, heard.meta["job"], at)
        assert heard.text[: int(at.split(".")[1])] + rest.text == heard.text
        assert rest.done


def test_a_reload_in_the_middle_hears_the_rest_of_it_at_one_price(http: httpx2.Client, sandbox: Sandbox) -> None:
    with http.stream("POST", "/api/chat/stream", json={"message": ESSAY, "key": "reload"}) as stream:
        begun = next(stream.iter_text())
    at = Heard(begun.rpartition("\n\n")[0]).events[-1][0]
    rest = resume(http, "reload", at)
    whole = resume(http, "reload")
    assert rest.done
    assert whole.text[: int(at.split(".")[1])] + rest.text == whole.text
    assert len(sandbox.bill()["rows"]) == 1
    assert rest.meta["state"] == "succeeded"


def test_two_readers_hear_the_same_and_one_who_leaves_stops_nobody(http: httpx2.Client, served: Served) -> None:
    texts: list[str] = []
    all_begun = threading.Barrier(3)

    def read() -> None:
        with served.client() as other, other.stream("GET", "/api/jobs/two/stream") as stream:
            pieces = stream.iter_text()
            begun = next(pieces)
            all_begun.wait(20)
            texts.append(Heard(begun + "".join(pieces)).text)

    with http.stream("POST", "/api/chat/stream", json={"message": ESSAY, "key": "two", "on_leave": "cancel"}) as one:
        pieces = one.iter_text()
        next(pieces)
        readers = [threading.Thread(target=read) for _ in range(2)]
        for reader in readers:
            reader.start()
        all_begun.wait(20)
    for reader in readers:
        reader.join()
    assert texts[0] == texts[1] == resume(http, "two").text
    assert resume(http, "two").meta["state"] == "succeeded"


def test_stop_ends_it_upstream(http: httpx2.Client, sandbox: Sandbox) -> None:
    with http.stream("POST", "/api/chat/stream", json={"message": ESSAY, "key": "stop"}) as stream:
        pieces = stream.iter_text()
        begun = next(pieces)
        with httpx2.Client(base_url=http.base_url, headers=http.headers) as other:
            assert other.post("/api/jobs/stop/cancel").json()["state"] == "cancelled"
        heard = Heard(begun + "".join(pieces))
    assert heard.done
    assert heard.meta["state"] == "cancelled"
    (row,) = sandbox.billed(1)["rows"]
    assert row["usage"]["output"] < 60
    assert http.post("/api/jobs/stop/cancel").json()["state"] == "cancelled"


def test_a_page_that_is_closed_lets_its_answer_go_on(http: httpx2.Client) -> None:
    with http.stream("POST", "/api/chat/stream", json={"message": ESSAY, "key": "closed"}) as stream:
        next(stream.iter_text())
    assert resume(http, "closed").meta["state"] == "succeeded"


def test_an_error_before_the_first_word_is_a_status(http: httpx2.Client, sandbox: Sandbox) -> None:
    sandbox.faults([{"kind": "status", "status": 400, "code": "bad_thing"}])
    answer = http.post("/api/chat/stream", json={"message": "Hello"})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "bad_thing"


def test_an_error_after_it_is_an_event_and_no_end(http: httpx2.Client, sandbox: Sandbox) -> None:
    sandbox.faults([{"kind": "cut", "after": 5}])
    heard = chat(http, message=ESSAY)
    assert not heard.done
    assert heard.text
    assert heard.data[-1]["error"]["code"] == "cut"
    assert heard.meta["state"] == "failed"
    assert resume(http, heard.meta["job"]).data[-1]["error"]["code"] == "cut"


@pytest.mark.parametrize(
    "body",
    [{}, {"message": ""}, {"message": 3}, {"message": "a", "messages": []}, {"messages": []}, {"retry": True},
     {"message": "a", "on_leave": "stay"}, {"message": "a", "key": ""}, {"message": "a", "model": 3},
     {"message": "a", "conversation": 5}, {"messages": [{"role": "king", "content": "a"}]}],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(http: httpx2.Client, body: dict[str, Any]) -> None:
    answer = http.post("/api/chat/stream", json=body)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["message"]
