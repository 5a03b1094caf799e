"""Responses that are made in the background: queued, in progress, over by the clock, billed at their end.

Nothing runs for them: whoever looks, at one of them or at the bill, first finds what is due by now done.
"""

from heapq import heappop, heappush
from math import inf
from typing import Any

from jobs.sandbox import answers, faults, responses
from jobs.sandbox.answers import Answer, Ask
from jobs.sandbox.bill import BillRow, cost_nano_usd
from jobs.sandbox.clock import Clock
from jobs.sandbox.errors import ApiError
from jobs.sandbox.faults import Facts, Faults
from jobs.sandbox.ids import Ids
from jobs.sandbox.records import Stored
from jobs.sandbox.settings import SandboxSettings
from jobs.sandbox.store import Store

SLOWER = {"soonest": 1, "2h": 2, "8h": 8}  # than the setting says
QUEUED = 0.25  # of its time a response waits for its turn
KEPT_S = 600.0  # after its end, where it asked not to be stored


class Background:
    def __init__(self, settings: SandboxSettings, store: Store, clock: Clock, ids: Ids) -> None:
        self.settings = settings
        self.store = store
        self.clock = clock
        self.ids = ids
        self._due: list[tuple[float, str]] = []
        self._billed = {row.id for row in store.bill.rows if row.kind == "background"}
        for one in store.responses.values():
            self._await(one)

    def create(
        self, body: dict[str, Any], raw: bytes, request_id: str, drills: Faults, extra: Faults
    ) -> dict[str, Any]:
        """Take the request; ApiError as for a plain call. The answer is the response before there is any output."""
        ask = responses.read(body)
        facts = Facts("/v1/responses", "POST", ask.model, "background", raw)
        hit = drills.take(faults.BACKGROUND, facts) + extra.take(faults.BACKGROUND, facts)
        now, seconds = self.clock.now(), self.settings.background_seconds * SLOWER[responses.window_of(body)]
        kept = [{"kind": fault.kind, **fault.params} for fault in hit]
        one = Stored(f"resp_{self.ids.next()}", body, request_id, now, now + seconds, kept)
        self.store.save_response(one)
        self._await(one)
        return self._view(one)

    def reset(self) -> None:
        self._due.clear()
        self._billed.clear()

    def get(self, ident: str) -> dict[str, Any]:
        return self._view(self._found(ident))

    def cancel(self, ident: str) -> dict[str, Any]:
        """What has not ended is over at once and costs nothing; a second cancel changes nothing."""
        one = self._found(ident)
        if not one.body.get("background"):
            raise ApiError(400, "Cannot cancel a synchronous response.", param="id")
        if not one.final:
            self._end(one, "cancelled", self.clock.now())
        return self._view(one)

    def catch_up(self) -> None:
        """Bring every response to where it is by now: the bill first, so that none is over without its charge."""
        now = self.clock.now()
        while self._due and self._due[0][0] <= now:
            _, ident = heappop(self._due)
            one = self.store.responses.get(ident)
            if one is not None and not one.final:
                self._come_due(one)

    def _await(self, one: Stored) -> None:
        if not one.final and one.drill("stall") is None:
            heappush(self._due, (one.due, one.id))

    def _come_due(self, one: Stored) -> None:
        failed = one.drill("response_failed")
        if one.drill("expire"):
            self._end(one, "cancelled", one.due)
        elif failed and not failed["billed"]:
            self._end(one, "failed", one.due)
        else:
            ask, made = self._made(one)
            self._charge(one, ask, made)
            self._end(one, "failed" if failed else responses.status_of(made), one.due)

    def _end(self, one: Stored, status: str, at: float) -> None:
        one.status, one.ended = status, at
        self.store.save_response(one)

    def _charge(self, one: Stored, ask: Ask, made: Answer) -> None:
        if one.id in self._billed:  # before the sandbox was killed
            return
        self._billed.add(one.id)
        tier = {"soonest": ask.tier}.get(window := responses.window_of(one.body), window)
        usage = answers.usage(ask, [made])
        cost = cost_nano_usd(usage, ask.model, tier)
        row = BillRow(one.id, one.due, "responses", "background", ask.model, None, None, one.request_id, tier, 200,
                      usage, cost)  # fmt: skip
        self.store.bill.add([row])

    def _made(self, one: Stored) -> tuple[Ask, Answer]:
        """The same answer each time, as its drills bend it."""
        ask = responses.read(one.body)
        made = answers.answer(ask, self.settings, 0)
        for drill in one.drills:
            made = answers.bent(made, drill["kind"])
        return ask, made

    def _found(self, ident: str) -> Stored:
        self.catch_up()
        one = self.store.responses.get(ident)
        if one is None or self.clock.now() >= self._gone_at(one):
            raise ApiError(404, f"Response with id '{ident}' not found.")
        return one

    def _gone_at(self, one: Stored) -> float:
        drill = one.drill("forget")
        if drill is not None:
            return one.created + float(drill["seconds"])
        return inf if one.body.get("store", True) or one.ended is None else one.ended + KEPT_S

    def _view(self, one: Stored) -> dict[str, Any]:
        created, ident = int(one.created), one.id.removeprefix("resp_")
        if one.status not in ("completed", "incomplete", "failed"):
            begun = self.clock.now() >= one.created + (one.due - one.created) * QUEUED
            status = one.status if one.final else "in_progress" if begun else "queued"
            return responses.shell(responses.read(one.body), one.body, ident, created, status)
        ask, made = self._made(one)
        usage = None if one.drill("no_usage") else answers.usage(ask, [made])
        if (failed := one.drill("response_failed")) is None:
            return responses.whole(ask, one.body, made, usage, ident, created)
        message = failed["message"] or "The sandbox was told to fail this response."
        shown = responses.shell(ask, one.body, ident, created, one.status)
        shown["error"] = {"code": failed["code"] or "server_error", "message": message}
        shown["usage"] = responses.usage_body(usage) if usage and failed["billed"] else None
        return shown


def is_wanted(body: dict[str, Any]) -> bool:
    """Whether the request is to be made in the background and looked at later."""
    return body.get("background") is True and body.get("stream") is not True
