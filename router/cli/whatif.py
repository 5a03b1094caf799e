"""whatif."""

from pathlib import Path
from typing import Annotated

import typer


def whatif(
    policy: Annotated[Path, typer.Option("--policy", help="The other policy's file.", show_default=False)],
    since: Annotated[str, typer.Option("--since", help="Jobs since then: 30d, 24h, 08:00 or an ISO time.")] = "30d",
    until: Annotated[str | None, typer.Option("--until", help="Up to here, in the same forms.")] = None,
    json: Annotated[bool, typer.Option("--json", help="All of it as JSON, money exact.")] = False,
) -> None:
    """What recorded jobs would have cost and waited under another policy. Sends nothing and keeps nothing.

    Only this installation's history speaks: what it cannot tell is counted, and told why.

    Examples:

      shunter whatif --policy strict.toml

      shunter whatif --policy strict.toml --since 7d --json
    """
    from router.replaying import run

    raise typer.Exit(run(policy, since, until, json=json))
