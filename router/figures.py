"""Money and times of the JSON contracts, written for people."""

from collections.abc import Sequence
from datetime import UTC, datetime

from router.when import local, relative


def money(usd: str | None) -> str:
    """Dollars with at most six decimals: "$0.000012", "$12.50"; unknown is not 0."""
    return money_column([usd])[0]


def money_column(amounts: Sequence[str | None]) -> list[str]:
    """Amounts of one column, with as many decimals as the one that needs most; right-align them."""
    known = [float(amount) for amount in amounts if amount is not None]
    largest = max((abs(value) for value in known), default=0.0)
    most = 6 if largest < 10 else 4 if largest < 1000 else 2
    places = max([2, *(_decimals(value, most) for value in known)])
    return ["unknown" if amount is None else _dollars(float(amount), places) for amount in amounts]


def _decimals(value: float, most: int) -> int:
    if 0 < abs(value) < 0.5 * 10**-most:
        return most
    return len(f"{value:.{most}f}".rstrip("0").partition(".")[2])


def _dollars(value: float, places: int) -> str:
    if not value:
        return "$0"
    if abs(value) < 0.5 * 10**-places:
        return f"<${10**-places:.{places}f}"
    return f"{'-' if value < 0 else ''}${abs(value):,.{places}f}"


def moment(iso: str | None, now: datetime | None = None) -> str:
    """Local and relative: "14:03 (in 3 h)"; "-" for none."""
    if iso is None:
        return "-"
    now = now or datetime.now(UTC)
    found = datetime.fromisoformat(iso)
    return f"{local(found, now)} ({relative(found, now)})"


def ago(iso: str | None, now: datetime) -> str:
    """How far from now: "2 min ago"; "-" for none."""
    return relative(datetime.fromisoformat(iso), now) if iso else "-"


def count(number: int, word: str) -> str:
    """ "1 job", "2,000 jobs"."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def short(number: int) -> str:
    """A count in at most six signs: "9,999", "12.5k", "1.25M"."""
    if number < 10_000:
        return f"{number:,}"
    for least, unit in ((10**9, "G"), (10**6, "M")):
        if number >= least * 0.9995:
            return f"{_three(number / least)}{unit}"
    return f"{_three(number / 1000)}k"


def size(octets: int) -> str:
    """Bytes: "12 KB", "3.2 GB"."""
    for least, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "KB")):
        if octets >= least * 0.9995:
            return f"{_three(octets / least)} {unit}"
    return f"{octets} B"


def _three(value: float) -> str:
    """Three digits, without zeros at the end."""
    places = 2 if value < 9.995 else 1 if value < 99.95 else 0
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if places else text
