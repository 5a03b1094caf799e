"""Workers in processes of their own that die at a named point; tests/test_crash.py starts them again until all is done.

One line of JSON on stdin is one worker: [database, sandbox URL, folder, when, "MODULE:NAME", count], and dies before or
after the count-th call of that function; without the last three it lives. The real functions run: the process is only
made to end by SIGKILL around one of them. Each is a fork of this process, which has loaded everything, and one line on
stdout says how it ended.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

LEASE_S = 0.6
GRACE_S = 2.5  # bounds a POST, too: a busy machine must have the time for one
LOADED = ("jobs.worker", "jobs.providers.openai_batch", "jobs.providers.anthropic_batch", "genai_prices.data_snapshot")


def die_around(when: str, point: str, count: int) -> None:
    """Wrap one function by its name; methods are CLASS.NAME."""
    module, _, name = point.partition(":")
    owner: Any = import_module(module)
    *path, name = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    setattr(owner, name, _deadly(getattr(owner, name), when, count))


def _deadly(function: Callable[..., Any], when: str, count: int) -> Callable[..., Any]:
    calls = 0

    def ends(now: str, number: int) -> None:
        if when == now and number == count:
            os.kill(os.getpid(), signal.SIGKILL)

    @wraps(function)
    async def later(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        number = calls
        ends("before", number)
        result = await function(*args, **options)
        ends("after", number)
        return result

    @wraps(function)
    def at_once(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        number = calls
        ends("before", number)
        result = function(*args, **options)
        ends("after", number)
        return result

    return later if iscoroutinefunction(function) else at_once


async def work(database: str, url: str, folder: str) -> None:
    from db.engine import connect
    from jobs import batch, importing, polling, worker
    from jobs.context import Context
    from jobs.providers import Endpoint, openai_background

    batch._SOON_S, polling._FIRST_POLL_S = 0.2, 0.05
    openai_background.POST_SECONDS = 3.0
    importing._ROWS_A_WRITE = 5
    store = connect(database)
    endpoints = {
        "openai": Endpoint("openai", f"{url}/v1", own=False, key_env="OPENAI_API_KEY"),
        "anthropic": Endpoint("anthropic", url, own=False, key_env="ANTHROPIC_API_KEY"),
    }
    context = Context(
        store=store, endpoints=endpoints, owner=f"pid-{os.getpid()}", install="here", folder=Path(folder),
        concurrency=4, lease_s=LEASE_S, grace_s=GRACE_S, has_batch={"openai": True, "anthropic": True},
    )  # fmt: skip
    told = worker.Told(trouble=lambda message: print(message, file=sys.stderr))
    await worker.once(context, told, asyncio.Event())
    await context.close()
    store.close()


def main() -> None:
    for module in LOADED:
        import_module(module)
    for line in sys.stdin:
        database, url, folder, *point = json.loads(line)
        child = os.fork()
        if child == 0:
            if point:
                die_around(*point)
            asyncio.run(work(database, url, folder))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    os._exit(0)  # nothing is left to tidy up, and tidying takes seconds


if __name__ == "__main__":
    main()
