"""First token and CPU a chunk of streams through the router, beside the bare SDK on the same sandbox, in pairs."""

import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.measure import verdict
from tests.bench.sandbox_speed import process

MODEL = "gpt-6-luna"
WORDS, FEW = 400, 60  # the sandbox says a word a chunk, and as many as it is asked for
BEHIND = 0.02  # seconds after a stream in which its CPU still counts: what it leaves to be done behind it
SANDBOX = """
import json, sys
from jobs.sandbox.server import serve
from jobs.sandbox.settings import SandboxSettings
serve(SandboxSettings(**json.loads(sys.argv[1])), on_ready=lambda url: print(url.rpartition(":")[2], flush=True))
"""


@dataclass(frozen=True, slots=True)
class Read:
    """One stream, read to its end: milliseconds to its first words, CPU microseconds a chunk, and what it said."""

    first_ms: float
    cpu_us: float
    text: str


Pair = tuple[Read, Read]  # the bare SDK's, then the router's


@contextlib.contextmanager
def sandbox(**settings: Any) -> Iterator[str]:
    """The URL of a sandbox in a process of its own, so that its CPU does not count."""
    with process(SANDBOX, json.dumps(settings)) as (port, _):
        yield f"http://127.0.0.1:{port}"


def prompt(words: int, about: str = "trains") -> str:
    """What the policy streams, and the sandbox answers in so many chunks."""
    return f"Write a story of {words} words about {about}."


@contextlib.asynccontextmanager
async def bare_client(url: str) -> AsyncIterator[Any]:
    """The SDK as it comes."""
    import openai

    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="sk-bench", max_retries=0) as client:
        yield client


@contextlib.asynccontextmanager
async def router_at(url: str, folder: Path) -> AsyncIterator[Any]:
    """A Router with the default settings, its database in the folder; nothing of this machine's own settings."""
    router = new_router(url, folder)
    try:
        yield router
    finally:
        await router.close()


def new_router(url: str, folder: Path) -> Any:
    """It connects when it is used."""
    from router import Router
    from router.settings import load

    folder.mkdir(exist_ok=True)
    config = folder / "config.toml"
    config.touch()
    told = {"OPENAI_BASE_URL": f"{url}/v1", "SHUNTER_CONFIG": str(config)}
    settings = load(told | {"SHUNTER_DATABASE_URL": f"sqlite:///{folder / 'bench.db'}"})
    return Router(replace(settings, folder=folder / "batches"))


async def bare(client: Any, text: str) -> AsyncGenerator[str, None]:
    """The words of an answer as the SDK alone reads them."""
    stream = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": text}],
        stream=True,
        stream_options={"include_usage": True},
    )
    async with stream:
        async for chunk in stream:
            if chunk.choices and (words := chunk.choices[0].delta.content):
                yield words


async def ours(router: Any, text: str) -> AsyncGenerator[str, None]:
    """The same through the router."""
    from db.states import Lane
    from jobs.chat import Delta, Request
    from router.decided import Started

    request = Request(model=MODEL, messages=[{"role": "user", "content": text}], interactive=True)
    async for event in router.stream(request):
        if isinstance(event, Delta) and event.text:
            yield event.text
        elif isinstance(event, Started):
            assert event.decision.lane is Lane.STREAM, event.decision.reason


async def read(words: AsyncGenerator[str, None]) -> Read:
    """One stream to its end; this process must do nothing else."""
    heard: list[str] = []
    first, cpu, start = 0.0, time.process_time(), time.perf_counter()
    async for piece in words:
        first = first or time.perf_counter() - start
        heard.append(piece)
    await asyncio.sleep(BEHIND)
    return Read(first * 1000, (time.process_time() - cpu) / len(heard) * 1e6, "".join(heard))


async def pairs(folder: Path, warm: int, runs: int, **settings: Any) -> list[Pair]:
    """Both in turn, so that a drift of the machine meets both; the first short ones do not count."""
    with sandbox(**settings) as url:
        async with bare_client(url) as client, router_at(url, folder) as router:
            for _ in range(warm):
                await read(bare(client, prompt(FEW))), await read(ours(router, prompt(FEW)))
            done = [
                (await read(bare(client, prompt(WORDS))), await read(ours(router, prompt(WORDS)))) for _ in range(runs)
            ]
            kept(router, warm + runs)
    assert all(one.text == other.text for one, other in done), "the router's words are not the bare SDK's"
    return done


def kept(router: Any, count: int) -> None:
    """Every stream left a job that succeeded and an attempt of known cost."""
    from tests.lanes import settled, states

    assert states(router.store) == {"succeeded": count}
    cost, unknown, risk = settled(router.store)
    assert (cost > 0, unknown, risk) == (True, 0, 0)


def first_token(done: list[Pair]) -> bool:
    """Medians of the time to the first words."""
    alone, through = (median(one[side].first_ms for one in done) for side in (0, 1))
    print(f"       first token: {through:.2f} ms, the bare SDK's {alone:.2f} ms; medians of {len(done)} pairs")
    held = verdict("first token / the bare SDK's", through / alone, 1.10)
    return verdict("ms later than the bare SDK's", through - alone, 2) and held


def cpu(done: list[Pair], pace: str) -> float:
    """The median of the pairs' ratios of CPU a chunk."""
    alone, through = (median(one[side].cpu_us for one in done) for side in (0, 1))
    print(f"       CPU a chunk {pace}: {through:.0f} µs, the bare SDK's {alone:.0f} µs; medians of {len(done)} pairs")
    return median(through.cpu_us / alone.cpu_us for alone, through in done)


def main() -> bool:
    """First token after 50 ms and CPU unpaced, then CPU at two paces, with the log and the ledger on."""
    print(f"one stream of {WORDS} chunks, beside the bare SDK:")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        done = asyncio.run(pairs(folder / "unpaced", 5, 60, latency_s=0.05))
        held = first_token(done)
        held = verdict("CPU a chunk unpaced / the bare SDK's", cpu(done, "unpaced"), 1.25) and held
        done = asyncio.run(pairs(folder / "200", 2, 2, latency_s=0.05, tokens_per_second=200))
        print(f"       CPU a chunk at 200 chunks/s / the bare SDK's: {cpu(done, 'at 200 chunks/s'):.3g}")
        done = asyncio.run(pairs(folder / "50", 2, 3, latency_s=0.05, tokens_per_second=50))
    return verdict("CPU a chunk at 50 chunks/s / the bare SDK's", cpu(done, "at 50 chunks/s"), 1.25) and held


if __name__ == "__main__":
    raise SystemExit(not main())
