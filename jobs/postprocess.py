"""Give a whole answer to a command of the user's and keep what it prints."""

import asyncio
import os
import signal
from asyncio.subprocess import Process
from contextlib import suppress

from db.settle import Ending, Failed, Succeeded, Text
from jobs.finishing import finished

_LIMIT_S = 300.0
_GONE_S = 1.0
_SAID = 500  # characters of what it said on stderr that an error repeats


async def apply(ending: Ending, command: str | None) -> Ending:
    """The ending after the command had the answer on stdin: its stdout kept, or failed with the answer kept."""
    if command is None or not isinstance(ending, Succeeded):
        return ending
    code, output, said = await _run(command, ending.result.text)
    result: Text = ending.result._replace(output=output)
    if code == 0:
        return Succeeded(result)
    why = f"--post-process {command!r} ended with {code}: {said.strip()[-_SAID:] or 'it said nothing on stderr'}"
    return Failed("post_process", why, result)


async def _run(command: str, text: str) -> tuple[int | str, str, str]:
    process = await _started(command)
    try:
        async with asyncio.timeout(_LIMIT_S):
            output, said = await process.communicate(text.encode())
    except TimeoutError:
        await finished(_killed(process))
        return f"a time-out after {_LIMIT_S:.0f} s", "", ""
    except asyncio.CancelledError:
        await finished(_killed(process))
        raise
    return process.returncode or 0, output.decode(errors="replace"), said.decode(errors="replace")


async def _started(command: str) -> Process:
    """The command, running; or ended again where its owner was cancelled in the middle of the start."""
    pipe = asyncio.subprocess.PIPE
    # A session of its own, so that a time-out also ends what the shell has started.
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_shell(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
    )
    try:
        return await finished(starting)
    except asyncio.CancelledError:
        if not starting.cancelled() and starting.exception() is None:
            await finished(_killed(starting.result()))
        raise


async def _killed(process: Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(TimeoutError):  # its pipes end with it, but for those that somebody took to a group of their own
        async with asyncio.timeout(_GONE_S):
            await process.communicate()
