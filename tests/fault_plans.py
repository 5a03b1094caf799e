"""Random plans: what a stream is asked, what goes wrong with it, what its reader does; and what that reader saw."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from jobs.chat import Delta, Handling, OnCut, OnLeave
from jobs.runner import Ended
from jobs.sandbox import answers, faults
from jobs.sandbox.answers import Answer, Ask
from jobs.sandbox.settings import SandboxSettings

SANDBOX = SandboxSettings(tokens_per_second=400.0, reasoning_tokens=12)
MODELS = {
    "chat": ("gpt-6-luna", "gpt-4o-mini"),
    "responses": ("gpt-6-luna", "gpt-4.1-mini"),
    "messages": ("claude-haiku-5-5", "claude-sonnet-5-5"),
}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "look", "parameters": CITY}}
CALLED: dict[str, Any] = {"tools": [TOOL], "tool_choice": "required"}
SOONEST = 10  # tokens: no estimate is below what a refusal takes
MOST = 60  # words of an answer
EACH = 16  # faults of a kind
LONG = 600.0  # seconds: a connection that is not closed outlasts the test

Spec = dict[str, Any]
Draw = Callable[[Random], Spec]
Words = dict[str, str]  # by name: text, refusal, and call 0 for the arguments of the first call


def anywhere(dice: Random) -> int:
    """After how many deltas: from none to more than there are."""
    return dice.choice((0, 1, dice.randint(0, MOST)))


def billed(dice: Random) -> bool:
    return dice.random() < 0.8


DRAWS: dict[str, Draw] = {
    "status": lambda dice: {
        "status": dice.choice((400, 429, 429, 500, 503, 504, 529)),
        "retry_after": dice.choice((None, 0.05, 0.2)),
    },
    "drop": lambda dice: {"how": dice.choice(("fin", "rst", "hang"))},
    "null_body": lambda _: {},
    "html_body": lambda _: {},
    "slow_first_token": lambda dice: {"seconds": dice.choice((0.1, LONG))},
    "cut": lambda dice: {
        "after": anywhere(dice), "how": dice.choice(("fin", "rst")), "billed": billed(dice),
    },
    "silence": lambda dice: {"after": anywhere(dice), "seconds": dice.choice((0.1, LONG))},
    "malformed": lambda dice: {"after": anywhere(dice), "billed": billed(dice)},
    "no_usage": lambda _: {},
    "no_finish": lambda _: {},
    "refusal": lambda _: {},
    "length": lambda _: {},
    "content_filter": lambda _: {},
    "malformed_arguments": lambda _: {},
    "stream_error": lambda dice: {
        "after": anywhere(dice), "shape": dice.choice(("nested", "flat")), "billed": billed(dice),
    },
    "no_done": lambda _: {},
    "empty_stream": lambda dice: {"billed": billed(dice)},
}  # fmt: skip
assert set(DRAWS) == {*faults.REQUEST, *faults.ANSWER, *faults.STREAM}, "every kind of fault that concerns streams"


@dataclass(frozen=True, slots=True)
class Plan:
    """One stream. Its reader leaves at a delta, or after so many seconds, or stays to the end."""

    number: int
    form: str
    model: str
    words: int
    cap: int | None
    calls: bool  # the answer is a tool call
    faults: dict[str, Spec]  # by name: the prompt holds the names, and whatever is in it strikes
    handling: Handling
    leaves_at: int | None = None
    leaves_after: float | None = None
    full: Answer = field(init=False)  # what the sandbox says when nothing goes wrong

    def __post_init__(self) -> None:
        ask = Ask(self.form, self.model, self.prompt, self.prompt, True, 0, cap=self.cap)
        if self.calls:
            ask.tools, ask.tool_choice = {"look": CITY}, "required"
        object.__setattr__(self, "full", answers.answer(ask, SANDBOX))

    @property
    def prompt(self) -> str:
        return " ".join([f"Say {self.words} words about wagon {self.number}.", *self.faults])

    @property
    def sent(self) -> dict[str, Any]:
        """What its body says beside the prompt."""
        return {**(CALLED if self.calls else {}), **({"max_tokens": self.cap} if self.cap else {})}

    @property
    def estimate(self) -> dict[str, int]:
        """An honest one, and no better: the input as it is, the output as long as it will be."""
        tools = 40 if self.calls else 0
        return {"input_tokens": len(self.prompt) // 4 + 8 + tools, "output_p90": max(self.full.tokens, SOONEST)}

    def could_say(self, name: str, words: str) -> bool:
        """Whether these words, of a text, a refusal or a call, begin one of the answers that its tries can bring."""
        whole = [self.full, *(answers.bent(self.full, kind) for kind in faults.BENDS)]
        if name.startswith("call"):
            return any(call.arguments.startswith(words) for one in whole for call in one.calls)
        return any(one.text.startswith(words) for one in whole)

    def __str__(self) -> str:
        struck = ", ".join(":".join(map(str, spec.values())) for spec in self.faults.values())
        leaves = f"leaves at {self.leaves_at} or after {self.leaves_after}"
        handling = self.handling.model_dump(mode="json", exclude_defaults=True)
        asked = f"{self.words} words{' that call' if self.calls else ''}, cap {self.cap}"
        return f"{self.number} {self.form} {self.model} {asked} [{struck}] {handling} {leaves}"


@dataclass
class Seen:
    """What one reader saw: the deltas of each try, and how each ended."""

    plan: Plan
    job_id: str
    deltas: dict[int, list[Delta]] = field(default_factory=lambda: defaultdict(list))
    ended: list[Ended] = field(default_factory=list)
    stayed: bool = False

    def take(self, event: Delta | Ended) -> None:
        if isinstance(event, Ended):
            self.ended.append(event)
        else:
            self.deltas[len(self.ended) + 1].append(event)

    def words(self, n: int) -> Words:
        """What try `n` was heard to say."""
        said: Words = defaultdict(str)
        for delta in self.deltas.get(n, ()):
            said["text"] += delta.text
            said["refusal"] += delta.refusal
            for piece in delta.calls:
                said[f"call {piece.index}"] += piece.arguments
        return {name: words for name, words in said.items() if words}


def drills(given: list[Plan]) -> list[Spec]:
    """The faults of these plans as the sandbox takes them: each strikes the requests that name it."""
    named = {name: spec for plan in given for name, spec in plan.faults.items()}
    return [{**spec, "match": {"contains": name}} for name, spec in named.items()]


def plans(seed: int, count: int) -> list[Plan]:
    """So many random plans, the same for the same seed, with some hundred faults between them."""
    dice = Random(seed)
    known = [_fault(dice, kind) for kind in DRAWS for _ in range(EACH)]
    named = {f"fault{n:03}": spec for n, spec in enumerate(known)}
    return [_plan(dice, number, named) for number in range(count)]


def _plan(dice: Random, number: int, named: dict[str, Spec]) -> Plan:
    form, words = dice.choice(list(MODELS)), dice.randint(1, MOST)
    cap = dice.randint(1, 80) + SANDBOX.reasoning_tokens if dice.random() < 0.15 else None
    handling = Handling(
        on_cut=dice.choice(list(OnCut)),
        on_leave=dice.choice(list(OnLeave)),
        total=0.2 if dice.random() < 0.05 else None,
    )
    calls = dice.random() < 0.15
    struck = {name: named[name] for name in dice.sample(list(named), dice.choice((0, 1, 1, 1, 1, 2, 2)))}
    if sum(spec["kind"] in faults.BENDS for spec in struck.values()) > 1:
        struck.popitem()  # two that bend the answer would be one that nobody can foresee
    return Plan(number, form, dice.choice(MODELS[form]), words, cap, calls, struck, handling, **_reader(dice))


def _fault(dice: Random, kind: str) -> Spec:
    """For ever, or at every second request: so that a try may be followed by one that ends otherwise."""
    return {"kind": kind, **DRAWS[kind](dice), "chance": dice.choice((0.5, 1.0))}


def _reader(dice: Random) -> dict[str, Any]:
    leaves = dice.random()
    if leaves < 0.15:
        return {"leaves_at": dice.randint(1, 40)}
    return {"leaves_after": dice.uniform(0, 1.0)} if leaves < 0.3 else {}
