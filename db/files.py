"""Files that clients of the gateway upload: kept in parts, so that neither a reader nor a writer holds a whole one."""

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import BigInteger, Column, ForeignKey, Integer, LargeBinary, Text, delete, insert, select, update
from sqlmodel import Field, SQLModel

from db.engine import Store
from db.tables import table

PART_BYTES = 1 << 20


class GatewayFile(SQLModel, table=True):
    """A file; one that is not `whole` is still being written, or was left in the middle."""

    __tablename__ = "gateway_file"
    id: str = Field(sa_type=Text, primary_key=True)
    owner: str | None = Field(default=None, sa_type=Text)
    filename: str = Field(sa_type=Text)
    purpose: str = Field(sa_type=Text)
    bytes: int = Field(sa_type=BigInteger)
    whole: bool
    created_at: datetime


class GatewayFilePart(SQLModel, table=True):
    """A piece of a file."""

    __tablename__ = "gateway_file_part"
    file_id: str = Field(sa_column=Column(Text, ForeignKey("gateway_file.id"), primary_key=True))
    n: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    data: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


FILE = table(GatewayFile)
PART = table(GatewayFilePart)


class File(NamedTuple):
    """What is known of a file."""

    id: str
    owner: str | None
    filename: str
    purpose: str
    bytes: int
    created_at: datetime


_COLUMNS = [FILE.c[name] for name in File._fields]


def begin(store: Store, file: File) -> None:
    """A file whose parts will come; nobody else sees it before `end`."""
    with store.write() as connection:
        connection.execute(insert(FILE).values(whole=False, **file._asdict()))


def add(store: Store, file_id: str, n: int, data: bytes) -> None:
    """Part `n` of it, counted from 0."""
    with store.write() as connection:
        connection.execute(insert(PART).values(file_id=file_id, n=n, data=data))


def end(store: Store, file_id: str, *, size: int, filename: str, purpose: str) -> File:
    """It is whole."""
    known = {"whole": True, "bytes": size, "filename": filename, "purpose": purpose}
    with store.write() as connection:
        connection.execute(update(FILE).where(FILE.c.id == file_id).values(known))
        return File(*connection.execute(select(*_COLUMNS).where(FILE.c.id == file_id)).one())


def find(store: Store, file_id: str) -> File | None:
    """A whole file."""
    with store.read() as connection:
        row = connection.execute(select(*_COLUMNS).where(FILE.c.id == file_id, FILE.c.whole)).first()
        return File(*row) if row else None


def page(store: Store, *, owner: str | None, purpose: str | None, after: str | None, limit: int) -> list[File]:
    """A page of an owner's files, the newest first."""
    query = select(*_COLUMNS).where(FILE.c.whole, FILE.c.owner == owner).order_by(FILE.c.id.desc()).limit(limit)
    query = query.where(FILE.c.purpose == purpose) if purpose else query
    query = query.where(FILE.c.id < after) if after else query
    with store.read() as connection:
        return [File(*row) for row in connection.execute(query)]


def parts(store: Store, file_id: str) -> Iterator[bytes]:
    """Its content, a part at a time; no transaction is open between two."""
    n = 0
    while True:
        with store.read() as connection:
            data = connection.scalar(select(PART.c.data).where(PART.c.file_id == file_id, PART.c.n == n))
        if data is None:
            return
        yield bytes(data)
        n += 1


def left(store: Store, before: datetime) -> list[str]:
    """Files whose upload began so long ago and never ended."""
    with store.read() as connection:
        return list(connection.scalars(select(FILE.c.id).where(~FILE.c.whole, FILE.c.created_at < before)))


def remove(store: Store, file_id: str) -> None:
    """Forget a file."""
    with store.write() as connection:
        connection.execute(delete(PART).where(PART.c.file_id == file_id))
        connection.execute(delete(FILE).where(FILE.c.id == file_id))
