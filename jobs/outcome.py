"""From how a call ended to what it cost and what becomes of its job. No I/O."""

import random
from dataclasses import asdict
from datetime import datetime
from typing import Any

from db.claims import Claim
from db.ledger import BUSY, Charge
from db.rescue import HELD
from db.settle import Again, Cancelled, Ending, Failed, Held, Succeeded, Text
from db.states import AttemptState, CostSource, Lane
from jobs.chat import Answer, Choice, OnCut, Outcome, Request, ToolCall, Usage
from jobs.clock import Timing
from jobs.errors import CallError, Transient
from jobs.prices import Price
from jobs.pricing import Tariff
from jobs.providers import Endpoint
from jobs.providers.answers import BROKEN
from jobs.retry import MAX_ATTEMPTS, retry, turned_away

WHY = {
    Outcome.REFUSED: "the model refused to answer",
    Outcome.FILTERED: "the provider's content filter stopped the answer",
    Outcome.CUT: "the answer was cut off before its end",
    Outcome.TIMED_OUT: "the answer stopped coming and its time ran out",
    Outcome.MALFORMED: "the provider sent something that is not an answer",
    Outcome.PROVIDER_ERROR: "the provider broke off with an error",
    Outcome.CANCELLED: "its reader left",
}
BREAKS = (Outcome.CUT, Outcome.TIMED_OUT, Outcome.MALFORMED, Outcome.PROVIDER_ERROR)
WANTED = "it was cancelled while it ran"
STOPPED = "the worker was stopped before the answer came"


def charge(
    answer: Answer,
    lane: Lane,
    tier: str,
    model: str,
    endpoint: Endpoint,
    at: datetime,
    timing: Timing | None = None,
    at_risk: int | None = None,
) -> Charge:
    """What an answer cost; unknown where the provider did not say what it used, with nano-dollars `at_risk`.

    The tier that was served counts.
    """
    made = charge_by(tariff(model, endpoint, lane, at), answer, tier)
    times = asdict(timing) if timing else {}
    return made._replace(at_risk_nano=at_risk if answer.usage is None else None, **times)


def tariff(model: str, endpoint: Endpoint, lane: Lane, at: datetime) -> Tariff:
    """The prices of calls of this model there."""
    return Tariff(model, provider=endpoint.provider, own=endpoint.own, lane=lane, at=at, table=endpoint.prices)


def charge_by(prices: Tariff, answer: Answer, tier: str) -> Charge:
    """The same by prices that were looked up before."""
    usage, usable = answer.usage, answer.usable
    word = answer.outcome.value
    error, code = answer.error or WHY.get(answer.outcome), answer.error_code or (None if usable else word)
    if usage is None:
        return Charge(AttemptState.UNKNOWN, request_id=answer.request_id, outcome=word, error_code=code, error=error)
    served = answer.tier or tier
    paid, standard = prices.price(usage, answer.model, served)
    if usage.reported is not None and not prices.own:
        paid = Price(usage.reported, CostSource.REPORTED, "as the server reported it")
    return Charge(
        AttemptState.OK if usable else AttemptState.FAILED,
        cost_nano=paid.nano,
        cost_source=paid.source,
        standard_nano=standard.nano,
        price=paid.name,
        tier=served,
        input_tokens=usage.input,
        cached_tokens=usage.cached,
        cache_write_tokens=usage.cache_write,
        output_tokens=usage.output,
        reasoning_tokens=usage.reasoning,
        request_id=answer.request_id,
        outcome=word,
        error_code=code,
        error=error,
        served_model=answer.model if answer.model != prices.model else None,
        cache_write_1h_tokens=usage.cache_write_1h or None,  # what few calls have is empty in the others
        input_audio_tokens=usage.audio_input or None,
        output_audio_tokens=usage.audio_output or None,
        web_searches=usage.searches or None,
    )


def priced(
    usage: Usage, answered: str | None, asked: str, endpoint: Endpoint, lane: Lane, served: str, at: datetime
) -> tuple[Price, Price]:
    """What one call's usage costs, and what it would as a plain call."""
    return tariff(asked, endpoint, lane, at).price(usage, answered, served)


def failed_charge(error: CallError, timing: Timing | None = None, at_risk: int | None = None) -> Charge:
    """What a call without an answer cost: nothing when it is known that no work was done, else unknown."""
    ended = BROKEN.get(error.code, Outcome.PROVIDER_ERROR).value
    if isinstance(error, Transient) and error.turned_away:
        ended = BUSY
    if not error.maybe_billed:
        return Charge.free(AttemptState.FAILED, code=error.code, error=str(error), outcome=ended)
    times = asdict(timing) if timing else {}
    return Charge(AttemptState.UNKNOWN, error_code=error.code, error=str(error), request_id=error.request_id,
                  outcome=ended, at_risk_nano=at_risk, **times)  # fmt: skip


