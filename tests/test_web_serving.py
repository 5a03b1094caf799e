"""The server as a process, and its streams as they meet slow readers."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest

from db import lookup
from db.engine import connect
from jobs.sandbox.server import Sandbox
from router.dispatch import Router
from router.web.app import create_app
from tests.gateways import TOKEN, sandbox_of, serving, settings_for
from tests.lanes import KEY, balanced

ESSAY = {"message": "Write a long essay about rivers.", "key": "essay"}
HEADERS = [(b"host", b"localhost"), (b"authorization", f"Bearer {TOKEN}".encode())]
sandbox = sandbox_of(answer_tokens=80, tokens_per_second=120)


class Started:
    """`shunter serve` in a process of its own."""

    def __init__(self, sandbox: Sandbox, folder: Path, **settings: str) -> None:
        env = {**os.environ, "OPENAI_BASE_URL": f"{sandbox.url}/v1", "OPENAI_API_KEY": KEY,
               "XDG_DATA_HOME": str(folder), "SHUNTER_DATABASE_URL": f"sqlite:///{folder / 'shunter.db'}",
               **settings}  # fmt: skip
        command = [sys.executable, "-m", "router", "serve", "--port", "0"]
        self.process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr
        self.said = [self.process.stderr.readline(), self.process.stderr.readline()]
        self.url = self.said[0].split()[2]
        self.token = Path(self.said[1].split()[-1]).read_text().strip()
        self.client = httpx2.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=30)

    def end(self) -> tuple[int, str]:
        """Its exit code, and what else it said."""
        said = self.process.communicate(timeout=30)[1]
        return self.process.returncode, said


@pytest.fixture
def started(sandbox: Sandbox, tmp_path: Path) -> Iterator[Started]:
    sandbox.reset()
    server = Started(sandbox, tmp_path)
    yield server
    server.client.close()
    server.process.kill()
    server.process.communicate()


def test_told_to_stop_it_lets_streams_end_and_ends_well(started: Started, sandbox: Sandbox, tmp_path: Path) -> None:
    assert started.token not in "".join(started.said)
    with started.client.stream("POST", "/api/chat/stream", json=ESSAY) as stream:
        pieces = stream.iter_text()
        next(pieces)
        started.process.send_signal(signal.SIGTERM)
        rest = "".join(pieces)
    assert rest.endswith("data: [DONE]\n\n")
    code, said = started.end()
    assert code == 0, said
    assert "stopping" in said
    assert "Traceback" not in said
    store = connect(f"sqlite:///{tmp_path / 'shunter.db'}")
    assert lookup.counts(store)["succeeded"] == 1
    balanced(store)
    store.close()
    assert len(sandbox.bill()["rows"]) == 1


def test_told_twice_it_cancels_what_runs_and_settles_it(started: Started, sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.faults([{"kind": "silence", "after": 3, "seconds": 60.0}])
    with started.client.stream("POST", "/api/chat/stream", json=ESSAY) as stream:
        pieces = stream.iter_text()
        next(pieces)
        for _ in range(2):
            started.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
        rest = "".join(pieces)
    code, said = started.end()
    assert code == 0, said
    assert '"state":"cancelled"' in rest
    store = connect(f"sqlite:///{tmp_path / 'shunter.db'}")
    assert lookup.counts(store)["cancelled"] == 1
    balanced(store)
    store.close()


def test_what_a_killed_server_left_is_ended_by_the_next(started: Started, sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.faults([{"kind": "silence", "after": 30, "seconds": 60.0}])
    with started.client.stream("POST", "/api/chat/stream", json=ESSAY) as stream:
        next(stream.iter_text())
        job = stream.headers["X-Shunter-Job"]
        os.kill(started.process.pid, signal.SIGKILL)
        started.process.wait()
    store = connect(f"sqlite:///{tmp_path / 'shunter.db'}")
    with store.write() as connection:  # as long ago as a lease lasts
        connection.exec_driver_sql("UPDATE job SET lease_until = '2026-01-01 00:00:00'")
    with serving(settings_for(sandbox.url, tmp_path)) as served, served.client() as client:
        said = client.get(f"/api/jobs/{job}/stream").text
    assert '"code":"abandoned"' in said
    found = lookup.job(store, job)
    assert found is not None
    assert (found["state"], found["error"]["code"], found["attempts"][0]["state"]) == ("failed", "abandoned", "unknown")
    balanced(store)
    store.close()


def test_another_server_ends_it_long_before_its_lease_runs_out(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.reset()
    sandbox.faults([{"kind": "silence", "after": 30, "seconds": 60.0}])
    servers = [Started(sandbox, tmp_path, SHUNTER_DEAD_SECONDS="1") for _ in range(2)]
    try:
        with servers[0].client.stream("POST", "/api/chat/stream", json=ESSAY) as stream:
            next(stream.iter_text())
            job = stream.headers["X-Shunter-Job"]
            servers[0].process.kill()
        since = time.monotonic()
        with servers[1].client.stream("GET", f"/api/jobs/{job}/stream") as stream:
            assert '"code":"abandoned"' in "".join(stream.iter_text())
        assert time.monotonic() - since < 20
    finally:
        for server in servers:
            server.client.close()
            server.process.kill()
            server.process.communicate()


# ---- without a server ----


class Slow:
    """A client that takes pieces only when it is told to."""

    def __init__(self, path: str, body: dict[str, Any]) -> None:
        self.scope: dict[str, Any] = {
            "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": HEADERS, "http_version": "1.1", "scheme": "http", "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2), "root_path": "",
        }  # fmt: skip
        self.body = orjson.dumps(body)
        self.sent: list[bytes] = []
        self.began, self.takes, self.left = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._asked = False

    async def receive(self) -> MutableMapping[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body":
            self.sent.append(message["body"])
            self.began.set()
            await self.takes.wait()


def test_a_slow_reader_holds_up_nobody_and_nothing_is_piled_up_for_it(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    sandbox.reset()

    async def read() -> Slow:
        router = Router(settings_for(sandbox.url, tmp_path))
        client = Slow("/api/chat/stream", ESSAY)
        serving = asyncio.ensure_future(create_app(router, token=TOKEN)(client.scope, client.receive, client.send))
        await client.began.wait()
        await router.context().settled()
        assert lookup.counts(router.store)["succeeded"] == 1
        assert len(client.sent) == 1
        client.takes.set()
        await serving
        await router.close()
        return client

    client = asyncio.run(read())
    assert len(client.sent) <= 4
    assert b"".join(client.sent).endswith(b"data: [DONE]\n\n")


def test_a_reader_that_takes_nothing_is_given_up(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("router.web.streams.STALLED_S", 0.1)

    async def read() -> str:
        router = Router(settings_for(sandbox.url, tmp_path))
        client = Slow("/api/chat/stream", {**ESSAY, "on_leave": "cancel"})
        await create_app(router, token=TOKEN)(client.scope, client.receive, client.send)
        state = lookup.jobs(router.store)["jobs"][0]["state"]
        await router.close()
        return str(state)

    assert asyncio.run(read()) == "cancelled"


def test_no_other_command_pays_for_the_web() -> None:
    look = (
        "import sys, router.cli.app; print(*(name for name in ('fastapi', 'uvicorn', 'openai') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
