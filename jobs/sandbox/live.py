"""Plain and streamed answers: pace, drills, and the bill for whatever was said."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import orjson

from jobs.sandbox import answers, faults
from jobs.sandbox.answers import Ask
from jobs.sandbox.bill import BillRow, Usage, cost_nano_usd
from jobs.sandbox.cache import PrefixCache
from jobs.sandbox.clock import Clock
from jobs.sandbox.drills import spoiled, unfinished
from jobs.sandbox.faults import Facts, Fault, Faults, only
from jobs.sandbox.frames import Cut, Frame, Pause, Step, Tag
from jobs.sandbox.http import Exchange
from jobs.sandbox.ids import Ids
from jobs.sandbox.limits import Limits
from jobs.sandbox.requests import answer_head
from jobs.sandbox.settings import SandboxSettings
from jobs.sandbox.store import Store
from jobs.sandbox.voices import VOICES, Body, Made

GROUP = 32


class Live:
    """Answers chat, Responses and Messages calls."""

    def __init__(self, settings: SandboxSettings, store: Store, clock: Clock, ids: Ids) -> None:
        self.settings = settings
        self.store = store
        self.clock = clock
        self.ids = ids
        self.cache = PrefixCache() if settings.cached_prefix else None
        self.limits = Limits(settings, clock.now)

    async def answer(self, exchange: Exchange, api: str, body: Body, raw: bytes, drills: Faults, extra: Faults) -> None:
        """One request from its checked body to the last byte; `extra` are the request's own drills, from its header."""
        voice = VOICES[api]
        ask = voice.read(body, exchange.request.header(b"anthropic-version"))
        said = [answers.answer(ask, self.settings, choice) for choice in range(ask.choices)]
        if self.limits.any:
            self._within_limits(exchange, ask, answers.usage(ask, said, 0), api == "messages")
        hit: list[Fault] = []
        if drills.items or extra.items:
            facts = Facts(exchange.request.path, "POST", ask.model, "stream" if ask.stream else "plain", raw)
            kinds = faults.ANSWER + faults.STREAM if ask.stream else faults.ANSWER
            hit = drills.take(kinds, facts) + extra.take(kinds, facts)
        for fault in hit:
            said = [answers.bent(one, fault.kind) for one in said]
        cached = self.cache.cached(ask.model, ask.prompt) if self.cache is not None else 0
        percent = self.settings.resold_percent if api == "chat" else None
        usage = replace(answers.usage(ask, said, min(cached, ask.input_tokens)), percent=percent)
        shown = None if only(hit, "no_usage") else usage
        made = Made(ask, body, said, shown, self.ids.next(), int(self.clock.now()))
        slow = only(hit, "slow_first_token")
        wait = self.settings.latency_s + (slow["seconds"] if slow else 0)
        if ask.stream:
            await self._stream(exchange, made, usage, hit, wait)
        else:
            await self._plain(exchange, made, usage, hit, wait)

    def _within_limits(self, exchange: Exchange, ask: Ask, usage: Usage, anthropic: bool) -> None:
        told, refusal = self.limits.take(ask.model, usage.input + usage.output, anthropic)
        exchange.head = answer_head(exchange.id, anthropic, told)
        if refusal is not None:
            raise refusal

    async def _plain(self, exchange: Exchange, made: Made, usage: Usage, hit: list[Fault], wait: float) -> None:
        """Billed in full once begun, also when the reader has left before the answer was ready."""
        body = VOICES[made.ask.api].whole(made)
        if only(hit, "no_finish"):
            body = unfinished(body)
        if self.settings.tokens_per_second:
            wait += usage.output / self.settings.tokens_per_second
        cut, silence = only(hit, "cut"), only(hit, "silence")
        try:
            if wait:
                await asyncio.sleep(wait)
            if silence:
                await asyncio.sleep(silence["seconds"])
        finally:
            if cut is None or cut["billed"]:
                self.charge(made, exchange.id, "plain", usage, disconnected=exchange.lost or cut is not None)
        data = orjson.dumps(body)
        if cut is not None:
            exchange.part_of(data, len(data) // 2)
            exchange.cut(cut["how"])
        elif only(hit, "malformed"):
            exchange.reply(200, data[: len(data) // 2])
        else:
            exchange.reply(200, data)

    async def _stream(self, exchange: Exchange, made: Made, usage: Usage, hit: list[Fault], wait: float) -> None:
        """Billed for the deltas that were produced, whoever ended it."""
        steps = spoiled(VOICES[made.ask.api].frames(made), hit, made.ask.api)
        spoken = Spoken()
        billed = all(fault.params.get("billed", True) for fault in hit)
        try:
            exchange.begin(200, b"text/event-stream; charset=utf-8", headers=(("cache-control", "no-cache"),))
            await self._speak(exchange, steps, spoken, wait)
            if not spoken.cut:
                exchange.end()
        finally:
            if billed:
                said = Usage(usage.input, usage.reasoning + spoken.deltas, usage.cached, usage.reasoning, usage.percent)
                self.charge(made, exchange.id, "stream", said, disconnected=spoken.cut or not spoken.over)

    async def _speak(self, exchange: Exchange, steps: Iterator[Step], spoken: "Spoken", wait: float) -> None:
        """Writes the frames at the wanted speed, several in one write where there is no pace to keep."""
        rate = self.settings.tokens_per_second
        loop = asyncio.get_running_loop()
        start = loop.time() + wait
        held: list[bytes] = []
        for step in steps:
            match step:
                case Frame(tag=tag, data=data):
                    if tag is Tag.DELTA:
                        due = start + (spoken.deltas / rate if rate else 0)
                        if (wait or rate) and (left := due - loop.time()) > 0:
                            _flush(exchange, held)
                            await asyncio.sleep(left)
                        spoken.deltas += 1
                    held.append(data)
                    # a client may leave at the last event: nothing is awaited between it and the end
                    if len(held) >= GROUP and tag is not Tag.DONE:
                        _flush(exchange, held)
                        await asyncio.sleep(0)
                        await exchange.drain()
                case Pause(seconds=seconds):
                    _flush(exchange, held)
                    await asyncio.sleep(seconds)
                    start += seconds
                case Cut(how=how):
                    _flush(exchange, held)
                    spoken.cut = True
                    await asyncio.sleep(0.02 if how == "rst" else 0)
                    exchange.cut(how)
                    return
        _flush(exchange, held)
        spoken.over = True

    def charge(self, made: Made, request_id: str, kind: str, usage: Usage, *, disconnected: bool) -> None:
        ask = made.ask
        cost = cost_nano_usd(usage, ask.model, ask.tier)
        row = BillRow(
            made.ident,
            self.clock.now(),
            ask.api,
            kind,
            ask.model,
            None,
            None,
            request_id,
            ask.tier,
            200,
            usage,
            cost,
            disconnected,
        )
        self.store.bill.add([row])


class Spoken:
    """How far a stream came."""

    __slots__ = ("cut", "deltas", "over")

    def __init__(self) -> None:
        self.deltas = 0
        self.cut = False
        self.over = False


def _flush(exchange: Exchange, held: list[bytes]) -> None:
    if len(held) == 1:
        exchange.send(held[0])
    elif held:
        exchange.send(b"".join(held))
    held.clear()
