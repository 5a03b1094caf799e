"""The demo: one person watches, some wait, a night's worth does not; then what each lane took, cost and saved."""

import asyncio
import sys
import tempfile
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import orjson

from db import lookup, reports
from db.money import usd
from db.states import Lane
from jobs import worker
from jobs.chat import Delta, Request
from jobs.providers import Endpoint
from jobs.sandbox.server import Sandbox, running
from jobs.sandbox.settings import SandboxSettings
from router import bulk, show, telling
from router.decided import Started, Wish
from router.dispatch import Router
from router.figures import count, money, money_column
from router.intake import Defaults, Kind, Reader, Rejects
from router.settings import Settings
from router.terminal import RIGHT, clean, fields, styled, table
from router.when import span
from router.working import Shift

MODEL = "gpt-6-luna"
PACE = SandboxSettings(latency_s=0.3, tokens_per_second=90, batch_seconds=2.5)


def run(folder: Path | None, *, json: bool) -> int:
    """Play the demo in a folder of its own; 0 when the ledger equals the sandbox's bill, which is the point of it."""
    with _place(folder) as place, running(PACE) as sandbox:
        router = Router(_settings(place, sandbox.url))
        try:
            told = asyncio.run(_play(router, sandbox, quiet=json))
        except KeyboardInterrupt:
            show.say("the demo was stopped")
            return 130
        if json:
            show.data(told)
        elif folder:
            show.say(f"look into it: SHUNTER_DATABASE_URL={router.settings.database_url} shunter jobs list")
        else:
            show.say("next: set OPENAI_API_KEY (or OPENAI_BASE_URL) and try `shunter submit` with a prompt of yours")
    return 0 if told["balanced"] else 1


@contextmanager
def _place(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        yield folder.expanduser().absolute()
        return
    with tempfile.TemporaryDirectory(prefix="shunter-demo-") as made:
        yield Path(made)


def _settings(place: Path, url: str) -> Settings:
    """Nothing of this installation's: no key of the user's is ever sent to the sandbox."""
    endpoint = Endpoint("openai", f"{url}/v1", own=False, key_env="SHUNTER_SANDBOX_KEY")
    return Settings(
        database_url=f"sqlite:///{place / 'shunter.db'}",
        folder=place / "batches",
        endpoints={"openai": endpoint},
        has_batch={"openai": True},
    )


async def _play(router: Router, sandbox: Sandbox, *, quiet: bool) -> dict[str, Any]:
    try:
        if not quiet:
            show.say(f"A sandbox at {sandbox.url} plays the provider ({MODEL}); its answers are made up.\n")
        router.context().provider("openai")  # loading the SDK is not what the demo measures
        for row in _rows("live.jsonl"):
            await _live(router, row, quiet=quiet)
        await _night(router, quiet=quiet)
        return _told(router, sandbox, quiet=quiet)
    finally:
        await router.close()


def _rows(name: str) -> Iterator[dict[str, Any]]:
    for line in files("jobs.demo").joinpath(name).read_bytes().splitlines():
        yield orjson.loads(line)


async def _live(router: Router, row: dict[str, Any], *, quiet: bool) -> None:
    turns = [{"role": "system", "content": row["system"]}] if "system" in row else []
    turns.append({"role": "user", "content": row["prompt"]})
    request = Request.from_body({"model": MODEL, "messages": turns, "response_format": row.get("response_format")},
                                interactive=True)  # fmt: skip
    if not quiet:
        show.console().print(styled(f"{row['who']}: {row['prompt']}", "bold"))
    job_id, streamed = "", False
    async with aclosing(router.stream(request)) as events:
        async for event in events:
            if isinstance(event, Started):
                job_id = event.job_id
            elif isinstance(event, Delta) and not quiet:
                streamed = True
                sys.stdout.write(clean(event.text))
                sys.stdout.flush()
    if not quiet:
        job = lookup.job(router.store, job_id)
        assert job is not None
        show.text("" if streamed else job["text"] or "")
        telling.ending(job)
        show.say(f"{job['decision']['reason']}\n")


async def _night(router: Router, *, quiet: bool) -> None:
    source = BytesIO(files("jobs.demo").joinpath("night.jsonl").read_bytes())
    reader = Reader(source, Kind.JSONL, Defaults(model=MODEL), name="night.jsonl")
    summary = await asyncio.to_thread(
        bulk.submit, router, reader, Wish(), Rejects(None), "night.jsonl", lambda so_far: None
    )
    shift = Shift(quiet=quiet)
    if not quiet:
        show.console().print(styled("A night's worth of work that nobody waits for:", "bold"))
        show.say(f"{count(summary.accepted, 'job')} accepted; a worker moves them:")
    await worker.once(router.context(), shift.told(), asyncio.Event())
    if not quiet:
        show.say("")


def _told(router: Router, sandbox: Sandbox, *, quiet: bool) -> dict[str, Any]:
    billed = usd(sandbox.bill()["totals"]["cost_nano_usd"])
    told = {
        "jobs": lookup.jobs(router.store, limit=100)["jobs"],
        "cost": reports.cost(router.store, ["lane", "class"]),
        "savings": reports.savings(router.store, ["lane", "class"]),
        "latency": reports.latency(router.store, ["lane", "class"]),
        "billed_usd": billed,
    }
    told["balanced"] = told["cost"]["total_usd"] == billed and not told["cost"]["unknown_attempts"]
    if not quiet:
        _tables(router, told)
    return told


def _tables(router: Router, told: dict[str, Any]) -> None:
    out = show.console()
    reasons = lookup.reasons(router.store)
    latencies = {(row["lane"], row["class"]): row for row in told["latency"]["rows"]}
    made = table("lane", "class", *((name, RIGHT) for name in ("jobs", "cost", "as calls", "1st token", "median")))
    rows = sorted(told["cost"]["rows"], key=lambda row: list(Lane).index(row["lane"]))
    costs = money_column([row["cost_usd"] for row in rows])
    plain = money_column([row["standard_usd"] for row in rows])
    for row, paid, standard in zip(rows, costs, plain, strict=True):
        key = row["lane"], row["class"]
        first, whole = latencies[key]["first_token_ms"], latencies[key]["turnaround_s"]
        times = [span(first["p50"] / 1000) if first else "", span(whole["p50"]) if whole else ""]
        made.add_row(*key, str(row["jobs"]), paid, standard, *times)
    out.print(made)
    out.print()
    out.print(fields((key[0], reasons[key]) for key in ((row["lane"], row["class"]) for row in rows)))
    saved = told["savings"]
    word = "equals" if told["balanced"] else "DIFFERS FROM"
    out.print()
    out.print(
        f"{count(len(told['jobs']), 'job')} for {money(told['cost']['total_usd'])}; as plain calls they would have cost"
        f" {money(saved['standard_usd'])}, so {saved['saved_percent']:.0f} % was saved."
    )
    out.print(f"The ledger {word} the sandbox's own bill: {money(told['billed_usd'])}.")
