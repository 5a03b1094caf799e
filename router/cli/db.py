"""db path, migrate, check, reprice, backup and prune."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from db.engine import Store

app = typer.Typer(no_args_is_help=True, help="The database: where it is, its schema, its backup.")

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


@app.command()
def path(json: Json = False) -> None:
    """Where the database is: a file, or a server's URL without its password. It need not be there yet.

    Examples:

      sqlite3 "$(shunter db path)" .tables
    """
    from router import show
    from router.opening import is_there, place
    from router.settings import load

    url = load().database_url
    where = place(url)
    show.data({"path": where, "exists": is_there(url)}) if json else show.text(where)


@app.command()
def migrate(json: Json = False) -> None:
    """Make the database where there is none, and bring it up to date. Every other command does the same.

    Examples:

      shunter db migrate
    """
    from router import show
    from router.figures import count
    from router.opening import bring_up

    view = bring_up()
    told = f"{view['path']}: schema {view['schema']}, {count(view['applied'], 'migration')} applied"
    show.data(view) if json else show.say(told)


@app.command()
def check(
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Make those that differ anew.")] = False,
    json: Json = False,
) -> None:
    """Hold what reports read, the rollups, against the attempts in the ledger. Exit 1 when something is wrong.

    Others may go on working meanwhile, also while those that differ are made anew.

    Examples:

      shunter db check

      shunter db check --rebuild
    """
    from router import checking, show

    view = checking.check(rebuild=rebuild)
    show.data(view) if json else checking.told(view)
    raise typer.Exit(1 if checking.wrong(view) else 0)


@app.command()
def reprice(
    since: Annotated[str, typer.Option("--since", help="What was sent from here on: 30d, 08:00 or an ISO time.")],
    until: Annotated[str | None, typer.Option("--until", help="Up to here, in the same forms.")] = None,
    prices: Annotated[
        Path | None, typer.Option("--prices", help="A price table to use in place of the one that is set.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Write it down; without this it is only shown.")] = False,
    json: Json = False,
) -> None:
    """What was sent costs by the prices that are known now: shown, and with --yes appended to the ledger.

    The old figures stay beside the new ones, and what a provider itself reported is never changed. Reports, budgets and
    rollups follow.

    Examples:

      shunter db reprice --since 30d

      shunter db reprice --since 2026-10-01 --prices negotiated.toml --yes
    """
    from router import auditing, show

    view = auditing.reprice(since, until, prices, write=yes)
    show.data(view) if json else auditing.repriced(view)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="A new file; an old one is never overwritten.", show_default=False)],
    json: Json = False,
) -> None:
    """Copy the database into a new file, for its owner only, while others go on writing.

    A PostgreSQL database is saved by its own `pg_dump`; this says how.

    Examples:

      shunter db backup ~/shunter-2027-01-31.db
    """
    from contextlib import closing

    from router import show
    from router.opening import open_store

    target = file.expanduser()
    _refuse_server(target)
    with closing(open_store()) as store:
        _copy(store, target)
    size = target.stat().st_size
    show.data({"path": str(target), "bytes": size}) if json else show.say(f"{target}: {size:,} bytes")


@app.command()
def prune(
    older_than: Annotated[str, typer.Option("--older-than", help="What ended before that: 90d, 12h or an ISO time.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this it only says what there is.")] = False,
    json: Json = False,
) -> None:
    """Take away the words of old jobs, questions and answers; their money, states, keys and tags stay.

    Reports say what they said. A job without its words cannot be tried again; the same row of a file is still known.

    Examples:

      shunter db prune --older-than 90d

      shunter db prune --older-than 90d --yes
    """
    from router import pruning, show

    view = pruning.prune(older_than, write=yes)
    show.data(view) if json else show.say(pruning.said(view))


def _refuse_server(target: Path) -> None:
    from shlex import quote

    from sqlalchemy import URL

    from db.engine import address
    from jobs.errors import UsageError
    from router.settings import load

    url = address(load().database_url)
    if url.get_backend_name() != "sqlite":
        where = URL.create("postgresql", url.username, None, url.host, url.port, url.database, url.query)
        source = where.render_as_string()  # pg_dump asks for the password
        raise UsageError(
            f"a PostgreSQL database is saved by pg_dump: pg_dump -Fc -f {quote(str(target))} {quote(source)}"
        )


def _copy(store: "Store", target: Path) -> None:
    """SQLite's own backup, in one piece; what was begun is removed when it fails."""
    import os
    import sqlite3
    from contextlib import closing

    from jobs.errors import ShunterError, UsageError

    try:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        raise UsageError(f"{target} is there already; name a new file") from None
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror}") from None
    assert store.path is not None  # a server's database was refused before
    try:
        with closing(sqlite3.connect(store.path, timeout=30)) as source, closing(sqlite3.connect(target)) as copy:
            source.backup(copy)
    except (sqlite3.Error, KeyboardInterrupt) as error:
        target.unlink(missing_ok=True)
        if isinstance(error, KeyboardInterrupt):
            raise
        raise ShunterError(f"backup to {target} failed: {error}") from error
