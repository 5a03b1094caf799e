"""What doctor finds at the providers, and what it does there when it is told to."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from db.lookup import iso
from db.money import usd
from jobs import adopting, orphans
from jobs.adopting import Adopted
from jobs.context import Context
from jobs.errors import CallError, UsageError
from jobs.orphans import Kind, Orphan, Spare, Survey
from router.figures import count, size

SURVEY_S = 60.0  # a provider has this long to show its batches and files

View = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be done, by the ids of batches and files at a provider, or to all that were found."""

    adopt: Sequence[str] = ()
    cancel: Sequence[str] = ()
    delete: Sequence[str] = ()
    adopt_all: bool = False
    cancel_all: bool = False
    delete_all: bool = False

    @property
    def anything(self) -> bool:
        """Whether it asks for more than a look."""
        return bool(self.adopt or self.cancel or self.delete or self.adopt_all or self.cancel_all or self.delete_all)


@dataclass(slots=True)
class Strays:
    """What was found, what was done, what is wrong and what is only worth saying."""

    surveys: list[Survey] = field(default_factory=list)
    done: list[View] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def view(self) -> View:
        """In its JSON form."""
        found = [_orphan(one) for survey in self.surveys for one in survey.orphans]
        return {"orphans": found, "files": [_files(survey) for survey in self.surveys], "done": self.done}


async def look(context: Context, names: Iterable[str], wanted: Wanted) -> Strays:
    """Look at these providers, do there what is wanted, and look again where anything was done."""
    found = Strays()
    names = list(names)
    found.surveys = await _survey(context, names, found.problems)
    if wanted.anything:
        await _act(context, found, wanted)
        found.problems.clear()
        found.surveys = await _survey(context, names, found.problems)
    _advise(found)
    return found


async def _survey(context: Context, names: Iterable[str], problems: list[str]) -> list[Survey]:
    async def one(name: str) -> Survey | None:
        try:
            async with asyncio.timeout(SURVEY_S):
                return await orphans.survey(context, name)
        except (CallError, TimeoutError) as error:
            why = f"it took more than {SURVEY_S:.0f} s" if isinstance(error, TimeoutError) else error
            problems.append(f"what lies at {name} cannot be listed: {why}")
            return None

    return [survey for survey in await asyncio.gather(*map(one, names)) if survey]


# ---- doing ----


async def _act(context: Context, found: Strays, wanted: Wanted) -> None:
    batches = {one.remote.id: one for survey in found.surveys for one in survey.orphans}
    files = {one.file.id: one for survey in found.surveys for one in survey.spare}
    adopt, cancel = _named(wanted.adopt, batches, "batches"), _named(wanted.cancel, batches, "batches")
    delete = _named(wanted.delete, files, "files")
    stray = [one for one in batches.values() if one.kind is not Kind.PENDING]
    adopt |= {one.remote.id: one for one in stray if wanted.adopt_all and one.remote.terminal}
    cancel |= {one.remote.id: one for one in stray if wanted.cancel_all and not one.remote.terminal}
    delete |= files if wanted.delete_all else {}
    for orphan in adopt.values():
        await _try(found, orphan.remote.id, _adopt, context, orphan)
    for orphan in cancel.values():
        await _try(found, orphan.remote.id, _cancel, context, orphan)
    for spare in delete.values():
        await _try(found, spare.file.id, _delete, context, spare)


def _named(ids: Iterable[str], known: Mapping[str, T], what: str) -> dict[str, T]:
    """Those that a person named; UsageError for what was not found: nothing else there is ours to touch."""
    if missing := [ident for ident in ids if ident not in known]:
        text = f"{', '.join(missing)}: not among the {what} that doctor finds; `shunter doctor --json` lists them"
        raise UsageError(text, code="not_found")
    return {ident: known[ident] for ident in ids}


