"""The OpenAI-compatible gateway: chat completions and models, for any client that can change its base URL."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from db import lookup
from jobs import chat
from jobs.providers.openai_params import choices_asked
from router.dispatch import Router
from router.web import bodies
from router.web.chat_form import Chunks, Names, completion
from router.web.errors import HTTPError
from router.web.finals import Final
from router.web.hints import Hints, json_of, request_of
from router.web.raw import Raw
from router.web.running import Last, Runs, Seat
from router.web.streams import EventStream, WholeAnswer

_NOT_PRINTED = str.maketrans({"\r": " ", "\n": " "})


def routes() -> APIRouter:
    """What is under /v1 and answers at once."""
    router = APIRouter(prefix="/v1", tags=["openai"])
    raw: dict[str, Any] = {"methods": ["POST"], "route_class_override": Raw}
    router.add_api_route("/chat/completions", chat_completions, openapi_extra=bodies.CHAT, **raw)
    router.add_api_route("/models", models, methods=["GET"])
    router.add_api_route("/models/{model:path}", model, methods=["GET"])
    return router


async def chat_completions(request: Request) -> Response:
    """Answer a chat: whole, as a stream, or later where the client prefers that."""
    router: Router = request.app.state.router
    runs: Runs = request.app.state.runs
    body = json_of(await request.body())
    caller = request.state.caller
    hints = Hints.of(request.headers, body.get("metadata"), caller, router.clock.now())
    stream = flag(body, "stream")
    asked = request_of(router, body, hints.sender(caller, stream=stream))
    wish = hints.wish(caller, stream=stream, structured=asked.structured)
    seat = await runs.start(asked, wish)
    headers = head(seat)
    if hints.queued:
        await seat.leave()
        return queued(seat, headers)
    names = Names(seat.job_id, asked.model, _created(router), free_tools(asked))
    if stream:
        ending = Ends(router, seat.job_id)
        counted = include_usage(body)
        form = Chunks(names, headers, ending, choices=choices_asked(asked), counted=counted, held=asked.structured)
        return EventStream(seat, form)

    async def made(last: Last) -> Response:
        final = await Ends(router, seat.job_id)(last)
        cost = {"X-Shunter-Cost": final.cost_usd} if final.cost_usd is not None else {}
        return Response(orjson.dumps(completion(names, final)), 200, {**headers, **cost}, "application/json")

    return WholeAnswer(seat, made, headers)


class Ends:
    """How a job ended: as it was heard here, or else as it is kept."""

    def __init__(self, router: Router, job_id: str) -> None:
        self._router, self._job_id = router, job_id

    async def __call__(self, last: Last) -> Final:
        """The end; the database is asked where it was not heard, or cost more than its last attempt."""
        if last.ended is not None and last.ended.n == 1:
            return Final.of_ended(last.ended)
        job = await self._router.context().db(lookup.job, self._job_id)
        if job is None:
            raise HTTPError(404, "the job is not kept any more", code="not_found")
        final = Final.of_job(job)
        # Only who heard it knows the provider's status, and when it wants to be asked again.
        heard = Final.of_ended(last.ended).error if last.ended else None
        return replace(final, error=heard or final.error)


def head(seat: Seat) -> dict[str, str]:
    """The headers that say which way the request went."""
    told = {"X-Shunter-Job": seat.job_id}
    if seat.decision is not None:
        reason = seat.decision.reason.translate(_NOT_PRINTED).encode("ascii", "replace").decode()
        told |= {"X-Shunter-Lane": seat.decision.lane.value, "X-Shunter-Reason": reason}
    return told


def queued(seat: Seat, headers: Mapping[str, str]) -> Response:
    """202: the job will be done, and its id says where to ask for it."""
    where = f"/api/jobs/{seat.job_id}"
    body = {"id": seat.job_id, "object": "shunter.job", "status": "queued", "url": where}
    told = {**headers, "Location": where, "Preference-Applied": "respond-async"}
    return Response(orjson.dumps(body), 202, told, "application/json")


def flag(body: Mapping[str, Any], name: str) -> bool:
    """A field that is true, false, null or absent; HTTPError for anything else."""
    value = body.get(name)
    if value not in (None, True, False):
        raise HTTPError(400, f"{name} must be true or false", code="invalid_request", param=name)
    return bool(value)


def include_usage(body: Mapping[str, Any]) -> bool:
    """Whether the stream is to end in what it used."""
    options = body.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def free_tools(asked: chat.Request) -> frozenset[str]:
    """The tools whose input is any text."""
    custom = [tool.get("custom") for tool in asked.tools or () if tool.get("type") == "custom"]
    return frozenset(str(tool["name"]) for tool in custom if isinstance(tool, dict) and "name" in tool)


def _created(router: Router) -> int:
    now: datetime = router.clock.now()
    return int(now.timestamp())


def models(request: Request) -> Any:
    """The models that can be asked for, as far as they are known here; any other name is passed on."""
    return {"object": "list", "data": [_model(name, owner) for name, owner in request.app.state.models()]}


def model(request: Request, model: str) -> Any:
    """One of them."""
    owner = next((owner for name, owner in request.app.state.models() if name == model), None)
    if owner is None:
        raise HTTPError(404, f"the model {model!r} is not known here", code="model_not_found", param="model")
    return _model(model, owner)


def _model(name: str, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}
