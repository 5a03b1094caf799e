"""submit and explain."""

from typing import Annotated

import typer

from router.cli import options as o


def submit(
    prompt: o.Prompt = None,
    file: o.File = None,
    kind: o.Kind = None,
    model: o.Model = None,
    system: o.System = None,
    schema: o.Schema = None,
    tool: o.Tools = None,
    max_tokens: o.MaxTokens = None,
    post_process: o.PostProcess = None,
    whole: o.Whole = False,
    interactive: o.Interactive = None,
    deadline: o.Deadline = None,
    priority: o.Priority = 0,
    tag: o.Tags = None,
    key: o.Key = None,
    lane: o.Lane = None,
    max_cost: o.MaxCost = None,
    on_cut: o.OnCut = "keep",
    on_leave: o.OnLeave = "cancel",
    first_token_timeout: o.FirstToken = None,
    idle_timeout: o.Idle = None,
    timeout: o.Total = None,
    markdown: o.Markdown = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the answers.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Run what was submitted before as new jobs.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; send and keep nothing.")] = False,
    json: o.Json = False,
) -> None:
    """Submit one prompt, or a file of requests: each goes the cheapest way that still meets its deadline.

    Examples:

      shunter submit "Why is the sky blue?"            streamed as it comes

      shunter submit --schema f.json "Who wrote Faust?"  one call, checked

      shunter submit --deadline 6h "Summarize …"       the cheapest lane in time

      shunter submit --file prompts.jsonl              then: shunter worker --once
    """
    from router.asking import Asked
    from router.explaining import explain
    from router.submitting import submit_file, submit_prompt

    asked = Asked(prompt, file, kind, model, system, schema, tuple(tool or ()), max_tokens, post_process, whole,
                  interactive, deadline, priority, tuple(tag or ()), key, lane, max_cost, again, wait, on_cut,
                  on_leave, first_token_timeout, idle_timeout, timeout, markdown)  # fmt: skip
    how = explain if dry_run else submit_prompt if file is None else submit_file
    raise typer.Exit(how(asked, json=json))


def explain(
    prompt: o.Prompt = None,
    file: o.File = None,
    kind: o.Kind = None,
    model: o.Model = None,
    system: o.System = None,
    schema: o.Schema = None,
    tool: o.Tools = None,
    max_tokens: o.MaxTokens = None,
    post_process: o.PostProcess = None,
    whole: o.Whole = False,
    interactive: o.Interactive = None,
    deadline: o.Deadline = None,
    priority: o.Priority = 0,
    tag: o.Tags = None,
    key: o.Key = None,
    lane: o.Lane = None,
    max_cost: o.MaxCost = None,
    on_cut: o.OnCut = "keep",
    on_leave: o.OnLeave = "cancel",
    first_token_timeout: o.FirstToken = None,
    idle_timeout: o.Idle = None,
    timeout: o.Total = None,
    json: o.Json = False,
) -> None:
    """Explain how a request would go and what each other road would cost; sends and keeps nothing.

    Examples:

      shunter explain --deadline 8h "Summarize the history of Rome"

      shunter explain --file prompts.jsonl
    """
    from router.asking import Asked
    from router.explaining import explain

    asked = Asked(prompt, file, kind, model, system, schema, tuple(tool or ()), max_tokens, post_process, whole,
                  interactive, deadline, priority, tuple(tag or ()), key, lane, max_cost, False, False, on_cut,
                  on_leave, first_token_timeout, idle_timeout, timeout)  # fmt: skip
    raise typer.Exit(explain(asked, json=json))
