"""Nano-dollars as people and other programs read them."""

NANO = 1_000_000_000  # nano-dollars in a dollar


def usd(nano: int | None) -> str | None:
    """A plain decimal number of US dollars: exact, no exponent, no trailing zeros; None stays None (unknown)."""
    if nano is None:
        return None
    sign = "-" if nano < 0 else ""
    whole, rest = divmod(abs(nano), NANO)
    return f"{sign}{whole}.{rest:09d}".rstrip("0").rstrip(".")


def saved(cost: int, instead_of: int) -> dict[str, str | float | None]:
    """What a cost saves of another one, in nano-dollars; less than nothing where it is dearer."""
    percent = round(100 * (instead_of - cost) / instead_of, 1) if instead_of else None
    return {"saved_usd": usd(instead_of - cost), "saved_percent": percent}
