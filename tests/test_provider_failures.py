"""Exceptions as Transient or Permanent: the kind, the wait, the money, and no key in any text."""

import json
from typing import Any

import httpx2
import pytest

from jobs.errors import CallError, Permanent, Transient
from jobs.providers.failures import Place, Told, failure, retry_after

KEY = "sk-proj-abcdefghij1234567890"
PLACE = Place("api.example.com", "SOME_API_KEY", KEY, "gpt-x")
REQUEST = httpx2.Request("POST", "http://x/v1")


class StatusError(Exception):
    """What both SDKs' status errors have in common."""

    def __init__(self, status: int, body: Any, **headers: str) -> None:
        self.response = httpx2.Response(status, headers=headers, request=REQUEST)
        self.body = body


def status(code: int, body: Any = None, *, creates: bool = False, **headers: str) -> CallError:
    return failure(StatusError(code, body, **headers), PLACE, creates=creates)


@pytest.mark.parametrize("code", [400, 401, 402, 403, 404, 405, 413, 422, 501 - 100])
def test_refused_for_good(code: int) -> None:
    error = status(code, {"message": "no"})
    assert isinstance(error, Permanent)
    assert (error.status, error.maybe_billed) == (code, False)


@pytest.mark.parametrize("code", [408, 409, 425, 429, 500, 502, 503, 529])
def test_worth_another_try(code: int) -> None:
    error = status(code, {"message": "later", "code": "x"}, **{"retry-after": "7", "x-request-id": "r"})
    assert isinstance(error, Transient)
    assert (error.retry_after, error.request_id, error.code, error.maybe_billed) == (7.0, "r", "x", False)


@pytest.mark.parametrize(("code", "billed"), [(500, True), (503, True), (400, False), (429, False)])
def test_a_create_that_fails_inside_is_unclear(code: int, billed: bool) -> None:
    assert status(code, creates=True).maybe_billed is billed


def test_a_gateway_that_gave_up_leaves_the_bill_open() -> None:
    assert status(504).maybe_billed


@pytest.mark.parametrize(
    ("code", "body", "kind"),
    [
        (429, {"code": "insufficient_quota", "message": "x"}, Permanent),
        (429, {"type": "insufficient_quota", "code": "credit_balance_exhausted"}, Permanent),
        (429, {"code": "project_spend_limit_exceeded"}, Permanent),
        (
            429,
            {
                "type": "error",
                "error": {"type": "rate_limit_error", "details": {"error_code": "enforced_spend_limit_reached"}},
            },
            Permanent,
        ),
        (429, {"code": "rate_limit_exceeded"}, Transient),
        (400, {"message": "Cannot find file file-abc or project"}, Transient),
        (400, {"type": "overloaded_error"}, Transient),
        (422, {"detail": [{"loc": ["body"], "msg": "bad endpoint"}]}, Permanent),
        (500, "<html>Bad", Transient),
        (500, {"error": "plain words"}, Transient),
    ],
)
def test_by_the_providers_words(code: int, body: Any, kind: type) -> None:
    assert type(status(code, body)) is kind


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"llm_provider-retry-after": "11"}, 11.0),
        ({"retry-after": "Sun, 22 Nov 2026 20:00:10 GMT"}, 10.0),
        ({"retry-after": "Sun, 22 Nov 2020 20:00:10 GMT"}, 0.0),
        ({"retry-after": "-4"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], wait: float | None) -> None:
    assert retry_after(headers, now=1795377600.0) == wait


@pytest.mark.parametrize(
    ("error", "kind", "code", "billed"),
    [
        (httpx2.ConnectError("[Errno 111] refused"), Transient, "unreachable", False),
        (httpx2.ConnectTimeout(""), Transient, "unreachable", False),
        (httpx2.PoolTimeout(""), Transient, "unreachable", False),
        (httpx2.ReadTimeout(""), Transient, "timed_out", True),
        (TimeoutError(), Transient, "timed_out", True),
        (httpx2.ReadError(""), Transient, "cut", True),
        (httpx2.RemoteProtocolError("incomplete chunked read"), Transient, "cut", True),
        (httpx2.UnsupportedProtocol("no http"), Permanent, "bad_request", False),
        (httpx2.InvalidURL("bad"), Permanent, "bad_request", False),
        (json.JSONDecodeError("x", "y", 0), Transient, "malformed", True),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), Transient, "malformed", True),
        (RuntimeError("odd"), Transient, "error", True),
        (Told("server_is_overloaded", "service_unavailable_error", "busy"), Transient, "server_is_overloaded", True),
        (Told("model_not_found", "", "no"), Permanent, "model_not_found", True),
    ],
)
def test_by_exception(error: Exception, kind: type, code: str, billed: bool) -> None:
    found = failure(error, PLACE)
    assert (type(found), found.code, found.maybe_billed) == (kind, code, billed)


def test_the_cause_of_an_sdks_exception_counts() -> None:
    wrapped = RuntimeError("Connection error.")
    wrapped.__cause__ = httpx2.ConnectError("refused")
    assert failure(wrapped, PLACE).code == "unreachable"


@pytest.mark.parametrize(
    "text",
    [f"Incorrect API key provided: {KEY}.", "bad key sk-other-1234abcd", f"Illegal header value b'Bearer {KEY}\\n'"],
)
def test_no_key_in_any_text(text: str) -> None:
    errors = [
        status(401, {"message": text, "code": text}),
        failure(httpx2.LocalProtocolError(text), PLACE),
        failure(Told(text, "", text), PLACE),
        failure(RuntimeError(text), PLACE),
    ]
    said = " ".join(f"{error} {error.code}" for error in errors) + repr(PLACE)
    assert KEY not in said
    assert "sk-" not in said
    assert "\n" not in said


def test_advice() -> None:
    assert "set SOME_API_KEY" in str(status(401, {"message": "no"}))
    assert "gpt-x" in str(status(404, {"message": "no such model"}))
    assert "api.example.com" in str(failure(httpx2.ConnectError("refused"), PLACE))


@pytest.mark.parametrize("said", ["You do not have access to it.", "You do not have access to it"])
def test_what_was_said_and_the_advice_are_one_sentence(said: str) -> None:
    told = [status(404, {"message": said}), failure(httpx2.ConnectError(said), PLACE),
            failure(httpx2.UnsupportedProtocol(said), PLACE)]  # fmt: skip
    assert all("access to it; check the " in str(one) for one in told)
    assert str(status(400, {"message": said})).endswith(said), "without advice it is left as it is"
