"""Numbers of a benchmark as short text: seconds, bytes, ratios."""

from __future__ import annotations


def number(value: float) -> str:
    """Write three digits: ``0.053``, ``1.25``, ``34.1``, ``1,250``."""
    if value == 0:
        return "0"
    for limit, digits in ((0.00995, 4), (0.0995, 3), (9.995, 2), (99.95, 1)):
        if abs(value) < limit:
            return f"{value:.{digits}f}"
    return f"{value:,.0f}"


def seconds_text(seconds: float) -> str:
    """Write a time in the unit that fits: ``85.3 us``, ``1.02 ms``, ``2.10 s``."""
    for factor, unit in ((1e9, "ns"), (1e6, "us"), (1e3, "ms")):
        if seconds * factor < 999.5:
            return f"{number(seconds * factor)} {unit}"
    return f"{number(seconds)} s"


def bytes_text(count: float) -> str:
    """Write bytes in the unit that fits: ``512 B``, ``1.5 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1000 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.5 else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("there is a last unit")
