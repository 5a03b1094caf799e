"""What live calls to a model may take a minute: learned from its answers, shared by all workers.

Whoever claims jobs spends what they will take in the same transaction, so no call needs one of its own; where nothing
is known of a limit, nothing is held back.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Select, Text, and_, bindparam, func, or_, select
from sqlmodel import Field, SQLModel

from db.buckets import MINUTE, SOON_S, Bucket, Gauge
from db.dialect import upsert
from db.engine import Store
from db.ledger import ATTEMPT
from db.prepared import Prepared
from db.states import AttemptState
from db.tables import table

REQUESTS_BURST_S = 1.0  # many providers share a minute's requests out over its seconds

SOON_AGAIN_S = 0.01

_GOOD_FOR = timedelta(days=1)  # a limit that nobody tells any more is no limit
_LONGEST_PAUSE = timedelta(hours=1)
_LATELY = timedelta(seconds=10)

Model = tuple[str, str]  # provider and model, as one process reaches them


class Rate(SQLModel, table=True):
    """Requests and tokens a minute of one model at one address; NULL is no known limit."""

    provider: str = Field(sa_type=Text, primary_key=True)
    base_url: str = Field(sa_type=Text, primary_key=True)
    model: str = Field(sa_type=Text, primary_key=True)
    requests_limit: float | None = None  # as the provider says
    tokens_limit: float | None = None
    requests_pace: float | None = None  # what is allowed since a refusal: less at once, then more bit by bit
    tokens_pace: float | None = None
    requests_peak: float | None = None  # the pace that was refused
    tokens_peak: float | None = None
    requests_left: float
    tokens_left: float
    refilled_at: datetime
    paused_until: datetime | None = None  # Retry-After
    cut_at: datetime | None = None
    changed_at: datetime


RATE = table(Rate)


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a worker has heard of one model since it last said so.

    `refused`: a call was turned away, for too many `requests` or `tokens`; it was sent at `sent_at`. `age_s` is how
    long ago the call was sent whose answer told the gauges.
    """

    provider: str
    base_url: str
    model: str
    requests: Gauge | None = None
    tokens: Gauge | None = None
    age_s: float = 0.0
    unspent: float = 0.0  # tokens that were set aside for calls, and not used
    refused: str | None = None
    sent_at: datetime | None = None
    wait_s: float | None = None  # Retry-After


@dataclass(slots=True)
class Gate:
    """The buckets of one model, as they are now."""

    at: datetime
    requests: Bucket = field(default_factory=lambda: Bucket(burst_s=REQUESTS_BURST_S))
    tokens: Bucket = field(default_factory=Bucket)
    paused_until: datetime | None = None
    cut_at: datetime | None = None
    changed_at: datetime | None = None
    spent: bool = False

    def turn(self, now: datetime) -> None:
        """Let time fill the buckets."""
        seconds = (now - self.at).total_seconds()
        if seconds > 0:  # another machine's clock may be ahead
            self.at, self.requests, self.tokens = now, self.requests.after(seconds), self.tokens.after(seconds)

    def wait_s(self, tokens: float) -> float:
        """Seconds until a call of so many tokens may go."""
        paused = (self.paused_until - self.at).total_seconds() if self.paused_until else 0.0
        return max(paused, self.requests.wait_s(1), self.tokens.wait_s(tokens), 0.0)

    def spend(self, tokens: float) -> None:
        """A call of so many tokens goes."""
        self.requests, self.tokens, self.spent = self.requests.spend(1), self.tokens.spend(tokens), True

    def give_back(self, tokens: float) -> None:
        """The call does not go after all."""
        self.requests, self.tokens = self.requests.spend(-1), self.tokens.spend(-tokens)

    def hear(self, lesson: Lesson, seen: float) -> None:
        """Take in what was heard; refusals of calls that were sent before the last cut say nothing new."""
        new = {"requests": self.requests.rate is None, "tokens": self.tokens.rate is None}
        self.tokens = self.tokens.spend(-lesson.unspent)
        for name in new:
            if (gauge := getattr(lesson, name)) is not None:
                setattr(self, name, getattr(self, name).told(gauge, lesson.age_s))
        if lesson.wait_s:
            until = self.at + min(timedelta(seconds=lesson.wait_s), _LONGEST_PAUSE)
            self.paused_until = max(until, self.paused_until or until)
        if lesson.refused and (not self.cut_at or not lesson.sent_at or lesson.sent_at > self.cut_at):
            self._cut(lesson.refused, seen, ignorant=new[lesson.refused])
        self.changed_at = self.at

    def _cut(self, name: str, seen: float, *, ignorant: bool) -> None:
        bucket: Bucket = getattr(self, name)
        soon = self.cut_at is not None and (self.at - self.cut_at).total_seconds() < SOON_S
        if ignorant and bucket.rate is not None:  # we went too fast because nobody had told us
            bucket = bucket.spend(max(bucket.left, 0.0))
        else:
            bucket = bucket.cut(seen, soon=soon)
        setattr(self, name, bucket)
        self.cut_at = self.at


