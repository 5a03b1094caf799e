"""doctor."""

from typing import Annotated

import typer

Adopt = Annotated[
    list[str] | None,
    typer.Option("--adopt", metavar="ID", help="Import a batch of ours that ended: every row it billed is charged."),
]
Cancel = Annotated[list[str] | None, typer.Option("--cancel", metavar="ID", help="Stop a batch of ours that runs.")]
Delete = Annotated[list[str] | None, typer.Option("--delete", metavar="ID", help="Delete a file of ours.")]


def doctor(
    adopt: Adopt = None,
    cancel: Cancel = None,
    delete: Delete = None,
    adopt_orphans: Annotated[bool, typer.Option("--adopt-orphans", help="Adopt all that ended.")] = False,
    cancel_orphans: Annotated[bool, typer.Option("--cancel-orphans", help="Stop all that run.")] = False,
    delete_files: Annotated[bool, typer.Option("--delete-files", help="Delete all that no batch needs.")] = False,
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Look at everything: settings, database, the account, workers, providers, batches. Exit 1 when something is wrong.

    Jobs whose process died are taken back. Providers are asked what costs nothing; there only what you name is changed.
    A batch at a provider that carries our mark and that no batch here answers to is an orphan.

    Examples:

      shunter doctor

      shunter doctor --adopt batch_68f1 --delete-files

      shunter doctor --json | jq .problems
    """
    from router import health, show
    from router.strays import Wanted

    all_of = {"adopt_all": adopt_orphans, "cancel_all": cancel_orphans, "delete_all": delete_files}
    view = health.examine(wanted=Wanted(adopt or (), cancel or (), delete or (), **all_of))
    show.data(view) if json else show.doctor(view)
    raise typer.Exit(1 if view["problems"] else 0)
