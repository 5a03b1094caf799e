"""Connections for many calls at once: one each, used again, closed when they are not needed."""

import asyncio
import json
import subprocess
import sys
from typing import Any

import httpx2
import pytest

from jobs.chat import Request
from jobs.errors import Transient
from jobs.providers import Endpoint, Timeouts, pool
from jobs.providers.connection import transport
from jobs.providers.openai import OpenAIChat
from jobs.providers.pool import Pool
from tests.wire import Peer, Server, hang_up, mute, reply, serving

ANSWER = {"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}]}
ASK = Request.from_body({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]})


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")


def provider(server: Server) -> OpenAIChat:
    return OpenAIChat(Endpoint("openai", f"{server.url}/v1", own=False, key_env="OPENAI_API_KEY"))


async def ask(chat: OpenAIChat, **timeouts: float) -> str:
    return (await chat.complete(ASK, tier="default", timeouts=Timeouts(**timeouts))).first.text


async def slow(peer: Peer) -> None:
    await asyncio.sleep(0.05)
    await reply(ANSWER)(peer)


def test_one_connection_for_each_call_in_flight_and_no_more() -> None:
    async def work() -> int:
        async with serving(slow) as server:
            chat = provider(server)
            for _ in range(3):
                assert await asyncio.gather(*(ask(chat) for _ in range(5))) == ["yes"] * 5
            await chat.close()
            return server.connections

    assert asyncio.run(work()) == 5


def test_a_connection_that_broke_is_made_anew() -> None:
    async def work() -> int:
        async with serving(reply(ANSWER), hang_up, reply(ANSWER)) as server:
            chat = provider(server)
            assert await ask(chat) == "yes"
            with pytest.raises(Transient):
                await ask(chat)
            assert await ask(chat) == "yes"
            await chat.close()
            return server.connections

    assert asyncio.run(work()) == 2


def test_a_call_that_is_left_frees_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "MOST", 1)

    async def work() -> None:
        async with serving(mute, mute, reply(ANSWER)) as server:
            chat = provider(server)
            with pytest.raises(Transient):
                await ask(chat, total=0.1)
            task = asyncio.create_task(ask(chat))
            await asyncio.sleep(0.1)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await ask(chat) == "yes"
            await chat.close()

    asyncio.run(work())


def test_more_calls_than_connections_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "MOST", 2)

    async def work() -> int:
        async with serving(slow) as server:
            chat = provider(server)
            assert await asyncio.gather(*(ask(chat) for _ in range(6))) == ["yes"] * 6
            await chat.close()
            return server.connections

    assert asyncio.run(work()) == 2


def test_what_is_not_used_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "IDLE_S", 0.05)

    async def work() -> None:
        made = Pool(httpx2.create_ssl_context)
        async with serving(slow) as server, httpx2.AsyncClient(transport=made) as client:
            await asyncio.gather(*(client.post(server.url, content=b"{}") for _ in range(3)))
            assert len(made._free) == 3
            await asyncio.sleep(0.1)
            for _ in range(3):
                assert json.loads((await client.post(server.url, content=b"{}")).content) == ANSWER
            assert len(made._free) == 1

    asyncio.run(work())


def test_a_body_that_is_let_go_after_the_end_takes_its_connection_along() -> None:
    async def work() -> int:
        made = Pool(httpx2.create_ssl_context)
        async with serving(reply(ANSWER)) as server:
            client = httpx2.AsyncClient(transport=made)
            late = await client.send(client.build_request("POST", server.url, content=b"{}"), stream=True)
            await asyncio.sleep(0.05)  # all of it is here by now
            await client.aclose()
            await late.aclose()
            return len(made._free)

    assert asyncio.run(work()) == 0


def test_the_trust_store_is_read_at_once_where_calls_will_need_it_and_only_there() -> None:
    script = "; ".join((
        "import sys",
        "from jobs.providers import connection",
        "connection.transport(sys.argv[1])",
        "print(connection._trust.cache_info().currsize)",
    ))  # fmt: skip
    read = {
        url: subprocess.run([sys.executable, "-c", script, url], capture_output=True, text=True, check=True).stdout
        for url in ("https://api.example.com/v1", "http://127.0.0.1:9/v1")
    }
    assert [int(said) for said in read.values()] == [1, 0]


def test_behind_a_proxy_the_library_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    direct: dict[str, Any] = transport("https://api.example.com")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    proxied: dict[str, Any] = transport("https://api.example.com")
    assert ("transport" in direct, "transport" in proxied) == (True, False)
