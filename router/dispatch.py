"""Router: decide, record the job, run it now or leave it queued."""

import asyncio
import os
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import Any

from db import facts as kept
from db import lookup, queue
from db.engine import Store, connect
from db.ids import new_id
from db.migrations import migrate
from db.states import Lane
from jobs import pricing, stream, windows
from jobs.chat import Request, Usage
from jobs.clock import Clock
from jobs.context import Context
from jobs.errors import CallError, UsageError
from jobs.packing import has_batch_api
from jobs.providers.background_params import can_move, why_not
from jobs.runner import Event, finished
from router import estimate, settings
from router.decided import Decided, Started, Wish, row_of
from router.decision import Decision, Facts
from router.estimate import Size
from router.intake import canonical
from router.opening import is_there
from router.policy import decide
from router.rules import Policy, load
from router.settings import Settings, provider_of

DEFAULT_MODELS = {"openai": "gpt-6-luna", "anthropic": "claude-haiku-5-5"}
LIVE = (Lane.STREAM, Lane.SYNC)


class Router:
    """The front door. One per process is enough; close it with `await router.close()`.

    Settings come from the environment and config.toml unless they are given.
    """

    def __init__(self, given: Settings | None = None) -> None:
        self.settings = given or settings.load()
        self.clock = Clock()
        self._owner = f"{os.uname().nodename}-{os.getpid()}-{secrets.token_hex(4)}"

    # ---- deciding ----

    def explain(self, request: Request, wish: Wish | None = None) -> Decision:
        """How the request would go, and every road not taken. Sends nothing and keeps nothing."""
        return self.decide(self.facts(request, wish or Wish()), self.clock.now())

    def facts(self, request: Request, wish: Wish) -> Facts:
        """What the policy looks at; equal facts get equal decisions."""
        provider = provider_of(request.model, self.settings.endpoints)
        return Facts.of(
            request,
            estimate.measure(request),
            provider=provider,
            has_batch=self.has_batch(provider),
            has_background=self.has_background(provider, request),
            lane_asked=wish.lane,
            max_cost_nano=wish.max_cost_nano,
        )

    def decide(self, facts: Facts, now: datetime) -> Decision:
        """The decision on these facts at this time."""
        endpoint = self.settings.endpoints.get(facts.provider)
        own = endpoint is None or endpoint.own

        def cost(usage: Usage, lane: Lane, window: str | None) -> int | None:
            where: dict[str, Any] = {"model": facts.model, "provider": facts.provider, "own": own, "at": now}
            return pricing.price(usage, lane=lane, tier=window or "default", **where).nano

        estimates = estimate.estimate(
            Size(facts.input_tokens, facts.output_p50, facts.output_p90),
            cost=cost,
            has_batch=facts.has_batch,
            has_background=facts.has_background,
            priors=self.policy.priors,
            batch_wait_s=0.0 if facts.waits else self.batch_wait_s(now),
        )
        return decide(facts, estimates, self.policy, now)

    def batch_wait_s(self, now: datetime) -> float:
        """Seconds until bulk work may be submitted, by the window that the worker keeps in the database."""
        return windows.wait_s(kept.get(self.store, windows.KEY), now) if self.exists() else 0.0

    @cached_property
    def policy(self) -> Policy:
        """The policy in force."""
        return load(self.settings.policy)

    def has_batch(self, provider: str) -> bool | None:
        """Whether the provider has a Batch API, as far as it is known without asking."""
        endpoint = self.settings.endpoints.get(provider)
        if provider in self.settings.has_batch:
            return self.settings.has_batch[provider]
        if endpoint is None or endpoint.own:
            return True
        return self._remembered.get(endpoint.base_url)

    def has_background(self, provider: str, request: Request) -> bool:
        """Whether the request can be answered in a background window: the server has them, and it may go there."""
        endpoint, told = self.settings.endpoints.get(provider), self.settings.has_background
        there = endpoint is None or endpoint.own if told is None else told
        if provider != "openai" or not there or why_not(request):
            return False
        return (endpoint is not None and endpoint.api == "responses") or can_move(request)

    @cached_property
    def _remembered(self) -> dict[str, bool]:
        urls = [endpoint.base_url for endpoint in self.settings.endpoints.values()]
        if not self.exists():
            return {}
        found = {url: kept.get(self.store, f"batch_api {url}") for url in urls}
        return {url: value == "yes" for url, value in found.items() if value is not None}

    async def learn(self, provider: str) -> None:
        """Ask a server once whether it has a Batch API; one that cannot be reached now is asked by the worker."""
        if self.has_batch(provider) is None and provider in self.settings.endpoints:
            with suppress(CallError):
                self._remembered[self.settings.endpoints[provider].base_url] = await has_batch_api(
                    self.context(), provider
                )

    def model(self, given: str | None) -> str:
        """The model that is meant: the one given, the setting, or the smallest of the configured provider."""
        if given or self.settings.model:
            return given or str(self.settings.model)
        only_anthropic = "openai" not in self.settings.endpoints and "anthropic" in self.settings.endpoints
        return DEFAULT_MODELS["anthropic" if only_anthropic else "openai"]

    # ---- doing ----

    async def submit(self, request: Request, wish: Wish | None = None) -> dict[str, Any]:
        """Accept the request and return its job in JSON form: answered if somebody waits for it, else queued."""
        job_id = ""
        async with aclosing(self.stream(request, wish)) as events:
            async for event in events:
                job_id = event.job_id if isinstance(event, Started) else job_id
        found = lookup.job(self.store, job_id)
        assert found is not None
        return found

    async def stream(self, request: Request, wish: Wish | None = None) -> AsyncGenerator[Started | Event, None]:
        """First how it was decided, then deltas as they come and how each attempt ended.

        A request that nobody waits for ends after the first event: it is queued for a worker. Closing the generator
        early cancels the job.
        """
        if not request.interactive:
            await self.learn(provider_of(request.model, self.settings.endpoints))
        starting = asyncio.get_running_loop().run_in_executor(None, self.start, request, wish or Wish())
        try:
            started = await asyncio.shield(starting)
        except asyncio.CancelledError:
            with suppress(asyncio.CancelledError):
                await finished(starting)
            if (claim := starting.result().claim) is not None:
                await stream.leave(self.context(), claim)
            raise
        context = self.context()
        try:
            yield started
        except GeneratorExit:
            if started.claim is not None:
                await stream.leave(context, started.claim)
            raise
        if started.claim is None:
            return
        async with aclosing(stream.watch(context, started.claim)) as events:
            async for event in events:
                yield event

    def start(self, request: Request, wish: Wish) -> Started:
        """Decide and record one request: leased to this process when it runs at once, else queued."""
        now = self.clock.now()
        facts = self.facts(request, wish)
        decided = Decided.of(self.decide(facts, now), facts, now)
        self.context().endpoint(provider_of(request.model, self.settings.endpoints))  # a missing key is said first
        body = canonical(request.body())
        keyed = request.client_key is not None and not wish.again
        row_key = f"key {request.client_key}" if keyed else f"once {secrets.token_hex(16)}"
        if keyed and lookup.by_key(self.store, row_key):
            return self._known(row_key, body, request, decided.decision)
        job = decided.job(request, body, row_key)
        submission, claim = new_id(now), None
        if (request.interactive or wish.here) and decided.decision.lane in LIVE:
            until = self.context().until()
            claim = queue.start(self.store, job, submission, row_of(decided), self._owner, until, now)
            known = claim is None
        else:
            queue.open_submission(self.store, submission, "prompt", now)
            known = bool(queue.add(self.store, submission, [row_of(decided)], [job], now))
        if known:
            return self._known(row_key, body, request, decided.decision)
        return Started(job.id, decided.decision, claim)

    def _known(self, row_key: str, body: str, request: Request, decision: Decision) -> Started:
        job_id = lookup.by_key(self.store, row_key)
        assert job_id is not None
        if lookup.body(self.store, job_id) != (body, request.post_process):
            raise UsageError(
                f"the key {request.client_key!r} was used for another request (job {job_id}): "
                "choose another key, or --again to run it as a new job",
                code="key_reused",
            )
        return Started(job_id, decision, None, known=True)

    # ---- what it works with ----

    def exists(self) -> bool:
        """Whether there is a database yet; asking makes none."""
        return is_there(self.settings.database_url)

    @cached_property
    def store(self) -> Store:
        """The database, made and brought up to date at first use."""
        store = connect(self.settings.database_url)
        migrate(store)
        return store

    def context(self, **changes: Any) -> Context:
        """What running jobs needs; one for the life of the router."""
        return replace(self._context, **changes) if changes else self._context

    @cached_property
    def _context(self) -> Context:
        self.settings.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Context(
            store=self.store,
            endpoints=self.settings.endpoints,
            owner=self._owner,
            install=kept.install(self.store),
            folder=self.settings.folder,
            clock=self.clock,
            timeouts=self.policy.timeouts,
            concurrency=self.settings.concurrency,
            lease_s=self.settings.lease_seconds,
            grace_s=self.settings.grace_seconds,
            dead_s=self.settings.dead_seconds,
            on_unknown=self.settings.on_unknown,
            on_rescue=self.settings.on_rescue,
            has_batch=self.settings.has_batch,
        )

    async def close(self) -> None:
        """Close the connections to providers and to the database."""
        if "_context" in self.__dict__:
            await self._context.close()
        if "store" in self.__dict__:
            await asyncio.to_thread(self.store.close)
