"""sandbox."""

from pathlib import Path
from typing import Annotated

import typer


def sandbox(
    port: Annotated[int, typer.Option("--port", help="0 takes a free one.", min=0, max=65535)] = 8089,
    host: Annotated[str, typer.Option("--host", help="A loopback address.")] = "127.0.0.1",
    folder: Annotated[Path | None, typer.Option("--folder", help="Keeps files, batches and the bill here.")] = None,
    faults: Annotated[Path | None, typer.Option("--faults", help="A JSON list of fault drills.")] = None,
    latency: Annotated[float, typer.Option("--latency", help="Seconds to the first token.", min=0)] = 0.0,
    speed: Annotated[float, typer.Option("--speed", help="Tokens a second; 0: at once.", min=0)] = 0.0,
    answer_tokens: Annotated[int | None, typer.Option("--answer-tokens", help="Length of every answer.", min=1)] = None,
    batch_seconds: Annotated[float, typer.Option("--batch-seconds", help="How long a batch runs.", min=0)] = 0.3,
    requests_per_minute: Annotated[
        float | None, typer.Option("--requests-per-minute", help="Of each model; more get a 429.", min=1)
    ] = None,
    tokens_per_minute: Annotated[float | None, typer.Option("--tokens-per-minute", help="The same.", min=1)] = None,
    seed: Annotated[int, typer.Option("--seed", help="Another seed, other answers.")] = 0,
) -> None:
    """Run a server on this machine that speaks OpenAI's and Anthropic's APIs, with fault drills and a bill of its own.

    Its answers are made up and say so. Point anything at it:

      OPENAI_BASE_URL=http://127.0.0.1:8089/v1 OPENAI_API_KEY=sk-sandbox shunter submit "Hello"

      ANTHROPIC_BASE_URL=http://127.0.0.1:8089 ANTHROPIC_API_KEY=sk-sandbox shunter submit -m claude-haiku-5-5 "Hello"
    """
    from jobs.sandbox.settings import SandboxSettings
    from router.working import serve_sandbox

    told = SandboxSettings(
        host=host,
        port=port,
        folder=folder,
        faults=faults or (),
        latency_s=latency,
        tokens_per_second=speed,
        answer_tokens=answer_tokens,
        batch_seconds=batch_seconds,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        seed=seed,
    )
    serve_sandbox(told)
