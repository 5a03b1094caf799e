"""The sum of a replay: money, waits, deadlines and moves, like compared with like, as `whatif --json` says it. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from math import exp, floor, log
from typing import Any

from db.money import saved, usd
from router.whatif import COST, Replayed, Untold, in_time, waited

LARGEST = 10
_STEP = log(1.01)  # waits are kept in steps of 1 %
_LEAST_S = 0.001


@dataclass(slots=True)
class Sum:
    """What the same jobs were paid and would have cost, in nano-dollars."""

    jobs: int = 0
    paid: int = 0
    would: int = 0

    def add(self, paid: int, would: int) -> None:
        self.jobs += 1
        self.paid += paid
        self.would += would

    def json(self) -> dict[str, Any]:
        return {"jobs": self.jobs, **_money(self.paid, self.would)}


def _money(paid: int, would: int) -> dict[str, Any]:
    return {"paid_usd": usd(paid), "would_usd": usd(would), **saved(would, paid)}


class Waits:
    """Waits of many jobs, in little memory: quantiles to 1 %."""

    def __init__(self) -> None:
        self.jobs = 0
        self._bins: dict[int, float] = defaultdict(float)
        self._last: tuple[Sequence[tuple[float, float]], list[tuple[int, float]]] = ((), [])

    def add(self, waits: Sequence[tuple[float, float]]) -> None:
        """A job: seconds and their shares."""
        self.jobs += 1
        if waits is not self._last[0]:  # many jobs after each other go the same road
            self._last = waits, [(floor(log(max(seconds, _LEAST_S)) / _STEP), share) for seconds, share in waits]
        for place, share in self._last[1]:
            self._bins[place] += share

    def quantile(self, part: float) -> float | None:
        """Seconds within which this part of the jobs was answered; None where that was never seen."""
        wanted, so_far = part * self.jobs - 1e-6, 0.0
        for place in sorted(self._bins):
            so_far += self._bins[place]
            if so_far >= wanted:
                return round(exp((place + 0.5) * _STEP), 3)
        return None

    def json(self) -> dict[str, float | None]:
        return {"p50_s": self.quantile(0.5), "p95_s": self.quantile(0.95)}


@dataclass(slots=True)
class Tally:
    """What a replay found so far."""

    jobs: int = 0
    cost: Sum = field(default_factory=Sum)
    due: int = 0  # jobs with a deadline whose waits are told
    met: int = 0
    would_meet: float = 0.0
    _waits: dict[str, tuple[Waits, Waits]] = field(default_factory=dict)  # by class: really, and otherwise
    _moves: dict[tuple[str, str], Sum] = field(default_factory=dict)
    _went: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    _largest: list[Replayed] = field(default_factory=list)
    _untold: dict[Untold, list[int]] = field(default_factory=dict)  # jobs, and what is known to be paid for them

    def add(self, page: Iterable[Replayed]) -> None:
        """Count some jobs."""
        rows = list(page)
        for one in rows:
            self._count(one)
        dearest = nlargest(LARGEST, (one for one in rows if _difference(one)), key=_rank)
        self._largest = nlargest(LARGEST, [*self._largest, *dearest], key=_rank)

    def _count(self, one: Replayed) -> None:
        self.jobs += 1
        for why in one.untold:
            counts = self._untold.setdefault(why, [0, 0])
            counts[0] += 1
            counts[1] += one.job.paid_nano
        if one.to is not None:
            self._went[one.came, one.to] += 1
        if one.paid is not None and one.would is not None and one.to is not None:
            self.cost.add(one.paid, one.would)
            self._moves.setdefault((one.came, one.to), Sum()).add(one.paid, one.would)
        if one.waits is not None:
            self._wait(one, one.waits)

    def _wait(self, one: Replayed, waits: Sequence[tuple[float, float]]) -> None:
        really, otherwise = self._waits.setdefault(one.job.class_, (Waits(), Waits()))
        really.add([(waited(one.job), 1.0)])
        otherwise.add(waits)
        if one.job.deadline_at is not None:
            most = in_time(one.job)
            self.due += 1
            self.met += waited(one.job) <= most
            self.would_meet += sum(share for seconds, share in waits if seconds <= most)

    def json(self) -> dict[str, Any]:
        """All of it in its JSON form."""
        return {
            "jobs": self.jobs,
            "moved": sum(count for (came, to), count in self._went.items() if came != to),
            "cost": self.cost.json(),
            "deadlines": {"jobs": self.due, "met": self.met, "would_meet": round(self.would_meet, 2)},
            "waits": [
                {"class": word, "jobs": really.jobs, "really": really.json(), "would": otherwise.json()}
                for word, (really, otherwise) in sorted(self._waits.items())
            ],
            "moves": [self._move(came, to) for came, to in sorted(self._went, key=self._order)],
            "largest": [_single(one) for one in self._largest],
            "untold": [
                {"why": why.why, "about": why.about or None, "text": why.text, "lacks": list(why.lacks), "jobs": jobs,
                 "paid_usd": usd(paid)}
                for why, (jobs, paid) in sorted(self._untold.items(), key=lambda item: (-item[1][0], item[0]))
            ],
        }  # fmt: skip

    def _order(self, move: tuple[str, str]) -> tuple[bool, int, tuple[str, str]]:
        """Those that move first, the most jobs first."""
        return move[0] == move[1], -self._went[move], move

    def _move(self, came: str, to: str) -> dict[str, Any]:
        money = self._moves.get((came, to), Sum())
        return {"from": came, "to": to, "jobs": self._went[came, to], COST: money.json()}


def _difference(one: Replayed) -> int:
    return 0 if one.paid is None or one.would is None else abs(one.paid - one.would)


def _rank(one: Replayed) -> tuple[int, str]:
    return _difference(one), one.job.id


def _single(one: Replayed) -> dict[str, Any]:
    assert one.paid is not None
    assert one.would is not None
    money = {"paid_usd": usd(one.paid), "would_usd": usd(one.would), "saved_usd": usd(one.paid - one.would)}
    return {"id": one.job.id, "class": one.job.class_, "from": one.came, "to": one.to, **money}
