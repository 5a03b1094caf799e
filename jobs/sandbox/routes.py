"""Which part answers which path: everything but the live answers, which have a shorter way."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from jobs.sandbox import models
from jobs.sandbox.errors import ApiError
from jobs.sandbox.faults import CREATE, Facts, Fault, Faults, only
from jobs.sandbox.http import Exchange, Request
from jobs.sandbox.requests import parsed
from jobs.sandbox.uploads import Upload, create_drills, send_blob
from jobs.sandbox.voices import VOICES

if TYPE_CHECKING:
    from jobs.sandbox.app import App

LIVE = {"/v1/chat/completions": "chat", "/v1/responses": "responses", "/v1/messages": "messages"}


@dataclass(frozen=True, slots=True)
class Call:
    """One request on its way to a part; `ident` is the id in its path."""

    app: "App"
    exchange: Exchange
    raw: bytes
    extra: Faults
    ident: str = ""

    @property
    def request(self) -> Request:
        return self.exchange.request

    @property
    def anthropic(self) -> bool:
        return b"anthropic-version" in self.request.headers

    @property
    def base(self) -> str:
        return f"http://{self.request.header(b'host')}"

    @property
    def body(self) -> dict[str, Any]:
        return parsed(self.request, self.raw)

    def drills(self) -> list[Fault]:
        facts = Facts(self.request.path, self.request.method, "", "batch", self.raw)
        return create_drills(self.app.faults, self.extra, facts)


async def lose(exchange: Exchange, how: str, seconds: float) -> None:
    """No answer: the connection is closed, reset, or left hanging and then closed."""
    if how == "hang":
        await asyncio.sleep(seconds)
    exchange.cut("rst" if how == "rst" else "fin")


async def respond_later(call: Call) -> None:
    """A response in the background; its drills are told by what it asks for, how its answer is lost by the path."""
    answer = call.app.background.create(call.body, call.raw, call.exchange.id, call.app.faults, call.extra)
    facts = Facts(call.request.path, call.request.method, str(answer["model"]), "background", call.raw)
    await created(call, answer, call.app.faults.take(CREATE, facts) + call.extra.take(CREATE, facts))


async def created(call: Call, answer: dict[str, Any], drills: list[Fault]) -> None:
    """The answer to a create, unless a drill loses it after the work was done."""
    lost = only(drills, "lost_create")
    if lost is not None:
        await lose(call.exchange, lost["how"], lost["seconds"])
    else:
        call.exchange.reply(200, orjson.dumps(answer))


def _upload(call: Call) -> Awaitable[None]:
    assert isinstance(call.request.sink, Upload)
    drills = call.drills()
    return created(call, call.app.uploads.create(call.request.sink, drills).view(), drills)


def _create_batch(call: Call) -> Awaitable[None]:
    body, drills = call.body, call.drills()
    return created(call, call.app.batches.create(body, drills), drills)


def _create_message_batch(call: Call) -> Awaitable[None]:
    body, drills = call.body, call.drills()
    return created(call, call.app.batches.create_messages(body, drills, call.base), drills)


def _results(call: Call) -> Awaitable[None]:
    blob = call.app.store.blob(call.app.batches.results(call.ident))
    return send_blob(call.exchange, blob, b"application/x-jsonl")


def _model(call: Call) -> dict[str, Any]:
    models.check(call.ident, anthropic=call.anthropic)
    return (models.anthropic_model if call.anthropic else models.openai_model)(call.ident)


def _input_tokens(call: Call) -> dict[str, Any]:
    return {"object": "response.input_tokens", "input_tokens": VOICES["responses"].read(call.body, "").input_tokens}


def _count_tokens(call: Call) -> dict[str, Any]:
    return {"input_tokens": VOICES["messages"].read({"max_tokens": 1, **call.body}, "").input_tokens}


ROUTES: dict[tuple[str, str], Callable[[Call], Any]] = {
    ("GET", "/v1/models"): lambda call: models.anthropic_list() if call.anthropic else models.openai_list(),
    ("GET", "/v1/models/*"): _model,
    ("POST", "/v1/files"): _upload,
    ("GET", "/v1/files"): lambda call: call.app.uploads.listing(call.request.query),
    ("GET", "/v1/files/*"): lambda call: call.app.uploads.get(call.ident).view(),
    ("DELETE", "/v1/files/*"): lambda call: call.app.uploads.delete(call.ident),
    ("GET", "/v1/files/*/content"): lambda call: call.app.uploads.content(call.exchange, call.ident),
    ("POST", "/v1/batches"): _create_batch,
    ("GET", "/v1/batches"): lambda call: call.app.batches.listing(call.request.query),
    ("GET", "/v1/batches/*"): lambda call: call.app.batches.get(call.ident),
    ("POST", "/v1/batches/*/cancel"): lambda call: call.app.batches.cancel(call.ident),
    ("GET", "/v1/responses/*"): lambda call: call.app.background.get(call.ident),
    ("POST", "/v1/responses/*/cancel"): lambda call: call.app.background.cancel(call.ident),
    ("POST", "/v1/messages/batches"): _create_message_batch,
    ("GET", "/v1/messages/batches"): lambda call: call.app.batches.list_messages(call.request.query, call.base),
    ("GET", "/v1/messages/batches/*"): lambda call: call.app.batches.get_messages(call.ident, call.base),
    ("DELETE", "/v1/messages/batches/*"): lambda call: call.app.batches.delete_messages(call.ident),
    ("POST", "/v1/messages/batches/*/cancel"): lambda call: call.app.batches.cancel_messages(call.ident, call.base),
    ("GET", "/v1/messages/batches/*/results"): _results,
    ("POST", "/v1/messages/count_tokens"): _count_tokens,
    ("POST", "/v1/responses/input_tokens"): _input_tokens,
}


def shape(path: str) -> tuple[str, str]:
    """The path with the id in it as *, and the id."""
    parts = path.rstrip("/").split("/")
    at = 4 if parts[:4] == ["", "v1", "messages", "batches"] else 3
    whole = parts[:3] == ["", "v1", "messages"] or parts == ["", "v1", "responses", "input_tokens"]
    if len(parts) <= at or (whole and at == 3):
        return "/".join(parts), ""
    return "/".join([*parts[:at], "*", *parts[at + 1 :]]), parts[at]


async def route(call: Call) -> None:
    """Answers by the table; 405 for a live path, 404 for any other that is not in it."""
    request = call.request
    template, ident = shape(request.path)
    handler = ROUTES.get((request.method, template))
    if handler is None:
        if request.path in LIVE:
            raise ApiError(
                405,
                f"Not allowed to {request.method} on {request.path}. (HINT: Perhaps you meant to make a POST request?)",
                code="method_not_supported",
            )
        raise ApiError(404, f"Invalid URL ({request.method} {request.path})")
    answer = handler(Call(call.app, call.exchange, call.raw, call.extra, ident))
    if isinstance(answer, Awaitable):
        await answer
    else:
        call.exchange.reply(200, orjson.dumps(answer))
