"""keys create, list and revoke."""

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Keys for the gateway: who may send what, how fast, and for how much.")

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is, or what for.")],
    usd: Annotated[str | None, typer.Option("--usd", help="The most that it may spend.")] = None,
    per: Annotated[str, typer.Option("--per", help="In a day, month, or total: in all.")] = "month",
    per_minute: Annotated[int | None, typer.Option("--per-minute", help="Requests a minute.", min=1)] = None,
    lane: Annotated[list[str] | None, typer.Option("--lane", help="A lane that it may use; repeatable.")] = None,
    json: Json = False,
) -> None:
    """Make a key. It is shown once: only its hash is kept.

    What it sends has the tag gateway_key, with the key's id, for reports and budgets.

    Examples:

      shunter keys create ci

      shunter keys create intern --usd 5 --per month --per-minute 20 --lane batch --json
    """
    from contextlib import closing

    from router import keyring, show
    from router.opening import open_store

    with closing(open_store()) as store:
        key_id, words = keyring.create(store, name, usd=usd, per=per, per_minute=per_minute, lanes=lane)
    show.data({"id": key_id, "key": words}) if json else typer.echo(words)


@app.command("list")
def list_(json: Json = False) -> None:
    """Every key, without its words.

    Examples:

      shunter keys list
    """
    from contextlib import closing

    from router import keyring, show
    from router.opening import open_store

    with closing(open_store()) as store:
        found = keyring.listed(store)
    show.data({"keys": found}) if json else keyring.shown(found)


@app.command()
def revoke(key: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `keys list` shows it.")]) -> None:
    """End a key: within a few seconds it opens nothing any more.

    Examples:

      shunter keys revoke 3f09c2a41b7d
    """
    from contextlib import closing

    from router import keyring, show
    from router.opening import open_store

    with closing(open_store()) as store:
        keyring.revoke(store, key)
    show.say(f"{key} is revoked")
