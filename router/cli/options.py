"""What submit and explain both ask, said once."""

from typing import Annotated

import typer

_ABOUT, _ROUTE, _SHAPE = "Who waits, and until when", "How it goes", "What is asked"

Prompt = Annotated[str | None, typer.Argument(help="The prompt; - reads it from stdin.", show_default=False)]
File = Annotated[
    str | None,
    typer.Option("--file", "-f", help="A file of requests: Batch JSONL, plain JSONL, CSV, text; - is stdin."),
]
Kind = Annotated[str | None, typer.Option("--format", help="jsonl, csv or text, where the file's name does not tell.")]
Model = Annotated[str | None, typer.Option("--model", "-m", help="The model.", rich_help_panel=_SHAPE)]
System = Annotated[str | None, typer.Option("--system", help="The system prompt.", rich_help_panel=_SHAPE)]
Schema = Annotated[
    str | None,
    typer.Option("--schema", help="A JSON Schema file that the answer must fit.", rich_help_panel=_SHAPE),
]
Tools = Annotated[
    list[str] | None,
    typer.Option("--tool", help="A file with a tool's definition; may be repeated.", rich_help_panel=_SHAPE),
]
MaxTokens = Annotated[
    int | None, typer.Option("--max-tokens", help="The most tokens of the answer.", rich_help_panel=_SHAPE)
]
PostProcess = Annotated[
    str | None,
    typer.Option("--post-process", help="A command that gets the whole answer on stdin.", rich_help_panel=_SHAPE),
]
Whole = Annotated[bool, typer.Option("--whole", help="The answer is of use only as a whole.", rich_help_panel=_SHAPE)]
Interactive = Annotated[
    bool | None,
    typer.Option(
        "--interactive/--no-interactive",
        help="Whether a person waits. One prompt without a deadline: yes; a file or a deadline: no.",
        rich_help_panel=_ABOUT,
        show_default=False,
    ),
]
Deadline = Annotated[
    str | None,
    typer.Option("--deadline", help="When it must be done: 6h, 90m, 08:00 or an ISO time.", rich_help_panel=_ABOUT),
]
Priority = Annotated[int, typer.Option("--priority", help="Higher goes first, -1000 to 1000.", rich_help_panel=_ABOUT)]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", help="key=value, for reports; may be repeated.", rich_help_panel=_ABOUT)
]
Key = Annotated[
    str | None,
    typer.Option("--key", help="A key of yours: the same key again adds nothing.", rich_help_panel=_ABOUT),
]
Lane = Annotated[
    str | None,
    typer.Option("--lane", help="Force a lane: stream, sync, background or batch.", rich_help_panel=_ROUTE),
]
LogLevel = Annotated[
    str | None,
    typer.Option(
        "--log-level", metavar="LEVEL", help="debug, info, warning or error: what is logged, one JSON line an event."
    ),
]
LogFile = Annotated[
    str | None, typer.Option("--log-file", metavar="FILE", help="Log to this file rather than to stderr.")
]
MaxCost = Annotated[
    str | None, typer.Option("--max-cost", help="The most a request may cost, in USD.", rich_help_panel=_ROUTE)
]
_WATCHED = "How its calls are watched over"
OnCut = Annotated[
    str,
    typer.Option("--on-cut", help="A stream that breaks: keep what came, or restart it.", rich_help_panel=_WATCHED),
]
OnLeave = Annotated[
    str,
    typer.Option(
        "--on-leave",
        help="You leave a stream: cancel it, drain it for the true bill, or continue it.",
        rich_help_panel=_WATCHED,
    ),
]
FirstToken = Annotated[
    str | None,
    typer.Option("--first-token-timeout", help="Wait so long for the first token: 30s.", rich_help_panel=_WATCHED),
]
Idle = Annotated[
    str | None,
    typer.Option("--idle-timeout", help="Wait so long between two deltas: 20s.", rich_help_panel=_WATCHED),
]
Total = Annotated[
    str | None, typer.Option("--timeout", help="A call may take so long in all: 5m.", rich_help_panel=_WATCHED)
]
Markdown = Annotated[bool, typer.Option("--markdown", help="Show the answer as Markdown in a terminal.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
