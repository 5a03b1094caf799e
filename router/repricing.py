"""Re-pricing: what attempts of the past cost by the prices that are known now. It looks, and writes when told to."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from db import adjustments
from db.adjustments import Adjustment, Paid, Repricing
from db.engine import Store
from db.ids import new_id
from db.lookup import iso
from db.money import usd
from db.states import CostSource, Lane
from jobs import outcome, pricing
from jobs.chat import Usage
from jobs.prices_table import PriceTable
from jobs.providers import Endpoint
from router.settings import ANTHROPIC_URL, OPENAI_URL

OWN = {name: Endpoint(name, url, own=True, key_env="") for name, url in
       (("openai", OPENAI_URL), ("anthropic", ANTHROPIC_URL))}  # fmt: skip


@dataclass
class Line:
    """The attempts of one provider, model and lane, in nano-dollars."""

    attempts: int = 0
    changed: int = 0
    became_known: int = 0  # of those: without a cost before
    unknown: int = 0  # still without one
    before: int = 0
    after: int = 0


@dataclass
class Repriced:
    """What a re-pricing comes to."""

    repricing: Repricing
    lines: dict[tuple[str, str, str], Line] = field(default_factory=lambda: defaultdict(Line))
    reported: int = 0  # the provider said what they cost, which stays
    unpriced: int = 0  # no price is known: they keep what they have
    written: int | None = None  # adjustments; None where it was only looked at

    def view(self) -> dict[str, Any]:
        """Its JSON."""
        whole = Line(*(sum(getattr(line, name) for line in self.lines.values()) for name in Line.__annotations__))
        return {
            "prices": self.repricing.prices,
            "since": iso(self.repricing.since),
            "until": iso(self.repricing.until),
            "repricing": self.repricing.id if self.written else None,
            "written": self.written,
            **_view(whole),
            "reported": self.reported,
            "unpriced": self.unpriced,
            "rows": [
                dict(zip(("provider", "model", "lane"), key, strict=True)) | _view(line)
                for key, line in sorted(self.lines.items())
            ],
        }


def _view(line: Line) -> dict[str, Any]:
    return {
        "attempts": line.attempts,
        "changed": line.changed,
        "became_known": line.became_known,
        "unknown": line.unknown,
        "before_usd": None if line.unknown + line.became_known == line.attempts else usd(line.before),
        "after_usd": None if line.unknown == line.attempts else usd(line.after),
        "difference_usd": usd(line.after - line.before),
    }


def reprice(
    store: Store,
    endpoints: Mapping[str, Endpoint],
    table: PriceTable | None,
    since: datetime,
    until: datetime | None,
    now: datetime,
    *,
    write: bool,
) -> Repriced:
    """Price every attempt of this time anew; with `write`, append what is different, page by page.

    Cut off half way, it is done so far, and doing it again does the rest.
    """
    repricing = Repricing(new_id(now), pricing.version(table), since, until, now)
    done = Repriced(repricing, written=0 if write else None)
    for page in adjustments.paid(store, since, until):
        changes = [*_changes(done, page, endpoints, table)]
        if changes and done.written is not None:
            done.written += adjustments.apply(store, repricing, changes)
    return done


def _changes(
    done: Repriced, page: list[Paid], endpoints: Mapping[str, Endpoint], table: PriceTable | None
) -> Iterator[Adjustment]:
    for one in page:
        line = done.lines[one.provider, one.model, one.lane]
        line.attempts += 1
        line.before += one.cost_nano or 0
        change = None
        if one.cost_source == CostSource.REPORTED:
            done.reported += 1
        elif (change := _priced(one, _endpoint(one, endpoints), table)) is None:
            done.unpriced += 1
        after = one.cost_nano if change is None else change.after_nano
        line.after += after or 0
        line.unknown += after is None
        if change and _differs(one, change):
            line.changed += 1
            line.became_known += one.cost_nano is None
            yield change


def _differs(one: Paid, change: Adjustment) -> bool:
    return (one.cost_nano, one.standard_nano) != (change.after_nano, change.standard_after_nano)


def _priced(one: Paid, endpoint: Endpoint, table: PriceTable | None) -> Adjustment | None:
    """What the attempt costs now; None where nobody knows."""
    usage = Usage(one.input_tokens, one.output_tokens, *one[9:16])
    where = endpoint if table is endpoint.prices else _with(endpoint, table)
    paid, plain = outcome.priced(usage, one.served_model, one.model, where, Lane(one.lane), one.tier, one.priced_at)
    if paid.nano is None:
        return None
    standard = one.standard_nano if plain.nano is None else plain.nano
    return Adjustment(one.job_id, one.n, one.cost_nano, paid.nano, one.standard_nano, standard, paid.source, paid.name)


def _with(endpoint: Endpoint, table: PriceTable | None) -> Endpoint:
    from dataclasses import replace

    return replace(endpoint, prices=table)


def _endpoint(one: Paid, endpoints: Mapping[str, Endpoint]) -> Endpoint:
    """Where it was sent: what was computed by the list was computed at the provider's own address."""
    at_its_own = one.cost_source == CostSource.COMPUTED and pricing.listed(one.price)
    if at_its_own or one.provider not in endpoints:
        return OWN.get(one.provider) or Endpoint(one.provider, "", own=False, key_env="")
    return endpoints[one.provider]
