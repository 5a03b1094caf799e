"""Spans and metrics by OpenTelemetry's conventions, through its real SDK and into a real receiver."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from db import reports
from jobs import worker
from jobs.chat import Message, Request
from jobs.errors import UsageError
from jobs.observing import Watchers
from jobs.worker import Told
from router import dispatch, logs
from router.dispatch import Router
from router.settings import Settings
from router.telemetry import setup
from tests.collectors import Receiver, Seen
from tests.commands import Shell, refused
from tests.gateways import serving, settings_for
from tests.lanes import MODEL, World

WORDS = "Where does the marmot sleep in winter?"
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def seen() -> Seen:
    return Seen()


def run(world: World, tell: Watchers) -> None:
    async def work() -> None:
        context = world.context(tell=tell)
        await worker.once(context, Told(), asyncio.Event())
        await context.close()

    asyncio.run(work())


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return {**(span.attributes or {})}


# ---- spans ----


def test_an_attempt_is_a_client_span_under_its_job_with_the_conventions_attributes(world: World, seen: Seen) -> None:
    [job_id] = world.add(WORDS, lane="stream", sent={"temperature": 0.5, "max_tokens": 50})
    run(world, seen.watchers())
    [call], [job] = seen.spans("chat"), seen.spans("shunter.job")
    assert (call.name, call.kind, job.kind) == (f"chat {MODEL}", SpanKind.CLIENT, SpanKind.INTERNAL)
    assert call.parent is not None
    assert call.parent.span_id == job.context.span_id
    told = attributes(call)
    assert told["gen_ai.operation.name"] == "chat"
    assert (told["gen_ai.provider.name"], told["gen_ai.request.model"]) == ("openai", MODEL)
    assert told["gen_ai.response.model"] == MODEL
    assert (told["server.address"], told["server.port"]) == ("127.0.0.1", int(world.sandbox.url.rpartition(":")[2]))
    assert (told["gen_ai.request.stream"], told["gen_ai.request.temperature"]) == (True, 0.5)
    assert told["gen_ai.request.max_tokens"] == 50
    assert told["gen_ai.usage.input_tokens"] > 0
    assert told["gen_ai.usage.output_tokens"] > 0
    assert told["gen_ai.response.finish_reasons"] in (("stop",), ("length",))
    assert told["gen_ai.response.time_to_first_chunk"] > 0
    assert (told["shunter.job.id"], told["shunter.attempt"], told["shunter.lane"]) == (job_id, 1, "stream")
    assert (told["shunter.class"], told["shunter.cost_known"]) == ("bulk", "assumed")
    assert Decimal(f"{told['shunter.cost_usd']:.9f}") == Decimal(reports.cost(world.store, [])["total_usd"])
    assert call.start_time
    assert call.end_time
    assert call.end_time > call.start_time
    assert call.status.status_code is StatusCode.UNSET


def test_a_try_that_failed_is_a_span_with_its_kind_of_error_and_the_next_one_another(world: World, seen: Seen) -> None:
    world.sandbox.faults([{"kind": "status", "status": 429, "times": 1}])
    world.add(WORDS, lane="sync")
    run(world, seen.watchers())
    first, second = seen.spans("chat")
    assert (attributes(first)["shunter.attempt"], attributes(second)["shunter.attempt"]) == (1, 2)
    assert first.status.status_code is StatusCode.ERROR
    assert attributes(first)["error.type"]
    assert first.status.description is None  # what the provider said may quote the request
    assert "gen_ai.response.model" not in attributes(first)
    assert "error.type" not in attributes(second)


def test_a_batch_is_one_span_with_counts_and_cost_and_its_rows_are_in_the_metrics(world: World, seen: Seen) -> None:
    world.add(*[f"{WORDS} {n}" for n in range(6)])
    run(world, seen.watchers())
    [batch] = seen.spans()
    told = attributes(batch)
    assert (batch.name, told["gen_ai.operation.name"]) == (f"batch {MODEL}", "batch")
    assert (told["shunter.batch.rows"], told["shunter.batch.rows.ok"]) == (6, 6)
    total = Decimal(reports.cost(world.store, [])["total_usd"])
    assert Decimal(f"{told['shunter.cost_usd']:.9f}") == total
    tokens = seen.points("gen_ai.client.token.usage", **{"shunter.lane": "batch"})
    assert {(one.attributes["gen_ai.token.type"], one.count) for one in tokens} == {("input", 6), ("output", 6)}
    assert {one.attributes["gen_ai.response.model"] for one in tokens} == {MODEL}
    assert sum(one.sum for one in tokens) == told["gen_ai.usage.input_tokens"] + told["gen_ai.usage.output_tokens"]
    [cost] = seen.points("shunter.cost")
    assert Decimal(f"{cost.value:.9f}") == total
    assert seen.points("gen_ai.client.operation.duration") == []


def test_metrics_of_live_calls_have_the_conventions_names_and_bounds(world: World, seen: Seen) -> None:
    world.add(WORDS, lane="stream")
    world.add(WORDS, lane="sync")
    run(world, seen.watchers())
    durations = seen.points("gen_ai.client.operation.duration", **{"gen_ai.request.model": MODEL})
    assert sum(one.count for one in durations) == 2
    assert durations[0].explicit_bounds[:3] == (0.01, 0.02, 0.04)
    [first] = seen.points("gen_ai.client.operation.time_to_first_chunk")
    assert (first.count, first.attributes["shunter.lane"]) == (1, "stream")
    assert sum(one.value for one in seen.points("shunter.attempts", **{"shunter.state": "ok"})) == 2


@pytest.mark.parametrize("content", [False, True])
def test_words_are_sent_only_where_they_are_asked_for(world: World, seen: Seen, content: bool) -> None:
    world.add(WORDS, lane="sync")
    run(world, seen.watchers(content=content))
    everything = " ".join(span.to_json() for span in seen.spans())
    [call] = seen.spans("chat")
    assert ("marmot" in everything, "[sandbox]" in everything) == (content, content)
    if content:
        [asked] = json.loads(attributes(call)["gen_ai.input.messages"])
        [answer] = json.loads(attributes(call)["gen_ai.output.messages"])
        assert asked == {"role": "user", "parts": [{"type": "text", "content": WORDS}]}
        assert (answer["role"], answer["finish_reason"]) == ("assistant", "stop")
        assert answer["parts"][0]["content"].startswith("[sandbox]")


def test_the_gateway_goes_on_with_the_callers_trace(
    world: World, seen: Seen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "watchers", lambda settings: seen.watchers())
    settings = settings_for(world.sandbox.url, tmp_path, otel=True)
    with serving(settings) as gateway, gateway.client() as client:
        client.headers["traceparent"] = PARENT
        body = {"model": MODEL, "messages": [{"role": "user", "content": WORDS}]}
        job_id = client.post("/v1/chat/completions", json=body).headers["X-Shunter-Job"]
        client.post("/v1/chat/completions", json=body | {"stream": True}).read()
        client.get("/api/jobs/marmot")
    trace_id, parent = int(PARENT.split("-")[1], 16), int(PARENT.split("-")[2], 16)
    served = seen.spans("POST /v1/chat/completions")
    assert [span.kind for span in served] == [SpanKind.SERVER] * 2
    assert {span.context.trace_id for span in seen.spans()} == {trace_id}
    assert all(span.parent and span.parent.span_id == parent for span in served)
    jobs = {attributes(span)["shunter.job.id"]: span for span in seen.spans("shunter.job")}
    assert len(jobs) == 2
    assert jobs[job_id].parent.span_id == served[0].context.span_id
    assert attributes(served[0])["http.response.status_code"] == 200
    assert attributes(served[0])["shunter.job.id"] == job_id
    assert seen.spans("GET /api/jobs/{job}")
    assert "marmot" not in " ".join(span.to_json() for span in seen.spans())
    [times] = seen.points("http.server.request.duration", **{"http.route": "/v1/chat/completions"})
    assert times.count == 2


def test_a_job_that_is_read_by_a_program_is_a_child_of_the_programs_own_span(
    world: World, seen: Seen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "watchers", lambda settings: seen.watchers())

    async def work() -> None:
        router = Router(settings_for(world.sandbox.url, tmp_path))
        tracer = seen.providers.tracers.get_tracer("a program")
        with tracer.start_as_current_span("theirs"):
            await router.submit(Request(model=MODEL, messages=[Message(role="user", content=WORDS)], interactive=True))
        await router.close()

    asyncio.run(work())
    [theirs], [job], [call] = seen.spans("theirs"), seen.spans("shunter.job"), seen.spans("chat")
    assert job.parent is not None
    assert job.parent.span_id == theirs.context.span_id
    assert attributes(call)["shunter.class"] in ("interactive-long", "short")


# ---- where it goes ----


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


async def submit(settings: Settings) -> float:
    """Answer a request, and close; the seconds that the answer took."""
    router = Router(settings)
    router.context()
    began = time.monotonic()
    await router.submit(Request(model=MODEL, messages=[Message(role="user", content=WORDS)], interactive=True))
    took = time.monotonic() - began
    await router.close()
    return took


def test_spans_and_metrics_reach_a_collector_as_its_variables_say(
    world: World, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{receiver.server_port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=railways")
    asyncio.run(submit(settings_for(world.sandbox.url, tmp_path, otel=True)))
    assert {span.name for span in receiver.spans} == {f"chat {MODEL}", "shunter.job"}
    assert {"gen_ai.client.token.usage", "gen_ai.client.operation.duration", "shunter.cost"} <= receiver.metrics
    assert receiver.services == {"shunter"}
    assert all(headers["x-team"] == "railways" for headers in receiver.headers)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "nightly")
    asyncio.run(submit(settings_for(world.sandbox.url, tmp_path, otel=True)))
    assert receiver.services == {"shunter", "nightly"}


def test_a_collector_that_is_away_costs_an_answer_nothing(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(setup, "LAST_S", 0.2)
    began = time.monotonic()
    asyncio.run(submit(settings_for(world.sandbox.url, tmp_path, otel=True)))
    assert time.monotonic() - began < 10  # the exporter would try for longer
    assert reports.cost(Router(settings_for(world.sandbox.url, tmp_path)).store, [])["open_attempts"] == 0


def test_it_is_off_where_the_variable_says_so_and_wants_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for("http://127.0.0.1:9", tmp_path, otel=True)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    with pytest.raises(UsageError, match="OTEL_TRACES_EXPORTER is 'zipkin'"):
        setup.telemetry(settings)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(UsageError, match="must be http/protobuf"):
        setup.telemetry(settings)
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert setup.telemetry(settings) == []


@pytest.mark.parametrize("command", [("serve", "--port", "0"), ("worker", "--once"), ("submit", "hello")])
def test_without_the_extra_it_says_what_to_install(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("SHUNTER_OTEL", "true")
    monkeypatch.setattr(logs, "configure", lambda *args: None)  # the log of this process stays as it is
    refused(Shell(monkeypatch, capsys, tmp_path)(*command), 2, "pip install 'shunter[otel]'")


def test_nothing_of_it_is_loaded_where_nobody_asks() -> None:
    code = (
        "import sys, router.dispatch, router.watchers, router.settings\n"
        "router.watchers.watchers(router.settings.load({}))\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'router.telemetry'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