def ending(answer: Answer, request: Request, n: int, now: datetime, answered: int = 0) -> Ending:
    """What becomes of a job with the answer of its try `n`, its text kept in every case.

    `answered` earlier tries brought an answer, none of which fitted the schema.
    """
    result = text_of(answer)
    if answer.outcome == Outcome.CANCELLED:
        return Cancelled(result)
    if not answer.usable:
        return _restart(answer, request, n, now, result) or Failed(*_why(answer), result)
    if why := mismatch(answer.first, request):
        if not answered and n < MAX_ATTEMPTS:  # asked once more, and charged for both
            return Again(now, "schema_mismatch", why, result)
        return Failed("schema_mismatch", why, result)
    return Succeeded(result)


def _why(answer: Answer) -> tuple[str, str]:
    return answer.error_code or answer.outcome.value, answer.error or WHY[answer.outcome]


def _restart(answer: Answer, request: Request, n: int, now: datetime, result: Text) -> Again | None:
    """Another try in place of a stream that broke, where that was asked for: its text replaces this one's."""
    if request.handling.on_cut != OnCut.RESTART or answer.outcome not in BREAKS or answer.lasting:
        return None
    code, why = _why(answer)
    when = retry(Transient(why, code=code), n, now, random.random())  # noqa: S311 - jitter is no secret
    return Again(when, code, why, result) if when else None


def ending_of(error: CallError, n: int, now: datetime, claim: Claim | None = None) -> Ending:
    """What becomes of a job whose try `n` brought no answer.

    `claim`: nobody waits for it, so that it goes on for long where a provider has no room; past its deadline it has the
    usual tries.
    """
    dice = random.random()  # noqa: S311 - jitter is no secret
    if claim is not None and isinstance(error, Transient) and error.turned_away:
        times = claim.turned_away + 1
        late = claim.deadline_at is not None and now > claim.deadline_at and times >= MAX_ATTEMPTS
        when, tried = None if late else turned_away(error, times, now, dice), f" (turned away {times} times)"
    else:
        when, tried = retry(error, n, now, dice), f" (tried {n} times)" if n >= MAX_ATTEMPTS else ""
    return Again(when, error.code, str(error)) if when else Failed(error.code, f"{error}{tried}")


def unless_billed(ending: Ending, charge: Charge) -> Ending:
    """`on_unknown = hold`: what may have been billed already is not sent again by itself."""
    if not isinstance(ending, Again) or charge.state is not AttemptState.UNKNOWN:
        return ending
    return Failed("held", f"{ending.error.removesuffix('.')}; {HELD}", ending.result)


def stopped(result: Text | None, n: int, now: datetime) -> Ending:
    """What becomes of a job whose worker was stopped: nobody cancelled it, so it is tried again."""
    if n >= MAX_ATTEMPTS:
        return Failed("stopped", f"{STOPPED} (tried {n} times)", result)
    return Again(now, "stopped", STOPPED, result)


def held(ending: Ending) -> Ending:
    """The same ending for an owner that tries again by itself: the job stays its own."""
    return Held(ending.result) if isinstance(ending, Again) else ending


def text_of(answer: Answer) -> Text:
    """The words of an answer, as they are kept."""
    first = answer.first
    return Text(
        text=first.text,
        refusal=first.refusal or None,
        tool_calls=[_call(call) for call in first.tool_calls] or None,
        choices=[_choice(choice) for choice in answer.choices] if len(answer.choices) > 1 or first.logprobs else None,
        finish_reason=first.finish_reason,
        truncated=answer.outcome == Outcome.TRUNCATED,
        partial=not answer.usable,
    )


def _call(call: ToolCall) -> dict[str, Any]:
    error = {"error": call.error} if call.error else {}
    return {"id": call.id, "name": call.name, "arguments": call.arguments, "raw": call.raw, **error}


def _choice(choice: Choice) -> dict[str, Any]:
    calls = [_call(call) for call in choice.tool_calls]
    more = {"refusal": choice.refusal or None, "logprobs": choice.logprobs}
    said = {name: value for name, value in more.items() if value}
    return {"text": choice.text, "finish_reason": choice.finish_reason, "tool_calls": calls or None, **said}


def mismatch(choice: Choice, request: Request) -> str | None:
    """Why a structured answer is not what was asked for; None when it is, or nothing was."""
    wanted = (request.response_format or {}).get("type")
    if wanted not in ("json_schema", "json_object") or choice.tool_calls:
        return None
    import orjson

    try:
        value = orjson.loads(choice.text)
    except orjson.JSONDecodeError as error:
        return f"the answer is not JSON: {error}"
    schema = request.schema_
    if schema is None:
        return None if isinstance(value, dict) else "the answer is not a JSON object"
    from jsonschema import Draft202012Validator
    from referencing import Registry

    try:  # an empty registry: a $ref of somebody's schema must not make this process fetch an address
        wrong = next(iter(Draft202012Validator(schema, registry=Registry()).iter_errors(value)), None)
    except Exception as error:  # whatever a broken schema makes the library raise: the answer is kept
        return f"the schema cannot be used: {type(error).__name__}: {error}"
    return f"the answer does not fit the schema at {wrong.json_path}: {wrong.message}" if wrong else None
