"""What doctor looks at: settings, database, account, workers, providers, late batches, and what to do for each."""

import asyncio
import os
import stat
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy.engine import make_url

from db import checkup, reports, rescue, standing, workers
from db.engine import Store, StoreError
from db.migrations import version
from db.money import usd
from db.standing import Wrong
from jobs.errors import CallError
from jobs.providers import BATCH_PROVIDERS, Endpoint
from jobs.retry import MAX_ATTEMPTS
from router import budgets, strays
from router.dispatch import Router
from router.settings import Settings, config_path, load
from router.strays import Strays, Wanted

ASK_S = 20.0  # a provider has this long to answer, and its SDK to be loaded
LATE = timedelta(hours=1)  # past its end, or past its next look, after which a batch is overdue

_KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY")


def examine(settings: Settings | None = None, wanted: Wanted | None = None) -> dict[str, Any]:
    """Everything as one value; `problems` says what is wrong and what to do, `notes` what is only worth knowing.

    Nothing is changed at a provider but what is `wanted`. Keys are only ever "set" or "not set".
    """
    settings = settings or load()
    problems: list[str] = []
    found: dict[str, Any] = {"settings": _settings(settings), "database": None, "account": None, "risk": None}
    found["budgets"] = []
    found |= {"rescued": 0, "overdue_batches": [], "workers": [], "servers": []}
    router = Router(settings)
    try:
        store = router.store
    except StoreError as error:
        problems.append(str(error))
        found["providers"] = asyncio.run(_providers(settings, problems))
        return {"ok": False, "problems": problems, "notes": []} | found | Strays().view()
    there: list[str] = []
    with closing(store):
        providers, strays = asyncio.run(_there(router, settings, wanted or Wanted(), there))
        found |= {"providers": providers} | _store(store, settings, datetime.now(UTC), problems)
    problems += [*there, *strays.problems]
    notes = [*_risk(found["risk"]), *strays.notes]
    return {"ok": not problems, "problems": problems, "notes": notes} | found | strays.view()


async def _there(
    router: Router, settings: Settings, wanted: Wanted, problems: list[str]
) -> tuple[list[dict[str, Any]], Strays]:
    """How the providers are, then what lies at those with a Batch API."""
    asked = await _providers(settings, problems)
    context = router.context()
    try:
        names = [one["provider"] for one in asked if one["batch_api"]]
        return asked, await strays.look(context, names, wanted)
    finally:
        await context.close()


def _settings(settings: Settings) -> dict[str, Any]:
    path = config_path()
    return {
        "config": str(path),
        "config_exists": path.exists(),
        "keys": {name: "set" if os.environ.get(name) else "not set" for name in _KEYS},
        "model": settings.model,
        "policy": str(settings.policy) if settings.policy else None,
        "concurrency": settings.concurrency,
        "grace_seconds": settings.grace_seconds,
        "poll_seconds": settings.poll_seconds,
        "lease_seconds": settings.lease_seconds,
        "batch_api": dict(settings.has_batch),
    }


def _store(store: Store, settings: Settings, now: datetime, problems: list[str]) -> dict[str, Any]:
    rescued = rescue.rescue(store, now, MAX_ATTEMPTS, hold=settings.on_unknown == "hold")
    account, overdue = reports.account(store), checkup.overdue(store, now - LATE)
    if not account["balances"]:
        todo = "keep a backup (`shunter db backup`), see `shunter db check`, and report it as a bug"
        problems.append(f"the account does not balance: {todo}")
    if overdue:
        are = "batches are" if len(overdue) > 1 else "batch is"
        todo = "start `shunter worker` with the key and base URL that made them"
        problems.append(f"{len(overdue)} {are} overdue ({', '.join(overdue[:3])}): {todo}")
    here = {kind: checkup.present(store, kind, now, settings.dead_seconds) for kind in (workers.WORKS, workers.SERVES)}
    problems += [_dead(kind, one) for kind, found in here.items() for one in found if not one["alive"]]
    for wrong in standing.audit(store):
        problems.append(_astray(wrong))
    looked = {"database": _database(store, problems), "account": account, "risk": checkup.at_risk(store)}
    limits = [budgets.view(one) for one in standing.standing(store, now)]
    beating = {"workers": here[workers.WORKS], "servers": here[workers.SERVES]}
    return looked | {"budgets": limits, "rescued": rescued, "overdue_batches": overdue} | beating


def _astray(wrong: Wrong) -> str:
    spent, held = ([f"${usd(nano)}" for nano in pair] for pair in (wrong.spent_nano, wrong.reserved_nano))
    said = f"{spent[0]} spent where its attempts cost {spent[1]}, {held[0]} set aside where they hold {held[1]}"
    todo = "keep a backup (`shunter db backup`) and report it as a bug"
    return f"budget {wrong.name} has in its period from {wrong.starts_at:%Y-%m-%d %H:%M} UTC {said}: {todo}"


def _dead(kind: str, one: dict[str, Any]) -> str:
    who = f"{kind} {one['pid']} on {one['host']}"
    other = " or `shunter serve`" if kind == workers.SERVES else ""
    return f"{who} has not beaten since {one['beat_at']}: start `shunter worker`{other}, which takes over what it had"


def _risk(risk: dict[str, Any]) -> list[str]:
    if not risk["attempts"]:
        return []
    todo = "their jobs went on without them; an adopted batch or the provider's bill tells what they cost"
    todo += ", and `shunter jobs settle` takes that down"
    return [f"{risk['attempts']:,} attempts may have been billed and nobody can tell: {todo}"]


def _database(store: Store, problems: list[str]) -> dict[str, Any]:
    with store.read() as connection:
        schema = version(connection)
    if store.path is None:
        where = make_url(store.url).render_as_string(hide_password=True)
        return {"path": where, "schema": schema, "mode": None, "bytes": None}
    about = store.path.stat()
    mode = stat.S_IMODE(about.st_mode)
    if mode & 0o077:
        problems.append(f"others can read {store.path}, which holds prompts and answers: chmod 600 {store.path}")
    return {"path": str(store.path), "schema": schema, "mode": f"{mode:04o}", "bytes": about.st_size}


async def _providers(settings: Settings, problems: list[str]) -> list[dict[str, Any]]:
    if not settings.endpoints:
        problems.append(
            "no provider is set: set OPENAI_API_KEY or ANTHROPIC_API_KEY (or a base URL), or try `shunter demo`"
        )
    return list(await asyncio.gather(*(_ask(one, problems) for one in settings.endpoints.values())))


async def _ask(endpoint: Endpoint, problems: list[str]) -> dict[str, Any]:
    """One look at its list of batches: tells whether it can be reached, takes the key and has a Batch API."""
    about: dict[str, Any] = {"provider": endpoint.provider, "base_url": _without_password(endpoint.base_url)}
    about |= {"key": "set" if os.environ.get(endpoint.key_env) else "not set"}
    provider = BATCH_PROVIDERS[endpoint.provider](endpoint)
    try:
        async with asyncio.timeout(ASK_S):
            batch_api = await provider.has_batch_api()
    except TimeoutError:
        problems.append(
            f"{endpoint.provider} gave no answer in {ASK_S:.0f} s: check {about['base_url']} and the network"
        )
        return about | {"reachable": False, "key_accepted": None, "batch_api": None}
    except CallError as error:
        problems.append(f"{endpoint.provider}: {error}")
        refused = error.status in (401, 403)
        return about | {"reachable": bool(error.status), "key_accepted": False if refused else None, "batch_api": None}
    finally:
        await provider.close()
    return about | {"reachable": True, "key_accepted": True, "batch_api": batch_api}


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
