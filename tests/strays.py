"""Batches that are made at the sandbox by hand, past the database, for the tests of orphans and of doctor."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import openai
import orjson

from db.ids import custom_id
from jobs import adopting, orphans
from jobs.adopting import Adopted
from jobs.orphans import Orphan, Survey
from jobs.sandbox.server import Sandbox
from jobs.sandbox.settings import SandboxSettings
from tests.lanes import CLAUDE, KEY, MODEL, World

SLOW = SandboxSettings(batch_seconds=300)  # its batches end when a test says so


def finish(world: World) -> None:
    """Let everything that waits come to its end; the worker itself waits for nothing (`LINGER_S`)."""
    for _ in range(2):
        world.work()
        world.sandbox.advance(600)
        world.clock.ahead += 600
    world.work()


def line(name: str, prompt: str = "Name a colour.") -> dict[str, Any]:
    """A row of an input file."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": prompt}]}
    return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}


@contextmanager
def sdk(sandbox: Sandbox) -> Iterator[openai.OpenAI]:
    """OpenAI's own client."""
    with openai.OpenAI(base_url=f"{sandbox.url}/v1", api_key=KEY, max_retries=0, timeout=10) as client:
        yield client


def by_hand(sandbox: Sandbox, names: Iterable[str], *, file_name: str = "by-hand.jsonl", **metadata: str) -> str:
    """A batch of these custom_ids under this metadata; its id."""
    data = b"".join(orjson.dumps(line(name), option=orjson.OPT_APPEND_NEWLINE) for name in names)
    with sdk(sandbox) as client:
        file = client.files.create(file=(file_name, data, "application/jsonl"), purpose="batch")
        made = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h",
                                     metadata=metadata)  # fmt: skip
    return made.id


def claude_by_hand(sandbox: Sandbox, names: Iterable[str]) -> str:
    """The same at Anthropic, where nothing but the custom_ids says whose it is."""
    params: Any = {"model": CLAUDE, "max_tokens": 50, "messages": [{"role": "user", "content": "Name a colour."}]}
    requests: Any = [{"custom_id": name, "params": params} for name in names]
    with anthropic.Anthropic(base_url=sandbox.url, api_key=KEY, max_retries=0, timeout=10) as client:
        return client.messages.batches.create(requests=requests).id


def first_tries(ids: Iterable[str]) -> list[str]:
    """How rows name the first try of each job."""
    return [custom_id(ident, 1) for ident in ids]


def survey(world: World, name: str = "openai") -> Survey:
    """What lies at the provider."""

    async def whole() -> Survey:
        context = world.context()
        try:
            return await orphans.survey(context, name)
        finally:
            await context.close()

    return asyncio.run(whole())


def adopt(world: World, orphan: Orphan) -> Adopted:
    """Take it in."""

    async def whole() -> Adopted:
        context = world.context()
        try:
            return await adopting.adopt(context, orphan)
        finally:
            await context.close()

    return asyncio.run(whole())
