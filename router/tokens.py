"""How many tokens a request is. Without a tokenizer that is a few passes in C over its bytes. Pure.

`router.vocabulary` counts its texts instead, where it can; the framing, images and what cannot be read stay as here.
"""

from collections.abc import Callable
from json import dumps
from typing import Any

from jobs.chat import IMAGES, Request

MESSAGE = 4  # tokens of framing for each message
REPLY = 3  # and for the start of the answer
TOOL = 10  # and for each tool, beside its JSON
PART = 1000  # a part whose tokens cannot be told: a file, a sound
IMAGE = {"low": 85, "auto": 765, "high": 1105}  # OpenAI's 512 px tiles: none, four, six

# Tokens a character, fitted to o200k on prose, code, JSON, CSV and numbers; by lead byte of UTF-8 beyond ASCII.
LETTER, DIGIT, SPACE, LINE, SIGN = 0.215, 0.55, 0.07, 0.8, 0.47
RANDOM = 0.7  # a letter or digit of base64, a hash, a key
LONGEST_WORD = 25  # letters and digits in a row, on average; more is no language
SCRIPTS = (
    (bytes(range(0xC2, 0xD0)), 0.6),  # accents, Greek
    (bytes(range(0xD0, 0xE0)), 0.28),  # Cyrillic, Hebrew, Arabic
    (b"\xe0", 0.35),  # the scripts of India, Thai
    (b"\xe1\xe2", 0.9),  # smaller scripts, typographic signs
    (b"\xe3", 0.85),  # kana
    (bytes(range(0xE4, 0xEA)), 0.72),  # Chinese characters
    (bytes(range(0xEA, 0xF0)), 0.6),  # Korean
    (bytes(range(0xF0, 0xF5)), 1.9),  # emoji
)

Count = Callable[[str], float]  # the tokens of a text

_ASCII, _BEYOND = bytes(range(128)), bytes(range(128, 256))
_DIGITS = b"0123456789"
_LETTERS = bytes(range(65, 91)) + bytes(range(97, 123))


def text_tokens(text: str) -> float:
    """Tokens of a text: most prose, code and JSON within 15 %; the worst cases are in the tests."""
    data = text.encode("utf-8", "replace")
    beyond = 0.0
    if not text.isascii():
        beyond = _beyond_ascii(data.translate(None, _ASCII))
        data = data.translate(None, _BEYOND)
    size = len(data)
    letters, digits = size - len(data.translate(None, _LETTERS)), size - len(data.translate(None, _DIGITS))
    spaces, lines = data.count(b" "), data.count(b"\n")
    signs = size - letters - digits - spaces - lines
    if letters + digits > LONGEST_WORD * (signs + spaces + lines + 1):
        return beyond + RANDOM * (letters + digits) + SIGN * signs
    return beyond + LETTER * letters + DIGIT * digits + SPACE * spaces + LINE * lines + SIGN * signs


def _beyond_ascii(data: bytes) -> float:
    """Each character has one lead byte, which tells its script."""
    return sum([(len(data) - len(data.translate(None, leads))) * each for leads, each in SCRIPTS])


def request_tokens(request: Request, count: Count = text_tokens) -> float:
    """Tokens of everything that is sent: messages, images, tools and schema, with their framing.

    `count` is asked for each text, in their order.
    """
    total = float(REPLY)
    for message in request.messages:
        total += MESSAGE + _content_tokens(message.content, count)
        if message.model_extra:  # tool calls, names
            total += _json_tokens(message.model_extra, count)
    for tool in request.tools or ():
        total += TOOL + _json_tokens(tool, count)
    return total + TOOL + _json_tokens(request.response_format, count) if request.response_format else total


def _content_tokens(content: str | list[dict[str, Any]] | None, count: Count) -> float:
    if isinstance(content, str):
        return count(content)
    return sum(_part_tokens(part, count) for part in content or ())


def _part_tokens(part: dict[str, Any], count: Count) -> float:
    """A part of a message: an image by its detail, whatever its bytes; else its text."""
    if part.get("type") in IMAGES:
        image = part.get("image_url")
        detail = image.get("detail") if isinstance(image, dict) else None
        return IMAGE.get(str(detail), IMAGE["auto"])
    text = part.get("text")
    return count(text) if isinstance(text, str) else PART


def _json_tokens(value: object, count: Count) -> float:
    try:
        return count(dumps(value, separators=(",", ":"), default=str, ensure_ascii=False))
    except (RecursionError, TypeError, ValueError):  # no server will take it either
        return PART
