"""Reports as bars in the terminal: money and errors from nothing on, times between percentiles on a log scale."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import log
from typing import Any

from router.figures import money_column
from router.reporting import MEASURES, PERCENTILES, names, nothing
from router.terminal import RIGHT, clean, console, say, sign, styled, table
from router.when import span

View = Mapping[str, Any]

_LEAST, _MOST = 10, 60  # signs of a bar


def plot(kind: str, value: View, by: Sequence[str]) -> None:
    """Draw a report of this kind: cost, latency, savings or errors."""
    if not value["rows"]:
        say(nothing(value))
        return
    {"cost": _cost, "savings": _savings, "errors": _errors, "latency": _latency}[kind](value["rows"], by)


def bar(share: float, width: int) -> str:
    """A bar of this share of the width, to an eighth of a sign; anything above nothing can be seen."""
    eighths = round(share * width * 8)
    if share > 0:
        eighths = max(eighths, 1)
    whole, rest = divmod(eighths, 8)
    return sign("█" * whole + " ▏▎▍▌▋▊▉"[rest].strip(), "#" * max(whole, share > 0))


def _called(rows: Sequence[View], by: Sequence[str]) -> list[str]:
    """A row's name in one word; none stands out so far that no room is left for the bars."""
    words = [" ".join(names(row, by)) or "all" for row in rows]
    most = max(console().width // 2 - 8, 16)
    return [word if len(word) <= most else word[: most - 1] + sign("…", "~") for word in words]


def _width(called: Sequence[str], figures: Sequence[str]) -> int:
    """How long bars may be beside the names and the figures."""
    room = console().width - max(map(len, called)) - max(map(len, figures)) - 4
    return max(_LEAST, min(_MOST, room))


def _bars(title: str, rows: Sequence[View], called: Sequence[str], figures: Sequence[str], style: str,
          drawn: Callable[[View, int], str]) -> None:  # fmt: skip
    made = table(("", {}), (title, RIGHT), "")
    width = _width(called, [title, *figures])
    for row, word, figure in zip(rows, called, figures, strict=True):
        made.add_row(clean(word), figure, styled(drawn(row, width), style))
    console().print(made)


def _cost(rows: Sequence[View], by: Sequence[str]) -> None:
    most = max((float(row["cost_usd"] or 0) for row in rows), default=0) or 1.0
    figures = money_column([row["cost_usd"] for row in rows])
    _bars("cost", rows, _called(rows, by), figures, "cyan",
          lambda row, width: bar(float(row["cost_usd"] or 0) / most, width))  # fmt: skip


def _savings(rows: Sequence[View], by: Sequence[str]) -> None:
    """What was paid, and lighter what plain calls would have cost more."""
    most = max((max(float(row["paid_usd"]), float(row["standard_usd"])) for row in rows), default=0) or 1.0

    def drawn(row: View, width: int) -> str:
        paid = bar(float(row["paid_usd"]) / most, width)
        return paid + sign("░", ".") * (round(float(row["standard_usd"]) / most * width) - len(paid))

    figures = ["-" if row["saved_percent"] is None else f"{row['saved_percent']:.1f}%" for row in rows]
    _bars("saved", rows, _called(rows, by), figures, "green", drawn)


def _errors(rows: Sequence[View], by: Sequence[str]) -> None:
    most = max(row["attempts"] for row in rows)
    figures = [f"{row['attempts']:,}" for row in rows]
    words = ["error", *by]
    _bars("attempts", rows, _called([{**row, "error": row["error"] or row["state"]} for row in rows], words), figures,
          "red", lambda row, width: bar(row["attempts"] / most, width))  # fmt: skip


def _latency(rows: Sequence[View], by: Sequence[str]) -> None:
    for measure, (label, unit) in MEASURES.items():
        if found := [row for row in rows if row[measure]]:
            figures = [span(row[measure]["p50"] * unit) for row in found]
            low, high = (pick(row[measure][part] for row in found) for pick, part in ((min, "p50"), (max, "p99")))
            title = f"{label}, p50"
            _bars(title, found, _called(found, by), figures, "cyan",
                  lambda row, width, m=measure, lo=low, hi=high: _reach(row[m], lo, hi, width))  # type: ignore[misc] # fmt: skip
            ends = f"from {span(low * unit)} to {span(high * unit)}, log scale"
            console().print(styled(f"{_legend()}; {ends}", "dim"))
            console().print()


def _legend() -> str:
    marks = (("●", "o", "p50"), ("━", "=", "p90"), ("┼", "+", "p95"), ("┤", "|", "p99"))
    return " ".join(f"{sign(fine, plain)} {word}" for fine, plain, word in marks)


def _reach(found: View, low: float, high: float, width: int) -> str:
    """From the median to where 99 of 100 are, on a log scale."""
    places = list(_places([found[part] for part in PERCENTILES], max(low, 1e-6), high, width))
    signs = [" "] * width
    for begin, end, one in (
        (places[0], places[1], sign("━", "=")),
        (places[1], places[3], sign("─", "-")),
    ):
        signs[begin:end] = one * (end - begin)
    signs[places[2]] = sign("┼", "+")
    signs[places[3]] = sign("┤", "|")
    signs[places[0]] = sign("●", "o")
    return "".join(signs)


def _places(values: Sequence[float], low: float, high: float, width: int) -> Iterator[int]:
    whole = log(max(high, low * 1.0001) / low)
    for value in values:
        yield round(log(max(value, low) / low) / whole * (width - 1))
