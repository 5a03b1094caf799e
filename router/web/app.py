"""create_app: the page and the gateway over one Router."""

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import AsyncIterator, Collection
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from db import expiring, facts, lengths
from db.engine import Store, StoreError
from jobs import presence
from jobs.errors import ShunterError
from jobs.observing import GatewayRuns
from router.dispatch import DEFAULT_MODELS, Router
from router.settings import provider_of
from router.watchers import sees_requests
from router.web import batches, boards, files, metrics, openai, page, page_api, responses
from router.web.errors import HTTPError, http_error
from router.web.guard import Guard
from router.web.running import Runs
from router.web.tokens import Tokens
from router.web.watched import Watched

LENGTHS_S = 60.0  # the lengths of earlier answers are read again after this
RESCUE_S = 10.0  # between two looks for calls whose process has died
MODELS_S = 10.0  # the models that have answered here are looked up again after this

log = logging.getLogger(__name__)


class Gateway(FastAPI):
    """The application behind its guard."""

    guard: Guard

    def build_middleware_stack(self) -> Any:
        """The guard stands before everything else, and is itself watched where somebody does."""
        state = self.state
        guarded = Guard(super().build_middleware_stack(), state.tokens, state.names)
        watched = sees_requests(state.router.settings)
        return Watched(guarded, state.router.context().tell) if watched else guarded


def create_app(router: Router, *, token: str, names: Collection[str] = ()) -> Gateway:
    """The application: `token` is the installation's own, `names` are host names that it answers to."""
    app = Gateway(
        title="Shunter", openapi_url="/api/openapi.json", docs_url=None, redoc_url=None, lifespan=_life,
        redirect_slashes=False,
    )  # fmt: skip
    app.state.router, app.state.runs = router, Runs(router)
    app.state.tokens, app.state.names = Tokens(token, router.store), names
    app.state.models = Models(router)
    app.state.stopping = False
    app.state.reading = {}
    app.state.numbers = metrics.Numbers(router)
    for module in (openai, responses, files, batches, page_api, boards, metrics, page):
        app.include_router(module.routes())
    app.add_api_route("/healthz", healthz, methods=["GET"], tags=["health"])
    app.add_api_route("/readyz", readyz, methods=["GET"], tags=["health"])
    for kind in (HTTPError, ShunterError, StoreError):
        app.add_exception_handler(kind, _told)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _plain)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _bug)
    return app


@contextlib.asynccontextmanager
async def _life(app: FastAPI) -> AsyncIterator[None]:
    router: Router = app.state.router
    for provider in router.settings.endpoints:  # an SDK takes half a second to import: before the first request does
        await router.context().load(provider)
    await asyncio.to_thread(_vocabularies, app)
    gc.collect()
    gc.freeze()  # what is loaded stays: a collector that walks all of it halts every stream for a tenth of a second
    beside = [asyncio.create_task(work(router)) for work in (_learn, _rescue)]
    router.context().tell(GatewayRuns(runs=True))
    async with presence.serving(router.context()):
        yield
        app.state.stopping = True
        for task in beside:
            task.cancel()
        if app.state.reading:
            await asyncio.wait(app.state.reading.values())
        await router.context().settled()
    router.context().tell(GatewayRuns(runs=False))


def _vocabularies(app: FastAPI) -> None:
    """Load those of the models that are served here: in the first request it would halt every stream."""
    router: Router = app.state.router
    known: list[tuple[str, str]] = []
    with contextlib.suppress(StoreError):
        known = app.state.models()
    router.vocabularies.prepare(name for name, provider in known if provider in router.settings.endpoints)


async def _learn(router: Router) -> None:
    """Have the lengths of earlier answers at hand: to look one up for each request would cost a read each."""
    while True:
        with contextlib.suppress(StoreError):
            await asyncio.to_thread(router.answers.load)
        await asyncio.sleep(LENGTHS_S)


async def _rescue(router: Router) -> None:
    """End what a killed server left: its readers ask here for their answers, and no worker need run."""
    context = router.context()
    while True:
        with contextlib.suppress(StoreError):
            await presence.rescue(context)
            await context.db(expiring.expire, context.clock.now())
        await asyncio.sleep(RESCUE_S)


class Models:
    """The models that are known here: the default ones, and those that have answered; each with its provider."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._known: list[tuple[str, str]] = []
        self._until = 0.0

    def __call__(self) -> list[tuple[str, str]]:
        """Looks into the database at times."""
        if time.monotonic() > self._until:
            endpoints = self._router.settings.endpoints
            names = {self._router.model(None), *(DEFAULT_MODELS[name] for name in endpoints if name in DEFAULT_MODELS)}
            names |= set(lengths.models(self._router.store))
            self._known = [(name, provider_of(name, endpoints)) for name in sorted(names)]
            self._until = time.monotonic() + MODELS_S
        return self._known


# ---- health ----


def healthz() -> Any:
    """Whether the process answers."""
    return {"status": "ok"}


def readyz(request: Request) -> Response:
    """Whether it takes requests: the database can be read, and nobody has told it to stop."""
    why = "stopping" if request.app.state.stopping else _trouble(request.app.state.router.store)
    return Response(orjson.dumps({"ready": why is None, "why": why}), 503 if why else 200, None, "application/json")


def _trouble(store: Store) -> str | None:
    try:
        facts.get(store, "ready")
    except StoreError:
        return "the database cannot be read"
    return None


# ---- errors ----


async def _told(request: Request, error: Exception) -> Response:
    told = http_error(error)
    close = {"Connection": "close"} if told.status in (408, 413) else None
    return told.response(close)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return HTTPError(422, f"{where}: {first['msg']}", code="invalid_request", param=where).response()


async def _plain(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = {404: _nothing(request.url.path), 405: "that method is not for this path"}
    told = HTTPError(error.status_code, said.get(error.status_code, str(error.detail)), headers=error.headers)
    return told.response()


def _nothing(path: str) -> str:
    known = "; under /v1 there are chat/completions, responses, models, files and batches"
    return f"there is nothing at {path[:200]}{known if path.startswith('/v1/') else ''}"


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it


async def _bug(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return http_error(error).response()
