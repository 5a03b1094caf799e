"""The gateway beside the bare sandbox in the same run: time added to the first token, requests a second, memory."""

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from tests.bench.measure import verdict
from tests.bench.sandbox_speed import ROOT, cpu_seconds, drive, request
from tests.bench.streaming import sandbox

FIRSTS, SECONDS, AT_ONCE, MANY = 60, 5.0, 16, 1000
GATEWAY = """
from router.dispatch import Router
from router.web.server import serve
def ready(text):
    if "http://" in text:
        print(text.partition("http://")[2].split()[0].rpartition(":")[2], flush=True)
serve(Router(), host="127.0.0.1", port=0, names=(), say=ready)
"""


@contextlib.contextmanager
def gateway(url: str, folder: Path) -> Iterator[tuple[int, int]]:
    """A gateway with all accounting on, before the sandbox at the URL: its port and process id."""
    data = folder / "data"
    (data / "shunter").mkdir(parents=True)
    (data / "shunter" / "token").write_text("sk-bench")
    env = {**os.environ, "XDG_DATA_HOME": str(data), "OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "sk-bench"}
    command = [sys.executable, "-c", GATEWAY]
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline()), server.pid
        finally:
            server.terminate()


async def first_ms(port: int, count: int) -> list[float]:
    """Milliseconds from a request, over an open connection, to the first token of its stream."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    payload, times = request(stream=True), []
    for _ in range(count):
        start = time.perf_counter()
        writer.write(payload)
        came, token = b"", None
        while not came.endswith(b"0\r\n\r\n"):
            came += await reader.read(1 << 16)
            if token is None and (b'"content":"[' in came or b'"content": "[' in came):
                token = time.perf_counter() - start
        assert token is not None, came[:300]
        times.append(token * 1000)
    writer.close()
    return times


async def open_streams(port: int, pid: int, count: int) -> float:
    """Resident megabytes of a process with so many streams that come word by word, all open at once."""
    writers = []
    heard = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(stream=True))
        writers.append(writer)
        heard.append(asyncio.ensure_future(reader.readuntil(b'"content":"[')))
    await asyncio.gather(*heard)
    held = resident(pid)
    for writer in writers:
        writer.close()
    return held


def resident(pid: int) -> float:
    """Megabytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


def port_of(url: str) -> int:
    """The port of the sandbox."""
    return int(url.rpartition(":")[2])


def firsts(url: str, port: int) -> tuple[list[float], list[float]]:
    """The gateway's and the sandbox's first tokens, in turn, so that a drift of the machine meets both."""
    asyncio.run(first_ms(port, 5))
    ours: list[float] = []
    bare: list[float] = []
    for _ in range(FIRSTS // 10):
        bare += asyncio.run(first_ms(port_of(url), 10))
        ours += asyncio.run(first_ms(port, 10))
    return ours, bare


def speed(port: int, pid: int, *, stream: bool) -> tuple[float, float]:
    """Whole answers a second, and of a second of the server's CPU."""
    return asyncio.run(drive(port, pid, AT_ONCE, SECONDS, stream))


def main() -> bool:
    """Every figure with the ledger on."""
    print(f"the gateway, 1 KB requests, {AT_ONCE} at once:")
    with tempfile.TemporaryDirectory() as folder, sandbox() as url, gateway(url, Path(folder)) as (port, pid):
        ours, bare = firsts(url, port)
        print(f"       first token: {median(ours):.2f} ms, from the bare sandbox {median(bare):.2f} ms")
        held = verdict("added to the first token, median ms", median(ours) - median(bare), 3)
        for name, stream in (("plain", False), ("stream", True)):
            before = cpu_seconds(pid)
            wall, of_core = speed(port, pid, stream=stream)
            print(f"       {name}: {wall:,.0f}/s by the clock, {of_core:,.0f} a second of its core", end="")
            print(f" ({cpu_seconds(pid) - before:.1f} s of CPU)")
    return memory() and held


def memory() -> bool:
    """What streams hold that come slowly."""
    slow = sandbox(tokens_per_second=2)
    with tempfile.TemporaryDirectory() as folder, slow as url, gateway(url, Path(folder)) as (port, pid):
        return verdict(f"MB with {MANY} open streams", asyncio.run(open_streams(port, pid, MANY)), 400)


if __name__ == "__main__":
    raise SystemExit(not main())
