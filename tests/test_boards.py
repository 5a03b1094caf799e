"""The boards' JSON: what the commands print, for those who may see it; and one look for all who read along."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from db.engine import Store
from jobs.errors import UsageError
from router.web import live
from router.web.live import Watches
from tests.commands import Shell, finish, submitted
from tests.gateways import Served, serving, settings_for
from tests.lanes import MODEL, add, job


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    return Shell(monkeypatch, capsys, tmp_path)


@pytest.fixture
def served(store: Store, tmp_path: Path) -> Iterator[Served]:
    with serving(settings_for("http://127.0.0.1:9", tmp_path)) as gateway:
        yield gateway


@pytest.fixture
def client(served: Served) -> Iterator[httpx2.Client]:
    with served.client() as made:
        yield made


def test_every_board_says_what_its_command_says(client: httpx2.Client, store: Store, shell: Shell) -> None:
    done, _ = finish(store, tags={"project": "search"}), finish(store, failed=True, client_key="bad")
    batch = submitted(store, 2)
    assert shell("budget", "set", "daily", "--usd", "5", "--per", "day").code == 0
    for address, *words in (
        ("jobs?limit=3", "jobs", "list", "--limit", "3"),
        ("jobs?state=failed&error=cut", "jobs", "list", "--state", "failed", "--error", "cut"),
        (f"jobs?batch={batch}&model={MODEL}", "jobs", "list", "--batch", batch, "--model", MODEL),
        (f"job?id={done}", "jobs", "show", done),
        ("cost?by=lane,tag:project", "report", "cost", "--by", "lane,tag:project"),
        ("cost?by=model&since=1h", "report", "cost", "--by", "model", "--since", "1h"),
        ("latency?by=lane", "report", "latency", "--by", "lane"),
        ("savings?by=day", "report", "savings", "--by", "day"),
        ("errors?by=model", "report", "errors", "--by", "model"),
        ("policy", "policy", "show"),
        ("budgets", "budget", "list"),
    ):
        shown = client.get(f"/api/boards/{address}").json()
        for more in ("counts", "over_time"):  # what only the page shows beside it
            shown.pop(more, None)
        assert shown == shell(*words, "--json").json, address


def test_a_batch_is_told_as_the_command_tells_it(client: httpx2.Client, store: Store, shell: Shell) -> None:
    batch = submitted(store, 3)
    passing = ("eta_at",)  # it moves with the time
    for shown, said in (
        (client.get("/api/boards/batches").json()["batches"][0], shell("batches", "list", "--json").json["batches"][0]),
        (client.get(f"/api/boards/batch?id={batch[:9]}").json(), shell("batches", "show", batch, "--json").json),
    ):
        assert {name: value for name, value in shown.items() if name not in passing} == {
            name: value for name, value in said.items() if name not in passing
        }


def test_explain_decides_as_the_command_does(client: httpx2.Client, shell: Shell, served: Served) -> None:
    asked = {"prompt": "Summarize the history of Rome.", "deadline": "2027-01-01T08:00", "max_tokens": 500}
    shown = client.post("/api/boards/explain", json=asked).json()
    said = shell("explain", asked["prompt"], "--deadline", asked["deadline"], "--max-tokens", "500", "--json").json
    for name in ("class", "lane", "tier", "rule", "expected_output_tokens", "cost_usd"):  # times are a moment later
        assert shown[name] == said[name], name
    assert [step["lane"] for step in shown["plan"]] == [step["lane"] for step in said["plan"]]


def test_a_dash_is_a_prompt_here(client: httpx2.Client) -> None:
    assert client.post("/api/boards/explain", json={"prompt": "-"}).status_code == 200


@pytest.mark.parametrize(
    ("address", "status"),
    [("none", 404), ("job?id=none", 404), ("jobs?state=lost", 400), ("jobs?limit=0", 400), ("jobs?limit=١", 400),
     ("jobs?since=soon", 400), ("jobs?batch=none", 400), ("batch?id=none", 404), ("cost?by=colour", 400),
     ("cost?by=tag:", 400), ("request?job=none", 404), ("events?board=none", 404)],
)  # fmt: skip
def test_what_is_not_there_is_told(client: httpx2.Client, address: str, status: int) -> None:
    answer = client.get(f"/api/boards/{address}")
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "asked",
    [{}, {"prompt": ""}, {"prompt": "a", "schema": "/etc/passwd"}, {"prompt": "a", "lane": "x"},
     {"prompt": "a", "deadline": "soon"}],
)  # fmt: skip
def test_a_question_that_makes_no_sense_is_refused(client: httpx2.Client, asked: dict[str, Any]) -> None:
    assert client.post("/api/boards/explain", json=asked).status_code in (400, 422)


def test_the_request_of_a_job_is_shown_as_it_was_sent(client: httpx2.Client, store: Store) -> None:
    (ident,) = add(store, job("Name a bird."))
    sent = client.get(f"/api/boards/request?job={ident}").json()["request"]
    assert sent["messages"] == [{"role": "user", "content": "Name a bird."}]


def test_the_files_of_the_page_hold_nothing_inline_and_are_asked_for_again(served: Served) -> None:
    with httpx2.Client(base_url=served.url) as anyone:
        shell = anyone.get("/reports/cost")
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in shell.headers["content-security-policy"]
        assert not re.search(r"<script(?! (?:type=.module. )?src=)|<style| style=| on[a-z]+=", shell.text)
        for name in re.findall(r'"(/static/[^"]+)"', shell.text):
            first = anyone.get(name)
            again = anyone.get(name, headers={"If-None-Match": first.headers["etag"]})
            assert (first.status_code, again.status_code, first.headers["cache-control"]) == (200, 304, "no-cache")
        for name in ("none.js", "..%2fpage.py", "%2e%2e/page.py", ""):
            assert anyone.get(f"/static/{name}").status_code == 404


def test_nobody_else_sees_them(served: Served) -> None:
    with httpx2.Client(base_url=served.url) as nobody:
        assert [nobody.get(f"/api/boards/{name}").status_code for name in ("jobs", "events?board=jobs")] == [401, 401]


def test_a_board_is_sent_again_when_it_is_another_one(client: httpx2.Client, store: Store) -> None:
    with client.stream("GET", "/api/boards/events?board=jobs") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = (line for line in stream.iter_lines() if line.startswith("data: "))
        assert json.loads(next(lines)[6:])["jobs"] == []
        (ident,) = add(store, job("Name a bird."))
        assert [one["id"] for one in json.loads(next(lines)[6:])["jobs"]] == [ident]


def test_all_readers_share_one_look_and_nothing_looks_when_they_have_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "EVERY_S", 0.01)
    looks = 0

    def look() -> bytes:
        nonlocal looks
        looks += 1
        return b"%d" % (looks > 20)

    async def read(versions: AsyncGenerator[bytes | None, None]) -> list[bytes]:
        seen: list[bytes] = []
        async with aclosing(versions):
            async for value in versions:
                seen += [value] if value else []
                if len(seen) == 2:
                    return seen
        raise AssertionError("it ended early")

    async def run() -> None:
        watches = Watches()
        seen = await asyncio.gather(*(read(watches.read("one", look, lambda: False)) for _ in range(5)))
        assert seen == [[b"0", b"1"]] * 5
        assert looks < 40  # five readers that looked for themselves would have taken a hundred
        after = looks
        await asyncio.sleep(0.1)
        assert looks <= after + 1  # one may have begun before the last reader left
        assert not watches._watches

    asyncio.run(run())


def test_what_a_look_raises_is_told_to_every_reader(client: httpx2.Client) -> None:
    answer = client.get("/api/boards/events?board=job&id=none")
    assert answer.text.startswith("event: error\ndata: ")
    assert "there is no job" in answer.text

    def look() -> bytes:
        raise UsageError("no")

    async def run() -> None:
        watches = Watches()
        for _ in range(2):
            with pytest.raises(UsageError):
                await anext(watches.read("one", look, lambda: False))

    asyncio.run(run())
