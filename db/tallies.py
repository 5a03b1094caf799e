"""What attempts add to the rollups: sums of money and tokens, and sketches of times. Plain values, no SQL.

An attempt counts from its end on, a row of a batch from its opening on: open live calls are few, and are read where
they are. It belongs to the quarter of an hour in which it was sent, since every time zone is off by whole quarters.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from operator import add
from typing import Any, NamedTuple

from db.sketches import Bins, bin_of
from db.states import AttemptState, JobState

SENT, OK, SUCCEEDED = AttemptState.SENT.value, AttemptState.OK.value, JobState.SUCCEEDED.value
KEY = ("tags", "begins_at", "lane", "class", "tier", "model", "provider", "state", "error_code")
SUMS = ("attempts", "jobs", "priced", "cost_nano", "standard_nano", "at_risk_nano", "input_tokens", "cached_tokens",
        "cache_write_tokens", "output_tokens", "reasoning_tokens", "compared", "paid_nano", "plain_nano")  # fmt: skip
TIMES = ("first_token", "gap", "call", "wait", "turnaround", "batch")
WHERE = ("begins_at", "lane", "class", "tier", "model", "provider")  # the key of the times

Key = tuple[Any, ...]
_ATTEMPTS, _JOBS, _AT_RISK = (SUMS.index(name) for name in ("attempts", "jobs", "at_risk_nano"))
_LIVE = ("stream", "sync")
_SPANS = 4096  # spans of time whose bins are remembered
_ANSWERS = (OK, AttemptState.UNKNOWN.value)


class Fact(NamedTuple):
    """An attempt and what its job adds to it; times and tags as the database gives them.

    What tells kinds of attempts apart stands together, so that those that are alike are found by a slice.
    """

    job_id: str  # or those of several attempts with all else in common, with commas between
    n: int
    state: str
    error_code: str | None
    lane: str
    class_: str
    tier: str
    model: str
    provider: str
    tags: str | None
    sent_at: Any
    submitted_at: Any
    ended_at: Any
    batch_id: str | None
    finished_at: Any
    job_state: str
    first_token_ms: float | None
    gap_p50_ms: float | None
    total_ms: float | None
    at_risk_nano: int | None
    cost_nano: int | None
    standard_nano: int | None
    input_tokens: int | None
    cached_tokens: int | None
    cache_write_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    adjusted_nano: int | None = None  # as it was last re-priced
    adjusted_standard_nano: int | None = None


@lru_cache(256)  # the rows of a page have a few times between them
def moment(stored: str | datetime) -> datetime:
    """A time as the database gives it, aware UTC."""
    if isinstance(stored, str):
        return datetime.fromisoformat(stored).replace(tzinfo=UTC)
    return stored.astimezone(UTC)


@lru_cache(256)  # the rows of a page have a few times between them
def quarter(stored: str | datetime) -> datetime:
    """The quarter of an hour that it is in, by its beginning."""
    at = moment(stored)
    return at.replace(minute=at.minute - at.minute % 15, second=0, microsecond=0)


class Tally:
    """What some attempts add, or take away; with `live`, so do calls that are still open."""

    def __init__(self, *, live: bool = False) -> None:
        self._live = live
        self.sums: defaultdict[Key, list[int]] = defaultdict(lambda: [0] * len(SUMS))
        self.times: defaultdict[Key, defaultdict[str, Bins]] = defaultdict(lambda: defaultdict(Counter))
        self._kinds: dict[Key, list[list[int]]] = {}
        self._spans: dict[Key, list[tuple[Bins, int]]] = {}

    def count(self, fact: Fact, sign: int = 1) -> None:
        """Add an attempt's sums; with -1 take away what it added before."""
        if fact.state == SENT and fact.batch_id is None and not self._live:
            return
        for sums in self._kept(fact):
            _add(sums, fact, sign)

    def _kept(self, fact: Fact) -> list[list[int]]:
        """Where attempts of its kind are added up."""
        kind = fact[2:11]
        if (kept := self._kinds.get(kind)) is None:
            place = (quarter(fact.sent_at), fact.lane, fact.class_, fact.tier, fact.model, fact.provider, fact.state,
                     fact.error_code or "")  # fmt: skip
            kept = self._kinds[kind] = [self.sums[tags, *place] for tags in (("", fact.tags) if fact.tags else ("",))]
        return kept

    def change(self, before: Fact | None, after: Fact, *, answers: bool | None = None) -> None:
        """An attempt became another; `answers`: it brings its job's answer, where its job does not say so yet."""
        if before is not None:
            self.count(before, -1)
            self._time(before, -1)
        self.count(after)
        self._time(after, answers=answers)

    def change_many(self, before: Fact, after: Fact, rows: int, risk: int, totals: Sequence[int], *,
                    answers: bool) -> None:  # fmt: skip
        """The same for so many rows of batches that are alike but for what they used and cost, which is all known.

        `risk` is what they had at risk; the totals are of cost, standard price and tokens as in SUMS.
        """
        jobs = rows if before.n == 1 else 0
        cost, standard, *tokens = totals
        for sums in self._kept(before):
            for n, less in ((_ATTEMPTS, rows), (_JOBS, jobs), (_AT_RISK, risk)):
                sums[n] -= less
        for sums in self._kept(after):
            more = (rows, jobs, rows, cost, standard, 0, *tokens, rows, cost, standard)
            sums[:] = map(add, sums, more)
        for counts, number in self._bins(after, answers=answers):
            counts[number] += rows

    def packed(self, sent_at: Any, lane: str, class_: str, tier: str, model: str, provider: str, tags: str | None,
               attempts: int, jobs: int, at_risk: int | None) -> None:  # fmt: skip
        """Rows of a batch that are alike were opened."""
        place = (quarter(sent_at), lane, class_, tier, model, provider, SENT, "")
        for words in ("", tags) if tags else ("",):
            sums = self.sums[words, *place]
            for n, more in ((_ATTEMPTS, attempts), (_JOBS, jobs), (_AT_RISK, int(at_risk or 0))):
                sums[n] += more

    def adjust(self, before: Fact, after: Fact) -> None:
        """A closed attempt cost something else than was said."""
        self.count(before, -1)
        self.count(after)

    def whole(self, fact: Fact) -> None:
        """An attempt as it stands."""
        self.change(None, fact)

    def _time(self, fact: Fact, sign: int = 1, *, answers: bool | None = None) -> None:
        if fact.state == SENT:
            return
        answers = _answered(fact) if answers is None else answers
        for counts, number in self._bins(fact, answers=answers):
            counts[number] += sign
        if fact.total_ms is not None or fact.first_token_ms is not None:
            times = self._times(fact)
            for name, ms in _measured(fact):
                times[name][bin_of(ms)] += sign

    def _bins(self, fact: Fact, *, answers: bool) -> list[tuple[Bins, int]]:
        """Where what lies between its moments falls; the rows of a batch have most of them in common."""
        spans = fact[2:13], fact.n == 1, fact.batch_id is None, answers
        if (bins := self._spans.get(spans)) is None:
            if len(self._spans) >= _SPANS:
                self._spans.clear()
            times = self._times(fact)
            bins = self._spans[spans] = [(times[name], bin_of(ms)) for name, ms in _moments(fact, answers=answers)]
        return bins

    def _times(self, fact: Fact) -> defaultdict[str, Bins]:
        return self.times[quarter(fact.sent_at), fact.lane, fact.class_, fact.tier, fact.model, fact.provider]


