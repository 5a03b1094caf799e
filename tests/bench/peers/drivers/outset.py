"""What every driver begins and ends with; it runs in the peer's environment and imports nothing of ours.

`python with_PEER.py LANE FILE FOLDER`: the lane is batch or live, the file holds lines of OpenAI's Batch API, and the
peer may keep things in the folder. The provider's address and key are in the environment.
"""

import json
import os
import socket
import sys
from typing import Any

LANE, FILE, FOLDER = sys.argv[1:4]
URL, KEY = os.environ["OPENAI_BASE_URL"], os.environ["OPENAI_API_KEY"]
MODEL = os.environ["PEER_MODEL"]
AT_ONCE = int(os.environ["PEER_AT_ONCE"])
HOME = ("127.0.0.1", "localhost", "::1", None)

_connect, _look_up = socket.socket.connect, socket.getaddrinfo


def _only_home(self: socket.socket, address: Any) -> None:
    if isinstance(address, tuple) and address[0] not in HOME:
        raise OSError(f"a bench calls nobody outside, but {address[0]} was asked for")
    _connect(self, address)


def _look_up_home(host: Any, *rest: Any, **more: Any) -> Any:
    if host not in HOME:
        raise socket.gaierror(f"a bench calls nobody outside, but {host} was asked for")
    return _look_up(host, *rest, **more)


socket.socket.connect = _only_home  # type: ignore[method-assign]
socket.getaddrinfo = _look_up_home


def prompts() -> list[str]:
    """What is asked in each line."""
    with open(FILE) as lines:
        return [json.loads(line)["body"]["messages"][0]["content"] for line in lines]


def tell(answers: int) -> None:
    """The last line: how many rows have an answer."""
    print("\n" + json.dumps({"answers": answers}), flush=True)


def named(files: type, *, later: bool) -> None:
    """Gives uploads a name: OpenAI's clients call bytes `upload`, and the sandbox wants a name that ends in .jsonl."""
    create = files.create  # type: ignore[attr-defined]

    def at_once(self: Any, *, file: Any, **more: Any) -> Any:
        return create(self, file=("rows.jsonl", file) if isinstance(file, bytes) else file, **more)

    async def awaited(self: Any, **more: Any) -> Any:
        return await at_once(self, **more)

    files.create = awaited if later else at_once  # type: ignore[attr-defined]
