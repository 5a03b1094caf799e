"""The Responses API of the gateway: whole, as a stream, or in the background as a queued job."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import Response
from starlette.types import Send

from db import lookup
from jobs.chat import Handling, OnLeave
from jobs.chat import Request as Asked
from router.dispatch import Router
from router.web import bodies
from router.web.chat_form import check_answered
from router.web.errors import HTTPError
from router.web.finals import Final
from router.web.hints import Hints, json_of, request_of
from router.web.openai import Ends, flag, head
from router.web.page_api import visible
from router.web.responses_body import REPEATED, chat_body, repeated, unsaid
from router.web.responses_form import PREFIX, ResponseEvents, response
from router.web.running import Last, Runs
from router.web.streams import EventStream, WholeAnswer
from router.when import moment

_WINDOWS = ("2h", "8h")


def routes() -> APIRouter:
    """What is under /v1/responses."""
    router = APIRouter(prefix="/v1/responses", tags=["openai"])
    router.add_api_route("", create, methods=["POST"], openapi_extra=bodies.RESPONSE)
    router.add_api_route("/{response}", retrieve, methods=["GET"])
    router.add_api_route("/{response}/cancel", cancel, methods=["POST"])
    return router


async def create(request: Request) -> Response:
    """Answer, or queue what is asked for in the background."""
    router: Router = request.app.state.router
    runs: Runs = request.app.state.runs
    body = json_of(await request.body())
    caller, now = request.state.caller, router.clock.now()
    stream, background = flag(body, "stream"), flag(body, "background")
    hints = Hints.of(request.headers, body.get("metadata"), caller, now)
    if stream and background:
        if _deadline(body, now) is not None:
            raise HTTPError(
                400, "a response with a completion window has no stream: ask for it by its id", code="unsupported"
            )
        hints = replace(hints, on_leave=OnLeave.CONTINUE)
    deadline = hints.deadline or _deadline(body, now)
    hints = replace(hints, queued=background and not stream, background=background, deadline=deadline)
    chat = chat_body(body, await _before(request, body.get("previous_response_id")))
    asked = request_of(router, chat, hints.sender(caller, stream=stream))
    said = {name: body[name] for name in REPEATED if body.get(name) is not None}
    asked = asked.model_copy(update={"handling": _kept(asked, said)})
    seat = await runs.start(asked, hints.wish(caller, stream=stream, structured=asked.structured))
    headers, created = head(seat), int(now.timestamp())
    said["background"] = background
    ending = Ends(router, seat.job_id)
    if stream:
        form = ResponseEvents(seat.job_id, asked.model, created, said, headers, ending, held=asked.structured,
                              lasting=background)  # fmt: skip
        return BegunStream(seat, form) if background else EventStream(seat, form)
    if background:
        await seat.leave()
        return await _as_it_is(router, seat.job_id, said, headers)

    async def made(last: Last) -> Response:
        final = await ending(last)
        check_answered(final)
        cost = {"X-Shunter-Cost": final.cost_usd} if final.cost_usd is not None else {}
        whole = response(seat.job_id, asked.model, created, final, said)
        return Response(orjson.dumps(whole), 200, {**headers, **cost}, "application/json")

    return WholeAnswer(seat, made, headers)


class BegunStream(EventStream):
    """Its head goes at once: whatever becomes of the response is an event."""

    async def _pieces(self, send: Send) -> None:
        await self._send(send, b"")
        await super()._pieces(send)


def _deadline(body: Mapping[str, Any], now: datetime) -> datetime | None:
    options = body.get("background_options")
    window = options.get("completion_window") if isinstance(options, dict) else None
    return moment(window, now, past=False) if window in _WINDOWS else None


async def _before(request: Request, previous: Any) -> list[dict[str, Any]]:
    """What was said before the response that this one goes on from, and its answer."""
    if previous is None:
        return []
    if not isinstance(previous, str):
        raise HTTPError(400, "previous_response_id must be text", code="invalid_request", param="previous_response_id")
    router: Router = request.app.state.router
    job = await visible(request, previous.removeprefix(PREFIX))
    kept = await router.context().db(lookup.body, job["id"])
    if kept is None:
        raise HTTPError(404, "the words of that response were pruned", code="not_found", param="previous_response_id")
    said: dict[str, Any] = {"role": "assistant", "content": job["text"] or None}
    if job["tool_calls"]:
        said["tool_calls"] = [
            {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["raw"]}}
            for call in job["tool_calls"]
        ]
    messages = [turn for turn in orjson.loads(kept[0])["messages"] if turn["role"] != "system"]
    return [*messages, said]


async def retrieve(
    request: Request, response: str, stream: bool = False, starting_after: Annotated[int, Query(ge=-1)] = -1
) -> Response:
    """A response as it stands; or its events after a number, as they come or as they are kept."""
    router: Router = request.app.state.router
    job = await visible(request, response.removeprefix(PREFIX))
    if not stream:
        return await _as_it_is(router, job["id"], await _said(router, job["id"]), {})
    runs: Runs = request.app.state.runs
    seat, ending, said = runs.sit(job["id"]), Ends(router, job["id"]), await _said(router, job["id"])
    form = ResponseEvents(job["id"], job["model"], _created(job), said, head(seat), ending, held=False,
                          lasting=True, after=starting_after)  # fmt: skip
    return BegunStream(seat, form)


async def cancel(request: Request, response: str) -> Response:
    """Cancel a response in the background."""
    router: Router = request.app.state.router
    runs: Runs = request.app.state.runs
    job = await visible(request, response.removeprefix(PREFIX))
    await runs.cancel(job["id"])
    return await _as_it_is(router, job["id"], await _said(router, job["id"]), {})


async def _said(router: Router, job_id: str) -> dict[str, Any]:
    """What its request said, as far as a response repeats it; nothing once that was pruned."""
    kept = await router.context().db(lookup.asked, job_id)
    if kept is None:
        return {}
    body, handling = kept[0], Handling.read(kept[1])
    return {**repeated(orjson.loads(body), handling.repeats), "background": handling.background}


def _kept(asked: Asked, said: Mapping[str, Any]) -> Handling:
    """How the request is handled, with what must be kept beside its body to say later what it said."""
    return asked.handling.model_copy(update={"repeats": unsaid(said, repeated(asked.body())) or None})


async def _as_it_is(router: Router, job_id: str, said: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
    job = await router.context().db(lookup.job, job_id)
    if job is None:
        raise HTTPError(404, "the job is not kept any more", code="not_found")
    made = response(job_id, job["model"], _created(job), Final.of_job(job), said)
    return Response(orjson.dumps(made), 200, dict(headers), "application/json")


def _created(job: Mapping[str, Any]) -> int:
    return int(datetime.fromisoformat(job["submitted_at"]).timestamp())
