"""A provider's key is in the environment and on the wire to its provider, and nowhere else."""

import asyncio
import json
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from db import batches, lookup
from jobs import retry, worker
from jobs.chat import Request
from jobs.sandbox.server import Sandbox
from router import Router
from tests.lanes import CLAUDE

OPENAI, ANTHROPIC = "sk-proj-DISTINCT1vE0penaiKEY77aa", "sk-ant-DISTINCT1vEanthropicKEY88bb"
PIECES = ("DISTINCT1vE", "KEY77aa", "KEY88bb")
MODELS = ["gpt-6-luna", CLAUDE]


@pytest.fixture
def router(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[Router]:
    caplog.set_level(logging.DEBUG)
    for name in ("openai", "anthropic", "httpx2", "httpcore2", "sqlalchemy", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=name)
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.02)
    monkeypatch.setenv("OPENAI_API_KEY", OPENAI)
    monkeypatch.setenv("ANTHROPIC_API_KEY", ANTHROPIC)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{sandbox.url}/v1")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", sandbox.url)
    monkeypatch.setenv("SHUNTER_DATABASE_URL", f"sqlite:///{tmp_path / 'shunter.db'}")
    made = Router()
    yield made
    asyncio.run(made.close())


def ask(prompt: str, model: str, **more: Any) -> Request:
    return Request.model_validate({"model": model, "messages": [{"role": "user", "content": prompt}], **more})


async def everything(router: Router, troubles: list[str]) -> list[Any]:
    """A stream, a call and a batch of each provider."""
    jobs = []
    for model in MODELS:
        jobs.append(await router.submit(ask("Explain signals in detail.", model, interactive=True)))
        jobs.append(await router.submit(ask("One word: yes or no?", model, interactive=True)))
        jobs.append(await router.submit(ask("Name a city.", model)))
    await worker.once(router.context(), worker.Told(trouble=troubles.append), asyncio.Event())
    await router.context().close()
    return [lookup.job(router.store, one["id"]) for one in jobs]


async def asked(router: Router, prompt: str) -> list[Any]:
    """The same prompt to each provider."""
    jobs = [await router.submit(ask(prompt, model, interactive=True)) for model in MODELS]
    await router.context().close()
    return jobs


def nowhere(router: Router, folder: Path, caplog: pytest.LogCaptureFixture, *texts: str) -> None:
    """In no file of the database or beside it, in no log, in no text."""
    assert router.store.path is not None
    with sqlite3.connect(router.store.path) as connection:
        texts = (*texts, *connection.iterdump())
    connection.close()
    texts = (*texts, caplog.text, repr(router.settings), repr(router.context()), repr(router.context()._open))
    found = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    for piece in PIECES:
        assert not [text for text in texts if piece in text]
        assert not [data for data in found if piece.encode() in data]


def test_when_all_goes_well(router: Router, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    troubles: list[str] = []
    jobs = asyncio.run(everything(router, troubles))
    assert {one["state"] for one in jobs} == {"succeeded"}
    made = [one.model_dump_json() for one in batches.recent(router.store, 9)]
    nowhere(router, tmp_path, caplog, json.dumps(jobs), *made, *troubles)


def test_when_the_key_is_refused(
    router: Router, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider's 401 repeats a part of the key that it was given."""
    monkeypatch.setenv("OPENAI_API_KEY", f"sk-wrong-{OPENAI}")
    monkeypatch.setenv("ANTHROPIC_API_KEY", f"sk-wrong-{ANTHROPIC}")
    troubles: list[str] = []
    jobs = asyncio.run(everything(router, troubles))
    said = [one["error"]["message"] for one in jobs if one["error"]]
    assert len(said) == 4
    assert all("refused with 401" in text for text in said)
    assert troubles
    nowhere(router, tmp_path, caplog, json.dumps(jobs), *troubles)


@pytest.mark.parametrize("fault", [{"kind": "cut", "after": 2}, {"kind": "html_body"}, {"kind": "stream_error"}])
def test_when_calls_break(
    router: Router, sandbox: Sandbox, tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: dict[str, Any]
) -> None:
    sandbox.faults([fault])
    jobs = asyncio.run(asked(router, "Explain signals in detail."))
    assert {one["state"] for one in jobs} == {"failed"}
    nowhere(router, tmp_path, caplog, json.dumps(jobs))


def test_a_key_in_a_providers_words_is_taken_out(
    router: Router, sandbox: Sandbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.faults([{"kind": "status", "status": 400, "message": f"no such key: {OPENAI} or {ANTHROPIC}"}])
    jobs = asyncio.run(asked(router, "hi"))
    assert all("[key]" in one["error"]["message"] for one in jobs)
    caplog.clear()  # the drill itself was set with the keys in it
    nowhere(router, tmp_path, caplog, json.dumps(jobs))
