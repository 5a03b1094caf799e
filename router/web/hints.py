"""What a client says beside its request: hints in headers, or in `metadata` under the same names."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from pydantic import ValidationError

from db.states import Lane
from jobs.chat import Handling, OnLeave, Request
from jobs.errors import UsageError
from router import when
from router.asking import tags_of
from router.decided import Wish
from router.dispatch import Router
from router.keyring import KEY_TAG
from router.rejects import condense
from router.web.errors import HTTPError
from router.web.tokens import Caller

CLASSES = ("interactive-long", "short", "structured-output", "bulk")
_FIELDS = ("model", "messages", "max_tokens", "tools", "tool_choice", "response_format")
_OURS = ("stream", "stream_options", "max_completion_tokens")


@dataclass(frozen=True, slots=True)
class Hints:
    """How the client wants its request to go."""

    deadline: datetime | None = None
    class_: str | None = None
    tags: Mapping[str, str] | None = None
    key: str | None = None
    on_leave: OnLeave = OnLeave.CANCEL
    queued: bool = False  # it asked for an answer later: `Prefer: respond-async`
    background: bool = False  # it asks for its response by its id

    @classmethod
    def of(cls, headers: Mapping[str, str], metadata: Any, caller: Caller, now: datetime) -> "Hints":
        """UsageError or HTTPError for a hint that cannot be understood."""
        told = metadata if isinstance(metadata, dict) else {}

        def hint(name: str) -> str | None:
            given = headers.get(f"x-shunter-{name}") or told.get(f"shunter_{name.replace('-', '_')}")
            return given if isinstance(given, str) and given else None

        if (class_ := hint("class")) not in (None, *CLASSES):
            raise HTTPError(400, f"X-Shunter-Class is {class_!r}: it must be one of {', '.join(CLASSES)}", code="hint")
        leave = hint("on-leave") or OnLeave.CANCEL
        if leave not in list(OnLeave):
            known = ", ".join(OnLeave)
            raise HTTPError(400, f"X-Shunter-On-Leave is {leave!r}: it must be one of {known}", code="hint")
        deadline, tags = hint("deadline"), hint("tags")
        key = hint("key") or headers.get("idempotency-key")
        return cls(
            deadline=_deadline(deadline, now) if deadline else None,
            class_=class_,
            tags=_tags(tags) if tags else None,
            key=f"{caller.key_id}:{key}" if key and caller.key_id else key,
            on_leave=OnLeave(leave),
            queued="respond-async" in headers.get("prefer", "").lower(),
        )

    def wish(self, caller: Caller, *, stream: bool, structured: bool) -> Wish:
        """A stream that was asked for is one, unless its answer must be checked as a whole before it is shown."""
        asked = {"interactive-long": Lane.STREAM, "short": Lane.SYNC}.get(self.class_ or "")
        lanes = tuple(caller.lanes) if caller.lanes else None
        return Wish(None if self.queued else asked, shown=stream and not structured, lanes=lanes)

    def sender(self, caller: Caller, *, stream: bool) -> dict[str, Any]:
        """What the request's sender knows about it."""
        tags = dict(self.tags or {})
        if caller.key_id:
            tags[KEY_TAG] = caller.key_id
        return {
            "interactive": not self.queued,
            "deadline": self.deadline,
            "whole": self.class_ == "structured-output" or not stream,
            "tags": tags,
            "client_key": self.key,
            "handling": Handling(on_leave=self.on_leave, background=self.background),
        }


def _deadline(words: str, now: datetime) -> datetime:
    try:
        return when.moment(words, now, past=False)
    except UsageError as error:
        raise HTTPError(400, f"X-Shunter-Deadline: {error}", code=error.code) from None


def _tags(words: str) -> dict[str, str]:
    try:
        return tags_of(tuple(part.strip() for part in words.split(",")), "X-Shunter-Tags")
    except UsageError as error:
        raise HTTPError(400, str(error), code="hint") from None


def json_of(body: bytes) -> dict[str, Any]:
    """The JSON object that a body is; HTTPError when it is none."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise HTTPError(400, f"the body is not JSON: {error}", code="invalid_json") from None
    if not isinstance(found, dict):
        raise HTTPError(400, "the body must be a JSON object", code="invalid_json")
    return found


def request_of(router: Router, body: Mapping[str, Any], sender: Mapping[str, Any]) -> Request:
    """The request of a body in OpenAI's chat form; what is not known here is passed on. HTTPError when it is bad."""
    known = {name: body[name] for name in _FIELDS if body.get(name) is not None}
    cap = body.get("max_completion_tokens")
    if cap is not None and known.setdefault("max_tokens", cap) != cap:
        raise HTTPError(400, "max_tokens and max_completion_tokens differ; one of them is wanted", param="max_tokens")
    params = {name: value for name, value in body.items() if name not in _FIELDS and name not in _OURS}
    _keep_metadata(params)
    if known.get("model") is None or isinstance(known["model"], str):
        known["model"] = router.model(known.get("model"))
    try:
        request = Request.model_validate({**known, "params": params, **sender}, strict=True)
    except ValidationError as error:
        where = error.errors(include_url=False, include_input=False)[0]["loc"]
        raise HTTPError(400, condense(error), code="invalid_request", param=str(where[0]) if where else None) from None
    if "\0" in request.model or "\0" in (request.client_key or ""):
        raise HTTPError(400, "model and key must not hold a NUL character", code="invalid_request", param="model")
    return request


def _keep_metadata(params: dict[str, Any]) -> None:
    """Hints in the metadata are for us; what else is there is the provider's."""
    if not isinstance(metadata := params.get("metadata"), dict):
        return
    rest = {name: value for name, value in metadata.items() if not name.startswith("shunter_")}
    params.pop("metadata")
    if rest:
        params["metadata"] = rest
