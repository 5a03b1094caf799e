"""One exception tree. Each error says what is wrong, where, and what to do."""

from collections.abc import Mapping, Sequence

CUT = "cut_file"  # the code of a result file that breaks off within a line


class ShunterError(Exception):
    """The root; `code` is a word for machines, `exit_code` what the command line ends with."""

    exit_code = 1

    def __init__(self, message: str, *, code: str = "error") -> None:
        super().__init__(message)
        self.code = code


class UsageError(ShunterError):
    """What was asked for cannot be understood or done as asked."""

    exit_code = 2


class Mistakes(UsageError):
    """Several things are wrong at once: `each` of them is a line."""

    def __init__(self, each: Sequence[str], *, code: str) -> None:
        super().__init__("\n".join(each), code=code)
        self.each = each


class Refused(ShunterError):
    """A budget, a cap or the policy says no."""

    exit_code = 3


class CallError(ShunterError):
    """A call to a provider did not bring an answer.

    `maybe_billed`: the request was sent and may have been worked on, so its cost is unknown. `headers` are those that
    rate limits are learned from, where it answered at all.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "error",
        status: int | None = None,
        request_id: str | None = None,
        maybe_billed: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, code=code)
        self.status = status
        self.request_id = request_id
        self.maybe_billed = maybe_billed
        self.headers = headers or {}


class Transient(CallError):
    """Worth another try later; `retry_after` is the provider's wish in seconds."""

    def __init__(self, message: str, *, retry_after: float | None = None, **facts: object) -> None:
        super().__init__(message, **facts)  # type: ignore[arg-type]
        self.retry_after = retry_after

    @property
    def turned_away(self) -> bool:
        """The provider had no room for the call and never ran it: free, and no fault of the job's."""
        known = self.status in (429, 529) or "overloaded" in self.code or self.code == "slow_down"
        return known and not self.maybe_billed


class Permanent(CallError):
    """The same request will fail again."""
