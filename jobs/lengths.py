"""The lengths of answers as they come, until they are put into the database: now and then, in no job's own way."""

from collections.abc import Mapping
from math import log
from typing import Any

from db.lengths import Key, Sums
from jobs.templates import template_of

NONE = Sums(0, 0.0, 0.0)


class Lengths:
    """Sums by model and template that are not kept yet; a crash loses a little knowledge, and nothing else."""

    def __init__(self) -> None:
        self._seen: dict[Key, Sums] = {}

    def add(self, model: str, body: Mapping[str, Any], tokens: int) -> None:
        """An answer of so many tokens, all choices together, to this body (OpenAI's chat form)."""
        choices = body.get("n")
        each = log(max(tokens / (choices if isinstance(choices, int) and choices > 0 else 1), 1.0))
        self._more((model, template_of(body)), Sums(1, each, each * each))

    def take(self) -> dict[Key, Sums]:
        """What is to be kept; it is forgotten here."""
        seen, self._seen = self._seen, {}
        return seen

    def give_back(self, seen: Mapping[Key, Sums]) -> None:
        """What could not be kept now."""
        for key, sums in seen.items():
            self._more(key, sums)

    def _more(self, key: Key, sums: Sums) -> None:
        answers, logs, squares = self._seen.get(key, NONE)
        self._seen[key] = Sums(answers + sums.answers, logs + sums.logs, squares + sums.squares)
