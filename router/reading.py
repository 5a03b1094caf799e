"""One prompt and whoever reads its answer: they may leave at any time, and the job is settled even then."""

import asyncio
import contextlib
import errno
import os
import select
import signal
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from typing import Any, TextIO

from db import lookup
from db.states import JobState
from jobs.chat import Delta, OnLeave, Request
from jobs.runner import Ended
from router import show
from router.decided import Started, Wish
from router.dispatch import Router
from router.voices import Voice
from router.waiting import until_final

DONE, FAILED, WRONG, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 130, 141

# Errors that the one who asked can put right: another key, model or request.
_THEIRS = ("no_key", "model_not_found", "not_found", "invalid_", "authentication", "permission", "unsupported", "401",
           "403", "404")  # fmt: skip
_TICK_S = 0.1
_FULL_S = 0.02  # between looks at a pipe that takes nothing more


class Reader:
    """Reads one answer along, and leaves at a signal or when nobody reads its stdout any more.

    The first time, what the request says of leaving is done; the second time the job is stopped. After that a signal
    does what it does in any process.
    """

    def __init__(self, router: Router, request: Request, voice: Voice) -> None:
        self._router = router
        self._request = request
        self._voice = voice
        self._listening: asyncio.Task[None]
        self._started: Started | None = None
        self._left: int | None = None  # the exit code of one who has left
        self._stopping: asyncio.Task[None] | None = None
        self._stdout = _poll(sys.stdout)

    async def read(self, wish: Wish, *, wait: bool) -> int:
        """Until the job is where it can be left; the exit code."""
        self._listening = asyncio.create_task(self._listen(wish, wait=wait))
        ticking = asyncio.create_task(self._tick())
        try:
            with self._watched():
                await asyncio.wait({self._listening})
                if not self._listening.cancelled():
                    self._listening.result()
                await self._settled()
        finally:
            ticking.cancel()
            with _muted_if_gone():
                self._voice.close()
        return self._end()

    async def _listen(self, wish: Wish, *, wait: bool) -> None:
        async with aclosing(self._router.stream(self._request, wish)) as events:
            async for event in events:
                if isinstance(event, Started):
                    self._started = event
                if self._left is None:
                    await self._room()
                    self._hear(event)
                if self._left is not None:
                    return
        if wait:
            await until_final(self._router, [self._voice.job_id])

    async def _room(self) -> None:
        """Wait until stdout takes more: a slow pager must hold up neither the call, nor its lease, nor Ctrl-C."""
        while self._stdout is not None and not self._stdout.poll(0):  # noqa: ASYNC110 - a descriptor has no event
            await asyncio.sleep(_FULL_S)

    def _hear(self, event: Started | Delta | Ended) -> None:
        try:
            self._voice.hear(event)
        except OSError as error:
            self._left = self._unheard(error)

    async def _tick(self) -> None:
        while True:
            with contextlib.suppress(OSError):
                self._voice.tick()
            await asyncio.sleep(_TICK_S)

    # ---- leaving ----

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Hear of signals that this process was not started to ignore, and of the end of a pipe."""
        loop, pipe = asyncio.get_running_loop(), _pipe(sys.stdout)
        if pipe is not None:
            loop.add_reader(pipe, self._pipe_closed, pipe)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._signalled, number)
        try:
            yield
        finally:
            self._unwatch()
            if pipe is not None:
                loop.remove_reader(pipe)

    def _unwatch(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().remove_signal_handler(number)

    def _signalled(self, number: int) -> None:
        if self._left is None:
            self._leave(INTERRUPTED)
        elif number != signal.SIGHUP:  # a terminal and its shell both send one
            self._stop()

    def _pipe_closed(self, pipe: int) -> None:
        asyncio.get_running_loop().remove_reader(pipe)
        closed = _poll(sys.stdout, 0)
        if self._left is None and closed is not None and closed.poll(0):
            self._leave(PIPE_CLOSED)
            _mute(sys.stdout)

    def _leave(self, code: int) -> None:
        """Stop listening; a job that is being recorded just now is left as soon as it is there."""
        self._left = code
        if self._stdout is not None and not self._stdout.poll(0):  # it would hold up the end as well
            _mute(sys.stdout)
        if self._started is not None:
            self._listening.cancel()

    def _stop(self) -> None:
        self._unwatch()
        self._stopping = asyncio.create_task(self._router.context().stop())
        if self._started is None:
            self._listening.cancel()

    async def _settled(self) -> None:
        """Once the reader has left: say what becomes of the job, and see it to its end."""
        if self._left is None or self._started is None:
            return
        on_leave = self._request.handling.on_leave if self._started.claim else None
        if on_leave is None or self._job()["state"] not in (JobState.SUCCEEDED, JobState.FAILED):  # it was done before
            with _muted_if_gone():
                self._voice.left(on_leave)
        await self._router.context().settled()
        if self._stopping is not None:
            await self._stopping

    def _end(self) -> int:
        if self._started is None:
            show.say("cancelled: nothing was sent")
            return INTERRUPTED
        job = self._job()
        if self._left is not None:
            with _muted_if_gone():
                self._voice.end(job)
            carried_on = self._started.claim and self._request.handling.on_leave == OnLeave.CONTINUE
            return exit_code(job) if carried_on and self._left == INTERRUPTED else self._left
        try:
            self._voice.end(job)
        except OSError as error:
            return self._unheard(error)
        return exit_code(job)

    def _job(self) -> dict[str, Any]:
        assert self._started is not None
        job = lookup.job(self._router.store, self._started.job_id)
        assert job is not None
        return job

    def _unheard(self, error: OSError) -> int:
        """The exit code when stdout takes nothing more; only what is not its reader's going is worth a word."""
        _mute(sys.stdout)
        if error.errno == errno.EPIPE:
            return PIPE_CLOSED
        if error.errno == errno.EIO:  # the terminal is gone
            return INTERRUPTED
        with _muted_if_gone():
            self._voice.close()
            show.complain(f"the answer cannot be written: {error.strerror}")
        return FAILED


def exit_code(job: Mapping[str, Any]) -> int:
    """How submit ends with this job."""
    if job["state"] != JobState.FAILED:
        return INTERRUPTED if job["state"] == JobState.CANCELLED else DONE
    code = job["error"]["code"] or ""
    return WRONG if any(word in code for word in _THEIRS) else FAILED


# ---- stdout, and who reads it ----


def _poll(stream: TextIO, events: int = select.POLLOUT) -> "select.poll | None":
    """Asks the stream for these events, and whether it is closed; None where it is none of the system's."""
    with contextlib.suppress(OSError, ValueError):
        asking = select.poll()
        asking.register(stream.fileno(), events)
        return asking
    return None


def _pipe(stream: TextIO) -> int | None:
    """The stream's descriptor where it is a pipe."""
    with contextlib.suppress(OSError, ValueError):
        number = stream.fileno()
        return number if stat.S_ISFIFO(os.fstat(number).st_mode) else None
    return None


def _mute(stream: TextIO) -> None:
    """Nobody reads it any more: what is in its buffer must not fail when the process ends."""
    with contextlib.suppress(OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)


@contextlib.contextmanager
def _muted_if_gone() -> Iterator[None]:
    """Talk that is worth no failure."""
    try:
        yield
    except OSError:
        _mute(sys.stdout)
        _mute(sys.stderr)
