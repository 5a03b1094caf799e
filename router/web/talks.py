"""Conversations that are kept: what was said before goes with the next question."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.responses import Response

from db import conversations, lookup
from db.conversations import Conversation, Turn
from db.ids import new_id
from router.dispatch import Router
from router.web.errors import HTTPError
from router.web.page_form import meta
from router.web.tokens import Caller

_TITLE = 80
_LONGEST_ID = 64


@dataclass(frozen=True, slots=True)
class Asking:
    """What is sent for a turn, and what is kept of it: `said`, as turn `n` anew; nothing where `said` is None."""

    messages: Any
    said: str | None = None
    n: int | None = None  # None: a new one
    conversation: str | None = None  # None: a new one begins
    system: str | None = None


async def turn_of(router: Router, caller: Caller, body: Mapping[str, Any]) -> Asking:
    """The turn that a body asks for; HTTPError when it makes no sense."""
    message, messages, conversation = body.get("message"), body.get("messages"), body.get("conversation")
    retry = body.get("retry") is True
    if (message is not None) + (messages is not None) + retry != 1:
        raise _wrong("give one of message, messages and retry", "message")
    if messages is not None:
        if conversation is not None:
            raise _wrong("a conversation goes on with message, not with messages", "conversation")
        return Asking(messages)
    if not retry and not (isinstance(message, str) and message.strip()):
        raise _wrong("message must be text, and not empty", "message")
    system = body.get("system")
    if system is not None and not isinstance(system, str):
        raise _wrong("system must be text", "system")
    if conversation is None:
        if retry:
            raise _wrong("retry needs a conversation", "conversation")
        return Asking(_sent(system, (), message), message, system=system)
    kept, turns = await _find(router, caller, conversation)
    n = None
    if retry:
        if not turns:
            raise _wrong("there is nothing to retry", "retry")
        *turns, last = turns
        _check_seen(body, last)
        message, n = last.said, last.n
    return Asking(_sent(system or kept.system, turns, message), message, n, kept.id, kept.system)


def _check_seen(body: Mapping[str, Any], last: Turn) -> None:
    """Who names the answer that is to be replaced means that one, and none that came since."""
    seen = body.get("job")
    if seen is not None and not isinstance(seen, str):
        raise _wrong("job must be text", "job")
    if seen not in (None, last.job_id):
        said = "the conversation went on since that answer, and only its last one can be tried again"
        raise HTTPError(409, said, code="conversation_changed", param="job")


def _wrong(said: str, param: str) -> HTTPError:
    return HTTPError(400, said, code="invalid_request", param=param)


def _sent(system: str | None, turns: Sequence[Turn], message: Any) -> list[dict[str, Any]]:
    sent = [{"role": "system", "content": system}] if system else []
    for turn in turns:
        sent.append({"role": "user", "content": turn.said})
        if turn.text:
            sent.append({"role": "assistant", "content": turn.text})
    return [*sent, {"role": "user", "content": message}]


async def keep(router: Router, caller: Caller, turn: Asking, job_id: str) -> str | None:
    """Keep what was asked; the conversation's id, None where none is kept."""
    if turn.said is None:
        return None
    context, now = router.context(), router.clock.now()
    talk = turn.conversation
    if talk is None:
        talk = new_id(now)
        title, system = _kept(turn.said.strip().splitlines()[0])[:_TITLE], turn.system and _kept(turn.system)
        await context.db(conversations.begin, Conversation(talk, caller.key_id, title, system, 0, now, now))
    await context.db(conversations.say, talk, turn.n, _kept(turn.said), job_id, now)
    return talk


def _kept(text: str) -> str:
    """PostgreSQL has no word for a NUL."""
    return text.replace("\0", "\ufffd")


async def _find(router: Router, caller: Caller, conversation: Any) -> tuple[Conversation, Sequence[Turn]]:
    known = isinstance(conversation, str) and len(conversation) <= _LONGEST_ID and "\0" not in conversation
    found = await router.context().db(conversations.find, conversation) if known else None
    if found is None or not caller.may_see(found[0].owner):
        raise HTTPError(404, "there is no such conversation", code="not_found", param="conversation")
    return found


async def listed(request: Request, after: str | None = None, limit: int = conversations.PAGE) -> Any:
    """A page of the caller's conversations, the latest first."""
    router: Router = request.app.state.router
    limit, after = min(max(limit, 1), 200), after.replace("\0", "") if after else None
    owner = request.state.caller.key_id
    page = await router.context().db(conversations.page, owner=owner, after=after, limit=limit + 1)
    following = page[limit - 1].id if len(page) > limit else None
    return {"conversations": [_head(one) for one in page[:limit]], "next": following}


async def whole(request: Request, conversation: str) -> Any:
    """A conversation with its words, and what each answer was and cost."""
    router: Router = request.app.state.router
    kept, turns = await _find(router, request.state.caller, conversation)
    messages: list[dict[str, Any]] = []
    for turn in turns:
        job = await router.context().db(lookup.job, turn.job_id)
        about = meta(job, kept.id) if job else None
        answer = {"role": "assistant", "content": turn.text, "job": turn.job_id, "meta": about}
        messages += [{"role": "user", "content": turn.said}, answer]
    return {**_head(kept), "messages": messages}


async def remove(request: Request, conversation: str) -> Response:
    """Forget a conversation; what it cost stays in the ledger."""
    router: Router = request.app.state.router
    kept, _ = await _find(router, request.state.caller, conversation)
    await router.context().db(conversations.remove, kept.id)
    return Response(status_code=204)


def _head(one: Conversation) -> dict[str, Any]:
    times = {"created_at": lookup.iso(one.created_at), "updated_at": lookup.iso(one.updated_at)}
    return {"id": one.id, "title": one.title, **times, "turns": one.turns}
