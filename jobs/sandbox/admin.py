"""`/_sandbox/…`: the bill, the drills, the clock, and what was asked of the sandbox."""

from typing import TYPE_CHECKING, Any

import orjson

from jobs.sandbox import faults, rows
from jobs.sandbox.errors import ApiError, invalid
from jobs.sandbox.http import Buffer, Exchange, Request

if TYPE_CHECKING:
    from jobs.sandbox.app import App

SECRET = (b"authorization", b"x-api-key", b"cookie", b"proxy-authorization")
FILTERS = ("kind", "api", "model", "tier", "batch_id", "custom_id", "request_id")


class Admin:
    def __init__(self, app: "App") -> None:
        self.app = app

    async def handle(self, exchange: Exchange) -> None:
        request = exchange.request
        raw = request.sink.take() if isinstance(request.sink, Buffer) else b""
        exchange.reply(200, orjson.dumps(await self.answer(request, raw)))

    async def answer(self, request: Request, raw: bytes) -> Any:
        match request.method, request.path.removeprefix("/_sandbox/"):
            case "GET", "health":
                return {"status": "ok", "sandbox": True, "requests": self.app.count}
            case "GET", "bill":
                return self.bill(request.query)
            case "GET", "faults":
                return {"faults": [fault.view() for fault in self.app.faults.items], "kinds": faults.KINDS}
            case "PUT", "faults":
                given = _json(raw)
                self.set_faults(given.get("faults") if isinstance(given, dict) else given)
                return {"faults": [fault.view() for fault in self.app.faults.items]}
            case "DELETE", "faults":
                self.set_faults([])
                return {"faults": []}
            case "GET", "requests":
                return self.requests()
            case "POST", "clock":
                return await self.advance(_json(raw))
            case "POST", "reset":
                await self.reset()
                return {"status": "ok"}
        known = "health, bill, faults, requests, clock, reset"
        raise ApiError(404, f"no {request.method} {request.path} here; /_sandbox/ has {known}")

    def bill(self, query: dict[str, str]) -> dict[str, Any]:
        """`?kind=batch` and the like choose rows; `?rows=0` gives the totals alone."""
        unknown = [name for name in query if name not in (*FILTERS, "rows")]
        if unknown:
            raise invalid(f"unknown filter {unknown[0]!r}; allowed: rows, {', '.join(FILTERS)}")
        self.app.background.catch_up()
        found = self.app.store.bill.view(**{name: value for name, value in query.items() if name != "rows"})
        return {"totals": found["totals"]} if query.get("rows") == "0" else found

    def set_faults(self, given: Any) -> None:
        self.app.faults.items[:] = faults.load(given)

    async def advance(self, given: Any) -> dict[str, float]:
        """Moves the clock; when it answers, every batch is where it should be by then."""
        seconds = given.get("advance_s") if isinstance(given, dict) else None
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds < 0:
            raise invalid('the clock wants {"advance_s": seconds of 0 or more}')
        self.app.store.save_clock(self.app.clock.offset + seconds)
        self.app.clock.advance(seconds)
        await self.app.runs.quiet()
        return {"now": self.app.clock.now(), "offset_s": self.app.clock.offset}

    async def reset(self) -> None:
        """Forgets everything but the settings: batches under way, files, the bill, drills, requests, the clock."""
        app = self.app
        await app.runs.stop()
        app.store.reset()
        app.background.reset()
        app.clock.offset = 0.0
        app.faults.items[:] = faults.load(app.settings.faults)
        app.seen.clear()
        app.count = 0

    def results(self) -> dict[str, list[str]]:
        """The custom_ids in each batch's files of results."""
        blob = self.app.store.blob
        return {
            batch.id: [
                rows.reread(line)[0] for line in (blob(batch.outputs).read() + blob(batch.failures).read()).splitlines()
            ]
            for batch in self.app.store.batches.values()
        }

    def requests(self) -> dict[str, Any]:
        last = [
            {
                "at": at,
                "method": one.method,
                "path": one.path,
                "query": one.query,
                "bytes": size,
                "headers": _shown(one.headers),
            }
            for at, one, size in self.app.seen
        ]
        return {"count": self.app.count, "requests": last}


def _json(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise invalid(f"this is not JSON: {error}") from None


def _shown(headers: dict[bytes, bytes]) -> dict[str, str]:
    """Headers with keys masked to their last four characters."""
    return {
        name.decode("latin-1"): "…" + value[-4:].decode("latin-1") if name in SECRET else value.decode("latin-1")
        for name, value in headers.items()
    }
