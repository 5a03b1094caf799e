"""Requests a second of the sandbox on one core, beside a bare asyncio and httptools server in the same run."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.measure import verdict

ROOT = Path(__file__).resolve().parents[2]
SANDBOX = """
import os, sys
if sys.argv[1]: os.sched_setaffinity(0, {int(sys.argv[1])})
from jobs.sandbox.server import serve
from jobs.sandbox.settings import SandboxSettings
serve(SandboxSettings(), on_ready=lambda url: print(url.rpartition(":")[2], flush=True))
"""
HELLO = """
import asyncio, os, sys
if sys.argv[1]: os.sched_setaffinity(0, {int(sys.argv[1])})
import httptools
try:
    from uvloop import new_event_loop
except ImportError:
    new_event_loop = None
ANSWER = b"HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\ncontent-length: 15\\r\\n\\r\\n" + b'{"hello":"you"}'
class Hello(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
    def data_received(self, data):
        self.parser.feed_data(data)
    def on_message_complete(self):
        self.transport.write(ANSWER)
async def main():
    server = await asyncio.get_running_loop().create_server(Hello, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
with asyncio.Runner(loop_factory=new_event_loop) as runner:
    runner.run(main())
"""


def request(stream: bool = False) -> bytes:
    """About one KB of body, the usual headers of an SDK."""
    prompt = "Explain how a marshalling yard sorts its wagons, and why some of them may wait until the night. " * 9
    body: dict[str, Any] = {"model": "gpt-6-luna", "messages": [{"role": "user", "content": prompt}], "stream": stream}
    data = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: application/json\r\n"
        "authorization: Bearer sk-bench\r\ncontent-type: application/json\r\n"
        "user-agent: OpenAI/Python 3.54.0\r\nx-stainless-retry-count: 0\r\n"
        f"content-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


class Client(asyncio.Protocol):
    """Sends the next request as soon as the last answer is whole; counts until it is told to stop."""

    def __init__(self, payload: bytes, stream: bool) -> None:
        self.payload = payload
        self.stream = stream
        self.count = 0
        self.buffer = b""
        self.needed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        transport.write(self.payload)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if self.stream:
            whole = self.buffer.endswith(b"\r\n0\r\n\r\n")
        else:
            if not self.needed and (end := self.buffer.find(b"\r\n\r\n")) >= 0:
                at = self.buffer.index(b"content-length: ") + 16
                self.needed = end + 4 + int(self.buffer[at : self.buffer.index(b"\r", at)])
            whole = 0 < self.needed <= len(self.buffer)
        if whole:
            if not self.buffer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(self.buffer[:300])
            self.count += 1
            self.buffer, self.needed = b"", 0
            self.transport.write(self.payload)


async def drive(port: int, pid: int, connections: int, seconds: float, stream: bool) -> tuple[float, float]:
    """Whole answers a second, and a second of the server's CPU, after half a second to warm up."""
    loop = asyncio.get_running_loop()
    payload = request(stream)
    made = [
        await loop.create_connection(lambda: Client(payload, stream), "127.0.0.1", port) for _ in range(connections)
    ]
    clients = [client for _, client in made]
    await asyncio.sleep(0.5)
    before, used, began = sum(client.count for client in clients), cpu_seconds(pid), time.perf_counter()
    await asyncio.sleep(seconds)
    done = sum(client.count for client in clients) - before
    spent, passed = cpu_seconds(pid) - used, time.perf_counter() - began
    for client in clients:
        client.transport.abort()
    return done / passed, done / max(spent, 0.01)


@contextlib.contextmanager
def process(code: str, core: str) -> Iterator[tuple[int, int]]:
    """A server in a process of its own, held to one core if there are two: its port and process id."""
    with subprocess.Popen([sys.executable, "-c", code, core], cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline()), server.pid
        finally:
            server.kill()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(seconds: float = 4, connections: int = 32) -> dict[str, float]:
    """Requests a second by the clock and by the server's own processor time, server and client on a core each."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    core = str(cores[0]) if len(cores) > 1 else ""
    figures: dict[str, float] = {}
    try:
        if core:
            os.sched_setaffinity(0, set(cores[1:]))
        for name, code, stream in (("hello", HELLO, False), ("plain", SANDBOX, False), ("stream", SANDBOX, True)):
            with process(code, core) as (port, pid):
                wall, of_core = asyncio.run(drive(port, pid, connections, seconds, stream))
                figures[f"{name}_per_s"], figures[f"{name}_per_core_s"] = round(wall), round(of_core)
    finally:
        if core:
            os.sched_setaffinity(0, set(cores))
    return figures


def main() -> bool:
    """The sandbox alone, beside a bare server on the same two cores."""
    figures = measure()
    print("sandbox, 32 keep-alive connections, 1 KB requests:")
    for name, what in (("hello", "bare asyncio + httptools"), ("plain", "plain chat"), ("stream", "whole streams")):
        wall, of_core = figures[f"{name}_per_s"], figures[f"{name}_per_core_s"]
        print(f"       {what}: {wall:,.0f}/s by the clock, {of_core:,.0f} a second of the server's core")
    share = figures["plain_per_core_s"] / figures["hello_per_core_s"]
    print(f"       plain chat / the bare server, by the core: {share:.3f}")
    return verdict("plain requests a second of one core", figures["plain_per_core_s"], 3000, at_least=True)


if __name__ == "__main__":
    raise SystemExit(not main())
