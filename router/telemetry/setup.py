"""Where spans and metrics go: as OpenTelemetry's own environment variables say, over HTTP, or to the host program's.

A program that has set up OpenTelemetry itself gets ours with its own. What cannot be delivered is dropped in the end:
nothing here waits for a collector.
"""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from jobs.errors import UsageError
from jobs.observing import Closing, Event, Watcher
from router.settings import Settings

LAST_S = 3.0  # for what is still to be delivered at the end
_NAME = "shunter"


@dataclass(frozen=True, slots=True)
class Providers:
    """Of spans and of metrics, and what ends them; they are OpenTelemetry's."""

    tracers: Any
    meters: Any
    shutdown: tuple[Callable[[], Any], ...] = ()


def telemetry(settings: Settings) -> list[Watcher]:
    """What turns events into spans and metrics; nothing where OTEL_SDK_DISABLED is true.

    UsageError without the extra, or where the variables ask for what there is not.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    try:
        import opentelemetry.exporter.otlp.proto.http
        import opentelemetry.sdk  # noqa: F401 - whether both are there
    except ImportError:
        said = "otel is set, and OpenTelemetry is not installed: pip install 'shunter[otel]'"
        raise UsageError(said, code="no_otel") from None
    return watchers(_providers(), content=settings.otel_content)


def watchers(providers: Providers, *, content: bool = False) -> list[Watcher]:
    """Those that write to these providers; with `content`, also what was asked and answered."""
    from router.telemetry.meters import Meters
    from router.telemetry.spans import Spans

    made = version(_NAME)
    return [
        Spans(providers.tracers.get_tracer(_NAME, made), content=content),
        Meters(providers.meters.get_meter(_NAME, made)),
        Ending(providers.shutdown),
    ]


class Ending:
    """Ends what was begun here, and gives it a little time to deliver."""

    def __init__(self, shutdown: tuple[Callable[[], Any], ...]) -> None:
        self._shutdown = shutdown

    def __call__(self, event: Event) -> None:
        """At the end of all, in whichever thread: a collector that does not answer is left behind."""
        if isinstance(event, Closing):
            ending = [threading.Thread(target=one, daemon=True) for one in self._shutdown]
            for thread in ending:
                thread.start()
            until = time.monotonic() + LAST_S
            for thread in ending:
                thread.join(max(until - time.monotonic(), 0))


def _providers() -> Providers:
    from opentelemetry import metrics, trace
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider

    tracers, meters = trace.get_tracer_provider(), metrics.get_meter_provider()
    shutdown: list[Callable[[], Any]] = []
    if not isinstance(tracers, TracerProvider):
        tracers = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        for processor in _processors():
            tracers.add_span_processor(processor)
        shutdown.append(tracers.shutdown)
    if not isinstance(meters, MeterProvider):
        meters = MeterProvider(_readers(), resource=_resource(), shutdown_on_exit=False)
        shutdown.append(meters.shutdown)
    return Providers(tracers, meters, tuple(shutdown))


def _resource() -> Any:
    """What the variables say of this program; it has a name of its own where they give it none."""
    from opentelemetry.sdk.resources import Resource

    resource = Resource.create({"service.version": version(_NAME)})
    unnamed = str(resource.attributes.get("service.name", "unknown_service")).startswith("unknown_service")
    return resource.merge(Resource({"service.name": _NAME})) if unnamed else resource


def _processors() -> list[Any]:
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor

    def otlp() -> Any:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        return BatchSpanProcessor(OTLPSpanExporter())

    def console() -> Any:
        return SimpleSpanProcessor(ConsoleSpanExporter())

    return [{"otlp": otlp, "console": console}[name]() for name in _wanted("traces")]


def _readers() -> list[Any]:
    from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader

    def otlp() -> Any:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

        return OTLPMetricExporter()

    makers = {"otlp": otlp, "console": ConsoleMetricExporter}
    return [PeriodicExportingMetricReader(makers[name]()) for name in _wanted("metrics")]


def _wanted(signal: str) -> list[str]:
    """The exporters that OTEL_TRACES_EXPORTER or OTEL_METRICS_EXPORTER names; OTLP over HTTP if it names none."""
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    names = [name.strip() for name in (os.environ.get(variable) or "otlp").split(",")]
    for name in names:
        if name not in ("otlp", "console", "none"):
            raise UsageError(f"{variable} is {name!r}: it must be otlp, console or none", code="bad_setting")
    own, common = f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"
    protocol = os.environ.get(own) or os.environ.get(common) or "http/protobuf"
    if "otlp" in names and protocol != "http/protobuf":
        raise UsageError(
            f"{own if os.environ.get(own) else common} is {protocol!r}: it must be http/protobuf: collectors take that "
            "on port 4318",
            code="bad_setting",
        )
    return [name for name in names if name != "none"]
