"""Which requests can be answered in the background: those that Responses have words for and may store. No I/O."""

from jobs.chat import Message, Request
from jobs.errors import Permanent
from jobs.providers.responses_params import NOT_THE_USERS, RENAMED, body_of

SHARED = frozenset(
    {
        *("temperature", "top_p", "parallel_tool_calls", "metadata", "user", "safety_identifier", "store"),
        *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", *RENAMED, *NOT_THE_USERS),
    }
)  # parameters of chat completions that it knows, too, or that are said there in another way
PARTS = frozenset({"text", "image_url", "file"})
PLAIN = frozenset({"system", "developer", "user"})


def why_not(request: Request) -> str | None:
    """Why this request cannot be stored until somebody looks for its answer; None when it can."""
    return "is stored by the provider, and this request says store = false" if _unstored(request) else None


def can_move(request: Request) -> bool:
    """Whether a request to chat completions asks for the same when it goes to the Responses API instead."""
    if _unstored(request) or not SHARED.issuperset(request.params) or request.params.get("n") not in (None, 1):
        return False
    if all(message.role in PLAIN and _is_plain(message) for message in request.messages):
        return True
    return all(map(_is_plain, request.messages)) and _has_words(request)


def _unstored(request: Request) -> bool:
    return request.params.get("store") is False


def _is_plain(message: Message) -> bool:
    parts = message.content if isinstance(message.content, list) else []
    return all(part.get("type") in PARTS for part in parts)


def _has_words(request: Request) -> bool:
    try:
        body_of(request, own=True)
    except Permanent:
        return False
    return True
