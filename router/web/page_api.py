"""What the page asks for beside its boards: chat, jobs, models and the session."""

import time
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from db import conversations, lookup
from db.states import FINAL
from jobs.chat import Handling, OnLeave
from jobs.follow import Position
from router.decided import Wish
from router.dispatch import Router
from router.keyring import KEY_TAG
from router.web import bodies, talks
from router.web.errors import HTTPError, told_of
from router.web.guard import COOKIE
from router.web.hints import json_of, request_of
from router.web.openai import head
from router.web.page_form import PageForm
from router.web.running import Runs, Seat
from router.web.streams import EventStream
from router.web.tokens import SESSION_S, Caller

_NOT_SENT = ("message", "messages", "conversation", "retry", "job", "key", "on_leave", "system", "stream",
             "stream_options")  # fmt: skip

_BODIES = {"/login": bodies.LOGIN, "/chat/stream": bodies.PAGE_CHAT}


def routes() -> APIRouter:
    """What is under /api, but for the boards."""
    router = APIRouter(prefix="/api", tags=["page"])
    for path, method, answer in (
        ("/login", "POST", login),
        ("/logout", "POST", logout),
        ("/me", "GET", me),
        ("/models", "GET", models),
        ("/chat/stream", "POST", chat_stream),
        ("/jobs", "GET", jobs),
        ("/jobs/{job}", "GET", job_of),
        ("/jobs/{job}/stream", "GET", job_stream),
        ("/jobs/{job}/cancel", "POST", cancel),
        ("/conversations", "GET", talks.listed),
        ("/conversations/{conversation}", "GET", talks.whole),
        ("/conversations/{conversation}", "DELETE", talks.remove),
    ):
        router.add_api_route(path, answer, methods=[method], openapi_extra=_BODIES.get(path))
    return router


# ---- the session ----


async def login(request: Request) -> Response:
    """Make a session of the installation's token; the browser keeps a cookie that no script can read."""
    token = json_of(await request.body()).get("token")
    tokens = request.app.state.tokens
    caller = tokens.remembered(token.strip()) if isinstance(token, str) else None
    if caller is None or not caller.admin:
        raise HTTPError(401, "that is not this installation's token", code="invalid_api_key")
    response = Response(status_code=204)
    secure = request.headers.get("origin", "").startswith("https://")
    response.set_cookie(
        COOKIE, tokens.session(time.time()), max_age=SESSION_S, httponly=True, samesite="strict", secure=secure
    )
    return response


def logout() -> Response:
    """End the session in this browser."""
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response


def me(request: Request) -> Any:
    """Who asks, and what there is."""
    router: Router = request.app.state.router
    return {
        "admin": request.state.caller.admin,
        "version": version("shunter"),
        "default_model": router.model(None),
    }


def models(request: Request) -> Any:
    """The models to choose from."""
    router: Router = request.app.state.router
    known = [{"id": name, "provider": provider} for name, provider in request.app.state.models()]
    return {"models": known, "default": router.model(None)}


# ---- chat ----


async def chat_stream(request: Request) -> Response:
    """Answer one message, or a list of them, as a stream."""
    router: Router = request.app.state.router
    runs: Runs = request.app.state.runs
    caller: Caller = request.state.caller
    body = json_of(await request.body())
    key = _text(body, "key")
    if key is not None:
        key = f"{caller.key_id}:{key}" if caller.key_id else key
        if known := await router.context().db(lookup.by_key, f"key {key}"):
            talk = await router.context().db(conversations.of_job, known)
            return await _stream(request, runs.sit(known), talk, Position())
    turn = await talks.turn_of(router, caller, body)
    sender: dict[str, Any] = {
        "interactive": True,
        "client_key": key,
        "tags": {KEY_TAG: caller.key_id} if caller.key_id else {},
        "handling": Handling(on_leave=_on_leave(body)),
    }
    sent = {name: value for name, value in body.items() if name not in _NOT_SENT} | {"messages": turn.messages}
    asked = request_of(router, sent, sender)
    lanes = tuple(caller.lanes) if caller.lanes else None
    seat = await runs.start(asked, Wish(shown=not asked.structured, lanes=lanes))
    try:
        talk = await talks.keep(router, caller, turn, seat.job_id)
        return await _stream(request, seat, talk, Position())
    except BaseException:
        await seat.leave()
        raise