class Gates:
    """The limits as one process meets them while it claims: opened, spent from and kept in one transaction."""

    def __init__(self, urls: Mapping[str, str]) -> None:
        self.wait_s: float | None = None  # until the first of the jobs may go that the last claim left because of them
        self._urls = dict(urls)  # the base URL of each provider
        self._gates: dict[Model, Gate] = {}
        since = bindparam("b_since", type_=RATE.c.changed_at.type)
        self._known = Prepared(_ask(urls).where(RATE.c.changed_at > since))

    def open(self, connection: Connection, now: datetime) -> bool:
        """Read what is known, and hold it; whether anything is."""
        self.wait_s = None
        rows = self._known.all(connection, b_since=now - _GOOD_FOR)
        known = [dict(zip(RATE.c.keys(), row, strict=True)) for row in rows]
        self._gates = {(row["provider"], row["model"]): _gate(row) for row in known}
        for gate in self._gates.values():
            gate.turn(now)
        return bool(self._gates)

    def admit(self, model: Model, tokens: float) -> bool:
        """Whether a call of so many tokens may go now; then they are spent."""
        gate = self._gates.get(model)
        if gate is None:
            return True
        if wait := gate.wait_s(tokens):
            self.wait_s = wait if self.wait_s is None else min(wait, self.wait_s)
            return False
        gate.spend(tokens)
        return True

    def give_back(self, calls: Iterable[tuple[Model, float]]) -> None:
        """Calls that were admitted, with their tokens, do not go after all."""
        for model, tokens in calls:
            if (gate := self._gates.get(model)) is not None:
                gate.give_back(tokens)

    def soon(self) -> None:
        """There is more to look at than one claim does."""
        self.wait_s = min(self.wait_s or SOON_AGAIN_S, SOON_AGAIN_S)

    def keep(self, connection: Connection) -> None:
        """Write down what was spent."""
        changed = [(key, gate) for key, gate in self._gates.items() if gate.spent]
        _keep(connection, [((provider, self._urls[provider], model), gate) for (provider, model), gate in changed])


def learn(store: Store, lessons: Iterable[Lesson], now: datetime) -> None:
    """Take in what was heard; a model of which nothing is known, and nothing was said, stays so."""
    with store.write() as connection:
        for lesson in sorted(lessons, key=lambda one: (one.provider, one.model)):
            mine = {"provider": lesson.provider, "base_url": lesson.base_url, "model": lesson.model}
            same = and_(*(RATE.c[name] == value for name, value in mine.items()))
            row = connection.execute(_ask({lesson.provider: lesson.base_url}).where(same)).first()
            if row is None and not (lesson.requests or lesson.tokens or lesson.refused or lesson.wait_s):
                continue
            gate = _gate(row._mapping) if row is not None else Gate(now)
            gate.turn(now)
            gate.hear(lesson, _seen(connection, lesson, now) if lesson.refused else 0.0)
            _keep(connection, [((lesson.provider, lesson.base_url, lesson.model), gate)])


def _ask(urls: Mapping[str, str]) -> Select[Any]:
    here = or_(*(and_(RATE.c.provider == name, RATE.c.base_url == url) for name, url in urls.items()))
    return select(RATE).where(here).order_by(RATE.c.provider, RATE.c.model).with_for_update()


def _gate(row: Mapping[Any, Any]) -> Gate:
    requests, tokens = _bucket(row, "requests", REQUESTS_BURST_S), _bucket(row, "tokens", MINUTE)
    return Gate(row["refilled_at"], requests, tokens, row["paused_until"], row["cut_at"], row["changed_at"])


def _bucket(row: Mapping[Any, Any], what: str, burst_s: float) -> Bucket:
    known = {name: row[f"{what}_{name}"] for name in ("limit", "pace", "peak", "left")}
    return Bucket(**known, burst_s=burst_s)


def _keep(connection: Connection, gates: Iterable[tuple[tuple[str, str, str], Gate]]) -> None:
    rows = [
        dict(zip(("provider", "base_url", "model"), key, strict=True))
        | {f"requests_{name}": getattr(gate.requests, name) for name in ("limit", "pace", "peak", "left")}
        | {f"tokens_{name}": getattr(gate.tokens, name) for name in ("limit", "pace", "peak", "left")}
        | {"refilled_at": gate.at, "paused_until": gate.paused_until, "cut_at": gate.cut_at}
        | {"changed_at": gate.changed_at}
        for key, gate in gates
    ]
    if rows:
        connection.execute(_KEEP, rows)


_NEW = upsert(RATE)
_KEEP = _NEW.on_conflict_do_update(
    index_elements=["provider", "base_url", "model"],
    set_={column.name: _NEW.excluded[column.name] for column in RATE.c if not column.primary_key},
)


def _seen(connection: Connection, lesson: Lesson, now: datetime) -> float:
    """What all workers got through to this model lately, a minute: requests, or the tokens that they took."""
    ok = and_(ATTEMPT.c.state == AttemptState.OK.value, ATTEMPT.c.sent_at > now - _LATELY)
    took = func.sum(ATTEMPT.c.input_tokens + ATTEMPT.c.output_tokens) if lesson.refused == "tokens" else func.count()
    query = select(took, func.min(ATTEMPT.c.sent_at))
    total, since = connection.execute(
        query.where(ok, ATTEMPT.c.provider == lesson.provider, ATTEMPT.c.model == lesson.model)
    ).one()
    return float(total) * MINUTE / max((now - since).total_seconds(), 1.0) if total else 0.0
