"""Tokens counted, not estimated: OpenAI's two vocabularies, embedded in the package `rs-bpe`. Pure but for its import.

`rs-bpe` (the extra `vocabulary`) is imported when a model first asks for it. Where it is not there nothing is counted,
and `router.tokens` estimates. A vocabulary takes about 45 ms to load and 70 MB (o200k_base; cl100k_base half of that),
prose about 15 µs for 1,000 characters; neither lets go of Python's lock meanwhile.
"""

import re
from collections.abc import Callable, Iterable
from importlib import import_module
from threading import Thread
from typing import NamedTuple

from router.tokens import text_tokens

EXACT = 10_000  # characters of one request that are counted: 0.15 ms of prose, 0.5 ms of base64 or Chinese
FARTHEST = 2.0  # the rest of a request is not believed to be farther off than that

# The vocabularies of models, by `model.py` of OpenAI's tiktoken 0.14. That ends with gpt-5: gpt-6 is taken to have the
# same one. By the name alone, whoever serves it: others do not give their models these names, and what a server counts
# that does corrects its next estimates. A proxy may write the provider before the name.
_MODELS = (
    ("o200k_base", r"(chatgpt-4o|gpt-4o|gpt-4\.[15]|gpt-[56](\.\d+)?|o[134])"),
    ("cl100k_base", r"(gpt-4|gpt-3\.?5-turbo|text-embedding-(3|ada-002))"),
)
_NAMES = [(name, re.compile(rf"((openai|azure)/)?(ft:)?{models}([-:@].*)?")) for name, models in _MODELS]

# Pairs of signs are merged for so long that a row of thousands takes a hundred times as long as other text.
_RUNS = [sign * 128 for sign in "-=/*#\t"]


class Counted(NamedTuple):
    """How the tokens of a request were counted: with which vocabulary, and whether to the end."""

    vocabulary: str
    whole: bool


def name_of(model: str) -> str | None:
    """The name of a model's vocabulary, if it is one of these."""
    return next((name for name, models in _NAMES if models.fullmatch(model)), None)


class Vocabulary:
    """A vocabulary that is loaded; `count` tells the tokens of any text that is UTF-8."""

    def __init__(self, name: str, count: Callable[[str], int]) -> None:
        self.name = name
        self._count = count
        self._runs = [(run, count(run)) for run in _RUNS]

    def tokens(self, text: str) -> int:
        """The tokens of a text; words like <|endoftext|> are text. Rows of signs are counted by pieces of 128."""
        total = 0
        for run, tokens in self._runs:
            if run in text:
                total += tokens * text.count(run)
                text = text.replace(run, " ")
        try:
            return total + self._count(text)
        except UnicodeEncodeError:  # half of a pair: sent as a question mark
            return total + self._count(text.encode("utf-8", "replace").decode())


class Counting:
    """The count of one request, text by text in their order: EXACT characters are counted, and the rest is estimated.

    The estimate is corrected by what it would have been off for those that were counted.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._texts: list[str] = []  # that were counted
        self._tokens = 0
        self._left = EXACT
        self._off: float | None = None  # tokens for each that is estimated; None while all were counted

    @property
    def counted(self) -> Counted:
        """How it was done."""
        return Counted(self._vocabulary.name, self._off is None)

    def __call__(self, text: str) -> float:
        """The tokens of the next text."""
        head = text if len(text) <= self._left else text[: self._left]
        tokens = self._vocabulary.tokens(head) if head else 0
        self._left -= len(head)
        self._tokens += tokens
        if len(head) == len(text):
            self._texts.append(head)
            return tokens
        if self._off is None:
            guessed = sum(map(text_tokens, [*self._texts, head]))
            self._off = min(max(self._tokens / guessed, 1 / FARTHEST), FARTHEST)
            self._texts.clear()
        return tokens + self._off * text_tokens(text[len(head) :])


class Vocabularies:
    """Those of one process. Each is loaded when a model first asks for it, at once or, after `prepare`, beside."""

    def __init__(self) -> None:
        self._known: dict[str, Vocabulary | None] = {}  # None: not here, or not yet
        self._beside = False

    def counting(self, model: str) -> Counting | None:
        """What counts a request to the model; None where it is to be estimated."""
        if (name := name_of(model)) is None:
            return None
        if name not in self._known:
            if self._beside:
                self._known[name] = None
                Thread(target=self._load, args=(name,), name=f"load {name}").start()
                return None
            self._load(name)
        vocabulary = self._known[name]
        return Counting(vocabulary) if vocabulary else None

    def prepare(self, models: Iterable[str]) -> None:
        """Load what these models need; for another the first requests are estimated, while a thread loads it."""
        self._beside = True
        for name in sorted({name for model in models if (name := name_of(model))}):
            self._load(name)

    def _load(self, name: str) -> None:
        try:
            tokenizers = import_module("rs_bpe.bpe").openai
        except ImportError:
            self._known[name] = None
        else:
            self._known[name] = Vocabulary(name, getattr(tokenizers, name)().count)
