"""doctor."""

from typing import Annotated

import typer


def doctor(json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False) -> None:
    """Look at everything: settings, database, the account, providers, leases, batches. Exit 1 when something is wrong.

    Each provider that is set is asked one thing that costs nothing. Jobs whose process died are taken back.

    Examples:

      shunter doctor

      shunter doctor --json | jq .problems
    """
    from router import health, show

    view = health.examine()
    show.data(view) if json else show.doctor(view)
    raise typer.Exit(1 if view["problems"] else 0)