def _add(sums: list[int], fact: Fact, sign: int) -> None:
    sums[0] += sign
    if fact.n == 1:
        sums[1] += sign
    cost = fact.cost_nano if fact.adjusted_nano is None else fact.adjusted_nano
    if cost is None:
        sums[5] += sign * (fact.at_risk_nano or 0)
    else:
        sums[2] += sign
        sums[3] += sign * cost
    if fact.state == SENT:
        return
    standard = fact.standard_nano if fact.adjusted_standard_nano is None else fact.adjusted_standard_nano
    if standard is not None:
        sums[4] += sign * standard
        if cost is not None:
            sums[11] += sign
            sums[12] += sign * cost
            sums[13] += 0 if _second(fact) else sign * standard
    if fact.input_tokens is not None:
        sums[6] += sign * fact.input_tokens
        sums[7] += sign * (fact.cached_tokens or 0)
        sums[8] += sign * (fact.cache_write_tokens or 0)
        sums[9] += sign * (fact.output_tokens or 0)
        sums[10] += sign * (fact.reasoning_tokens or 0)


def _measured(fact: Fact) -> Iterator[tuple[str, float]]:
    """What a live call measured itself."""
    if fact.first_token_ms is not None:
        yield "first_token", fact.first_token_ms
    if fact.gap_p50_ms is not None:
        yield "gap", fact.gap_p50_ms
    if fact.total_ms is not None and fact.state == OK and fact.lane in _LIVE:
        yield "call", fact.total_ms


def _moments(fact: Fact, *, answers: bool) -> Iterator[tuple[str, float]]:
    """What lies between moments of an attempt that has ended."""
    if fact.n == 1:
        yield "wait", _ms(fact.submitted_at, fact.sent_at)
    if answers:
        yield "turnaround", _ms(fact.submitted_at, fact.ended_at)
    if fact.state == OK and fact.batch_id is not None:
        yield "batch", _ms(fact.sent_at, fact.ended_at)


def _answered(fact: Fact) -> bool:
    """Its job has its answer since it ended."""
    if fact.job_state != SUCCEEDED or not may_answer(fact.state, fact.error_code):
        return False
    return moment(fact.finished_at) == moment(fact.ended_at)


def may_answer(state: str, error_code: str | None) -> bool:
    """Whether an attempt that ended so can have brought its job's answer; the usage of an answer may be unknown."""
    return state in _ANSWERS and not error_code


def _second(fact: Fact) -> bool:
    """An answer after its job had its own is paid for, but plain calls would have brought only one."""
    if fact.state != OK or fact.job_state != SUCCEEDED:
        return False
    return moment(fact.ended_at) > moment(fact.finished_at)


def _ms(since: Any, until: Any) -> float:
    return (moment(until) - moment(since)).total_seconds() * 1000
