"""How long the answer will be, from the wording and the form of a request. Pure, and English; a prior, not a promise.

The weights are hand-made, with an eye on 495 real prompts with real answer lengths (self-instruct, AlpacaEval). On
those they tell answers under 50 tokens from others with an AUC of 0.80 within sources and 0.84 over the mix.
"""

import re
from collections.abc import Mapping
from math import exp
from typing import Any

from jobs.chat import Request

HEAD, TAIL = 160, 120  # characters that are read: instructions stand at the start or at the end
BASE = 5.85  # logarithm of the tokens that an answer has when no cue is found
Z90 = 1.2816

# How far the 0.9 quantile is from the median, in logarithms, by where the estimate comes from.
STATED_SPREAD, ECHO_SPREAD, SCHEMA_SPREAD, WORDING_SPREAD = 0.5, 0.7, 0.35, 0.6

# What a prompt asks for outright, or cannot need more than: tokens of the answer.
STATED = {
    "one word": 3,
    "single word": 3,
    "yes or no": 3,
    "yes no": 3,
    "true or false": 4,
    "true false": 4,
    "multiple choice": 6,
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
    "haiku": 24,
    "one paragraph": 110,
}
UNITS = {"word": 1.35, "sentence": 28, "bullet": 30, "paragraph": 110}
NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
LISTING = "list name give suggest write provide"
LISTED_EACH = 28
_NUMBER = rf"(\d{{1,4}}|{'|'.join(NUMBERS)})"
COUNTED = re.compile(rf"\b{_NUMBER} (?:[a-z]{{1,12}} )?({'|'.join(UNITS)})")
LISTED = re.compile(rf"\b(?:{LISTING.replace(' ', '|')}) (?:me )?(?:the )?(?:top )?{_NUMBER}\b")

ASKED = 100  # characters in which an instruction names what it wants done
ECHO = frozenset("rewrite paraphrase rephrase translate reword proofread convert".split())  # as long as what came in
SUMMARY = frozenset("summarize summarise summary tldr".split())
SUMMARY_TOKENS = 120

# Groups of words that make an answer shorter or longer, with their weight on its logarithm; a group counts once.
CUES: tuple[tuple[float, str], ...] = (
    (-2.0, "classify categorize categorise category sentiment spam"),
    (-1.0, "predict detect label intent rating verify select whether decide"),
    (-1.2, "title headline tagline slogan synonym synonyms antonym antonyms phrase metaphor proverb pun name"),
    (-0.6, "output return"),
    (-0.6, "tweet emoji emojis joke"),
    (-0.3, "find extract identify fill blank mask misspelling replace"),
    (-0.2, "short brief briefly concise"),
    (0.3, "how why should advice"),
    (0.3, "code function program script write create compose draft design develop"),
    (0.3, "essay story article blog letter report guide speech outline syllabus template chapter tutorial post plan"),
    (0.45, "list ideas examples tips suggestions ways suggest recommend brainstorm activities table topics reasons"),
    (0.45, "detailed detail details steps thorough comprehensive explain discuss describe analyze compare difference"),
)
GREETINGS = frozenset("hello hi hey thanks".split())
SMALL_TALK = 40  # a greeting in a longer prompt is only its start
GREETING = -2.0
QUOTED, PARTED = -0.5, -0.4  # carries a text in quotes, or after a blank line

DEEPEST = 8  # tables in tables of a schema; below, a guess will do

_GROUP = {word: group for group, (_, words) in enumerate(CUES) for word in words.split()}
_WEIGHTS = [weight for weight, _ in CUES]
_SIGNS = b"\n\t.,;:!?\"'()[]{}<>*`/-"
_LETTERS = bytes(range(65, 91)), bytes(range(97, 123))
_PLAIN = bytes.maketrans(_LETTERS[0] + _SIGNS, _LETTERS[1] + b" " * len(_SIGNS))  # lower case, and words apart
_UNITS = frozenset(f"{unit}{plural}" for unit in UNITS for plural in ("", "s"))
_LISTING = frozenset(LISTING.split())
_NUMBERS = frozenset(map(str, range(1, 5001))).union(NUMBERS)
_STATED_BY = {phrase: max(phrase.split(), key=len) for phrase in STATED}  # a word that is there if the phrase is
_STATED_WORDS = frozenset(_STATED_BY.values())
_WORDS = SUMMARY.union(ECHO, GREETINGS, _GROUP, _UNITS, _LISTING, _NUMBERS, _STATED_WORDS)


def output_tokens(request: Request, sent: float) -> tuple[float, float]:
    """The median and the 0.9 quantile of the answer's tokens; `sent` is what the request itself has."""
    p50, spread = _expected(request, sent)
    p90, choices, most = p50 * exp(spread * Z90), _choices(request), cap_of(request)
    p50, p90 = p50 * choices, p90 * choices
    return (p50, p90) if most is None else (min(p50, most), min(p90, most))


