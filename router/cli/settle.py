"""jobs settle."""

from typing import Annotated

import typer


def settle(
    job: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="A job: its id, the beginning of it, or its client key.")
    ] = None,
    usd: Annotated[
        str | None, typer.Option("--usd", metavar="COST", help="What the provider's bill says; 0: it is not on it.")
    ] = None,
    attempt: Annotated[
        int | None, typer.Option("--attempt", metavar="N", help="Which, where there are several.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Say what an attempt of unknown cost has cost, once its bill is there; without a job: list those attempts.

    Until then what it may have cost is at risk, and stays set aside of the budgets that it belongs to. What is said
    here is booked on them like any other cost, and the rest comes back at once. The job itself stays as it is.

    Examples:

      shunter jobs settle

      shunter jobs settle 06a3 --usd 0.0123

      shunter jobs settle 06a3 --usd 0 --attempt 2
    """
    from contextlib import closing

    from db import byhand
    from jobs.clock import Clock
    from jobs.errors import UsageError
    from router import naming, settling, show
    from router.opening import open_store

    with closing(open_store()) as store:
        if job is None:
            if usd is not None or attempt is not None:
                raise UsageError("say which job: `shunter jobs settle` alone lists what can be settled")
            found = [settling.view(one) for one in byhand.unknown(store)]
            show.data({"attempts": found}) if json else settling.draw(found)
            return
        if usd is None:
            raise UsageError("say what it has cost with --usd; --usd 0 where the provider's bill has nothing of it")
        settled = settling.settle(store, naming.job_named(store, job), usd, attempt, Clock().now())
    show.data(settled) if json else show.say(settling.told(settled))
