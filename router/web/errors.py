"""Errors in OpenAI's form: what went wrong as a status, headers and a body that its clients understand."""

import math
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response

from db.engine import StoreError
from db.settle import Failed
from jobs.errors import CallError, Refused, ShunterError, Transient
from router.web.phrases import of_fields, reworded

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    421: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}

# Codes of ours whose status is not that of their kind.
_STATUS = {
    "no_key": 503,
    "not_found": 404,
    "key_reused": 409,
    "key_pruned": 409,
    "over_budget": 429,
    "internal_error": 500,
    "abandoned": 502,
    "busy": 529,
}
_NUMBERS = frozenset(map(str, range(400, 600)))
_LASTING = ("no_key", "over_budget", "over_cap", "unknown_price")  # a client that tries again only loses time


class HTTPError(Exception):
    """An answer that is an error; `retry_after` in seconds."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param
        self.retry_after = retry_after
        self.headers = dict(headers or {})

    @property
    def type(self) -> str:
        """OpenAI's word for the kind of error."""
        if self.code == "over_budget":
            return "insufficient_quota"
        return _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")

    @property
    def error(self) -> dict[str, Any]:
        """The error object."""
        return {"message": str(self), "type": self.type, "param": self.param, "code": self.code}

    def response(self, headers: Mapping[str, str] | None = None) -> Response:
        """The whole answer."""
        told = {**self.headers, **(headers or {})}
        if self.retry_after is not None:
            told["Retry-After"] = str(max(math.ceil(self.retry_after), 1))
        if self.code in _LASTING:
            told["x-should-retry"] = "false"
        return Response(orjson.dumps({"error": self.error}), self.status, told, "application/json")


def http_error(error: Exception) -> HTTPError:
    """What a client is told of any exception; one of ours by its own words, else none of its words."""
    if isinstance(error, HTTPError):
        return error
    if isinstance(error, CallError):
        return _of_call(error, str(error))
    if isinstance(error, ShunterError):
        usual = 403 if isinstance(error, Refused) else 400
        return HTTPError(_STATUS.get(error.code, usual), of_fields(str(error)), code=error.code)
    if isinstance(error, StoreError):
        return HTTPError(503, "the database cannot be used now; try again soon", code="database", retry_after=1)
    return HTTPError(500, "an error of the gateway's own; its log has the rest", code="internal_error")


def failure(ending: Failed, error: CallError | None) -> HTTPError:
    """What a client is told of a job that failed."""
    if error is not None:
        return _of_call(error, ending.error)
    return of_code(ending.code, ending.error)


def of_code(code: str | None, message: str) -> HTTPError:
    """The same when only the code is known, as days later."""
    code = code or "error"
    number = code.removeprefix("http_")
    status = int(number) if number in _NUMBERS else _STATUS.get(code, 0)
    if not status:
        words = (("timeout", 504), ("rate_limit", 429), ("overloaded", 529), ("invalid", 400), ("unsupported", 400),
                 ("auth", 401),
                 ("permission", 403), ("not_found", 404))  # fmt: skip
        status = next((number for word, number in words if word in code), 502)
    return HTTPError(status, reworded(message), code=code)


def told_of(error: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The error of a job in its JSON form, as a client is told of it."""
    return error and {**error, "message": reworded(error["message"])}


def _of_call(error: CallError, message: str) -> HTTPError:
    retry_after = error.retry_after if isinstance(error, Transient) else None
    status = error.status if error.status and error.status >= 400 else of_code(error.code, "").status
    return HTTPError(status, message, code=error.code, retry_after=retry_after)
