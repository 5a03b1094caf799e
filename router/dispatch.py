"""Router: decide, record the job, run it now or leave it queued."""

import asyncio
import os
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from typing import Any

from db import facts as kept
from db import lookup
from db.engine import Store, connect
from db.migrations import migrate
from db.money import NANO
from db.states import Lane, Tier
from db.turnarounds import spent
from jobs import pricing, stream, windows
from jobs.chat import Request, Usage
from jobs.clock import Clock
from jobs.context import Context
from jobs.errors import CallError
from jobs.finishing import finished
from jobs.observing import Closing
from jobs.packing import has_batch_api
from jobs.providers.background_params import can_move, why_not
from jobs.runner import Event
from jobs.together import Together
from router import accepting, estimate, settings
from router.answers import Answers
from router.decided import Started, Wish
from router.decision import Decision, Facts
from router.estimate import Estimates, Size
from router.finish import Finish
from router.opening import is_there
from router.policy import decide, routed
from router.rules import Policy, load
from router.settings import Settings, provider_of
from router.vocabulary import Vocabularies
from router.watchers import watchers

DEFAULT_MODELS = {"openai": "gpt-6-luna", "anthropic": "claude-haiku-5-5"}
SPENT_S = 5.0  # what was spent today is looked up again after this, for policies that ask


