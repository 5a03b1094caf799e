"""serve: the page and the gateway."""

from typing import Annotated

import typer

from router.cli import options


def serve(
    host: Annotated[
        str, typer.Option("--host", help="Where to listen; others than this machine need keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0 takes a free one.", min=0, max=65535)] = 8088,
    name: Annotated[
        list[str] | None, typer.Option("--name", help="A host name that it answers to, beside localhost; repeatable.")
    ] = None,
    log_level: options.LogLevel = None,
    log_file: options.LogFile = None,
) -> None:
    """Serve the page, and OpenAI's API under /v1 for any client that can change its base URL.

    It listens on this machine alone, and opens with a token that is made at the first start. Queued work needs a
    `shunter worker` beside it.

    Examples:

      shunter serve

      OPENAI_BASE_URL=http://127.0.0.1:8088/v1 OPENAI_API_KEY=$(cat TOKENFILE) python program.py

      shunter keys create ci && shunter serve --host 0.0.0.0 --name llm.example.org
    """
    from router import logs, show
    from router.dispatch import Router
    from router.web.server import serve as run

    router = Router()
    logs.configure(router.settings, log_level, log_file)
    router.context()  # what is wrong with the settings is said before anything is opened
    run(router, host=host, port=port, names=name or (), say=show.say)
