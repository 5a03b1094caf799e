"""How the sandbox counts tokens: one rule for plain, stream and batch, so that bills can be compared (pure).

Input: 3, and for each message 4 and its text; tools and schemas as their compact JSON; 85 for an image.
Text: a token for every 4 bytes of UTF-8, rounded up. Output: one token for each piece that a stream would send.
"""

from typing import Any

import orjson

REQUEST_FRAME = 3
MESSAGE_FRAME = 4
IMAGE = 85
PIECE = 4


def of_text(text: str) -> int:
    return -(-len(text.encode("utf-8", "surrogatepass")) // 4)


def of_json(value: Any) -> int:
    return -(-len(orjson.dumps(value)) // 4) if value else 0


def pieces(text: str) -> list[str]:
    """The text in pieces of four characters, one token each (JSON and tool arguments)."""
    return [text[at : at + PIECE] for at in range(0, len(text), PIECE)]
