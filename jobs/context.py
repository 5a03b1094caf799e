"""What whoever runs jobs works with: the store, the providers, the clock and the settings, as values."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

from db import lengths, queue, settle, wishes
from db.engine import Store, StoreBusy, StoreError
from db.reserving import Purse
from db.settle import Settlement
from db.states import Lane
from jobs import bounds, stopping
from jobs.clock import Clock
from jobs.errors import UsageError
from jobs.lengths import Lengths
from jobs.log import Log
from jobs.observing import NOBODY, Watchers
from jobs.providers import BACKGROUND_PROVIDERS, BATCH_PROVIDERS, PROVIDERS, BatchProvider, Endpoint, Provider, Timeouts
from jobs.stopping import Running
from jobs.together import Together

T = TypeVar("T")
R = TypeVar("R")
FEW = 4  # jobs that run here at once
LATEST_START = 0.1  # of the grace period: a POST that has not begun by then must not begin any more


@dataclass(slots=True)
class _Holding:
    """What renews the leases in one event loop, and for how many."""

    renewing: "asyncio.Task[None]"
    blocks: int = 0


@dataclass(frozen=True, slots=True)
class Context:
    """One process that runs jobs.

    `owner` names it in leases; `install` marks what this installation makes at a provider. `grace_s` is how long an
    empty list of a provider is not trusted after an unclear POST, in seconds.
    """

    store: Store
    endpoints: Mapping[str, Endpoint]
    owner: str
    install: str
    folder: Path
    clock: Clock = field(default_factory=Clock)
    timeouts: Timeouts = field(default_factory=Timeouts)
    concurrency: int = 16
    lease_s: float = 120.0
    grace_s: float = 600.0
    dead_s: float = 60.0  # after which a worker that does not beat is taken over
    on_unknown: str = "retry"  # or "hold": what may have been billed already is not sent again by itself
    on_rescue: str = "wait"  # or "pay_twice": rows run elsewhere while the batch that they left is still open
    output_cap: int = bounds.OUTPUT_CAP  # tokens of an answer that has no cap of its own, where money is limited
    has_batch: Mapping[str, bool] = field(default_factory=dict)  # what the config says of a provider's Batch API
    carried: "set[asyncio.Task[None]]" = field(default_factory=set)  # jobs that run here for a reader
    running: Running = field(default_factory=Running)  # jobs that can be stopped here from other processes
    owed: "list[Settlement]" = field(default_factory=list)  # that the database could not take yet
    whole_file: asyncio.Lock = field(default_factory=asyncio.Lock)  # one is in hand at a time, for memory
    tell: Watchers = NOBODY  # of what happens
    news: "list[str]" = field(default_factory=list)  # of budgets, that nobody was told yet
    lengths: Lengths = field(default_factory=Lengths)  # of answers that came here
    _open: dict[tuple[str, str], Any] = field(default_factory=dict)
    _queues: dict[Callable[..., Any], Together[Any, Any]] = field(default_factory=dict)
    _making: threading.Lock = field(default_factory=threading.Lock)
    _holding: "dict[asyncio.AbstractEventLoop, _Holding]" = field(default_factory=dict)

    def endpoint(self, provider: str) -> Endpoint:
        """Where the provider is; UsageError that says which key to set when it is not configured."""
        if provider not in self.endpoints:
            raise UsageError(self.missing(provider), code="no_key")
        return self.endpoints[provider]

    def missing(self, provider: str) -> str:
        """What to say of a provider that is not configured."""
        key = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}.get(provider, "its key")
        return f"no key for {provider}: set {key} (or its base URL), or try `shunter demo`"

    def provider(self, name: str) -> Provider:
        """The provider of calls, made on first use."""
        return self._once("call", name, PROVIDERS[name])

    async def load(self, name: str) -> None:
        """Make the provider of calls ready: importing its SDK takes half a second, which is no event loop's."""
        if ("call", name) not in self._open:
            await asyncio.to_thread(self.provider, name)

    def batch_provider(self, name: str, lane: str = Lane.BATCH) -> BatchProvider:
        """The provider of batches, or of responses in the background, made on first use."""
        return self._once(lane, name, BACKGROUND_PROVIDERS[name] if lane == Lane.BACKGROUND else self._patient)

    def _patient(self, endpoint: Endpoint) -> BatchProvider:
        """A POST must be over before an empty list is trusted."""
        provider = BATCH_PROVIDERS[endpoint.provider](endpoint)
        provider.post_seconds = min(provider.post_seconds, self.grace_s * (1 - LATEST_START))
        return provider

    def _once(self, kind: str, name: str, make: Callable[[Endpoint], T]) -> T:
        with self._making:
            if (kind, name) not in self._open:
                self._open[kind, name] = make(self.endpoint(name))
                # Modules and price lists stay for good: a collector that walks them halts every stream for 0.1 s.
                gc.freeze()
        return self._open[kind, name]  # type: ignore[no-any-return]

    @property
    def purse(self) -> Purse:
        """What weighs the money that is set aside for attempts."""
        return Purse(bounds.weigher(self.endpoints, self.output_cap), self.news)

    def latest(self) -> list[str]:
        """What is new of budgets; once."""
        news = [*self.news]
        del self.news[: len(news)]
        return news

    def until(self) -> datetime:
        """When a lease taken now ends."""
        return self.clock.now() + timedelta(seconds=self.lease_s)

    async def db(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Call a function of `db` with the store, off the event loop: the one seam between async work and SQL."""
        return await self.thread(function, *args, **options)

    def thread(self, function: Callable[..., T], *args: Any, **options: Any) -> "asyncio.Future[T]":
        """The same as a future and no task: whoever ends an event loop cancels every task in it."""
        work = partial(function, self.store, *args, **options)
        return asyncio.get_running_loop().run_in_executor(None, work)

    async def promptly(self, function: Callable[..., T], *args: Any) -> T:
        """The same for a short write; right here, unless somebody else writes now: a thread takes as long again."""
        with self.store.hurried() as short, suppress(StoreBusy):
            if short:
                return function(self.store, *args)
        return await self.db(function, *args)

    async def tidied(self) -> None:
        """Let writes that were done right here not pile up in the database's log."""
        if self.store.untidy():
            await self.db(Store.tidied)

    def quiet(self) -> Store | None:
        """The database, while few jobs run here: of many, some write at the same time, which costs less together."""
        return self.store if len(self.carried) <= FEW else None

    def together(self, work: "Callable[[Context, Sequence[T]], Sequence[R | Exception]]") -> Together[T, R]:
        """The one queue of this work's items in this process."""
        if (known := self._queues.get(work)) is None:
            known = self._queues.setdefault(work, Together(partial(work, self), self.quiet))
        return known

    @property
    def log(self) -> Log:
        """The log of deltas."""
        if ("log", "") not in self._open:
            self._open["log", ""] = Log(self.store)
        return self._open["log", ""]  # type: ignore[no-any-return]

    @asynccontextmanager
    async def holding(self) -> AsyncIterator[None]:
        """Keep the leases of this owner's jobs alive until the block ends; blocks may overlap."""
        loop = asyncio.get_running_loop()
        if loop not in self._holding:
            self._holding[loop] = _Holding(asyncio.create_task(self._renew()))
        held = self._holding[loop]
        held.blocks += 1
        try:
            yield
        finally:
            held.blocks -= 1
            if not held.blocks:
                self._holding.pop(loop).renewing.cancel()

    async def _renew(self) -> None:
        renewed = monotonic()
        while True:
            await asyncio.sleep(min(stopping.LOOK_S, self.lease_s / 3))
            with suppress(Exception):  # a busy database now is no reason to give up leases that are still good
                await self.tidied()
                if self.running:
                    await self.running.stop(await self._wanted())
                if monotonic() - renewed < self.lease_s / 3:
                    continue
                renewed = monotonic()
                await self.pay()
                await self.learn()
                await self.db(queue.renew, self.owner, self.until())

    async def _wanted(self) -> list[str]:
        """The jobs that somebody wants stopped: one small read, which needs no thread where it cannot wait."""
        return wishes.wanted(self.store, self.owner) if self.store.path else await self.db(wishes.wanted, self.owner)

    async def pay(self) -> None:
        """Settle what the database could not take: until then the lease would be renewed for nobody."""
        if owed := list(self.owed):
            await self.db(settle.settle, owed, self.clock.now())
            del self.owed[: len(owed)]

    async def learn(self) -> None:
        """Keep the lengths of the answers that came since the last time."""
        seen = self.lengths.take()
        try:
            if seen:
                await self.db(lengths.add, seen, self.clock.now())
        except StoreError:
            self.lengths.give_back(seen)

    async def settled(self) -> None:
        """Wait until every job that runs here has come to its end."""
        while pending := {task for task in self.carried if not task.done()}:  # a loop that ended discards none
            await asyncio.wait(pending)

    async def stop(self) -> None:
        """Cancel every job that runs here, whatever it says of leaving; they are settled."""
        await asyncio.sleep(0)  # a task that is cancelled before its first step does nothing at all
        for task in self.carried:
            task.cancel()
        await self.settled()

    async def close(self) -> None:
        """Let what runs here come to its end, then close every connection to a provider, and the log."""
        await self.settled()
        with suppress(Exception):
            await self.pay()
            await self.learn()
        while self._open:
            _, opened = self._open.popitem()
            await opened.close()
