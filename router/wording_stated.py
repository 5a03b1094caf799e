"""Lengths that a prompt states: "in one word", "300 words", "ten names"; and texts that come back as long. Pure."""

import re
from collections.abc import Set as AbstractSet

# What a prompt asks for outright, or cannot need more than: tokens of the answer.
STATED = {
    "one word": 3,
    "single word": 3,
    "yes or no": 3,
    "yes no": 3,
    "true or false": 4,
    "true false": 4,
    "only the number": 5,
    "only the letter": 3,
    "only the label": 5,
    "only the category": 5,
    "only the name": 6,
    "only the answer": 8,
    "capital of": 12,
    "which year": 14,
    "what year": 14,
    "how do you say": 14,
    "one sentence": 32,
    "single sentence": 32,
    "one paragraph": 110,
}
UNITS = {"word": 1.35, "sentence": 28, "bullet": 30, "paragraph": 110, "page": 600}
NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
LISTING = "list name give suggest write provide"
LISTED_EACH = 28  # tokens
_NUMBER = rf"(\d{{1,4}}|{'|'.join(NUMBERS)})"
COUNTED = re.compile(rf"\b{_NUMBER} (?:[a-z]{{1,12}} )?({'|'.join(UNITS)})")
LISTED = re.compile(rf"\b(?:{LISTING.replace(' ', '|')}) (?:me )?(?:the )?(?:top )?{_NUMBER}\b")

ECHO = frozenset("rewrite paraphrase rephrase translate reword proofread convert".split())  # as long as what came in
ECHO_FROM = 150  # tokens of a request; what is said about a sentence or two, the weights have learned


# What a quick look can tell: one of the signs is in each phrase of STATED; numbers and things that may be counted.
_SIGNS = frozenset(word.encode() for word in "word yes true only capital year say sentence paragraph".split())
_STATED = [(phrase.encode(), tokens) for phrase, tokens in STATED.items()]
_ROUND = (*range(1, 101), *range(120, 500, 10), *range(500, 1000, 50), *range(1000, 5001, 250))  # few: they are quick
_NUMBERS = frozenset(number.encode() for number in (*map(str, _ROUND), *NUMBERS))
_THINGS = frozenset(f"{unit}{plural}".encode() for unit in UNITS for plural in ("", "s")).union(
    LISTING.encode().split()
)
_ECHO = frozenset(word.encode() for word in ECHO)
WORDS = _SIGNS | _NUMBERS | _THINGS | _ECHO  # all that is looked for


def stated(plain: bytes, known: AbstractSet[bytes]) -> float | None:
    """The tokens that are asked for in so many words; `known` are the words of the plain text that are in WORDS."""
    if not _SIGNS.isdisjoint(known):
        for phrase, tokens in _STATED:
            if phrase in plain:
                return tokens
    if not _NUMBERS.isdisjoint(known) and not _THINGS.isdisjoint(known):
        return _counted(plain.decode("utf-8", "replace"))
    return None


def echoes(known: AbstractSet[bytes], sent: float) -> bool:
    """Whether a request of so many tokens asks for its own text in other words."""
    return sent > ECHO_FROM and not _ECHO.isdisjoint(known)


def _counted(plain: str) -> float | None:
    """So many words, or so many things of a list, or both: fifty stories of ten words."""
    listed = LISTED.search(plain)
    counted = COUNTED.search(plain)
    if counted is None:
        return _number(listed[1]) * LISTED_EACH if listed else None
    tokens = _number(counted[1]) * UNITS[counted[2]]
    return tokens * _number(listed[1]) if listed and listed.start(1) != counted.start(1) else tokens


def _number(word: str) -> int:
    return NUMBERS.get(word) or max(int(word), 1)
