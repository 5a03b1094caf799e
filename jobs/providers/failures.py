"""Whatever the SDKs and httpx2 raise, as Transient or Permanent that say what, where and what to do."""

import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from jobs.errors import CallError, Permanent, Transient
from jobs.providers.answers import decode, error_of, head_of

RETRIED_STATUSES = frozenset({408, 409, 425, 429})
LOST_BY_GATEWAY = frozenset({504, 522, 523, 524})  # the gateway gave up waiting; the model may have gone on
NO_MONEY = re.compile(r"insufficient_quota|credit_balance|spend_limit|usage_limit_exceeded|billing_error")
LATER = re.compile(r"overloaded|rate_limit|slow_down|service_unavailable|server_error|api_error|timeout")
NEVER = re.compile(
    r"invalid_|_not_found|not_found_error|context_length|authentication|permission|too_large|unsupported|missing_|policy"
)
NOT_SENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.LocalProtocolError,
    httpx2.UnsupportedProtocol,
    httpx2.ProxyError,
)
_KEY_SHAPE = re.compile(r"\bsk-[\w*.-]{4,}|(?i:\bbearer\s+)\S+")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a call goes, for the texts of its errors; `key` is here only to be taken out of them."""

    host: str
    key_env: str
    key: str = ""
    model: str = ""

    def __repr__(self) -> str:
        return f"Place({self.host!r}, {self.model!r})"

    @property
    def name(self) -> str:
        """The host, and the model where one is asked."""
        return f"{self.host} ({self.model})" if self.model else self.host

    def clean(self, text: str) -> str:
        """One line of at most 400 characters, without the key and without anything that looks like one."""
        if self.key:
            text = text.replace(self.key, "[key]")
        return " ".join(_KEY_SHAPE.sub("[key]", text).split())[:400]


class Late(TimeoutError):
    """A call took longer than it may; `code` says which of its times ran out."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Refused(Exception):
    """An answer, read to its end, whose status is no success."""

    def __init__(self, response: httpx2.Response) -> None:
        super().__init__(response.status_code)
        self.response = response
        self.body = response.text


@dataclass(slots=True, eq=False)
class Told(Exception):
    """The provider's own words for an error in a stream, a row or a 200 body."""

    code: str
    kind: str
    text: str


def lasting(status: int | None, code: str, kind: str = "", text: str = "") -> bool:
    """Whether the same request would fail again."""
    words = f"{code} {kind}"
    if NO_MONEY.search(words):
        return True
    if LATER.search(words) or (status == 400 and "cannot find file" in text.lower()):
        return False
    if status:
        return 300 <= status < 500 and status not in RETRIED_STATUSES
    return bool(NEVER.search(words))


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """The provider's wish in seconds, from every header that carries it."""
    for prefix in ("", "llm_provider-"):
        if (wait := _number(headers.get(f"{prefix}retry-after-ms"))) is not None:
            return wait / 1000
        value = headers.get(f"{prefix}retry-after")
        if value and (wait := _number(value) if _number(value) is not None else _until(value, now)) is not None:
            return wait
    return None


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "x")
    except ValueError:
        return None
    return max(number, 0.0) if math.isfinite(number) else None


def _until(value: str, now: float | None) -> float | None:
    try:
        at = parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(at - (time.time() if now is None else now), 0.0)


def failure(error: BaseException, place: Place, *, creates: bool = False, sent: bool = True) -> CallError:
    """The CallError that an exception is. `creates`: a POST that makes something, so that its 5xx is unclear."""
    if isinstance(error, CallError):
        return error
    if isinstance(error, Told):
        return _told(error, place)
    response = getattr(error, "response", None)
    if isinstance(response, httpx2.Response):
        return status_failure(response, getattr(error, "body", None), place, creates=creates)
    for cause in _chain(error):
        if isinstance(cause, httpx2.HTTPError | httpx2.InvalidURL | TimeoutError | UnicodeError | ValueError | OSError):
            return _transport(cause, place, sent=sent)
    return Transient(f"the call to {place.name} failed: {place.clean(repr(error))}", code="error", maybe_billed=sent)


def _chain(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _told(error: Told, place: Place) -> CallError:
    kind = Permanent if lasting(None, error.code, error.kind, error.text) else Transient
    code = place.clean(error.code or error.kind) or "provider_error"
    text = f"{place.name} sent an error: {place.clean(error.text) or code}"
    return kind(text, code=code, maybe_billed=True)


def _transport(error: BaseException, place: Place, *, sent: bool) -> CallError:
    said = place.clean(str(error)) or type(error).__name__
    if isinstance(error, httpx2.LocalProtocolError | httpx2.UnsupportedProtocol | httpx2.InvalidURL):
        advice = f"check the base URL and {place.key_env}"
        return Permanent(f"cannot ask {place.name}: {_then(said, advice)}", code="bad_request")
    if isinstance(error, NOT_SENT):
        words = _then(said, "check the base URL and the network")
        return Transient(f"cannot reach {place.host}: {words}", code="unreachable")
    if isinstance(error, httpx2.TimeoutException | TimeoutError):
        code = error.code if isinstance(error, Late) else "timed_out"
        return Transient(f"{place.name} did not answer in time: {said}", code=code, maybe_billed=sent)
    if isinstance(error, httpx2.DecodingError | ValueError):
        text = f"{place.name} sent what is not its format: {said}"
        return Transient(text, code="malformed", maybe_billed=sent)
    return Transient(f"the connection to {place.name} was cut: {said}", code="cut", maybe_billed=sent)


def status_failure(response: httpx2.Response, body: Any, place: Place, *, creates: bool) -> CallError:
    """A CallError from a status that is no success."""
    status = response.status_code
    code, kind, text = error_of(_object(body)) or ("", "", str(body or "").strip())
    said = place.clean(text) or "no reason given"
    head = head_of(response.headers.raw)
    facts: dict[str, Any] = {
        "code": place.clean(code or kind) or f"http_{status}",
        "status": status,
        "request_id": head.request_id,
        "headers": head.headers,
        "maybe_billed": status in LOST_BY_GATEWAY or (creates and status >= 500),
    }
    if lasting(status, code, kind, text):
        return Permanent(
            f"{place.name} refused with {status}: {_then(said, _advice(status, code, kind, place))}", **facts
        )
    wait = retry_after(response.headers)
    return Transient(f"{place.name} answered {status}: {said}", retry_after=wait, **facts)


def _then(said: str, advice: str) -> str:
    """What was said, and what to do, as one sentence."""
    return f"{said.removesuffix('.')}; {advice}" if advice else said


def _object(body: Any) -> Any:
    """The SDKs give the inner error object, the whole body or its text: all as a body."""
    if isinstance(body, str):
        try:
            body = decode(body)
        except ValueError:
            return None
    if isinstance(body, dict) and not body.get("error") and not body.get("detail"):
        return {"error": body}
    return body


def _advice(status: int, code: str, kind: str, place: Place) -> str:
    if NO_MONEY.search(f"{code} {kind}"):
        return "the account has no money or quota left there"
    if status == 401:
        return f"set {place.key_env} to a valid key"
    if 300 <= status < 400:
        return "it wants to be asked elsewhere: set the base URL to where it really is"
    if status == 404:
        return "check the model's name and the base URL"
    return ""
