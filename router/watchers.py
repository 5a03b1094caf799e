"""Who watches what happens here, by the settings: the log always, telemetry where it is asked for."""

import logging

from jobs.observing import Watcher, Watchers, log
from router.journal import Journal
from router.settings import Settings


def watchers(settings: Settings) -> Watchers:
    """Those of these settings. UsageError when telemetry is asked for and cannot be had."""
    each: list[Watcher] = [Journal()]
    if settings.otel:
        from router.telemetry.setup import telemetry

        each += telemetry(settings)
    return Watchers(*each)


def sees_requests(settings: Settings) -> bool:
    """Whether anybody looks at single requests to the gateway: to tell of them costs each of them some time."""
    return settings.otel or log.isEnabledFor(logging.INFO)
