"""What in the wording and the form of a prompt tells how long its answer will be. Pure, and English.

A cue is named by where it stands and what it is: `says unit` (a word of the group `unit` is in the instruction),
`asks unit` (it is what the first verb is about: "write a *title*"), `opens how` (the first word), and forms of the
text that need no word. What each weighs is learned (`router.wording_weights`); here is set down which words belong
together.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from router.wording_stated import WORDS

HEAD, TAIL = 200, 100  # characters of a long instruction that are read
NEAR = 1500  # characters in which the end of the instruction is looked for
LONG_TEXT, LAST_LINES = 300, 250  # a long text with some last lines under it: these are the instruction
USUAL = 6  # the power of two of a usual length, in characters
OBJECT_WITHIN = 6  # words after a verb in which its object stands
COLON_FROM, COLON_TO = 12, 120  # characters in which a colon ends an instruction
SHORT_TEXT = 60  # characters: a word, a title, a sentence
SMALL_TALK = 70  # characters of a prompt that may be said to the model as to a person
REQUEST_FROM = 45  # characters of a prompt that begins with "can you" and is not about the model

# Words that stand for one thing, wherever the instruction has them.
SAYS = {
    "label": "classify classifying classification categorize categorise category categories categorized class label "
    "labels labeled sentiment sentiments spam toxic toxicity polarity hateful offensive genre genres intent topic",
    "judge": "predict detect decide determine whether verify true false agree entail entails entailment contradict "
    "contradicts contradiction supports supported rate rating score satisfied relevant irrelevant positive negative "
    "neutral correct incorrect valid invalid belongs belong if",
    "choose": "choose select pick option options choice choices which",
    "unit": "word words phrase synonym synonyms antonym antonyms title titles headline headlines name tagline slogan "
    "acronym abbreviation term adjective adjectives verb verbs noun nouns letter plural rhyme pronunciation spelling "
    "keyword keywords hashtag hashtags entity entities emoji emojis value number index date initials nickname label "
    "category sentiment emotion expression regex formula command query price rating score domain username password",
    "line": "sentence quote quotes quotation aphorism proverb proverbs metaphor metaphors simile similes idiom pun "
    "puns joke jokes riddle haiku couplet tweet caption motto analogy alliteration alliterations anagram palindrome "
    "twister statement fact clause toast wish greeting question translation paraphrase",
    "piece": "email letter poem song lyrics paragraph paragraphs description introduction bio post ad advertisement "
    "message conversation dialogue dialog review rap advert profile memo announcement function code table recipe "
    "outline template summary explanation budget schedule list examples ideas tips suggestions questions topics steps "
    "activities exercises ways",
    "work": "essay story stories article blog report guide speech chapter tutorial screenplay novel monologue paper "
    "thesis proposal backstory scene script lecture manual documentation overview fiction plot program app application "
    "website plan strategy course curriculum syllabus lesson itinerary analysis comparison business framework",
    "extract": "find extract identify locate spot highlight mentioned retrieve tag count",
    "fill": "fill blank blanks mask masked missing complete completing completion finish finishes unscramble",
    "fix": "correct corrected fix misspelling misspelled grammar grammatical grammatically error errors mistake "
    "mistakes typo typos proofread punctuation capitalize capitalization",
    "rewrite": "rewrite rewriting rewritten paraphrase paraphrasing rephrase reword simplify shorten translate "
    "translated translation convert converting transform change edit replace reverse reorder rearrange sort combine "
    "modify formalize",
    "summary": "summarize summarise summary summarizing summaries tldr gist abstract condense",
    "output": "output outputs return respond reply answer",
    "only": "only just final exactly single one simply nothing",
    "compute": "calculate compute solve sum equation percent percentage average total multiply divide subtract add "
    "minus plus times squared root probability many much area volume celsius fahrenheit kilometers miles hours pounds",
    "fact": "capital year population inventor invented author date address born president wrote won founded discovered "
    "located phone height tall old age distance far currency stand stands color colour",
    "formal": "regex regular expression command formula syntax query sql bash shell cell excel unix linux latex "
    "notation json",
    "code": "code function program script implement implementation python javascript java typescript rust html css "
    "algorithm api method snippet library framework app website programming debug react",
    "brief": "short brief briefly concise concisely quick quickly shortly tiny small simple",
    "detail": "detailed detail details thorough thoroughly comprehensive depth elaborate extensive extensively long "
    "longer engaging compelling captivating interesting creative informative",
    "explain": "explain explaining explanation describe describing discuss analyze analyse analysis compare comparing "
    "contrast elaborate evaluate evaluation difference differences pros cons advantages disadvantages explore examine "
    "interpret argue understand mean means meaning",
    "listing": "list lists ideas examples example tips suggestions suggestion ways suggest recommend recommendations "
    "brainstorm activities topics reasons questions names items things recommended best top different types kinds "
    "benefits methods strategies techniques subtopics bullets causes effects facts exercises",
    "planning": "plan plans syllabus outline template itinerary schedule recipe recipes workout meal menu budget "
    "curriculum table lesson project roadmap checklist agenda strategy routine steps guide training ingredients cook "
    "bake",
    "make": "write create compose draft design develop generate make build produce craft construct prepare provide "
    "give come think suggest",
    "how": "how",
    "why": "why",
    "advice": "should advice advise help improve learn start teach trying want need best prevent handle deal avoid",
    "you": "you your yourself chatgpt gpt ai chatbot assistant",
    "me": "i i'm i've my me we our",
    "greeting": "hello hi hey thanks thank morning evening goodbye bye",
    "given": "given following below provided above",
    "role": "imagine pretend suppose act role think consider assume",
    "is": "is are was were",
    "text": "text passage article document tweet news context utterance input",
}
ASKED = ("unit", "line", "work", "piece")  # what a verb can be about, the first that fits

JUDGING = frozenset(
    "classify categorize categorise label predict detect determine decide identify choose select rate judge verify "
    "check tag pick guess extract find recognize".split()
)
VERBS = JUDGING.union(
    "write create compose draft design develop generate make build produce craft construct prepare provide give tell "
    "come think suggest list name output return translate rewrite convert summarize describe explain answer complete "
    "fill correct fix propose offer show state use turn plan invent recommend".split()
)
POLITE = frozenset("please kindly hi hello hey so ok okay well".split())
REQUEST = frozenset("can could would will".split())  # with "you" and more behind it, only politeness

# The first word that counts.
OPENS = {
    "yes or no": "is are was were does do did has have had can could will would should am isn't aren't don't doesn't "
    "may must",
    "what": "what what's whats",
    "which": "who when where which whose who's",
    "how": "how why",
    "me": "i i'm i've my we",
    "judge": " ".join(sorted(JUDGING)),
} | {group: SAYS[group] for group in ("fix", "rewrite", "listing", "explain", "summary", "make", "role")}
SECOND = {"what": {"are": "what are", "were": "what are", "if": "what if"}, "how": {}}
SECOND["how"] = dict.fromkeys("many much old far tall long big often fast high deep large heavy".split(), "how many")

_SIGNS = b'\n\t\r.,;:!?"()[]{}<>*`/-'
_UPPER, _LOWER = bytes(range(65, 91)), bytes(range(97, 123))
_PLAIN = bytes.maketrans(_UPPER + _SIGNS, _LOWER + b" " * len(_SIGNS))  # lower case, and words apart


def _grouped(prefix: str, groups: Mapping[str, str]) -> dict[bytes, tuple[str, ...]]:
    """Each word with the cues that it is."""
    cues: dict[bytes, tuple[str, ...]] = {}
    for group, words in groups.items():
        for word in words.encode().split():
            cues[word] = (*cues.get(word, ()), f"{prefix} {group}")
    return cues


def _encoded(words: Iterable[str]) -> frozenset[bytes]:
    return frozenset(word.encode() for word in words)


_VERBS, _JUDGING, _POLITE, _REQUEST = map(_encoded, (VERBS, JUDGING, POLITE, REQUEST))
_SAYS: dict[bytes, tuple[str, ...]] = dict.fromkeys(_VERBS | WORDS, ()) | _grouped("says", SAYS)
_OBJECTS = {word: found[0] for word, found in _grouped("asks", {kind: SAYS[kind] for kind in ASKED}).items()}
_OPENS = {word: found[0] for word, found in _grouped("opens", OPENS).items()}
_SECOND = {
    (first.encode(), second.encode()): f"opens {name}"
    for first, seconds in SECOND.items()
    for second, name in seconds.items()
}
_KNOWN = frozenset(_SAYS)
_FORMS = "opens request, judges, has a text, has a short text, speaks to the model, asks, quotes".split(", ")
_BY_WORD = (*_SAYS.values(), _OBJECTS.values(), _OPENS.values(), _SECOND.values())
CUES = frozenset(_FORMS).union(*_BY_WORD)
_MARK = "\x01"  # between the parts that are read; none of the user's own is a word of ours
_MARK_WORD = _MARK.encode()


class Reading(NamedTuple):
    """A prompt as it is read: the plain words of system, instruction and last line, and which of them are known.

    The instruction is `words[start:end]`, its own text `head`; `length` is that of the text it is about.
    """

    plain: bytes
    words: list[bytes]
    known: frozenset[bytes]
    start: int
    end: int
    head: str
    length: int
    asks: bool


def read(prompt: str, system: str = "") -> Reading:
    """The words of a prompt that say what is wanted, under the instructions of a system."""
    head, text = parts(prompt)
    size = len(head)
    said = head if size <= HEAD + TAIL else f"{head[:HEAD]} {head[-TAIL:]}"
    if not (text or system):
        plain = _plain(said)
        words = plain.split()
        return Reading(plain, words, _KNOWN.intersection(words), 0, len(words), head, 0, "?" in head[-2:])
    plain = _plain(f"{system[:HEAD]} {_MARK} {said} {_MARK} {_last_line(text)}")
    words = plain.split()
    start = words.index(_MARK_WORD)
    end = words.index(_MARK_WORD, start + 1)
    asks = "?" in head[-2:] or text[-1:] == "?"
    return Reading(plain, words, _KNOWN.intersection(words), start + 1, end, head, len(text), asks)


def parts(prompt: str) -> tuple[str, str]:
    """The instruction of a prompt and the text it is about: apart by an empty line, in either order, or by a colon."""
    cut = prompt.find("\n\n", 0, NEAR)
    if cut < 0:
        cut = prompt.find(":", COLON_FROM, COLON_TO)
        if cut < 0 or prompt[cut + 1 : cut + 2] not in (" ", "\n"):
            return prompt, ""
    if cut > LONG_TEXT and len(last := prompt[prompt.rfind("\n\n") + 2 :]) < LAST_LINES:
        return last, prompt[: -len(last)]
    return prompt[:cut], prompt[cut + 2 :]


def _last_line(text: str) -> str:
    """The last of several lines, if it is short: there may be an instruction in it."""
    cut = text.rfind("\n", -TAIL)
    return text[cut + 1 :] if cut >= 0 else ""


def _plain(text: str) -> bytes:
    if not text.isascii():
        text = text.replace("’", "'").replace("“", '"').replace("”", '"')
    return text.encode("utf-8", "replace").translate(_PLAIN)


def cues(reading: Reading) -> set[str]:
    """What its wording and its form tell."""
    _, words, known, start, end, head, length, asks = reading
    own = words
    if start:  # there is more than the instruction
        own, known = words[start:end], known.intersection(words[:end])
    found = {cue for word in known for cue in _SAYS[word]}
    request = len(own) > 1 and _opening(own, len(head), found)
    if verbs := _VERBS.intersection(known):
        _object(words, verbs, found)
    if length:
        found.add("has a short text" if length < SHORT_TEXT else "has a text")
    elif len(head) < SMALL_TALK and not request and "says you" in found:
        found.add("speaks to the model")
    if asks:
        found.add("asks")
    if '"' in head or "“" in head:
        found.add("quotes")
    return found


def measures(reading: Reading) -> tuple[float, float]:
    """How long the instruction and its text are: in half powers of two, so that prompts alike come out equal."""
    head, text = len(reading.head), reading.length
    return (head * head).bit_length() / 2 - USUAL, (text * text).bit_length() / 2 - USUAL if text else 0.0


def _opening(words: list[bytes], size: int, found: set[str]) -> bool:
    """Add what the first word says that is no politeness; whether a request in the form of a question is meant."""
    if words[0] in _POLITE:
        words = words[2:] if words[1] in _POLITE else words[1:]
        if len(words) < 2:
            return False
    first, second = words[0], words[1]
    if first in _REQUEST and second == b"you" and size > REQUEST_FROM:
        found.add("opens request")
        return True
    if first in _OPENS:
        found.add(_SECOND.get((first, second)) or _OPENS[first])
    return False


def _object(words: list[bytes], verbs: frozenset[bytes], found: set[str]) -> None:
    """Add what the first verb asks for."""
    at = 0
    while words[at] not in verbs:
        at += 1
    if words[at] in _JUDGING:
        found.add("judges")
    for word in words[at + 1 : at + 1 + OBJECT_WITHIN]:
        if word in _OBJECTS:
            found.add(_OBJECTS[word])
            return
