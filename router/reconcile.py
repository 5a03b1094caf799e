"""A provider's bill held against the ledger, line by line: what is missing on either side, doubled or different."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from db import billed
from db.billed import Call, Counted, Sent
from db.engine import Store
from db.ids import parse_custom_id
from db.lookup import iso
from db.money import usd
from jobs.chat import Usage
from router.reconcile_read import Bill, Line

SNAPSHOT = re.compile(r"[-@](\d{4}-\d{2}-\d{2}|\d{8})$")
MEASURES = ("requests", "input_tokens", "cached_tokens", "output_tokens", "nano")
SLACK = timedelta(minutes=1)  # a provider's clock and ours


class Verdict(StrEnum):
    """How a line of the bill and the ledger stand to each other."""

    SAME = "same"
    NOT_HERE = "not in the ledger"
    NOT_BILLED = "not on the bill"
    DOUBLED = "doubled"
    DIFFERENT = "different"


class Finding(NamedTuple):
    """One thing that was compared."""

    verdict: Verdict
    what: Mapping[str, Any]  # by which it is known: its time, model, batch or ids
    billed: Line | None
    here: Counted | None
    note: str | None = None


@dataclass
class Reconciled:
    """All that was compared."""

    kind: str
    findings: list[Finding] = field(default_factory=list)
    again: tuple[str, ...] = ()  # lines that the bill holds twice
    silent: tuple[str, ...] = ()  # batches whose provider does not say what they used

    @property
    def agrees(self) -> bool:
        """Whether everything is the same."""
        return not self.again and all(one.verdict is Verdict.SAME for one in self.findings)

    def view(self) -> dict[str, Any]:
        """Its JSON."""
        found = Counter(one.verdict for one in self.findings)
        money = [one.billed.nano for one in self.findings if one.billed and one.billed.nano is not None]
        return {
            "kind": self.kind,
            "agrees": self.agrees,
            "compared": len(self.findings),
            **{verdict.name.lower(): found[verdict] for verdict in Verdict},
            "billed_usd": usd(sum(money)) if money else None,
            "ledger_usd": usd(sum(one.here.cost_nano for one in self.findings if one.here)),
            "unknown_attempts": sum(one.here.unknown for one in self.findings if one.here),
            "repeated_lines": list(self.again),
            "without_usage": list(self.silent),
            "rows": [_view(one) for one in self.findings],
        }


def _view(one: Finding) -> dict[str, Any]:
    line, here = one.billed, one.here
    told = {name: getattr(line, name) for name in MEASURES[:4]} | {"cost_usd": usd(line.nano)} if line else None
    ours = {name: getattr(here, name) for name in MEASURES[:4]} | {"cost_usd": usd(here.cost_nano)} if here else None
    return {
        "verdict": one.verdict.value,
        **one.what,
        "billed": told,
        "ledger": ours,
        "unknown_attempts": here.unknown if here else 0,
        "at_risk_usd": usd(here.at_risk_nano) if here else None,
        "note": one.note,
    }


def against(store: Store, bill: Bill) -> Reconciled:
    """The bill of a file against the ledger."""
    match bill.kind:
        case "requests":
            found = _requests(store, bill.lines)
        case "batches":
            found = _batches(bill.lines, _by_id(store, bill.lines))
        case _:
            found = _times(store, bill)
    return Reconciled(bill.kind, sorted(found, key=_order), bill.again)


def against_batches(sent: Sequence[Sent], usages: Mapping[str, Usage | None]) -> Reconciled:
    """Imported batches against what the provider says that each of them used, by its id there."""
    lines = [
        Line(name, None, None, None, True, name, None, None, usage.input, usage.cached, usage.output)
        for name, usage in usages.items()
        if usage is not None
    ]
    known = {one.provider_batch_id: one for one in sent}
    found = [*_batches(lines, {line.id: known.get(str(line.id)) for line in lines})]
    return Reconciled("batches", sorted(found, key=_order))


def _order(one: Finding) -> tuple[Any, ...]:
    return [*Verdict].index(one.verdict), *(str(value) for value in one.what.values())


# ---- usage and costs: sums of a time ----


class _Key(NamedTuple):
    since: datetime
    until: datetime
    model: str | None
    batch: bool | None


def _times(store: Store, bill: Bill) -> Iterator[Finding]:
    """Lines of the same time, model and kind together, whatever projects and keys they are split by."""
    grouped: dict[_Key, list[Line]] = defaultdict(list)
    for line in bill.lines:
        assert line.since is not None
        assert line.until is not None
        grouped[_Key(line.since, line.until, _plain(line.model), line.batch)].append(line)
    for span in sorted({key[:2] for key in grouped}):
        keys = [key for key in grouped if key[:2] == span]
        left = billed.of_time(store, *span, bill.provider)
        for key in keys:
            mine = [one for one in left if _fits(key, *one)]
            here = sum((left.pop(one) for one in mine), Counted())
            yield _judged(_what(key), _sum(grouped[key]), here if mine else None)
        for (model, batch), here in left.items():
            if here.requests or here.cost_nano:
                yield Finding(Verdict.NOT_BILLED, _what(_Key(*span, model, batch)), None, here)


def _fits(key: _Key, model: str, batch: bool) -> bool:
    return key.model in (None, _plain(model)) and key.batch in (None, batch)


def _plain(model: str | None) -> str | None:
    """The name without its snapshot, since a bill may name either."""
    return None if model is None else SNAPSHOT.sub("", model.lower())


def _what(key: _Key) -> dict[str, Any]:
    return {"from": iso(key.since), "to": iso(key.until), "model": key.model, "batch": key.batch}


def _sum(lines: Iterable[Line]) -> Line:
    lines = list(lines)
    sums = (_total(getattr(line, name) for line in lines) for name in MEASURES)
    return Line._make([*lines[0][:7], *sums, sum(line.unit for line in lines)])


def _total(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


# ---- single requests ----


def _requests(store: Store, lines: Sequence[Line]) -> Iterator[Finding]:
    keys = [parse_custom_id(line.custom_id or "") for line in lines]
    named = billed.calls(store, [line.id for line in lines if line.id], [key[0] for key in keys if key])
    by_request: dict[str | None, Call] = {one.request_id: one for one in named if one.request_id}
    by_key = {(one.job_id, one.n): one for one in named}
    seen: Counter[tuple[str, int]] = Counter()
    for line, key in zip(lines, keys, strict=True):
        call = (by_key.get(key) if key else None) or by_request.get(line.id)
        what = {"request_id": line.id, "custom_id": line.custom_id, "model": line.model}
        if call is not None:
            seen[call.job_id, call.n] += 1
            if seen[call.job_id, call.n] > 1:
                yield Finding(Verdict.DOUBLED, what, line, call.counted, f"billed {seen[call.job_id, call.n]} times")
                continue
        yield _judged(what, line, call.counted if call else None)
    times = [line.since for line in lines if line.since is not None] or [by_key[key].ended_at for key in seen]
    yield from _unbilled(store, times, seen)


def _unbilled(store: Store, times: Sequence[datetime], seen: Mapping[tuple[str, int], int]) -> Iterator[Finding]:
    """What ended while the bill was running up, and is not on it; one without times ran as long as what it names."""
    for one in billed.billable(store, min(times) - SLACK, max(times) + SLACK) if times else ():
        if (one.job_id, one.n) not in seen:
            yield Finding(Verdict.NOT_BILLED, _named(one), None, one.counted)


def _named(one: Call) -> dict[str, Any]:
    return {"request_id": one.request_id, "custom_id": f"{one.job_id}_{one.n}", "model": one.model}


# ---- batches ----


def _by_id(store: Store, lines: Sequence[Line]) -> dict[str | None, Sent | None]:
    sent = billed.named(store, [line.id for line in lines if line.id])
    known = {one.provider_batch_id: one for one in sent}
    return {line.id: known.get(str(line.id)) for line in lines}


def _batches(lines: Sequence[Line], known: Mapping[str | None, Sent | None]) -> Iterator[Finding]:
    for line in lines:
        sent = known[line.id]
        what = {"provider_batch_id": line.id, "batch_id": sent.id if sent else None, "model": line.model}
        if line.input_tokens is None and line.output_tokens is None:
            continue  # it does not say what it used
        yield _judged(what, line, sent.counted if sent else None)


# ---- the verdict ----


def _judged(what: Mapping[str, Any], line: Line, here: Counted | None) -> Finding:
    told = {name: value for name in MEASURES if (value := getattr(line, name)) is not None}
    if here is None or not (here.requests or here.unknown):
        nothing = not any(told.values())
        return Finding(Verdict.SAME if nothing else Verdict.NOT_HERE, what, line, here)
    ours = {name: here.cost_nano if name == "nano" else getattr(here, name) for name in told}
    if all(_alike(name, told[name], ours[name], line.unit) for name in told):
        return Finding(Verdict.SAME, what, line, here)
    if times := _times_as_much(told, ours):
        return Finding(Verdict.DOUBLED, what, line, here, f"the bill has {times} times what the ledger has")
    if times := _times_as_much(ours, told):
        return Finding(Verdict.DOUBLED, what, line, here, f"the ledger has {times} times what the bill has")
    missing = f"{here.unknown} attempts here do not say what they used" if here.unknown else None
    return Finding(Verdict.DIFFERENT, what, line, here, missing)


def _alike(name: str, told: int, ours: int, unit: int) -> bool:
    """Exactly so; money to half of the last digit that the bill has."""
    return abs(told - ours) * 2 <= (unit if name == "nano" else 0)


def _times_as_much(more: Mapping[str, int], less: Mapping[str, int]) -> int | None:
    """How many times as much all of it is, if that is a whole number above one."""
    ratios = {(more[name] // less[name], more[name] % less[name]) for name in more if less[name]}
    zeros = all(not more[name] for name in more if not less[name])
    if len(ratios) == 1 and zeros:
        ((times, rest),) = ratios
        return times if times > 1 and not rest else None
    return None
