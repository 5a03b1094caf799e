"""What is left of a budget, and in which words a request is told that it is not enough."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, and_, literal, or_, update

from db.budgets import PERIOD, Budget
from db.dialect import within
from db.money import usd
from db.states import JobState
from db.tables import Job, table

JOB = table(Job)

WARN_AT = 0.8  # of a period's limit
# Seconds after which a job is looked at again that others leave no room for: an eighth of its age, within these.
LOOK_AGAIN_S, LATEST_LOOK_S = 2.0, 300.0

_AGAIN = "that leaves too little, and there is room again"


class Most(NamedTuple):
    """The most that an attempt can cost, None where its price is unknown; this rests on the cap of its answer."""

    nano: int | None
    output_cap: int | None = None  # tokens of a choice


@dataclass(frozen=True, slots=True)
class No:
    """Why a job cannot be sent, and when to look again; None: it never can."""

    code: str
    why: str
    until: datetime | None = None


class Room:
    """What is left of a budget's period, while this transaction holds its row."""

    def __init__(self, budget: Budget, row: Row[Any]) -> None:
        self._budget, self._row = budget, row
        self._taken = 0
        self._said: dict[bool, No] = {}  # of all jobs that find no room now the same is said
        self.starts_at: datetime = row.starts_at

    @property
    def left(self) -> int:
        """Nano-dollars that can be set aside."""
        return self._budget.limit_nano - int(self._row.spent_nano) - self._held

    @property
    def _held(self) -> int:
        return int(self._row.reserved_nano) + self._taken

    def take(self, nano: int) -> None:
        """Set so much aside."""
        self._taken += nano

    def no(self, nano: int, now: datetime, since: datetime) -> No:
        """Why so much does not fit now, for a job of that age. What others hold may come back at any time, what is
        spent does not.
        """
        over = self._row.spent_nano + nano > self._budget.limit_nano
        if over not in self._said:
            self._said[over] = self._over() if over else self._busy(now, since)
        return self._said[over]

    def _over(self) -> No:
        ends_at = self._row.ends_at
        then = f"when the next period begins, {_iso(ends_at)}, or after" if ends_at else "after"
        return No("over_budget", f"{self._sums()}; {_AGAIN} {then} {self._raise()}", ends_at)

    def _busy(self, now: datetime, since: datetime) -> No:
        then = "when enough of that has come back, or after"
        until = now + min(max((now - since) / 8, timedelta(seconds=LOOK_AGAIN_S)), timedelta(seconds=LATEST_LOOK_S))
        return No("over_budget", f"{self._sums()}; {_AGAIN} {then} {self._raise()}", until)

    def _sums(self) -> str:
        spent, held = usd(self._row.spent_nano), usd(self._held)
        return f"{title(self._budget)}: ${spent} spent and ${held} set aside for what is under way"

    def _raise(self) -> str:
        return f"`shunter budget set {self._budget.name} --usd N`"

    def keep(self, connection: Connection, now: datetime, news: list[str]) -> None:
        """Write it down, in one statement that finds no row rather than go over the limit."""
        row, limit = self._row, self._budget.limit_nano
        much = row.spent_nano + self._held >= WARN_AT * limit
        warn, full = much and row.warned_at is None, True in self._said and row.full_at is None
        if not (self._taken or warn or full):
            return
        mine = and_(PERIOD.c.budget_id == self._budget.id, PERIOD.c.starts_at == row.starts_at)
        fits = or_(literal(self._taken) == 0, PERIOD.c.spent_nano + PERIOD.c.reserved_nano + self._taken <= limit)
        values: dict[str, Any] = {"reserved_nano": PERIOD.c.reserved_nano + self._taken}
        values |= ({"warned_at": now} if warn else {}) | ({"full_at": now} if full else {})
        if connection.execute(update(PERIOD).where(mine, fits).values(values)).rowcount != 1:
            raise RuntimeError(f"{title(self._budget)} was changed while it was held")
        if full:
            news.append(f"{self._sums()}; what it leaves no room for waits{self._until()}: {self._raise()} raises it")
        elif warn:
            news.append(f"{self._sums()}, more than {WARN_AT:.0%}; {self._raise()} raises it")

    def _until(self) -> str:
        return f" until {_iso(self._row.ends_at)}" if self._row.ends_at else " in vain and fails"


def title(budget: Budget) -> str:
    """A budget in words: "budget 'team' ($5 a day for team=search)"."""
    per = {"day": " a day", "month": " a month"}.get(budget.period, " in all")
    whose = f" for {budget.tag_key}={budget.tag_value}" if budget.tag_key else ""
    return f"budget {budget.name!r} (${usd(budget.limit_nano)}{per}{whose})"


def never(
    budgets: Sequence[Budget], most: Most, model: str, cap_nano: int | None = None, left_nano: int | None = None
) -> No | None:
    """Why a request can never go, however empty its budgets are; `left_nano` is what is left of its own cap."""
    if most.nano is None:
        whose = title(budgets[0]) if budgets else f"the cap of ${usd(cap_nano)}"
        return No("unknown_price", f"nobody can tell what this request to {model} may cost at most, so {whose} cannot "
                  "be kept: name a model with a known price, or take the limit away")  # fmt: skip
    if left_nano is not None and most.nano > left_nano:
        spent = f", of which ${usd(left_nano)} is left" if left_nano != cap_nano else ""
        return No("over_cap", f"over the cap of ${usd(cap_nano)}{spent}: it may cost ${usd(most.nano)}; "
                  "raise --max-cost, or lower --max-tokens")  # fmt: skip
    small = next((one for one in budgets if most.nano > one.limit_nano), None)
    if small is None:
        return None
    return No("over_budget", f"{title(small)} is less than the ${usd(most.nano)} that this request alone may cost: "
              f"lower --max-tokens, or raise it with `shunter budget set {small.name} --usd N`")  # fmt: skip


def put_off(connection: Connection, refused: Mapping[str, No], now: datetime) -> None:
    """Queued jobs that cannot be sent: they wait, or fail where waiting is of no use."""
    for no, ids in groupby(sorted(refused, key=lambda job_id: repr(refused[job_id])), key=refused.__getitem__):
        values: dict[str, Any] = {"error_code": no.code, "error": no.why, "run_after": no.until}
        if no.until is None:
            values = {"error_code": no.code, "error": no.why, "state": JobState.FAILED.value, "finished_at": now}
        connection.execute(update(JOB).where(within(JOB.c.id, sorted(ids), connection)).values(values))


def _iso(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
