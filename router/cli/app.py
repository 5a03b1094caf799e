"""The root command, and how every command ends: an exit code, and for an error one line on stderr."""

import sys

import typer

from router.cli import (
    batches,
    budget,
    db,
    demo,
    doctor,
    jobs,
    keys,
    policy,
    report,
    sandbox,
    serve,
    submit,
    whatif,
    worker,
)

HELP = """Sort every LLM request onto the right track: stream, plain call or Batch API.

The cheapest lane that still meets the deadline, every result and every cent kept.

Examples:

  shunter demo                            all of it in a minute, no key

  shunter submit "Why is the sky blue?"   streamed, or answered at once

  shunter submit --file prompts.jsonl     queued for the Batch API

  shunter worker --once                   moves everything that is due

  shunter report cost --by lane           what it cost
"""

app = typer.Typer(
    help=HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("submit")(submit.submit)
app.command("explain")(submit.explain)
app.command("worker")(worker.worker)
app.add_typer(jobs.app, name="jobs")
app.add_typer(batches.app, name="batches")
app.add_typer(report.app, name="report")
app.add_typer(policy.app, name="policy")
app.add_typer(budget.app, name="budget")
app.command("whatif")(whatif.whatif)
app.command("serve")(serve.serve)
app.add_typer(keys.app, name="keys")
app.command("sandbox")(sandbox.sandbox)
app.command("doctor")(doctor.doctor)
app.add_typer(db.app, name="db")
app.command("demo")(demo.demo)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"shunter {version('shunter')}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    """Options of shunter itself."""


def main() -> None:
    """Run a command; each thing that goes wrong is one line on stderr, and there is an exit code."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        from router.show import complain

        for line in getattr(error, "each", [str(error)]):
            complain(line)
        sys.exit(code)


def _exit_code(error: Exception) -> int | None:
    """2 for what can be put right by the caller, 3 for refusals, 1 for the rest; None for a bug of ours."""
    from db.engine import StoreError
    from jobs.errors import ShunterError

    if isinstance(error, ShunterError):
        return error.exit_code
    return 2 if isinstance(error, StoreError) else None
