"""Short texts of numbers with their units: durations, bytes, counts."""

from __future__ import annotations

import math

_SI = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_BINARY = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def duration(seconds: float) -> str:
    """`0.8 s`, `45 s`, `3m12s`, `2h05m`, `1d03h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes}m{rest:02d}s"
    days, hours = divmod(hours, 24)
    if not days:
        return f"{hours}h{minutes:02d}m"
    return f"{days}d{hours:02d}h"


def counted(number: float, noun: str) -> str:
    """A number with its noun: `1 epoch`, `0.19 epochs`, `2 processes`."""
    text = f"{number:.4g}" if isinstance(number, float) else str(number)
    if text == "1":
        return f"1 {noun}"
    ending = "es" if noun.endswith("s") else "s"
    return f"{text} {noun}{ending}"


def size(count: float) -> str:
    """Bytes: `512 B`, `1.2 GiB`."""
    for factor, unit in _BINARY:
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} B"


def amount(number: float) -> str:
    """Three digits and a letter: `12.3k`, `3.20M`; below a thousand `8.51`, `85.1`, `851`."""
    letter = ""
    for factor, unit in _SI:
        if number >= 0.9995 * factor:  # from 999.5, three digits would read 1000
            number /= factor
            letter = unit
            break
    if number >= 99.95:
        return f"{number:.0f}{letter}"
    if number >= 9.995:
        return f"{number:.1f}{letter}"
    return f"{number:.2f}{letter}"


def real(number: float) -> str:
    """A measured number: `3.2145`, and `1.2e-05` where four places would lose it."""
    if not math.isfinite(number) or number == 0 or 1e-3 <= abs(number) < 1e5:
        return f"{number:.4f}"
    return f"{number:.2e}"
