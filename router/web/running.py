"""The jobs that run in this server, and whoever reads them: readers come and go, and none of them holds up a job."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from math import inf

from db import stops
from db.settle import Again
from db.states import JobState
from jobs.chat import Delta, Request
from jobs.finishing import finished
from jobs.follow import Anew, Heard, Over, Position, follow
from jobs.runner import Ended, Event
from jobs.stopping import until_final
from jobs.stream import Carried
from router.decided import Started, Wish
from router.decision import Decision
from router.dispatch import Router


@dataclass(frozen=True, slots=True)
class Last:
    """The end of what there is to read; `ended` where the job's last attempt ran here, else the database knows."""

    ended: Ended | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """An attempt brought no answer, and the next one comes later: nothing has been heard of the answer yet."""

    ended: Ended


News = Heard | Anew | Waiting | Last


class Here:
    """A job that runs in this server, with the number of its readers."""

    def __init__(self, carried: Carried, n: int) -> None:
        self.carried, self.n = carried, n
        self.readers = 0
        self.over = False


class Seat:
    """One reader's place; whoever takes one leaves it, and the last to leave does what the request says of that."""

    def __init__(self, runs: "Runs", job_id: str, here: Here | None, decision: Decision | None = None) -> None:
        self.job_id, self.decision = job_id, decision
        self._runs, self._here = runs, here
        if here is not None:
            here.readers += 1

    async def leave(self) -> None:
        """It may be called once."""
        if (here := self._here) is None:
            return
        here.readers -= 1
        if not here.readers and not here.over:
            await finished(here.carried.leave())

    async def read(self, after: Position | None = None, quiet_s: float = inf) -> AsyncGenerator[Sequence[News], None]:
        """What comes after a position, as much at a time as there is; nothing where nothing came for `quiet_s` seconds.

        HTTPError when there is no such job.
        """
        if self._here is not None:
            source = _here(self._here, Cursor(after or Position(), self._here.n), quiet_s)
        else:
            source = _kept(self._runs.router, self.job_id, after, quiet_s)
        async with aclosing(source) as bursts:
            async for burst in bursts:
                yield burst


class Runs:
    """Starts jobs, and knows those that run here."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self._here: dict[str, Here] = {}

    async def start(self, request: Request, wish: Wish) -> Seat:
        """Accept the request; it runs here when somebody waits for it, unless its key was used before."""
        started = await self.router.accept(request, wish)
        return Seat(self, started.job_id, self._carry(started), started.decision)

    def _carry(self, started: Started) -> Here | None:
        if started.claim is None:
            return self._here.get(started.job_id)
        here = Here(Carried(self.router.context(), started.claim), started.claim.n)
        self._here[started.job_id] = here

        def over() -> None:
            here.over = True
            del self._here[started.job_id]

        here.carried.when_done(over)
        return here

    def sit(self, job_id: str) -> Seat:
        """A place at a job that there is."""
        return Seat(self, job_id, self._here.get(job_id))

    async def cancel(self, job_id: str) -> JobState:
        """Stop a job and its bill, wherever it runs; the state that it has then: final, unless that takes longer."""
        if here := self._here.get(job_id):
            await here.carried.stop()
        context = self.router.context()

        async def look() -> dict[str, JobState]:
            return await context.db(stops.stop, [job_id], context.clock.now())

        return (await until_final(look))[job_id]


async def _here(here: Here, cursor: "Cursor", quiet_s: float) -> AsyncGenerator[Sequence[News], None]:
    at = 0
    while (events := await here.carried.feed.after(at, quiet_s)) != ():
        if events is None:
            yield ()
            continue
        at += len(events)
        news = [one for event in events for one in cursor.take(event)]
        if news:
            yield news
            if isinstance(news[-1], Last):
                return
    yield [Last()]


async def _kept(
    router: Router, job_id: str, after: Position | None, quiet_s: float
) -> AsyncGenerator[Sequence[News], None]:
    async with aclosing(follow(router.store, job_id, after, quiet_s)) as events:
        async for event in events:
            yield () if event is None else [Last() if isinstance(event, Over) else event]


class Cursor:
    """A reader's way through a job's events, from a position on. Positions count as the log of deltas does."""

    def __init__(self, at: Position, n: int) -> None:
        self._at, self._n = at, n
        self._with_calls = at == Position()  # they are in no log: who comes back has them with the whole answer
        self._seq = self._text = 0
        self._heard = False

    def take(self, event: Event) -> list[News]:
        """What the event is to this reader."""
        if isinstance(event, Ended):
            return [*self._ended(event)]
        if self._at.attempt > self._n:
            return []
        news: list[News] = []
        if self._at.attempt not in (0, self._n):
            news.append(Anew(self._n))
        if self._at.attempt != self._n:
            self._at = Position(self._n)
        known = self._at.text + self._at.other
        if self._seq >= known and not (event.calls and not self._with_calls):
            self._count(event)
            return [*news, Heard(event, self._at)]
        said = self._new(event, known)
        return [*news, Heard(said, self._at)] if said != Delta(choice=event.choice) else news

    def _count(self, event: Delta) -> None:
        self._seq += len(event.reasoning) + len(event.text) + len(event.refusal)
        self._text += len(event.text) if event.choice == 0 else 0
        self._at = Position(self._n, self._text, self._seq - self._text)

    def _new(self, event: Delta, known: int) -> Delta:
        """What of the delta lies behind what is known already."""
        said, at = {}, self._seq
        for name in ("reasoning", "text", "refusal"):
            text = getattr(event, name)
            said[name] = text[max(known - at, 0) :]
            at += len(text)
        before = self._at
        self._count(event)
        if self._seq <= known:
            self._at = before
        return Delta(choice=event.choice, calls=event.calls if self._with_calls else (), **said)

    def _ended(self, event: Ended) -> list[News]:
        if not isinstance(event.ending, Again):
            return [Last(event)]
        begun, self._n, self._seq, self._text = self._seq, event.n + 1, 0, 0
        return [] if begun else [Waiting(event)]
