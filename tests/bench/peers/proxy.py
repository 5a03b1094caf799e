"""`python -m tests.bench.peers.proxy`: the gateway beside LiteLLM's proxy, each alone before the same sandbox.

The proxy is installed from its package into an environment of its own under build/peers. It runs as one worker, with a
price for its model and no database: it prices, it keeps nothing. Ours has its ledger and its rollups on.
"""

import asyncio
import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

from tests.bench.gateway import AT_ONCE, SECONDS, first_ms, gateway, port_of, speed
from tests.bench.measure import verdict
from tests.bench.peers.places import NotThere, python
from tests.bench.sandbox_speed import request
from tests.bench.streaming import sandbox

CALLS, ROUNDS, START_S = 100, 3, 120.0
CONFIG = """
model_list:
  - model_name: gpt-6-luna
    litellm_params:
      model: openai/gpt-6-luna
      api_base: {url}/v1
      api_key: sk-bench
      input_cost_per_token: 0.0000001
      output_cost_per_token: 0.0000004
litellm_settings:
  telemetry: false
general_settings:
  master_key: sk-bench
"""


class Figures(NamedTuple):
    """Milliseconds added to a plain call and to a first token, requests a second."""

    added: float
    added_p99: float
    first: float
    plain: float
    stream: float


@contextlib.contextmanager
def litellm(url: str, folder: Path) -> Iterator[tuple[int, int]]:
    """LiteLLM's proxy before the sandbox at the URL: its port and process id. NotThere says why it cannot be."""
    command = python("proxy-litellm", ("litellm[proxy]",), (3, 11)).parent / "litellm"
    (folder / "config.yaml").write_text(CONFIG.format(url=url))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    env["LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"] = "true"  # it is the bench's own
    said = folder / "said"
    with said.open("wb") as out, subprocess.Popen(
        [command, "--config", str(folder / "config.yaml"), "--host", "127.0.0.1", "--port", str(port)],
        cwd=folder, env=env, stdout=out, stderr=out,
    ) as server:  # fmt: skip
        try:
            until = time.monotonic() + START_S
            while not answers(port):
                if server.poll() is not None or time.monotonic() > until:
                    raise NotThere(said.read_text()[-300:] or "it does not start")
                time.sleep(0.5)
            yield port, server.pid
        finally:
            server.terminate()


def answers(port: int) -> bool:
    """Whether somebody listens there, and answers a call."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as asked:
        asked.settimeout(10)
        asked.sendall(request())
        return asked.recv(12) == b"HTTP/1.1 200"
    return False


async def calls_ms(port: int, count: int) -> list[float]:
    """Milliseconds of plain calls, one after the other over one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    payload, times = request(), []
    for _ in range(count):
        start = time.perf_counter()
        writer.write(payload)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r", 1)[0]))
        times.append((time.perf_counter() - start) * 1000)
    writer.close()
    return times


def measured(url: str, port: int, pid: int) -> Figures:
    """One server's figures; the bare sandbox takes its turn between."""
    asyncio.run(calls_ms(port, 10))
    asyncio.run(first_ms(port, 5))
    ours: list[float] = []
    bare: list[float] = []
    firsts: list[float] = []
    bare_firsts: list[float] = []
    for _ in range(ROUNDS):
        ours += asyncio.run(calls_ms(port, CALLS))
        bare += asyncio.run(calls_ms(port_of(url), CALLS))
        firsts += asyncio.run(first_ms(port, CALLS // 5))
        bare_firsts += asyncio.run(first_ms(port_of(url), CALLS // 5))
    late = quantiles(ours, n=100)[98] - quantiles(bare, n=100)[98]
    plain, stream = (speed(port, pid, stream=stream)[0] for stream in (False, True))
    return Figures(median(ours) - median(bare), late, median(firsts) - median(bare_firsts), plain, stream)


def main() -> bool:
    """Both, and the ratios that are wanted."""
    print(f"a gateway before the sandbox, calls of 1 KB, {AT_ONCE} at once for {SECONDS:g} s a server:", flush=True)
    found = {}
    for name, serve in (("shunter", gateway), ("litellm", litellm)):
        with tempfile.TemporaryDirectory() as folder, sandbox() as url:
            try:
                with serve(url, Path(folder)) as (port, pid):
                    found[name] = one = measured(url, port, pid)
            except NotThere as why:
                print(f"       {name}: not there: {why}")
                return True
        print(f"       {name}: adds {one.added:.1f} ms to a call (p99 {one.added_p99:.1f}), {one.first:.1f} to a first "
              f"token; {one.plain:,.0f} plain and {one.stream:,.0f} streaming requests/s", flush=True)  # fmt: skip
    ours, theirs = found["shunter"], found["litellm"]
    assert theirs.plain, "the proxy answered nothing in the time that there was"
    assert theirs.stream, "the proxy ended no stream in the time that there was"
    return all((
        verdict("plain requests/s, ratio", ours.plain / theirs.plain, 5, at_least=True),
        verdict("streaming requests/s, ratio", ours.stream / theirs.stream, 5, at_least=True),
        verdict("added to a call, ratio of medians", ours.added / theirs.added, 0.3),
        verdict("added to a call, ratio of p99", ours.added_p99 / theirs.added_p99, 0.3),
        verdict("added to the first token, ms", ours.first, 3),
    ))  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(not main())
