"""policy show, check and test."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="The rules that decide, and what is wrong with a file of them.")

File = Annotated[Path | None, typer.Option("--policy", help="Another policy file.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


@app.command("show")
def show_(policy: File = None, json: Json = False) -> None:
    """The policy in force: where it is, its rules in order with their reasons, and its numbers.

    Examples:

      shunter policy show

      cp "$(shunter policy show --json | jq -r .file)" my.toml
    """
    from router import looking, rules, show

    path = _path(policy)
    view = looking.policy(rules.load(path), path)
    show.data(view) if json else show.policy(view)


@app.command()
def check(
    file: Annotated[
        Path | None, typer.Argument(help="A policy file; else the one in force.", show_default=False)
    ] = None,
) -> None:
    """Check a policy file: exit 0 when it is good, 2 with every mistake and its line.

    Examples:

      shunter policy check my.toml
    """
    from router import rules, show

    path = _path(file)
    policy = rules.load(path)
    show.say(f"{path}: good, {len(policy.rules)} rules")


@app.command("test")
def try_(
    cases: Annotated[Path, typer.Argument(help="A TOML file of requests and what is expected of each.")],
    policy: File = None,
    json: Json = False,
) -> None:
    """Try a policy on requests of yours: exit 0 when each goes where the file expects it, 1 when one does not.

    A case is a table with the words of `explain`, and what is expected: class, lane, tier, rule or refused.

      [[case]]
      name = "the nightly report"
      prompt = "Summarize the day."
      deadline = "8h"
      expect = { lane = "batch" }

    Examples:

      shunter policy test cases.toml --policy my.toml
    """
    from router.cases import run

    raise typer.Exit(run(cases, policy.expanduser() if policy else None, json=json))


@app.command()
def facts(json: Json = False) -> None:
    """Everything that a rule may look at, and what it says.

    Examples:

      shunter policy facts
    """
    from router import show
    from router.conditions import FACTS, words

    view = [{"fact": name, "kind": words(fact.kind), "says": fact.says} for name, fact in FACTS.items()]
    show.data(view) if json else show.facts(view)


def _path(given: Path | None) -> Path:
    """The file that is meant: the one given, the one of the settings, or the shipped one."""
    from router import rules, settings

    return (given.expanduser() if given else settings.load().policy) or rules.SHIPPED
