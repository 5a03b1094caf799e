"""Faults as data: read from objects, files and headers, refused where they are wrong."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from jobs.sandbox import faults
from jobs.sandbox.server import Sandbox, running
from jobs.sandbox.settings import SandboxError, SandboxSettings

HELLO: Any = [{"role": "user", "content": "Tell me about wagons."}]
BODY = '{"model":"gpt-6-luna","messages":[{"role":"user","content":"hi"}]}'
ROW = '{"custom_id":"r%d","method":"POST","url":"/v1/chat/completions","body":' + BODY + "}"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with running(SandboxSettings(batch_seconds=1000)) as sandbox:
        yield sandbox


def ask(client: Any, **more: Any) -> Any:
    return client.chat.completions.create(**{"model": "gpt-4o", "messages": HELLO, **more})


def read(client: Any, ident: str | None) -> list[dict[str, Any]]:
    return [json.loads(line) for line in client.files.content(ident).content.split(b"\n") if line] if ident else []


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"kind": "nope"}, "unknown fault kind 'nope'; allowed: status"),
        ({"kind": "cut", "afetr": 3}, "has no 'afetr'; allowed: after"),
        ({"kind": "cut", "after": "3"}, "after must be int"),
        ({"kind": "cut", "after": -1}, "after must be 0 or more"),
        ({"kind": "cut", "how": "hang"}, "how must be one of fin, rst"),
        ({"kind": "expire", "fraction": 2}, "between 0 and 1"),
        ({"kind": "status", "status": 200}, "between 400 and 599"),
        ({"kind": "cut", "match": {"color": "red"}}, "any of path, method"),
        ({"kind": "cut", "times": True}, "times must be int"),
        ("cut;after", "not name=value"),
        ([1], "a JSON object with a kind"),
    ],
)
def test_a_bad_fault_says_what_is_wrong(client: Any, sandbox: Sandbox, spec: Any, words: str) -> None:
    with pytest.raises(SandboxError) as caught:
        faults.parse(spec)
    assert words in str(caught.value)
    got = httpx2.put(sandbox.url + "/_sandbox/faults", json=[spec])
    assert got.status_code == 400
    assert words in got.json()["error"]["message"]
    if isinstance(spec, str):
        with pytest.raises(openai.BadRequestError, match=words):
            ask(client, extra_headers={"X-Sandbox-Fault": spec})


def test_faults_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "faults.json"
    path.write_text('{"faults": [{"kind": "status", "status": 500}]}')
    with running(SandboxSettings(faults=path)) as sandbox:
        assert httpx2.get(sandbox.url + "/v1/models", headers={"Authorization": "Bearer x"}).status_code == 500
    for text, words in (("{", "is not JSON"), ('{"a": 1}', "JSON list"), ('[{"kind": "x"}]', "unknown fault kind")):
        path.write_text(text)
        with pytest.raises(SandboxError, match=words), running(SandboxSettings(faults=path)):
            pass
    with pytest.raises(SandboxError, match="cannot read"), running(SandboxSettings(faults=tmp_path / "none.json")):
        pass


def test_the_short_form() -> None:
    fault = faults.parse("fail_rows;custom_ids=a|b;status_code=429;code=slow_down;path=/v1/batches;times=2")
    assert fault["custom_ids"] == ["a", "b"]
    assert fault["status_code"] == 429
    assert fault["code"] == "slow_down"
    assert fault.match == {"path": "/v1/batches"}
    assert fault.times == 2
    assert faults.hits(faults.parse("cut;path=/v1/chat*"), faults.Facts("/v1/chat/completions"))
    assert not faults.hits(faults.parse("cut;path=/v1/chat"), faults.Facts("/v1/chat/completions"))


def test_matching_skipping_and_counting(client: Any, sandbox: Sandbox) -> None:
    def struck(**more: Any) -> bool:
        try:
            ask(client, **more)
        except openai.InternalServerError:
            return True
        return False

    sandbox.faults(
        [{"kind": "status", "match": {"model": "gpt-4o", "contains": "bomb", "lane": "plain"}, "times": 2, "skip": 1}]
    )
    bomb = [{"role": "user", "content": "a bomb"}]
    assert not struck()
    assert not struck(messages=bomb, model="gpt-4o-mini")
    assert not struck(messages=bomb, stream=True)
    assert [struck(messages=bomb) for _ in range(4)] == [False, True, True, False]
    sandbox.faults([{"kind": "status", "chance": 0.5}])
    assert 5 <= sum(struck() for _ in range(40)) <= 35
