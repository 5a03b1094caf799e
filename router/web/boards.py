"""The boards: what the commands print, as JSON, once or whenever it changes."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from db import lookup, reports, summing
from db.engine import Store, StoreError
from db.states import JobState
from jobs.errors import ShunterError, UsageError
from router import looking, rules, triaging
from router.asking import Asked
from router.dispatch import Router
from router.web.errors import http_error
from router.web.live import Watches
from router.when import moment

Args = Mapping[str, str]
View = Mapping[str, Any]

_PAGE, _MOST = 50, 1000
_HOURLY = timedelta(hours=49)  # a chart of so little has a column an hour
_EVENT_STREAM = "text/event-stream"


def routes() -> APIRouter:
    """Everything under /api/boards."""
    made, watches = APIRouter(prefix="/api/boards", include_in_schema=False), Watches()

    async def events(request: Request, board: str) -> Response:
        """What a board shows, now and whenever that changes: an event of JSON each time."""
        name = orjson.dumps([board, sorted(_args(request).items())]).decode()
        state = request.app.state
        told = _told(watches.read(name, _look(request, board), lambda: state.stopping))
        return StreamingResponse(told, media_type=_EVENT_STREAM, headers={"Cache-Control": "no-cache, no-transform"})

    made.add_api_route("/events", events, methods=["GET"])
    made.add_api_route("/explain", _explain, methods=["POST"])
    made.add_api_route("/request", _request, methods=["GET"])
    made.add_api_route("/{board}", _once, methods=["GET"])
    return made


# ---- what there is to see ----


def _jobs(router: Router, args: Args) -> View:
    """A page of jobs, and how many there are in each state."""
    state = args.get("state")
    if state is not None and state not in list(JobState):
        raise UsageError(f"state is {state!r}: it must be one of {', '.join(JobState)}")
    store = router.store
    which = triaging.which(store, state, args.get("error"), args.get("model"), args.get("batch"), args.get("since"))
    page = lookup.jobs(store, which=which.where(), after=args.get("after"), limit=_limit(args))
    return page | {"counts": lookup.counts(store)}


def _job(router: Router, args: Args) -> View:
    view = lookup.job(router.store, args.get("id", ""))
    if view is None:
        raise UsageError(f"there is no job {args.get('id')!r}", code="not_found")
    return view


def _batches(router: Router, args: Args) -> View:
    lane = "background" if args.get("lane") == "background" else "batch"
    rows = reports.batches(router.store, _limit(args), lane)
    return {"batches": looking.batches(router.store, rows, router.policy)}


def _batch(router: Router, args: Args) -> View:
    (row,) = looking.batches(router.store, [looking.the_batch(router.store, args.get("id", ""))], router.policy)
    return row


def _cost(router: Router, args: Args) -> View:
    period, over = _period(args), _over(args)
    told = reports.cost(router.store, _by(args), *period)
    return told | {"over_time": {"by": over, "rows": reports.cost(router.store, [over, "lane"], *period)["rows"]}}


def _latency(router: Router, args: Args) -> View:
    return reports.latency(router.store, _by(args), *_period(args))


def _errors(router: Router, args: Args) -> View:
    return reports.errors(router.store, _by(args), *_period(args))


def _savings(router: Router, args: Args) -> View:
    period, over = _period(args), _over(args)
    told = reports.savings(router.store, _by(args), *period)
    return told | {"over_time": {"by": over, "rows": reports.savings(router.store, [over], *period)["rows"]}}


def _over(args: Args) -> str:
    """What the columns of a chart are."""
    since, _ = _period(args)
    return "hour" if since is not None and datetime.now(UTC) - since <= _HOURLY else "day"


def _period(args: Args) -> tuple[datetime | None, datetime | None]:
    now = datetime.now(UTC)
    since, until = (moment(args[name], now, past=True) if name in args else None for name in ("since", "until"))
    return since, until


def _by(args: Args) -> list[str]:
    """The columns to group by."""
    found = list(dict.fromkeys(word.strip() for word in args.get("by", "lane").split(",") if word.strip()))
    for word in found:
        if word not in summing.BY and not (word.startswith("tag:") and word != "tag:"):
            raise UsageError(f"by is {word!r}: write any of {', '.join(summing.BY)}, tag:NAME")
    return found


def _policy(router: Router, args: Args) -> View:
    return looking.policy(router.policy, router.settings.policy or rules.SHIPPED)


def _budgets(router: Router, args: Args) -> View:
    return looking.budgets(router.store, router.clock.now())


BOARDS: dict[str, Callable[[Router, Args], View]] = {
    "jobs": _jobs,
    "job": _job,
    "batches": _batches,
    "batch": _batch,
    "cost": _cost,
    "latency": _latency,
    "savings": _savings,
    "errors": _errors,
    "policy": _policy,
    "budgets": _budgets,
}


def _limit(args: Args) -> int:
    number = args.get("limit", str(_PAGE))
    if not number.isascii() or not number.isdigit() or not 1 <= int(number[:9]) <= _MOST:
        raise UsageError(f"limit is {number[:20]!r}: it must be between 1 and {_MOST}")
    return int(number)


# ---- once, or as it changes ----


def _once(request: Request, board: str) -> Response:
    """What a board shows now."""
    return Response(_look(request, board)(), media_type="application/json")


def _look(request: Request, board: str) -> Callable[[], bytes]:
    view, router = BOARDS.get(board), request.app.state.router
    if view is None:
        raise UsageError(f"there is no board {board[:40]!r}; there are {', '.join(BOARDS)}", code="not_found")
    args = _args(request)
    return lambda: orjson.dumps(view(router, args))


def _args(request: Request) -> dict[str, str]:
    return {name: value for name, value in request.query_params.items() if value and name != "board"}


async def _told(versions: AsyncGenerator[bytes | None, None]) -> AsyncGenerator[bytes, None]:
    try:
        async with aclosing(versions):
            async for value in versions:
                yield b": \n\n" if value is None else b"data: " + value + b"\n\n"
    except (ShunterError, StoreError) as error:
        yield b"event: error\ndata: " + orjson.dumps({"error": http_error(error).error}) + b"\n\n"


# ---- what is asked ----


class Question(BaseModel):
    """What `shunter explain` takes, but for files."""

    model_config = ConfigDict(extra="forbid")

    prompt: Annotated[str, Field(min_length=1)]
    model: str | None = None
    system: str | None = None
    max_tokens: int | None = None
    deadline: str | None = None
    lane: str | None = None
    interactive: bool | None = None
    whole: bool = False
    tags: tuple[str, ...] = ()
    max_cost: str | None = None

    def asked(self) -> Asked:
        """As the command line's options."""
        given = self.model_dump(exclude={"prompt"})
        return Asked(
            prompt=self.prompt if self.prompt != "-" else "- ", **given
        )  # a dash alone is stdin to the command


def _explain(request: Request, question: Question) -> Response:
    """How a prompt would go, and every road not taken."""
    view, at = looking.explained(request.app.state.router, question.asked())
    return Response(orjson.dumps(view | {"decided_at": lookup.iso(at)}), media_type="application/json")


def _request(request: Request, job: str) -> Response:
    """The request of a job as it was sent: {"request": …}."""
    return Response(
        orjson.dumps({"request": _body(request.app.state.router.store, job)}), media_type="application/json"
    )


def _body(store: Store, job_id: str) -> Any:
    if lookup.job(store, job_id) is None:
        raise UsageError(f"there is no job {job_id!r}", code="not_found")
    if (kept := lookup.body(store, job_id)) is None:
        raise UsageError(f"the words of job {job_id} were pruned", code="not_found")
    return orjson.loads(kept[0])
