"""policy test: a user's own table of requests, and whether a policy sends each where the table expects it."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.errors import Mistakes, Refused, UsageError
from router import rules
from router.asking import LANES, Asked
from router.dispatch import Router
from router.tables import Source, Table
from router.terminal import WRAP, clean, console, say, sign, styled, table

View = Mapping[str, Any]

TIERS = ("default", "flex", "fast", "2h", "8h")
_TEXTS = ("model", "system", "schema", "deadline", "post_process", "max_cost")  # as the options of `explain`
AS_EXPECTED, OTHERWISE = 0, 1


@dataclass(frozen=True, slots=True)
class Case:
    """A request in the words of `explain`, and what is expected of its decision: some of what `got` has."""

    name: str
    where: str
    asked: Asked
    expected: Mapping[str, Any]


def run(path: Path, policy: Path | None, *, json: bool) -> int:
    """Decide every case as `explain` would and say which went otherwise; 1 if any did."""
    from router import show

    cases = read(path)
    router = Router()
    if policy is not None:
        router.policy = rules.load(policy)
    try:
        results = decided(router, cases)
    finally:
        asyncio.run(router.close())
    show.data(results) if json else tell(results)
    return AS_EXPECTED if all(one["ok"] for one in results) else OTHERWISE


def read(path: Path) -> list[Case]:
    """The cases of a TOML file; Mistakes names each with its line."""
    source = Source(path, "cases")
    top = Table(source, source.data)
    cases = [_case(one, path) for one in top.tables("case", "case")]
    top.end()
    source.end()
    return cases


def _case(one: Table, path: Path) -> Case:
    name = one.take("name", str)
    one.name += f" ('{name}')" if name else ""
    texts: dict[str, Any] = {key: one.take(key, str, default="") or None for key in _TEXTS}
    tags = one.take("tags", dict, default={})
    asked = Asked(
        prompt=one.take("prompt", str),
        interactive=one.take("interactive", bool, default=False),
        whole=one.take("whole", bool, default=False),
        max_tokens=one.take("max_tokens", int, default=0) or None,
        priority=one.take("priority", int, default=0),
        tags=tuple(f"{tag}={value}" for tag, value in tags.items()),
        lane=one.word("lane", LANES),
        **texts,
    )
    expected = _expected(one.table("expect"))
    one.end()
    return Case(name, f"{path}: {one.name}", asked, expected)


def _expected(wanted: Table) -> dict[str, Any]:
    words = {
        "class": wanted.word("class", rules.CLASSES),
        "lane": wanted.word("lane", LANES),
        "tier": wanted.word("tier", TIERS),
        "rule": wanted.take("rule", str, default="") or None,
        "refused": wanted.take("refused", bool, default=False) or None,
    }
    if not wanted.data and not any(words.values()):
        wanted.wrong(f"nothing is expected; give one of {', '.join(words)}")
    wanted.end()
    return {key: value for key, value in words.items() if value is not None}


def decided(router: Router, cases: Sequence[Case]) -> list[dict[str, Any]]:
    """What became of each case; Mistakes for requests that cannot be asked at all."""
    results, wrong = [], []
    for case in cases:
        try:
            got, reason = _decided(router, case.asked)
        except UsageError as error:
            wrong.append(f"{case.where}: {error}")
            continue
        ok = all(got.get(key) == value for key, value in case.expected.items())
        results.append({"name": case.name, "ok": ok, "expected": dict(case.expected), "got": got, "reason": reason})
    if wrong:
        raise Mistakes(wrong, code="cases")
    return results


def _decided(router: Router, asked: Asked) -> tuple[dict[str, Any], str]:
    try:
        decision = router.explain(asked.request(router), asked.wish())
    except Refused as error:
        return {"refused": True}, str(error)
    got = {"class": decision.class_, "lane": decision.lane.value, "tier": decision.tier, "rule": decision.rule}
    return got, decision.reason


def tell(results: Sequence[View]) -> None:
    """A line for each case; for those that went otherwise, why."""
    out = console()
    made = table("", ("case", WRAP), ("expected", WRAP), ("got", WRAP))
    for one in results:
        mark = styled(sign("✓", "ok"), "green") if one["ok"] else styled(sign("✗", "NO"), "red")
        got = {key: one["got"].get(key) for key in one["expected"]} if one["ok"] else one["got"]
        made.add_row(mark, clean(one["name"]), _words(one["expected"]), _words(got))
        if not one["ok"]:
            made.add_row("", styled(one["reason"], "dim"), "", "")
    out.print(made)
    missed = sum(not one["ok"] for one in results)
    say(f"{len(results)} cases: " + (f"{missed} went otherwise" if missed else "all as expected"))


def _words(values: View) -> str:
    return clean(", ".join(key if value is True else f"{key} {value}" for key, value in values.items()))
