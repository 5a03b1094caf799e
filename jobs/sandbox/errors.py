"""The providers' error answers, in the words and shapes that they really use (pure)."""

from typing import Any

ANTHROPIC_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error",
    404: "not_found_error", 405: "invalid_request_error", 409: "conflict_error", 413: "request_too_large",
    429: "rate_limit_error", 503: "api_error", 504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip

OPENAI_FAULTS: dict[int, tuple[str, str | None, str]] = {
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    403: (
        "invalid_request_error",
        "unsupported_country_region_territory",
        "Country, region, or territory not supported",
    ),
    408: ("invalid_request_error", "request_timeout", "Request timed out."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests. Please try again later."),
    500: ("server_error", None, "The server had an error while processing your request. Sorry about that!"),
    503: (
        "service_unavailable_error",
        "server_is_overloaded",
        "The engine is currently overloaded, please try again later.",
    ),
    529: ("overloaded_error", None, "Overloaded"),
}


class ApiError(Exception):
    """A refusal of one request; `headers` go out with it (Retry-After)."""

    def __init__(self, status: int, message: str, *, kind: str = "invalid_request_error", code: str | None = None,
                 param: str | None = None, headers: dict[str, str] | None = None) -> None:  # fmt: skip
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code
        self.param = param
        self.headers = headers or {}

    def openai(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def anthropic(self, request_id: str) -> dict[str, Any]:
        kind = ANTHROPIC_TYPES.get(self.status, "api_error" if self.status >= 500 else "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": self.message}, "request_id": request_id}


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    return ApiError(400, message, param=param, code=code)


def missing(param: str) -> ApiError:
    return invalid(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")


def wrong_type(param: str, wanted: str, value: object) -> ApiError:
    names = {"bool": "a boolean", "int": "an integer", "float": "a decimal", "str": "a string", "list": "an array",
             "dict": "an object", "NoneType": "null"}  # fmt: skip
    got = names.get(type(value).__name__, type(value).__name__)
    return invalid(f"Invalid type for '{param}': expected {wanted}, but got {got} instead.", param, "invalid_type")


def by_status(status: int, message: str | None = None, code: str | None = None) -> ApiError:
    """What the provider says with this status when the fault itself names no words."""
    kind, usual_code, words = OPENAI_FAULTS.get(
        status, ("server_error" if status >= 500 else "invalid_request_error", None, "")
    )
    return ApiError(
        status, message or words or f"The sandbox was told to answer {status}.", kind=kind, code=code or usual_code
    )


NO_OPENAI_KEY = ApiError(
    401,
    "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
    "(i.e. Authorization: Bearer YOUR_KEY). You can obtain an API key from https://platform.openai.com/account/api-keys.",
)
NO_ANTHROPIC_KEY = ApiError(401, "x-api-key header is required")


def wrong_key(key: str, anthropic: bool) -> ApiError:
    if anthropic:
        return ApiError(401, "invalid x-api-key")
    shown = key[:5] + "*" * max(0, len(key) - 9) + key[-4:] if len(key) > 12 else "*" * len(key)
    return ApiError(
        401,
        f"Incorrect API key provided: {shown}. You can find your API key at https://platform.openai.com/account/api-keys.",
        code="invalid_api_key",
    )


def unknown_model(model: str, anthropic: bool = False) -> ApiError:
    if anthropic:
        return ApiError(404, f"model: {model}")
    return ApiError(404, f"The model `{model}` does not exist or you do not have access to it.", code="model_not_found")