def cap_of(request: Request) -> int | None:
    """The most tokens that all choices together can have, or None."""
    cap = request.max_tokens or request.params.get("max_completion_tokens")
    return cap * _choices(request) if isinstance(cap, int) else None


def _choices(request: Request) -> int:
    choices = request.params.get("n")
    return choices if isinstance(choices, int) and choices > 0 else 1


def _expected(request: Request, sent: float) -> tuple[float, float]:
    if request.response_format or request.tools:
        schema = request.schema_ or (_tool_schema(request) if request.forced_tool else None)
        if schema is not None:
            return schema_tokens(schema), SCHEMA_SPREAD
    return wording_tokens(_instruction(request), sent)


def wording_tokens(prompt: str, sent: float) -> tuple[float, float]:
    """The median for a prompt, and its spread; `sent` is how much there is to echo."""
    text = prompt if len(prompt) <= HEAD + TAIL else f"{prompt[:HEAD]} {prompt[-TAIL:]}"
    plain = text.encode("utf-8", "replace").translate(_PLAIN).decode("utf-8", "replace")
    words = _WORDS.intersection(plain.split())
    stated = _stated(plain, words)
    if stated is not None:
        return stated, STATED_SPREAD
    if not ECHO.isdisjoint(words) and not ECHO.isdisjoint(plain[:ASKED].split()):
        return 15 + sent, ECHO_SPREAD
    if not SUMMARY.isdisjoint(words):
        return SUMMARY_TOKENS, ECHO_SPREAD
    groups = {_GROUP[word] for word in words if word in _GROUP}
    weight = sum([_WEIGHTS[group] for group in groups])
    weight += QUOTED * ('"' in text) + PARTED * ("\n\n" in text)
    if len(prompt) < SMALL_TALK and not GREETINGS.isdisjoint(words):
        weight += GREETING
    return exp(BASE + weight), WORDING_SPREAD


def _stated(plain: str, words: frozenset[str]) -> float | None:
    """The length that the prompt asks for, in so many words; `words` are a quick look at what can be in it."""
    if not _STATED_WORDS.isdisjoint(words):
        for phrase, word in _STATED_BY.items():
            if word in words and phrase in plain:
                return STATED[phrase]
    if _NUMBERS.isdisjoint(words):
        return None
    if not _UNITS.isdisjoint(words) and (found := COUNTED.search(plain)):
        return _number(found[1]) * UNITS[found[2]]
    if not _LISTING.isdisjoint(words) and (found := LISTED.search(plain)):
        return _number(found[1]) * LISTED_EACH
    return None


def _number(word: str) -> int:
    return NUMBERS.get(word) or max(int(word), 1)


def _instruction(request: Request) -> str:
    """The last words of the user, after those of the system: where the wish for a length stands."""
    first, last = request.messages[0], request.messages[-1]
    if last.role != "user":
        last = next((turn for turn in reversed(request.messages) if turn.role == "user"), last)
    if first.role in ("system", "developer"):
        return f"{_text(first.content)[:HEAD]} {_text(last.content)}"
    return _text(last.content)


def _text(content: str | list[dict[str, Any]] | None) -> str:
    if isinstance(content, str):
        return content
    return " ".join([part["text"] for part in content or () if isinstance(part.get("text"), str)])


def _tool_schema(request: Request) -> Mapping[str, Any] | None:
    """The parameters of the tool that must be called; of the first one where the model may pick."""
    name = _mapping(_mapping(request.tool_choice).get("function")).get("name")
    functions = [_mapping(tool.get("function")) for tool in request.tools or ()]
    chosen = next((function for function in functions if function.get("name") == name), functions[0])
    parameters = chosen.get("parameters")
    return parameters if isinstance(parameters, dict) else None


def _mapping(value: object) -> Mapping[str, Any]:
    """What should be a table; requests may hold anything there."""
    return value if isinstance(value, dict) else {}


def schema_tokens(schema: Mapping[str, Any], depth: int = 0) -> float:
    """Tokens of a JSON value that fits the schema: the sum of its fields."""
    if depth > DEEPEST:
        return 10.0
    if "enum" in schema or "const" in schema:
        return 4.0
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        fields = _mapping(schema.get("properties")).values()
        return 3.0 + sum([5.0 + schema_tokens(_mapping(field), depth + 1) for field in fields])
    if kind == "array":
        return 2.0 + 3.0 * schema_tokens(_mapping(schema.get("items")), depth + 1)
    return {"boolean": 1.0, "integer": 2.0, "number": 3.0, "null": 1.0}.get(str(kind), 14.0)
