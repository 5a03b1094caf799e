"""demo."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Keep the demo's database here, to look into it afterwards.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="What was decided, what it cost and took, as JSON.")] = False,
) -> None:
    """Show all of it in under a minute against the sandbox: no key, no network, no trace unless you ask for one."""
    from router.demo import run

    raise typer.Exit(run(folder, json=json))
