"""What lies at a provider and answers to nobody here: batches that carry our mark, and files that nothing needs."""

import re
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from db import orphans
from db.ids import parse_custom_id
from db.states import BatchState
from db.tables import Batch
from jobs.context import Context
from jobs.errors import CallError
from jobs.providers import BatchProvider, Remote, RemoteFile

LOOKED_INTO = 200  # results of unmarked batches whose first row is read, to see whose they are
_OURS = re.compile(r"([0-9a-f]{26})\.jsonl")


class Kind(StrEnum):
    """Why a batch at the provider needs a person."""

    STRAY = "stray"  # of ours, and no batch here is bound to it: what it did is not on the ledger
    PENDING = "pending"  # its batch here does not know of it yet: a worker adopts it
    RETURNED = "returned"  # its batch here was closed with rows of unknown fate: it can say what became of them


@dataclass(frozen=True, slots=True)
class Orphan:
    """A batch at the provider; `batch_id` is the one here that it was made for, where that can be told."""

    provider: str
    kind: Kind
    remote: Remote
    batch_id: str | None = None
    worth_nano: int | None = None  # what its rows were expected to cost


@dataclass(frozen=True, slots=True)
class Spare:
    """A file of ours at the provider that no open batch needs."""

    provider: str
    file: RemoteFile
    batch_id: str | None


@dataclass(slots=True)
class Files:
    """All files of the account there, which share one quota."""

    count: int = 0
    bytes: int = 0
    oldest_at: datetime | None = None
    alike: int = 0  # named as ours are, but of no batch here: another installation's

    def add(self, file: RemoteFile) -> None:
        """Count it."""
        self.count += 1
        self.bytes += file.bytes
        known = [at for at in (self.oldest_at, file.created_at) if at]
        self.oldest_at = min(known, default=None)


@dataclass(slots=True)
class Survey:
    """What one provider shows; `untold` batches run there that nobody can tell before they end."""

    provider: str
    orphans: list[Orphan] = field(default_factory=list)
    untold: int = 0
    files: Files = field(default_factory=Files)
    spare: list[Spare] = field(default_factory=list)


class _Known:
    """The batches of this database at one address, by every name that a provider may give back."""

    def __init__(self, rows: list[Batch], unknown: Mapping[str, int]) -> None:
        self.by_id = {row.id: row for row in rows}
        self.bound = {row.provider_batch_id: row for row in rows if row.provider_batch_id}
        self.inputs = {row.file_id: row for row in rows if row.file_id}
        self.outputs = {ident: row for row in rows for ident in (row.output_file_id, row.error_file_id) if ident}
        self.unknown = unknown

    def of(self, remote: Remote) -> Batch | None:
        """The batch that it was made for."""
        return self.by_id.get(remote.batch_id or "") or self.inputs.get(remote.input_file_id or "")


async def survey(context: Context, name: str) -> Survey:
    """Look through every batch and file that the provider shows. Reads only; CallError when it cannot be asked."""
    provider, endpoint = context.batch_provider(name), context.endpoint(name)
    remotes = [remote async for remote in provider.listed()]
    files = [file async for file in provider.files()]
    # Our own rows last: each is committed before its POST, so that nothing that a worker makes now looks like a stray.
    rows = await context.db(orphans.at, name, endpoint.base_url)
    known, found = _Known(rows, await context.db(orphans.unknown_in)), Survey(name)
    await _batches(context, provider, remotes, known, found)
    worth = await context.db(orphans.worth, [one.batch_id for one in found.orphans if one.batch_id])
    found.orphans = [replace(one, worth_nano=worth.get(one.batch_id or "")) for one in found.orphans]
    in_use = {remote.input_file_id for remote in remotes if not remote.terminal}
    for file in files:
        found.files.add(file)
        if file.id not in in_use:
            _file(file, known, found)
    return found


async def _batches(
    context: Context, provider: BatchProvider, remotes: Sequence[Remote], known: _Known, found: Survey
) -> None:
    looks = LOOKED_INTO
    for remote in remotes:
        if here := known.bound.get(remote.id):
            if here.state == BatchState.IMPORTED and known.unknown.get(here.id):
                found.orphans.append(Orphan(found.provider, Kind.RETURNED, remote, here.id))
        elif (batch := known.of(remote)) or remote.install == context.install:
            _stray(remote, batch, found)
        elif provider.has_files or (remote.terminal and not (remote.done and looks)):
            continue
        elif not remote.terminal:
            found.untold += 1
        else:
            looks -= 1
            ours, home = await _looked_into(context, provider, remote)
            if ours:
                _stray(remote, known.by_id.get(home or ""), found)


def _stray(remote: Remote, batch: Batch | None, found: Survey) -> None:
    if remote.terminal and not remote.done and not remote.output_file_id:
        return  # nothing of it ran: refused, or cancelled before it began
    pending = batch is not None and batch.state != BatchState.IMPORTED and batch.provider_batch_id is None
    kind = Kind.PENDING if pending else Kind.STRAY
    found.orphans.append(Orphan(found.provider, kind, remote, batch.id if batch else None))


async def _looked_into(context: Context, provider: BatchProvider, remote: Remote) -> tuple[bool, str | None]:
    """Whether the first row of its results names a job of ours, and the batch that this was a row of."""
    try:
        async with aclosing(provider.collect(remote)) as rows:  # type: ignore[type-var]
            async for row in rows:
                key = parse_custom_id(row.custom_id)
                if key is None or not await context.db(orphans.known, [key[0]]):
                    return False, None
                return True, await context.db(orphans.batch_of, key)
    except CallError:  # results that are archived, or of a workspace that this key may not read
        return False, None
    return False, None


def _file(file: RemoteFile, known: _Known, found: Survey) -> None:
    named = _OURS.fullmatch(file.name) if file.purpose == "batch" else None
    owner = known.inputs.get(file.id) or known.outputs.get(file.id) or known.by_id.get(named[1] if named else "")
    strays = {one.remote.input_file_id: one for one in found.orphans}
    stray = strays.get(file.id)
    if owner is None and stray is None:
        found.files.alike += named is not None
    elif not _needed(file, owner, known):
        found.spare.append(Spare(found.provider, file, owner.id if owner else stray.batch_id if stray else None))


def _needed(file: RemoteFile, owner: Batch | None, known: _Known) -> bool:
    """An open batch needs its own file, or whichever it finds while it knows of none; one with rows of unknown fate
    may still be told by its output.
    """
    if owner is None:
        return False
    if owner.state == BatchState.IMPORTED:
        return file.id in known.outputs and bool(known.unknown.get(owner.id))
    return owner.file_id in (None, file.id) or file.id in known.outputs
