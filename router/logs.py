"""The log: one JSON line an event, for machines. Ids and figures alone: no words of a request or an answer, no URL.

Everything goes to the logger `shunter`; a program that uses the library sets it up as it likes. `configure` is what
the commands do with it.
"""

import logging
import logging.handlers
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from jobs.errors import UsageError
from jobs.observing import log
from router import terminal
from router.settings import LOG_LEVELS, Settings

log.addHandler(logging.NullHandler())  # or what nobody set up would write warnings to stderr

# Loggers of others whose lines are made alike: from which level on at least.
_OTHERS = {"uvicorn.error": logging.INFO, "router.web": logging.DEBUG, "opentelemetry": logging.ERROR}
# What OpenTelemetry's fill into their messages may name an address, so they are told without it; and they say the same
# at each try while a collector is away.
_BARE, _AGAIN_S = "opentelemetry", 60.0
_FILLED = re.compile(r"%[-+.\d]*[a-z]")


class JsonLine(logging.Formatter):
    """One JSON object a record: time, level, event, and its fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line: dict[str, Any] = {"time": at, "level": record.levelname.lower()}
        if record.name == log.name:
            line |= {"event": record.msg, **getattr(record, "fields", {})}
        else:
            bare = record.name.startswith(_BARE)
            text = _FILLED.sub("…", str(record.msg)) if bare else record.getMessage()
            line |= {"event": "message", "logger": record.name, "text": text.strip()}
        if record.exc_info and record.exc_info[1]:
            line |= _failure(record.exc_info[1])
        return orjson.dumps(line, default=str).decode()


def _failure(error: BaseException) -> dict[str, Any]:
    """What an exception is and where it comes from; what it says may hold what somebody asked."""
    frames, at = [], error.__traceback__
    while at is not None:
        code = at.tb_frame.f_code
        frames.append(f"{Path(code.co_filename).name}:{at.tb_lineno} {code.co_name}")
        at = at.tb_next
    return {"error": type(error).__name__, "stack": frames}


class _Seldom(logging.Filter):
    """Lets what OpenTelemetry says through once, and then again after a while."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(_BARE):
            return True
        what = record.name, str(record.msg)
        if record.created - self._said.get(what, 0.0) < _AGAIN_S:
            return False
        self._said[what] = record.created
        return True


class _Lines(logging.StreamHandler[Any]):
    """Writes lines to stderr as it is now, above what moves there."""

    aside: Callable[[], AbstractContextManager[Any]] = staticmethod(nullcontext)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr  # set, and the one before not flushed: it may be closed by now
        with self.aside():
            super().emit(record)


def configure(settings: Settings, level: str | None = None, file: str | None = None) -> None:
    """Write the log to stderr, or to a file, from a level on; flags go before settings. UsageError names a bad one.

    On a stderr that is no terminal the talk to the person is told as events too, once the log tells of usual events
    there: then each line is JSON.
    """
    level, file = level or settings.log_level, file or settings.log_file
    if level not in LOG_LEVELS:
        raise UsageError(f"--log-level is {level!r}: it must be one of {', '.join(LOG_LEVELS)}", code="bad_setting")
    number = logging.getLevelNamesMapping()[level.upper()]
    handler = _handler(file)
    handler.setFormatter(JsonLine())
    handler.addFilter(_Seldom())
    for former in log.handlers:
        former.close()
    for name, least in {log.name: number, **_OTHERS}.items():
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(max(number, least))
        logger.propagate = False
    alone = not file and number <= logging.INFO and not sys.stderr.isatty()
    terminal.talk = _said if alone else None


def _handler(file: str | None) -> logging.Handler:
    if not file:
        return _Lines()
    try:
        return logging.handlers.WatchedFileHandler(Path(file).expanduser(), encoding="utf-8")  # it may be rotated
    except OSError as error:
        raise UsageError(
            f"the log cannot be written to {file}: {error.strerror or error}", code="bad_setting"
        ) from None


def beside(aside: Callable[[], AbstractContextManager[Any]]) -> None:
    """Have lines on stderr written above what moves there."""
    for handler in log.handlers:
        if isinstance(handler, _Lines):
            handler.aside = aside


def _said(text: str) -> None:
    log.info("said", extra={"fields": {"text": text}})


def tell(level: int, event: str, fields: Mapping[str, Any]) -> None:
    """Log an event; what is not known of it is left out."""
    log.log(level, event, extra={"fields": {name: value for name, value in fields.items() if value is not None}})
