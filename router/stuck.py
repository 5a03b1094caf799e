"""What a person decides for a batch that stands still, in one call each."""

import asyncio
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from db import batches, stuck
from db.engine import Store
from db.money import usd
from db.states import BatchState, Lane
from db.tables import Batch
from jobs import adopting
from jobs.errors import CallError, ShunterError, UsageError
from router.dispatch import Router
from router.figures import money

_OPEN = (BatchState.SUBMITTED, BatchState.ENDED)


def adopt(batch_id: str, provider_batch_id: str, *, force: bool) -> dict[str, Any]:
    """Tell a batch which one at its provider it is; UsageError when it is not, CallError when it cannot be asked."""
    router = Router()

    async def claim() -> str:
        context, batch = router.context(), _batch(router.store, batch_id)
        try:
            return (await adopting.claim(context, batch, provider_batch_id, force=force)).status
        finally:
            await context.close()

    with closing(router.store):
        status = asyncio.run(claim())
    return {"batch": batch_id, "provider_batch_id": provider_batch_id, "status": status}


def _batch(store: Store, batch_id: str) -> Batch:
    batch = batches.get(store, batch_id)
    assert batch is not None
    if batch.lane != Lane.BATCH:
        text = f"batch {batch_id} is one response in the background: a worker gives it up when nobody can tell of it"
        raise UsageError(f"{text}, and `shunter jobs retry` sends its job again", code="background")
    return batch


def cost_of_resubmit(store: Store, batch_id: str) -> stuck.Again:
    """What sending the batch's open rows again comes to; UsageError where there is nothing to be decided."""
    batch, found = _batch(store, batch_id), stuck.again(store, batch_id)
    if batch.state in stuck.UNBOUND and not batch.create_intent_at:
        raise UsageError(f"batch {batch_id} is {batch.state}: nothing was created of it yet, and a worker goes on with "
                         "it (`shunter batches cancel` takes it back)", code="not_sent")  # fmt: skip
    if not found.jobs:
        raise UsageError(f"no job waits for batch {batch_id}: there is nothing to send again", code="nothing")
    return found


def twice(store: Store, batch_id: str) -> str:
    """What is asked before its open rows are sent again."""
    found = cost_of_resubmit(store, batch_id)
    return f"{found.jobs:,} jobs are sent again: {_twice(usd(found.at_risk_nano))}"


def said(result: Mapping[str, Any]) -> str:
    """What `resubmit` came to, in a sentence."""
    there = {True: "; it is cancelled at the provider", None: ""}
    told = there.get(result["cancelled"], "; the provider could not be told to stop it")
    return f"{result['jobs_queued']:,} jobs queued: {_twice(result['at_risk_usd'])}{told}"


def _twice(at_risk_usd: str | None) -> str:
    much = "they" if at_risk_usd in (None, "0") else f"up to {money(at_risk_usd)}"
    return f"{much} may be paid twice"


def resubmit(batch_id: str) -> dict[str, Any]:
    """Send its open rows again and stop it at the provider as far as that can be done."""
    router = Router()
    with closing(router.store) as store:
        found, before = cost_of_resubmit(store, batch_id), _batch(store, batch_id)
        jobs = stuck.resubmit(store, batch_id, datetime.now(UTC))
        if jobs is None:
            raise ShunterError(f"a worker moves batch {batch_id} right now; try again in a minute", code="busy")
        there = before.provider_batch_id if before.state in _OPEN else None
        stopped = asyncio.run(_stop(router, before.provider, there)) if there else None
    return {"batch": batch_id, "jobs_queued": jobs, "at_risk_usd": usd(found.at_risk_nano), "cancelled": stopped}


async def _stop(router: Router, provider: str, provider_batch_id: str) -> bool:
    """Whether the provider was told: what it has not run yet is then not paid twice."""
    context = router.context()
    try:
        await context.batch_provider(provider).cancel(provider_batch_id)
    except (CallError, UsageError):
        return False
    finally:
        await context.close()
    return True