async def _stream(request: Request, seat: Seat, talk: str | None, after: Position) -> Response:
    router: Router = request.app.state.router

    async def found() -> Mapping[str, Any]:
        job = await router.context().db(lookup.job, seat.job_id)
        if job is None:
            raise HTTPError(404, "the job is not kept any more", code="not_found")
        return job

    told = head(seat)
    if talk is not None:
        told["X-Shunter-Conversation"] = talk
    return EventStream(seat, PageForm(told, found, talk, after), after)


def _on_leave(body: Mapping[str, Any]) -> OnLeave:
    word = _text(body, "on_leave") or OnLeave.CONTINUE
    if word not in list(OnLeave):
        raise HTTPError(400, f"on_leave must be one of {', '.join(OnLeave)}", code="invalid_request", param="on_leave")
    return OnLeave(word)


def _text(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and (not isinstance(value, str) or not 0 < len(value) <= 400 or "\0" in value):
        raise HTTPError(400, f"{name} must be text of at most 400 characters", code="invalid_request", param=name)
    return value


# ---- jobs ----


async def jobs(request: Request, state: str | None = None, after: str | None = None, limit: int = 50) -> Any:
    """A page of jobs, newest first."""
    router: Router = request.app.state.router
    if not request.state.caller.admin:
        raise HTTPError(403, "the list of all jobs is for the installation's own token", code="not_allowed")
    found = partial(lookup.jobs, state=_word(state), after=_word(after), limit=min(max(limit, 1), 200))
    return await router.context().db(found)


async def job_of(request: Request, job: str) -> Any:
    """Everything about one job."""
    found = await visible(request, job)
    return found | {"error": told_of(found["error"])}


async def job_stream(request: Request, job: str, after: str | None = None) -> Response:
    """A job's answer from a position on, while it comes or as it is kept."""
    router: Router = request.app.state.router
    runs: Runs = request.app.state.runs
    at = request.headers.get("last-event-id") or after
    position = Position.read(at) if at else Position()
    found = await visible(request, job)
    talk = await router.context().db(conversations.of_job, found["id"])
    return await _stream(request, runs.sit(found["id"]), talk, position)


async def cancel(request: Request, job: str) -> Response:
    """Stop a job, and its bill, wherever it runs; 202 while the process that runs it has not ended it yet."""
    runs: Runs = request.app.state.runs
    found = await visible(request, job)
    state = await runs.cancel(found["id"])
    told = orjson.dumps({"id": found["id"], "state": state, "stopping": state not in FINAL})
    return Response(told, 200 if state in FINAL else 202, None, "application/json")


async def visible(request: Request, word: str) -> dict[str, Any]:
    """The caller's job of this id or key; HTTPError where there is none."""
    router: Router = request.app.state.router
    caller: Caller = request.state.caller
    found = await router.context().db(_find, _word(word) or "", caller)
    if found is None:
        raise HTTPError(404, f"there is no job {word[:80]!r}", code="not_found")
    job: dict[str, Any] = found
    return job


def _find(store: Any, word: str, caller: Caller) -> dict[str, Any] | None:
    keyed = lookup.by_key(store, f"key {caller.key_id}:{word}" if caller.key_id else f"key {word}")
    job = lookup.job(store, keyed or word)
    return job if job is not None and caller.may_see(job["tags"].get(KEY_TAG)) else None


def _word(given: str | None) -> str | None:
    """No id has a NUL in it, and PostgreSQL has no word for one."""
    return given.replace("\0", "") if given else None
