"""From a request to the part that answers it: keys, drills, routes, errors in the right shape."""

import logging
from collections import deque

import orjson

from jobs.sandbox import faults
from jobs.sandbox.admin import Admin
from jobs.sandbox.background import Background, is_wanted
from jobs.sandbox.batches import Batches
from jobs.sandbox.clock import Clock
from jobs.sandbox.errors import ApiError, by_status
from jobs.sandbox.faults import Facts, Faults
from jobs.sandbox.http import Buffer, Exchange, Request, Sink
from jobs.sandbox.ids import Ids
from jobs.sandbox.live import Live
from jobs.sandbox.requests import answer_head, check_key, model_and_lane, parsed
from jobs.sandbox.routes import LIVE, Call, lose, respond_later, route
from jobs.sandbox.runs import Runs
from jobs.sandbox.settings import SandboxError, SandboxSettings
from jobs.sandbox.store import Store
from jobs.sandbox.uploads import Uploads

log = logging.getLogger(__name__)
MESSAGE_BATCH_BYTES = 256 * 1024 * 1024
HTML = b"<html><head><title>502 Bad Gateway</title></head><body>sandbox: an answer from a proxy</body></html>"
NONE = Faults()


class App:
    """One sandbox: everything that its connections share."""

    def __init__(self, settings: SandboxSettings) -> None:
        self.settings = settings
        self.store: Store = Store(settings.folder)
        self.clock = Clock(self.store.clock_offset)
        self.ids = Ids()
        self.faults: Faults = Faults(faults.load(settings.faults), settings.seed)
        self.live = Live(settings, self.store, self.clock, self.ids)
        self.runs: Runs = Runs(settings, self.store, self.clock, self.ids, self.faults)
        self.background: Background = Background(settings, self.store, self.clock, self.ids)
        self.uploads: Uploads = Uploads(settings, self.store, self.clock, self.ids)
        self.batches: Batches = Batches(settings, self.store, self.clock, self.ids, self.runs)
        self.seen: deque[tuple[float, Request, int]] = deque(maxlen=settings.requests_kept)
        self.count = 0
        self.admin = Admin(self)

    def sink(self, request: Request) -> Sink:
        if request.path == "/v1/files" and request.method == "POST":
            return self.uploads.sink(request)
        limit = MESSAGE_BATCH_BYTES if request.path == "/v1/messages/batches" else self.settings.max_body_bytes
        return Buffer(limit)

    async def handle(self, exchange: Exchange) -> None:
        """Answers, or leaves the connection as a drill wants it; nothing escapes but a cancellation."""
        request = exchange.request
        exchange.id = f"req_{self.ids.next()}"
        anthropic = request.path.startswith("/v1/messages") or b"anthropic-version" in request.headers
        exchange.head = answer_head(exchange.id, anthropic)
        self.count += 1
        self.seen.append((self.clock.now(), request, getattr(request.sink, "size", 0)))
        try:
            if request.path.startswith("/_sandbox/"):
                await self.admin.handle(exchange)
            else:
                await self._api(exchange, anthropic)
        except ApiError as error:
            body = error.anthropic(exchange.id) if anthropic else error.openai()
            exchange.reply(error.status, orjson.dumps(body), headers=error.headers.items())
        except SandboxError as error:
            exchange.reply(
                400,
                orjson.dumps({"error": {"message": str(error), "type": "sandbox_error", "param": None, "code": None}}),
            )
        except Exception:
            log.exception("%s %s broke", request.method, request.path)
            if not exchange.streaming:
                exchange.reply(500, orjson.dumps(by_status(500, "The sandbox itself broke; see its log.").openai()))
            else:
                exchange.cut("fin")
        finally:
            request.sink.close()

    async def _api(self, exchange: Exchange, anthropic: bool) -> None:
        request = exchange.request
        check_key(request, anthropic)
        spec = request.headers.get(b"x-sandbox-fault")
        extra = Faults([faults.parse(one) for one in spec.decode().split(",")]) if spec else NONE
        raw = request.sink.take() if isinstance(request.sink, Buffer) else b""
        if (self.faults.items or extra.items) and await self._struck(exchange, raw, extra):
            return
        if request.trouble is not None:
            raise request.trouble
        api = LIVE.get(request.path)
        if api is not None and request.method == "POST":
            body = parsed(request, raw)
            if api == "responses" and is_wanted(body):
                await respond_later(Call(self, exchange, raw, extra))
            else:
                await self.live.answer(exchange, api, body, raw, self.faults, extra)
        else:
            await route(Call(self, exchange, raw, extra))

    async def _struck(self, exchange: Exchange, raw: bytes, extra: Faults) -> bool:
        """Drills that hit any request before its own part sees it; true if it has been answered, or dropped."""
        request = exchange.request
        model, lane = model_and_lane(raw) if request.path in LIVE else ("", "batch")
        facts = Facts(request.path, request.method, model, lane, raw)
        for fault in self.faults.take(faults.REQUEST, facts) + extra.take(faults.REQUEST, facts):
            match fault.kind:
                case "status":
                    error = by_status(fault["status"], fault["message"], fault["code"])
                    error.kind = fault["type"] or error.kind
                    if fault["retry_after"] is not None:
                        error.headers = {"retry-after": f"{fault['retry_after']:g}"}
                    raise error
                case "drop":
                    await lose(exchange, fault["how"], 3600.0)
                case "html_body":
                    exchange.reply(200, HTML, b"text/html")
                case "null_body":
                    exchange.reply(200, b"null")
            return True
        return False

    async def close(self) -> None:
        await self.runs.stop()
        self.store.close()
