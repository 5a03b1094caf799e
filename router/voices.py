"""How one prompt's answer is told: in words for people, in lines of JSON for programs."""

import stat
import sys
from collections.abc import Mapping
from dataclasses import asdict
from os import fstat
from typing import Any, Protocol, TextIO

from db.money import usd
from db.settle import Again
from db.states import JobState
from jobs.chat import Delta, OnLeave
from jobs.runner import Ended
from router import show, telling
from router.decided import Started
from router.statusline import Status
from router.terminal import clean, tolerant

View = Mapping[str, Any]


class Voice(Protocol):
    """What one who reads along is told; a stream that nobody reads any more raises OSError."""

    job_id: str

    def hear(self, event: Started | Delta | Ended) -> None:
        """Something happened."""

    def tick(self) -> None:
        """A tenth of a second has passed."""

    def left(self, on_leave: OnLeave | None) -> None:
        """The reader has left, and this becomes of the job; None: it waits for a worker as before."""

    def close(self) -> None:
        """Nothing is left half-written."""

    def end(self, job: View) -> None:
        """The job as it stands at the end."""


class _Plain:
    """Text as it comes; what a model says must not steer a terminal, a pipe gets it as it is."""

    def __init__(self) -> None:
        self.shown = False
        self._open = False
        self._tame = clean if sys.stdout.isatty() else str

    def write(self, text: str) -> None:
        """More of the answer."""
        self.shown, self._open = True, not text.endswith("\n")
        tolerant(sys.stdout).write(self._tame(text))
        sys.stdout.flush()

    def draw(self) -> None:
        """All is shown already."""

    def end(self) -> None:
        """Nothing more comes: the last line ends."""
        if self._open:
            self.write("\n")

    def restart(self) -> bool:
        """Another answer begins, on a line of its own; what was written stays."""
        self.end()
        return True


class Words:
    """For people: the answer on stdout, the rest on stderr.

    A new attempt's answer takes the place of what an earlier one has shown: on the screen with `--markdown`; otherwise
    the old one stays above, in a pipe too, where nothing can be taken back. The new one begins on its own line, and
    stderr says so.
    """

    def __init__(self, *, markdown: bool = False, whole: bool = False) -> None:
        self.job_id = ""
        self._what: tuple[str, ...] = ()
        self._whole = whole  # only what a command makes of the answer is shown
        self._said = self._left = self._told = False
        self._status = Status()
        # A pipe's reader may write to the same terminal: there the line goes with the first text, as on a terminal.
        self._beside = _is_file(sys.stdout)
        self._page = _sheet() if markdown and sys.stdout.isatty() else _Plain()

    def hear(self, event: Started | Delta | Ended) -> None:
        """Show text as it comes; say what else there is to know."""
        match event:
            case Started(job_id, _, claim, known):
                self.job_id = job_id
                if claim is not None:
                    self._what = (claim.lane, claim.model)
                    self._status.begin(*self._what)
                if known:
                    show.say("known by its key: nothing new is sent (--again runs it again)")
            case Delta():
                self._status.token()
                if event.text and event.choice == 0 and not self._whole:
                    self._write(event.text)
            case Ended(n, ending=Again(error=error)):
                self._again(n, error)
            case Ended():
                self._status.stop()

    def _write(self, text: str) -> None:
        if not self._beside:
            self._status.stop()
        self._said = True
        self._page.write(text)

    def _again(self, n: int, error: str) -> None:
        self._status.erase()
        anew = "the answer begins anew" if self._page.shown else "trying again"
        self._said = self._page.restart() and self._said
        self._page.shown = False
        show.say(f"try {n} failed: {error}; {anew}")
        self._status.begin(*self._what, f"try {n + 1}")

    def tick(self) -> None:
        """Bring the status line and the page up to date."""
        self._page.draw()
        self._status.draw()

    def left(self, on_leave: OnLeave | None) -> None:
        """Say what becomes of the job; its text is not shown any more."""
        self._left, self._told = True, on_leave in (None, OnLeave.CANCEL)
        self.close()
        telling.leaving(on_leave, self.job_id)

    def close(self) -> None:
        """The status line is gone, the cursor at the beginning of a line."""
        self._status.stop()
        self._page.end()

    def end(self, job: View) -> None:
        """The answer where none of it was shown, then one line about how it ended."""
        self._status.erase(echo=self._left)
        if self._told:
            return
        text = job["output"] if job["output"] is not None else job["text"]
        if text and not self._said and not self._left:
            self._page.write(text)
        self._page.end()
        for call in () if self._left else job["tool_calls"] or ():
            show.data(call)
        if job["state"] == JobState.QUEUED and not text:
            show.text(job["id"])
        telling.ending(job)


class Json:
    """For programs: one event a line, the job last."""

    def __init__(self) -> None:
        self.job_id = ""
        self._n = 1

    def hear(self, event: Started | Delta | Ended) -> None:
        """The event, on its own line, at once."""
        match event:
            case Started(job_id, decision, claim, known):
                self.job_id, self._n = job_id, claim.n if claim else 1
                _event("decision", job=job_id, known=known, decision=decision.json())
            case Delta():
                _event("delta", attempt=self._n, choice=event.choice, **_pieces(event))
            case Ended():
                self._n = event.n + 1
                _event("attempt", n=event.n, again=isinstance(event.ending, Again), **_ended(event))

    def tick(self) -> None:
        """Nothing moves."""

    def left(self, on_leave: OnLeave | None) -> None:
        """Say it as an event too."""
        _event("left", job=self.job_id, on_leave=on_leave)
        telling.leaving(on_leave, self.job_id)

    def close(self) -> None:
        """Every line is whole."""

    def end(self, job: View) -> None:
        """The job; its error on stderr as well."""
        _event("job", **job)
        if job["state"] == JobState.FAILED:
            telling.ending(job)


def _event(name: str, **facts: Any) -> None:
    show.data({"event": name, **facts}, line=True)


def _pieces(delta: Delta) -> dict[str, Any]:
    said = {"text": delta.text, "refusal": delta.refusal, "reasoning": delta.reasoning}
    calls = [{name: value for name, value in asdict(piece).items() if value != ""} for piece in delta.calls]
    return {name: piece for name, piece in (said | {"tool_calls": calls}).items() if piece}


def _ended(event: Ended) -> dict[str, Any]:
    """An attempt in the words of a job's `attempts`, as far as they are known now."""
    charge = event.charge
    gaps = {"p50": charge.gap_p50_ms, "p95": charge.gap_p95_ms, "max": charge.gap_max_ms}
    return {
        "state": charge.state.value,
        "outcome": charge.outcome,
        "error": charge.error,
        "connect_ms": charge.connect_ms,
        "first_token_ms": charge.first_token_ms,
        "total_ms": charge.total_ms,
        "chunks": charge.chunks,
        "gap_ms": gaps if charge.chunks else None,
        "output_tokens": charge.output_tokens,
        "cost_usd": usd(charge.cost_nano),
        "at_risk_usd": usd(charge.at_risk_nano),
    }


def _sheet() -> Any:
    """Rich is imported for Markdown alone."""
    from router.markdown import Sheet

    return Sheet()


def _is_file(stream: TextIO) -> bool:
    try:
        return stat.S_ISREG(fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):
        return False
