"""What the tests of replays share: jobs that came in, went their way and ended at known times, and other policies."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from db import queue, settle
from db.engine import Store
from db.ids import new_id
from db.ledger import Charge
from db.packing import Waiting
from db.settle import Settlement, Succeeded, Text
from db.states import AttemptState, CostSource
from jobs.providers import Endpoint
from router import rules
from router.dispatch import Router
from router.rules import SHIPPED
from router.settings import Settings
from tests.lanes import MODEL, NOW, add, job, pack

BOTH = ["openai", "anthropic"]
SYNC, BATCH = 150_000, 75_000  # nano-dollars: 1,000 tokens in at 100, 100 out at 500; and half of it
TOOK = {"input_tokens": 1000, "output_tokens": 100, "cached_tokens": 0, "cache_write_tokens": 0}


def paid(nano: int | None, standard: int | None = SYNC, **more: Any) -> Charge:
    """An answer of 1,000 tokens in and 100 out, at this cost."""
    source = CostSource.UNKNOWN if nano is None else CostSource.ASSUMED
    return Charge(AttemptState.OK, nano, source, standard, tier="default", **TOOK | more)


def end(store: Store, ident: str, n: int, charge: Charge, at: datetime, ending: Any = None) -> None:
    """Settle an attempt."""
    settle.settle(store, [Settlement(ident, n, charge, ending or Succeeded(Text("yes", "stop")))], at)


def called(store: Store, seconds: float, at: datetime = NOW, *, charge: Charge | None = None, **more: Any) -> str:
    """A job that came in then, was sent a second later, and had its answer after so many seconds."""
    (ident,) = add(store, job(**{"lane": "sync", "now": at, "decision_id": new_id(at), **more}), now=at)
    sent = at + timedelta(seconds=1)
    (claim,) = queue.claim(store, "me", sent + timedelta(days=9), 1, sent, BOTH)
    end(store, ident, claim.n, charge or paid(SYNC), at + timedelta(seconds=seconds))
    return ident


def batched(
    store: Store, seconds: float, at: datetime = NOW, *, count: int = 1, plan: Any = None, **more: Any
) -> list[str]:
    """Jobs that came in together, went into one batch and had their answers after so many seconds."""
    idents = packed(store, at, count=count, plan=plan, **more)
    for ident in idents:
        end(store, ident, 1, paid(BATCH), at + timedelta(seconds=seconds))
    return idents


def packed(store: Store, at: datetime, *, count: int = 1, plan: Any = None, **more: Any) -> list[str]:
    """Jobs that came in together and are in one batch."""
    shared = {"now": at, "decision_id": new_id(at), **more}
    decided = {"plan": plan} if plan else {}
    idents = add(store, *(job(**shared) for _ in range(count)), now=at, **decided)
    group = Waiting("openai", MODEL, count)
    assert pack(store, new_id(at), group, base_url="http://x", max_rows=99, max_bytes=10**6, now=at) == count
    return idents


def forcing(lane: str, folder: Path, effect: str = "") -> Path:
    """The shipped policy with a first rule that sends everything to one lane, or has another effect."""
    head, mark, rest = SHIPPED.read_text(encoding="utf-8").partition("[[rule]]")
    rule = f'[[rule]]\nname = "all"\n{effect or f"lane = {lane!r}"}\nwhy = "so says the test"\n\n'
    file = folder / f"{lane}.toml"
    file.write_text(head + rule + mark + rest, encoding="utf-8")
    return file


def router(url: str, folder: Path, policy: Path | None = None) -> Router:
    """One on this database, as an installation on a server with a Batch API has it."""
    endpoint = Endpoint("openai", "http://127.0.0.1:1/v1", own=False, key_env="OPENAI_API_KEY")
    made = Router(Settings(url, folder, {"openai": endpoint}, has_batch={"openai": True}))
    made.policy = rules.load(policy)
    return made
