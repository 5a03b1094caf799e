"""PostgreSQL as a store: how its connections are made, and what its errors mean to people."""

import getpass
import re
from typing import Any

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.types.string import StrDumper, StrDumperUnknown, StrDumperVarchar
from sqlalchemy import URL, Engine, ExceptionContext, create_engine, event

WAIT_S = 30  # for a row or a lock that another holds, and for a server that restarts
_IDLE_S = 60  # a writer that stops in the middle of a transaction is cut off after this: others wait for its rows
_CONNECT_S = 10

_HALF = re.compile("[\ud800-\udfff]")
_OPTIONS = f"-c timezone=UTC -c lock_timeout={WAIT_S}s -c idle_in_transaction_session_timeout={_IDLE_S}s"


def open_engine(url: URL) -> Engine:
    """An engine of psycopg; nothing is connected yet."""
    given = url.query.get("options", "")
    options = f"{_OPTIONS} {given if isinstance(given, str) else ' '.join(given)}".strip()
    url = url.set(drivername="postgresql+psycopg").difference_update_query(["options"])
    arguments = {"options": options, "connect_timeout": _CONNECT_S, "application_name": "shunter"}
    arguments = {name: value for name, value in arguments.items() if name == "options" or name not in url.query}
    engine = create_engine(url, connect_args=arguments, hide_parameters=True, pool_pre_ping=True, max_overflow=20)
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "handle_error", _without_rows)
    return engine


def _on_connect(connection: psycopg.Connection[Any], _record: Any) -> None:
    for dumper in (_Varchar, _Known, _Plain):  # the last one is what a text gets that no type is known for
        connection.adapters.register_dumper(str, dumper)
    connection.adapters.register_loader("numeric", _Number)


def _without_rows(context: ExceptionContext) -> None:
    """PostgreSQL adds the row that it refused to its error, with prompts and answers in it: that goes no further."""
    detail = getattr(getattr(context.original_exception, "diag", None), "message_detail", None)
    for error in (context.original_exception, context.sqlalchemy_exception):
        if detail and error is not None and error.args:
            error.args = (str(error.args[0]).replace(f"DETAIL:  {detail}", "").strip(), *error.args[1:])


def storable(text: str) -> bytes:
    """UTF-8 for a text column: each character that it cannot hold (NUL, half a surrogate pair) becomes U+FFFD."""
    try:
        data = text.encode()
    except UnicodeEncodeError:
        data = _HALF.sub("\ufffd", text).encode()
    return data.replace(b"\0", b"\xef\xbf\xbd") if b"\0" in data else data


class _Plain(StrDumperUnknown):
    def dump(self, obj: str) -> bytes:
        return storable(obj)


class _Known(StrDumper):
    def dump(self, obj: str) -> bytes:
        return storable(obj)


class _Varchar(StrDumperVarchar):
    def dump(self, obj: str) -> bytes:
        return storable(obj)


class _Number(Loader):
    """Sums of whole numbers are numbers, as they are on SQLite: PostgreSQL makes NUMERIC of them."""

    def load(self, data: Buffer) -> int | float:
        text = bytes(data)
        return int(text) if text.lstrip(b"-").isdigit() else float(text)


def said(error: BaseException, url: URL) -> str | None:
    """What is wrong and what to do, for an error of the server or of the way to it; None for any other."""
    driver = getattr(error, "orig", error)
    if not isinstance(driver, psycopg.Error):
        return None
    state = driver.sqlstate or ""
    for prefix, text in _KNOWN.items():
        if state.startswith(prefix):
            return text.format(database=url.database or getpass.getuser())
    if state or not isinstance(driver, psycopg.OperationalError):
        return None
    return _unreached(" ".join(str(driver).split()), url)


_KNOWN = {
    "28": "refused the user or the password; check SHUNTER_DATABASE_URL",
    "3D": "is not there; make it: createdb {database}",
    "42501": "does not let this user do that; give it rights on the schema, or name another user",
    "25006": "takes no writes now (a standby, or read-only); name the primary in SHUNTER_DATABASE_URL",
    "25P03": "cut off a writer that stood still for a minute; what it had begun is undone, try again",
    "53100": "has no room to grow; the server's disk is full",
    "53300": "has no free connection; raise max_connections or run fewer workers",
    "53": "is short of memory or room; see the server's log",
    "40": "was changed by another process at the same time; what was begun is undone, try again",
    "55P03": f"was locked by another process for {WAIT_S} s; try again",
    "57P": "is being stopped or started; try again",
    "08": "cannot be reached: the connection is lost; try again",
    "58": "cannot read or write its files; see the server's log",
    "XX": "is damaged or failed; see the server's log",
}


def _unreached(text: str, url: URL) -> str:
    """libpq gives no code while it connects: the server's words tell."""
    if "authentication failed" in text or "no password supplied" in text or "no pg_hba.conf entry" in text:
        return _KNOWN["28"]
    if "does not exist" in text and "database" in text:
        return _KNOWN["3D"].format(database=url.database or getpass.getuser())
    if "role" in text and "does not exist" in text:
        return _KNOWN["28"]
    if "too many clients" in text or "remaining connection slots" in text:
        return _KNOWN["53300"]
    if "starting up" in text or "shutting down" in text or "recovery" in text:
        return _KNOWN["57P"]
    if "Connection refused" in text or "No such file" in text or "resolve" in text or "timeout" in text:
        return f"cannot be reached: is the server running, and is {url.host or 'the socket'} right? ({text[:200]})"
    return f"cannot be reached: {text[:200]}"


def passing(error: BaseException) -> bool:
    """Whether trying again can help: the connection was lost, the server restarts, or others were in the way."""
    driver = getattr(error, "orig", error)
    if not isinstance(driver, psycopg.Error):
        return False
    return (driver.sqlstate or "08")[:2] in ("08", "40", "57") and isinstance(driver, psycopg.OperationalError)
