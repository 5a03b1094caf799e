"""What a client is told that it cannot have: in words of its own place, and none of the command line's."""

from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest

from db import standing
from db.budgets import Budget
from db.rescue import HELD
from db.rooms import Most, never
from jobs.errors import UsageError
from router.web import phrases
from router.web.errors import http_error
from tests.gateways import Served, facts_of, sandbox_of
from tests.lanes import MODEL, NOW
from tests.test_web_batches import line, rows, until, upload, work
from tests.test_web_guard import make_key

ASK: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
CHAT = "/v1/chat/completions"
sandbox = sandbox_of(answer_tokens=5)
facts = facts_of(has_batch={"openai": False})


def plain(error: Any) -> str:
    """Its words, which name no option and no command."""
    said = str(error["message"])
    assert "--" not in said, said
    assert "shunter " not in said, said
    return said


@pytest.fixture
def web(served: Served) -> Iterator[httpx2.Client]:
    with served.client() as client:
        yield client


@pytest.fixture
def asking(web: httpx2.Client) -> Any:
    def ask(headers: dict[str, str] | None = None, **body: Any) -> Any:
        answer = web.post(CHAT, json={**ASK, **body}, headers=headers or {})
        return answer.status_code, answer.json().get("error")

    return ask


def test_a_key_of_another_request(asking: Any, served: Served) -> None:
    _, mine = make_key(served)
    assert asking({**mine, "X-Shunter-Key": "mine"})[0] == 200
    status, error = asking({**mine, "X-Shunter-Key": "mine"}, messages=[{"role": "user", "content": "Else"}])
    assert (status, error["code"]) == (409, "key_reused")
    assert plain(error).endswith("send another key")
    assert "mine" not in error["message"], "with what it is called in here"


def test_a_budget_that_a_request_alone_is_too_large_for(asking: Any, served: Served) -> None:
    _, poor = make_key(served, usd="0.0000001")
    status, error = asking(poor)
    assert (status, error["code"], error["type"]) == (429, "over_budget", "insufficient_quota")
    assert "max_completion_tokens" in plain(error)
    assert "whoever runs this server" in error["message"]


def test_a_budget_that_is_used_up(asking: Any, served: Served) -> None:
    _, mine = make_key(served, usd="0.00005")
    answers = [asking(mine, max_tokens=12) for _ in range(20)]
    status, error = answers[-1]
    assert (answers[0][0], status, error["code"]) == (200, 429, "over_budget")
    assert "there is room again when the next period begins" in plain(error)
    assert error["message"].endswith("or after whoever runs this server has raised it")


def test_rows_of_a_batch_under_a_budget(asked: openai.OpenAI, served: Served) -> None:
    lines = upload(asked, line("a"), line("b"))
    standing.put(served.router.store, Budget("", "tiny", 10, "total", None, None, "UTC", NOW))
    try:
        made = asked.batches.create(input_file_id=lines, endpoint=CHAT, completion_window="24h")
        failed = until(asked, made.id, "failed", "completed")
    finally:
        standing.remove(served.router.store, "tiny", NOW)
    told = [plain(one.model_dump()) for one in (failed.errors.data if failed.errors else [])]
    if failed.error_file_id:
        work(served)
        told += [plain(one["response"]["body"]["error"]) for one in rows(asked, failed.error_file_id).values()]
    assert told
    assert all("max_completion_tokens" in said for said in told)


@pytest.mark.parametrize(
    ("headers", "code", "words"),
    [({"X-Shunter-Tags": "team"}, "hint", "X-Shunter-Tags is 'team': write key=value"),
     ({"X-Shunter-Deadline": "soon"}, "time", "X-Shunter-Deadline: 'soon' is not a time")],
)  # fmt: skip
def test_a_hint_that_cannot_be_read_is_named_as_it_was_sent(asking: Any, headers: Any, code: str, words: str) -> None:
    status, error = asking(headers)
    assert (status, error["code"]) == (400, code)
    assert plain(error).startswith(words)


def test_a_lane_that_a_key_may_not_use(asking: Any, served: Served) -> None:
    status, error = asking(make_key(served, lanes=["batch"])[1])
    assert (status, error["code"]) == (403, "lane_not_allowed")
    assert "X-Shunter-Class" in plain(error)


def test_a_rate_says_when_to_come_back(asking: Any, served: Served) -> None:
    _, slow = make_key(served, per_minute=1)
    asking(slow)
    status, error = asking(slow)
    assert status == 429
    assert "requests a minute: try again in " in plain(error)


def test_the_explain_box_names_its_own_fields(web: httpx2.Client) -> None:
    for given in ({"max_cost": "much"}, {"max_tokens": 0}, {"lane": "fast"}, {"max_cost": "0.0000001"}):
        answer = web.post("/api/boards/explain", json={"prompt": "Hello", **given})
        assert answer.status_code in (400, 403), answer.text
        assert next(iter(given)) in plain(answer.json()["error"]) or answer.json()["error"]["code"] == "over_cap"


def test_what_is_said_without_a_gateway(served: Served) -> None:
    context = served.router.context()
    assert plain(http_error(UsageError(context.missing("openai"), code="no_key")).error) == (
        "this server has no key for openai: name another model, or have OPENAI_API_KEY (or its base URL) set by "
        "whoever runs this server"
    )
    assert plain({"message": phrases.reworded(HELD)})
    no = never([], Most(100), MODEL, 10, 10)
    assert no is not None
    assert plain({"message": phrases.of_fields(no.why)}).endswith("raise max_cost, or lower max_tokens")


def test_what_a_provider_says_stays_as_it_is() -> None:
    said = "the prompt is too long: start the server with --max-model-len or see `shunter`"
    assert phrases.reworded(said) == said