async def _try(found: Strays, ident: str, act: Callable[..., Any], context: Context, one: Any) -> None:
    try:
        found.done.append({"id": ident, "provider": one.provider} | await act(context, one))
    except (CallError, UsageError) as error:
        found.done.append({"id": ident, "provider": one.provider, "action": "failed", "error": str(error)})


async def _adopt(context: Context, orphan: Orphan) -> View:
    return {"action": "adopted"} | _adopted(await adopting.adopt(context, orphan))


def _adopted(done: Adopted) -> View:
    counts = {"batch": done.batch_id, "rows": done.rows, "settled": done.settled, "paid_again": done.again}
    money = {"cost_usd": usd(done.spent_nano), "strangers_usd": usd(done.strange_nano)}
    return counts | {"strangers": done.strangers} | money


async def _cancel(context: Context, orphan: Orphan) -> View:
    remote = await context.batch_provider(orphan.provider).cancel(orphan.remote.id)
    return {"action": "cancelled", "status": remote.status}


async def _delete(context: Context, spare: Spare) -> View:
    await context.batch_provider(spare.provider).delete_file(spare.file.id)
    return {"action": "deleted", "bytes": spare.file.bytes}


# ---- telling ----


def _advise(found: Strays) -> None:
    for survey in found.surveys:
        groups: dict[tuple[Kind, bool], list[Orphan]] = {}
        for one in survey.orphans:
            groups.setdefault((one.kind, one.remote.terminal), []).append(one)
        for (kind, ended), ones in groups.items():
            (found.notes if kind is Kind.PENDING else found.problems).append(_advice(kind, ones, ended=ended))
        if survey.untold:
            found.notes.append(f"{survey.untold:,} more running at {survey.provider}: whose shows when they have ended")
        if survey.spare:
            octets = size(sum(one.file.bytes for one in survey.spare))
            found.notes.append(f"{count(len(survey.spare), 'file')} of finished batches ({octets}) at "
                               f"{survey.provider}: delete with `shunter doctor --delete-files`")  # fmt: skip
    found.problems.extend(f"{one['id']}: {one['error']}" for one in found.done if one["action"] == "failed")


_WHAT = {
    Kind.PENDING: "made for a batch here that does not know of it yet: `shunter worker --once` adopts it",
    Kind.RETURNED: "can say what became of rows that were given up",
    Kind.STRAY: "ours, and what it did is not on the ledger",
}


def _advice(kind: Kind, ones: Sequence[Orphan], *, ended: bool) -> str:
    """What is the matter with them, and the command that mends it."""
    several = len(ones) > 1
    who = f"{len(ones):,} batches" if several else f"batch {ones[0].remote.id}"
    words = f"{who} at {ones[0].provider}: {_WHAT[kind]}"
    if kind is Kind.PENDING:
        return words
    ident = "-orphans" if several else f" {ones[0].remote.id}"
    if ended:
        return f"{words}; book it with `shunter doctor --adopt{ident}`"
    return f"{words}; it still runs: stop it with `shunter doctor --cancel{ident}`, and adopt it when it has ended"


def _orphan(one: Orphan) -> View:
    remote = one.remote
    known = {"id": remote.id, "provider": one.provider, "kind": one.kind.value, "batch": one.batch_id}
    there = {"status": remote.status, "ended": remote.terminal, "rows": remote.rows, "done": remote.done}
    return known | there | {"created_at": iso(remote.created_at), "worth_usd": usd(one.worth_nano)}


def _files(survey: Survey) -> View:
    seen = survey.files
    spare = [
        {"id": one.file.id, "name": one.file.name, "bytes": one.file.bytes, "created_at": iso(one.file.created_at),
         "batch": one.batch_id}
        for one in survey.spare
    ]  # fmt: skip
    about = {"provider": survey.provider, "count": seen.count, "bytes": seen.bytes, "oldest_at": iso(seen.oldest_at)}
    return about | {"alike": seen.alike, "spare": spare}
