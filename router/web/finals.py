"""How a job ended, the same whether it was heard here or is read from the database."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from db.money import usd
from db.settle import Failed, Succeeded, Text
from db.states import JobState
from jobs.runner import Ended
from router.web.errors import HTTPError, failure, of_code

_FINISH = {"end_turn": "stop", "stop_sequence": "stop", "eos": "stop", "max_tokens": "length", "tool_use": "tool_calls"}
_TOKENS = ("input", "cached", "cache_write", "output", "reasoning")


@dataclass(frozen=True, slots=True)
class Final:
    """The end of a job. `choices` have text, refusal, tool_calls and finish_reason; `tokens` are as in the ledger."""

    state: JobState
    choices: Sequence[Mapping[str, Any]] = ()
    tokens: Mapping[str, int] | None = None
    cost_usd: str | None = None
    error: HTTPError | None = None
    tries: int = 1

    @property
    def answered(self) -> bool:
        """Whether it is an answer to its client: what a model refused or a filter stopped is one, too."""
        ended = any(choice.get("finish_reason") for choice in self.choices)
        code = self.error.code if self.error else None
        return self.state is JobState.SUCCEEDED or (ended and code in ("refused", "filtered", "content_filter"))

    @classmethod
    def of_ended(cls, ended: Ended) -> "Final":
        """By the last attempt, whose cost is the job's where it is the only one."""
        ending, charge, error = ended.ending, ended.charge, None
        state = JobState.CANCELLED
        if isinstance(ending, Succeeded):
            state = JobState.SUCCEEDED
        elif isinstance(ending, Failed):
            state, error = JobState.FAILED, failure(ending, ended.error)
        known = {name: getattr(charge, f"{name}_tokens") for name in _TOKENS}
        tokens = known if known["input"] is not None else None
        result = getattr(ending, "result", None)
        return cls(state, choices_of(result), tokens, usd(charge.cost_nano), error, ended.n)

    @classmethod
    def of_job(cls, job: Mapping[str, Any]) -> "Final":
        """By a job in its JSON form."""
        state, trouble = JobState(job["state"]), job["error"]
        error = None
        if state is JobState.FAILED:
            error = of_code(trouble and trouble["code"], trouble["message"] if trouble else "the job failed")
        names = ("text", "finish_reason", "truncated", "refusal", "tool_calls", "choices")
        result = Text(**{name: job[name] for name in names}) if job["text"] is not None else None
        tokens = next((one["tokens"] for one in reversed(job["attempts"]) if one["tokens"]), None)
        return cls(state, choices_of(result), tokens, job["cost_usd"], error, len(job["attempts"]))


def choices_of(result: Text | None) -> Sequence[Mapping[str, Any]]:
    """The choices of a kept answer."""
    if result is None:
        return ()
    first = {"text": result.text, "finish_reason": result.finish_reason, "tool_calls": result.tool_calls}
    return [{"refusal": None, **choice} for choice in result.choices or [{**first, "refusal": result.refusal}]]


def finish_reason(choice: Mapping[str, Any]) -> str:
    """OpenAI's word for how a choice ended."""
    word = choice.get("finish_reason")
    return _FINISH.get(word, word) if word else "tool_calls" if choice.get("tool_calls") else "stop"


def usage(tokens: Mapping[str, int] | None) -> dict[str, Any] | None:
    """OpenAI's usage object; None where the provider did not say it."""
    if tokens is None:
        return None
    sent, written = tokens["input"], tokens["output"] or 0
    cached = {"cached_tokens": tokens["cached"] or 0, "cache_write_tokens": tokens["cache_write"] or 0}
    return {
        "prompt_tokens": sent,
        "completion_tokens": written,
        "total_tokens": sent + written,
        "prompt_tokens_details": cached,
        "completion_tokens_details": {"reasoning_tokens": tokens["reasoning"] or 0},
    }
