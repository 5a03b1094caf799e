"""budget set, list and remove."""

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="The most that may be spent, whatever runs and whatever breaks.")

Name = Annotated[str, typer.Argument(help="What you call it.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


@app.command("set")
def set_(
    name: Name,
    usd: Annotated[str, typer.Option("--usd", help="The limit.")],
    per: Annotated[str, typer.Option("--per", help="day, month, or total: in all.")],
    tag: Annotated[str | None, typer.Option("--tag", help="key=value: only requests with this tag.")] = None,
    tz: Annotated[
        str | None, typer.Option("--tz", help="Whose midnight begins a day, like Europe/Berlin; else this machine's.")
    ] = None,
    json: Json = False,
) -> None:
    """Set a budget, or another limit for one that there is. It counts what is sent from now on.

    The most that a call can cost is set aside before it is sent, and what it cost is booked after it. A request without
    --max-tokens gets a cap for its answer. What can never fit is refused; what does not fit now waits for room.

    Examples:

      shunter budget set daily --usd 5 --per day

      shunter budget set search --usd 20 --per month --tag team=search --tz Europe/Berlin
    """
    from contextlib import closing

    from db import standing
    from jobs.clock import Clock
    from router import budgets, show
    from router.opening import open_store

    now = Clock().now()
    wanted = budgets.wanted(name, usd, per, tag, tz, now)
    with closing(open_store()) as store:
        made = standing.put(store, wanted)
        (one,) = (one for one in standing.standing(store, now) if one.budget.id == made.id)
    show.data(budgets.view(one)) if json else show.budgets([budgets.view(one)], 0)


@app.command("list")
def list_(json: Json = False) -> None:
    """Every budget: its limit, what is spent, what is set aside for what is under way or unknown, what is left.

    Examples:

      shunter budget list
    """
    from contextlib import closing

    from jobs.clock import Clock
    from router import looking, show
    from router.opening import open_store

    with closing(open_store()) as store:
        view = looking.budgets(store, Clock().now())
    show.data(view) if json else show.budgets(view["budgets"], view["waiting_jobs"])


@app.command()
def remove(name: Name) -> None:
    """Remove a budget: nothing is set aside of it any more, and jobs that waited for it go.

    Examples:

      shunter budget remove daily
    """
    from contextlib import closing

    from db import standing
    from jobs.clock import Clock
    from jobs.errors import UsageError
    from router import show
    from router.opening import open_store

    with closing(open_store()) as store:
        if not standing.remove(store, name, Clock().now()):
            raise UsageError(f"there is no budget {name!r}; `shunter budget list` shows those that there are")
    show.say(f"{name} is removed")
