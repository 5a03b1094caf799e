"""What requests have in common that are made by one program: the template that their answers' lengths go by. Pure."""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

SYSTEM = 40  # characters that a system's words must have to be a template by themselves
READ = 400  # characters of them that tell one from another
WORDS = 6  # of the user's first turn, where the system says little


def template_of(body: Mapping[str, Any]) -> str:
    """A hash that is equal for bodies (OpenAI's chat form) of one template.

    What the system says, where it says something; else how the user's first turn begins. The form of the answer counts.
    """
    system, user = "", ""
    for message in body.get("messages") or ():
        role = message.get("role")
        if role in ("system", "developer") and not system:
            system = _text(message.get("content"))
        elif role == "user":
            user = _text(message.get("content"))
            break
    words = system[:READ] if len(system) >= SYSTEM else f"{system} {' '.join(user[:READ].split(None, WORDS)[:WORDS])}"
    form = (body.get("response_format") or {}).get("type"), bool(body.get("tools"))
    return blake2b(f"{form} {words}".encode("utf-8", "replace"), digest_size=8).hexdigest()


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else ()
    return " ".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))