class Router:
    """The front door. One per process is enough; close it with `await router.close()`.

    Settings come from the environment and config.toml unless they are given.
    """

    def __init__(self, given: Settings | None = None) -> None:
        self.settings = given or settings.load()
        self.clock = Clock()
        self.vocabularies = Vocabularies()
        self._spent = datetime.min.replace(tzinfo=UTC), 0.0  # today's money, and when that was looked up
        self._flex: dict[tuple[str, str], bool] = {}
        self._owner = f"{os.uname().nodename}-{os.getpid()}-{secrets.token_hex(4)}"

    # ---- deciding ----

    def explain(self, request: Request, wish: Wish | None = None) -> Decision:
        """How the request would go, and every road not taken. Sends nothing and keeps nothing."""
        now = self.clock.now()
        return self.decide(self.routed(request, wish or Wish(), now)[1], now)

    def routed(self, request: Request, wish: Wish, now: datetime, group: int | None = None) -> tuple[Request, Facts]:
        """The request as the policy changes it, most often not at all, and what the policy looks at.

        `group` is the number of rows that came in with it; None where it came alone, and its tokens can be counted.
        """
        return routed(request, self.policy, now, lambda one, at: self.facts(one, wish, now, group, at))

    def facts(
        self, request: Request, wish: Wish, now: datetime, group: int | None, provider: str | None = None
    ) -> Facts:
        """What the policy looks at; the request goes to whoever serves its model unless a `provider` is named."""
        provider = provider or provider_of(request.model, self.settings.endpoints)
        counting = self.vocabularies.counting(request.model) if group is None else None
        facts = Facts.of(
            request, estimate.measure(request, self.answers.of(request), counting), provider=provider,
            has_batch=self.has_batch(provider), has_background=self.has_background(provider, request),
            has_flex=self.has_flex(provider, request.model), lane_asked=wish.lane, max_cost_nano=wish.max_cost_nano,
            group=1 if group is None else group, **self._asked_for(request, now),
        )  # fmt: skip
        return facts._replace(counted=counting.counted) if counting else facts

    def _asked_for(self, request: Request, now: datetime) -> dict[str, Any]:
        """Facts that take time to find out, where some rule asks for them."""
        found: dict[str, Any] = {}
        looks_at = self.policy.looks_at
        if "images" in looks_at:
            found["images"] = request.images
        if "hour" in looks_at:
            found["hour"] = now.astimezone().hour
        if "spent_today_usd" in looks_at:
            found["spent_today_usd"] = self._spent_today_usd(now)
        return found

    def decide(self, facts: Facts, now: datetime, *, shown: bool = False) -> Decision:
        """The decision on these facts at this time; `shown`: somebody watches, and a plain call becomes a stream."""
        decision = decide(facts, estimates := self._estimates(facts, now), self.policy, now)
        if shown and decision.lane is Lane.SYNC:
            return accepting.shown(decide(facts._replace(lane_asked=Lane.STREAM), estimates, self.policy, now), facts)
        return decision

    def _estimates(self, facts: Facts, now: datetime) -> Estimates:
        endpoint = self.settings.endpoints.get(facts.provider)
        own = endpoint is None or endpoint.own
        # Corrected here, and kept as it was estimated: or corrections would be learned from corrections.
        factor = self.answers.factor(facts.model, counted=facts.counted is not None)
        sent = max(round(facts.input_tokens * factor), 1)
        size = Size(sent, facts.output_p50, facts.output_p90)

        def cost(usage: Usage, lane: Lane, tier: str | None) -> int | None:
            where: dict[str, Any] = {"model": facts.model, "provider": facts.provider, "own": own, "at": now}
            return pricing.price(usage, lane=lane, tier=tier, table=self.settings.prices, **where).nano

        return estimate.estimate(
            size,
            cost=cost,
            times=self.policy.priors.times(size) if facts.waits else self.finish.times(facts, size, now),
            has_batch=facts.has_batch,
            has_background=facts.has_background,
            has_flex=facts.has_flex,
            with_fast=self.policy.has_fast,
            batch_wait_s=0.0 if facts.waits else self.batch_wait_s(now),
        )

    def batch_wait_s(self, now: datetime) -> float:
        """Seconds until bulk work may be submitted, by the window that the worker keeps in the database."""
        return windows.wait_s(kept.get(self.store, windows.KEY), now) if self.exists() else 0.0

    @cached_property
    def finish(self) -> Finish:
        """When each lane is done here, by what it took before."""
        return Finish(self.policy.priors, self.settings.concurrency, lambda: self.store if self.exists() else None)

    @cached_property
    def answers(self) -> Answers:
        """How long answers were here."""
        return Answers(lambda: self.store if self.exists() else None)

    def _spent_today_usd(self, now: datetime) -> float:
        if not self.exists():
            return 0.0
        midnight = now.astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
        if now - self._spent[0] > timedelta(seconds=SPENT_S):
            self._spent = now, spent(self.store, midnight, now) / NANO
        return self._spent[1]

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

    def has_flex(self, provider: str, model: str) -> bool:
        """Whether the model is sold in the flex tier there."""
        if (known := self._flex.get((provider, model))) is None:
            endpoint, given = self.settings.endpoints.get(provider), self.settings.has_flex
            there = provider == "openai" and (endpoint is None or endpoint.own if given is None else given)
            known = there and pricing.sells(model, provider, Tier.FLEX, self.clock.now().date())
            self._flex[provider, model] = known
        return known

    def has_background(self, provider: str, request: Request) -> bool:
        """Whether the request can be answered in a background window: the server has them, and it may go there."""
        endpoint, told = self.settings.endpoints.get(provider), self.settings.has_background
        there = endpoint is None or endpoint.own if told is None else told
        if provider != "openai" or not there or why_not(request):
            return False
        return (endpoint is not None and endpoint.api == "responses") or can_move(request)

    @cached_property
    def _remembered(self) -> dict[str, bool]:
        urls = [endpoint.base_url for endpoint in self.settings.endpoints.values()] if self.exists() else []
        found = {url: kept.get(self.store, f"batch_api {url}") for url in urls}
        return {url: value == "yes" for url, value in found.items() if value is not None}

    async def learn(self, provider: str) -> None:
        """Ask a server once whether it has a Batch API; one that cannot be reached now is asked by the worker."""
        if self.has_batch(provider) is None and provider in self.settings.endpoints:
            with suppress(CallError):
                url = self.settings.endpoints[provider].base_url
                self._remembered[url] = await has_batch_api(self.context(), provider)

    def model(self, given: str | None) -> str:
        """The model that is meant: the one given, the setting, or the smallest of the configured provider."""
        if given or self.settings.model:
            return given or str(self.settings.model)
        only_anthropic = "openai" not in self.settings.endpoints and "anthropic" in self.settings.endpoints
        return DEFAULT_MODELS["anthropic" if only_anthropic else "openai"]

    # ---- doing ----

    async def submit(self, request: Request, wish: Wish | None = None) -> dict[str, Any]:
        """Accept the request and return its job in JSON form: answered if somebody waits for it, else queued."""
        async with aclosing(self.stream(request, wish)) as events:
            started, *_ = [event async for event in events]
        found = lookup.job(self.store, started.job_id) if isinstance(started, Started) else None
        assert found is not None
        return found

    async def stream(self, request: Request, wish: Wish | None = None) -> AsyncGenerator[Started | Event, None]:
        """First how it was decided, then deltas as they come and how each attempt ended.

        A request that nobody waits for ends after the first event: it is queued for a worker. Closing the generator
        early cancels the job.
        """
        started = await self.accept(request, wish or Wish())
        try:
            yield started
        except GeneratorExit:
            if started.claim is not None:
                await stream.leave(self.context(), started.claim)
            raise
        if started.claim is None:
            return
        async with aclosing(stream.watch(self.context(), started.claim)) as events:
            async for event in events:
                yield event

    async def accept(self, request: Request, wish: Wish) -> Started:
        """Decide and record it, in one transaction with all that come meanwhile: leased to this process, or queued."""
        if not request.interactive:
            await self.learn(provider_of(request.model, self.settings.endpoints))
        starting = self._starting(accepting.Asked(request, wish), small=accepting.is_small(request))
        try:
            return await finished(starting)
        except asyncio.CancelledError:
            if not starting.exception() and (claim := starting.result().claim):
                await stream.leave(self.context(), claim)
            raise

    @cached_property
    def _starting(self) -> Together[accepting.Asked, Started]:
        return Together(partial(accepting.start_all, self), self.context().quiet)

    # ---- what it works with ----

    def exists(self) -> bool:
        """Whether there is a database yet; asking makes none."""
        return "store" in self.__dict__ or is_there(self.settings.database_url)

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
            output_cap=self.settings.budget_output_cap,
            has_batch=self.settings.has_batch,
            tell=watchers(self.settings),
        )

    async def close(self) -> None:
        """Close the connections to providers and to the database."""
        if "_context" in self.__dict__:
            await self._context.close()
            await asyncio.to_thread(self._context.tell, Closing())
        if "store" in self.__dict__:
            await asyncio.to_thread(self.store.close)
